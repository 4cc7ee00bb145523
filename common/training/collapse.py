"""Detect undecided and collapsed searches, and choose when to stop.

A search reports both, and stops early only with `--stop-on-collapse`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from typing import Any, Literal

from common.networks.genotype import Cell, FixedCell, words
from common.networks.ops import POOLS

Rule = Literal["off", "skips", "eigenvalue"]
WINDOW, BACK, RATIO = 5, 5, 0.75  # epochs, epochs, and the limit of Zela et al. (4.3)
UNDECIDED = 0.98  # share of the entropy of uniform weights


def dominated_by_skips(cell: Cell | FixedCell) -> bool:
    """Whether at least half of a cell's edges are skip connections."""
    return _dominated_by(cell, {"skip_connect"})


def _dominated_by(cell: Cell | FixedCell, operations: Collection[str]) -> bool:
    if isinstance(cell, FixedCell) or not cell.edges:
        return False
    return 2 * sum(edge.op.name in operations for edge in cell.edges) >= len(cell.edges)


def verdict(kind: str, cell: Cell | FixedCell, weights: Sequence[Sequence[float]]) -> list[str]:
    """How decided a searched cell is, in one line, and warnings, a line each.

    Args:
        kind: of cell.
        cell: the derived one.
        weights: mixing weights of each edge's candidates; their number may differ.
    """
    kind = words(kind)
    rows = [row for row in weights if len(row) > 1]
    if not rows:
        return [f"{kind}: decided, one candidate per edge"]
    lines = _decided(kind, rows)
    if not isinstance(cell, FixedCell) and cell.zero:
        nodes = ", ".join(f"x{node}" for node in cell.zero)
        lines.append(f"warning: nodes of the {kind} without edges, which are zero: {nodes}")
    for name, operations in (("skip connections", {"skip_connect"}), ("pools", POOLS)):
        if _dominated_by(cell, operations):
            lines.append(f"warning: {name} dominate the {kind}")
    return lines


def _decided(kind: str, rows: Sequence[Sequence[float]]) -> list[str]:
    low, high = min(map(min, rows)), max(map(max, rows))
    if any(abs(sum(row) - 1) > 1e-3 for row in rows):  # no distributions
        return [f"{kind}: candidates' weights {low:.2f} to {high:.2f}"]
    entropy = statistics.fmean(-sum(w * math.log(w) for w in row if w > 0) for row in rows)
    uniform = statistics.fmean(math.log(len(row)) for row in rows)
    lines = [
        f"{kind}: entropy {entropy:.2f} ({uniform:.2f} undecided, 0 decided), largest weight "
        f"{high:.2f} ({1 / max(map(len, rows)):.2f} uniform)"
    ]
    if entropy > UNDECIDED * uniform:
        lines.append(
            f"warning: the {kind} is nearly undecided, chance decides it; search for more "
            "--epochs, or with a larger --arch-learning-rate"
        )
    return lines


def epoch_before(
    rule: Rule, lines: Sequence[dict[str, Any]], cell: Cell | FixedCell | None
) -> int | None:
    """The epoch whose cells to keep if the search has collapsed; None: continue.

    skips: collapse if half of the normal cell's edges are skip connections; keep the cells of the
    epoch before.
    eigenvalue: collapse if the mean dominant eigenvalue of five epochs was, five epochs ago, below
    0.75 of today's; keep the cells of that epoch (Zela et al., ICLR 2020, 4.3).

    Args:
        rule: of `--stop-on-collapse`.
        lines: of metrics.jsonl, one per epoch.
        cell: derived in the last of them; None before the first.
    """
    now = len(lines) - 1
    if rule == "skips" and cell is not None and dominated_by_skips(cell):
        return max(0, now - 1)
    if rule == "eigenvalue" and now >= BACK:
        values = [abs(line["hessian_eigenvalue"]) for line in lines]

        def smooth(epoch: int) -> float:
            return statistics.fmean(values[max(0, epoch + 1 - WINDOW) : epoch + 1])

        if smooth(now - BACK) < RATIO * smooth(now):
            return now - BACK
    return None
