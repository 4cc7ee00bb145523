"""What a search records of its architecture: how discrete it is, what it would lose by a cut.

A supernet's own accuracy says little about the cells it stands for. Beside it stand that of the
same weights with every edge cut to its best operation, and with nothing left but the derived cell.
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
    """[edges, candidates] -> [edges]: the column of each edge's best operation but `none`.

    `none` counts, too, where it can be derived.
    """
    allowed = torch.tensor([derive_none or name != "none" for name in candidates], device=op.device)
    return op.masked_fill(~allowed, -torch.inf).argmax(-1)


def cut_to_best(mix: Mix, candidates: Sequence[str], derive_none: bool = False) -> Mix:
    """Every edge keeps its best operation only, with weight 1; edges weigh what they weighed."""
    best = best_operations(mix.op, candidates, derive_none)
    return Mix(F.one_hot(best, len(candidates)).to(mix.op), mix.edge)


def cut_to_cell(
    mix: Mix, cell: Cell, edges: Sequence[tuple[int, int]], candidates: Sequence[str]
) -> Mix:
    """A cell's operations only, each with weight 1; all other edges are gone.

    Where edges have weights, those that are left keep their ratios, and each node its sum.
    """
    op = torch.zeros_like(mix.op)
    for edge in cell.edges:
        op[edges.index((edge.source, edge.target)), candidates.index(str(edge.op))] = 1
    weight = op.sum(1)
    if mix.edge is not None:
        targets = torch.tensor([j for _, j in edges], device=op.device)
        into = F.one_hot(targets).to(op)  # [edges, nodes]
        weight = weight * mix.edge
        weight = weight * (into @ ((mix.edge @ into) / (weight @ into).clamp_min(1e-12)))
    return Mix(op, weight)


class Measures:
    """Metrics of the architecture itself, epoch by epoch.

    Attributes:
        best: of each kind of cell, every edge's best operation an epoch ago, [edges].
    """

    def __init__(self, supernet: SuperNet):
        self.best = self._best(supernet)

    @torch.no_grad()
    def epoch(self, supernet: SuperNet) -> dict[str, float | int]:
        """Of each kind of cell: entropy, skips and pools derived, edges with a new best operation.

        The entropy is of an edge's weights, in nats, averaged over the edges: ln(candidates) at
        first, 0 where every edge has decided.
        """
        metrics, cells, best = {}, supernet.derive(), self._best(supernet)
        for kind in supernet.kinds:
            op, names = supernet.mix(kind).op, [edge.op.name for edge in cells[kind].edges]
            metrics[f"entropy_{kind}"] = torch.special.entr(op).sum(-1).mean().item()
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
