"""Metrics of an architecture: how discrete it is, and cuts to discrete operations.

The accuracy of a supernet says little about its cells. So a search also measures the same weights
with every edge cut to its best operation, and cut to the derived cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.genotype import Cell
from common.networks.ops import POOLS
from common.supernet.cell import Mix
from common.supernet.supernet import SuperNet


def best_operations(op: Tensor, candidates: Sequence[str], derive_none: bool = False) -> Tensor:
    """[edges, candidates] -> [edges]: the column of each edge's best operation.

    `none` counts only with `derive_none`.
    """
    allowed = torch.tensor([derive_none or name != "none" for name in candidates], device=op.device)
    return op.masked_fill(~allowed, -torch.inf).argmax(-1)


def cut_to_best(mix: Mix, candidates: Sequence[str], derive_none: bool = False) -> Mix:
    """Keep only the best operation of each edge, with weight 1; edge weights stay."""
    best = best_operations(mix.op, candidates, derive_none)
    return Mix(F.one_hot(best, len(candidates)).to(mix.op), mix.edge)


def cut_to_cell(
    mix: Mix, cell: Cell, edges: Sequence[tuple[int, int]], candidates: Sequence[str]
) -> Mix:
    """Keep only a cell's operations, each with weight 1, and its edges.

    Edge weights, if any, keep their ratios within a node, and their sum.
    """
    op = torch.zeros_like(mix.op)
    for edge in cell.edges:
        op[edges.index((edge.source, edge.target)), candidates.index(str(edge.op))] = 1
    weight = (op.sum(1) > 0).to(op)  # of an edge, which may have several operations
    if mix.edge is not None:
        targets = torch.tensor([j for _, j in edges], device=op.device)
        into = F.one_hot(targets).to(op)  # [edges, nodes]
        weight = weight * mix.edge
        weight = weight * (into @ ((mix.edge @ into) / (weight @ into).clamp_min(1e-12)))
    return Mix(op, weight)


def entropy(op: Tensor) -> float | None:
    """Mean entropy of rows [edges, candidates], in nats; None if they do not sum to 1."""
    if not torch.allclose(op.sum(-1), op.new_ones(()), atol=1e-3):
        return None
    return torch.special.entr(op).sum(-1).mean().item()


def cuts(supernet: SuperNet) -> dict[str, dict[str, Mix]]:
    """Both cuts of a supernet's current mixes, by the name of their metric and the kind of cell."""
    mixes, cells = {kind: supernet.mix(kind) for kind in supernet.kinds}, supernet.derive()
    return {
        "cut_top1": {
            kind: cut_to_best(mix, supernet.candidates, supernet.derive_none)
            for kind, mix in mixes.items()
        },
        "derived_top1": {
            kind: cut_to_cell(mix, cells[kind], supernet.edges, supernet.candidates)
            for kind, mix in mixes.items()
        },
    }


class Measures:
    """Metrics of the architecture in each epoch.

    Attributes:
        best: best operation of each edge in the last epoch, [edges], by kind of cell.
    """

    def __init__(self, supernet: SuperNet):
        self.best = self._best(supernet)

    @torch.no_grad()
    def epoch(self, supernet: SuperNet) -> dict[str, float | int]:
        """Entropy, derived skips and pools, and edges with a new best operation, by kind of cell.

        The entropy of an edge's weights is in nats, averaged over the edges: ln(candidates) is
        undecided, 0 decided. It is None where an edge's weights are no distribution.
        """
        metrics, cells, best = {}, supernet.derive(), self._best(supernet)
        for kind in supernet.kinds:
            op, names = supernet.mix(kind).op, [edge.op.name for edge in cells[kind].edges]
            metrics[f"entropy_{kind}"] = entropy(op)
            metrics[f"skips_{kind}"] = names.count("skip_connect")
            metrics[f"pools_{kind}"] = sum(name in POOLS for name in names)
            metrics[f"changed_edges_{kind}"] = int((best[kind] != self.best[kind]).sum())
        self.best = best
        return metrics

    @torch.no_grad()
    def _best(self, supernet: SuperNet) -> dict[str, Tensor]:
        return {
            kind: best_operations(
                supernet.mix(kind).op, supernet.candidates, supernet.derive_none
            ).cpu()
            for kind in supernet.kinds
        }
