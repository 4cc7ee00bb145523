"""Collapse: what tells that a search falls for cells of skip connections, and when to stop it.

A search reports this; it ends early only where `--stop-on-collapse` asks for it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from common.networks.genotype import Cell, FixedCell

Rule = Literal["off", "skips", "eigenvalue"]
WINDOW, BACK, RATIO = 5, 5, 0.75  # epochs, epochs, and the limit of Zela et al. (4.3)


def filled(cell: Cell | FixedCell) -> bool:
    """Whether half of a cell's edges or more are skip connections."""
    if isinstance(cell, FixedCell):
        return False
    skips = sum(edge.op.name == "skip_connect" for edge in cell.edges)
    return 2 * skips >= len(cell.edges)


def epoch_before(rule: Rule, lines: Sequence[dict[str, Any]], nodes: int) -> int | None:
    """The epoch whose cells to keep where the search has collapsed by now; None: go on.

    skips: half of the normal cell's edges are skip connections; the epoch before has its cells.
    eigenvalue: the dominant eigenvalue, averaged over five epochs, was less than 0.75 of what it
    is now five epochs ago; those of then are kept (Zela et al., ICLR 2020, 4.3).

    Args:
        rule: of `--stop-on-collapse`.
        lines: of metrics.jsonl, one an epoch.
        nodes: computed nodes of a cell, of two edges each.
    """
    now = len(lines) - 1
    if rule == "skips" and lines and lines[-1]["skips_normal"] >= nodes:
        return max(0, now - 1)
    if rule == "eigenvalue" and now >= BACK:
        values = [abs(line["hessian_eigenvalue"]) for line in lines]

        def smooth(epoch: int) -> float:
            return statistics.fmean(values[max(0, epoch + 1 - WINDOW) : epoch + 1])

        if smooth(now - BACK) < RATIO * smooth(now):
            return now - BACK
    return None
