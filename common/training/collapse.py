"""Detect collapse to skip connections, and choose when to stop.

A search reports it, and stops early only with `--stop-on-collapse`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from common.networks.genotype import Cell, FixedCell

Rule = Literal["off", "skips", "eigenvalue"]
WINDOW, BACK, RATIO = 5, 5, 0.75  # epochs, epochs, and the limit of Zela et al. (4.3)


def dominated_by_skips(cell: Cell | FixedCell) -> bool:
    """Whether at least half of a cell's edges are skip connections."""
    if isinstance(cell, FixedCell):
        return False
    skips = sum(edge.op.name == "skip_connect" for edge in cell.edges)
    return 2 * skips >= len(cell.edges)


def epoch_before(rule: Rule, lines: Sequence[dict[str, Any]], nodes: int) -> int | None:
    """The epoch whose cells to keep if the search has collapsed; None: continue.

    skips: collapse if half of the normal cell's edges are skip connections; keep the cells of the
    epoch before.
    eigenvalue: collapse if the mean dominant eigenvalue of five epochs was, five epochs ago, below
    0.75 of today's; keep the cells of that epoch (Zela et al., ICLR 2020, 4.3).

    Args:
        rule: of `--stop-on-collapse`.
        lines: of metrics.jsonl, one per epoch.
        nodes: computed nodes of a cell, with two edges each.
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
