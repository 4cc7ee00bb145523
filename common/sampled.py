"""The search cell of methods that draw: of all candidates on an edge, only the drawn ones run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.cell import Mix
from common.equation_form import EquationCell
from common.macro import Place
from common.supernet import SuperNet


@dataclass(frozen=True)
class Sample:
    """Which candidates run on each edge of a cell in one forward pass.

    Attributes:
        active: [edges], the columns of those that run; numbers, so nothing waits for the device.
        weight: [edges], for each edge the weights [active] of its candidates; None: 1 each.
    """

    active: Sequence[Sequence[int]]
    weight: Sequence[Tensor | None] | None = None

    @classmethod
    def of(cls, mix: Mix) -> Sample:
        """What of a cut mix (weights 0 and 1) is not 0; one read from the device."""
        return cls([[k for k, w in enumerate(row) if w] for row in mix.op.tolist()])


class SampledCell(EquationCell):
    """x_j = sum over i < j of the active candidates of edge (i, j), each by itself.

    Args:
        place: widths and resolution.
        nodes: computed nodes.
        candidates: names of the operations, in the column order of the sample.
    """

    def __init__(self, place: Place, nodes: int, candidates: Sequence[str]):
        super().__init__(place, nodes, candidates)
        self.none = candidates.index("none") if "none" in candidates else None

    def forward(self, s0: Tensor, s1: Tensor, sample: Sample) -> Tensor:
        """[B, C_k-2, ..], [B, C_k-1, ..] -> [B, nodes x C, H, W]."""
        states = self.inputs(s0, s1)
        edge = 0
        for j in range(2, 2 + self.nodes):
            flows = []
            for i in range(j):
                flows += self.flows(states[i], i, j, sample, edge)
                edge += 1
            if not flows:  # every edge into the node drew `none`
                flows = [self.zeros(states[0])]
            states.append(sum(flows[1:], flows[0]))
        return torch.cat(states[2:], 1)

    def flows(self, x: Tensor, i: int, j: int, sample: Sample, edge: int) -> list[Tensor]:
        """What the active candidates of edge (i, j) send; `none` sends nothing."""
        candidates = list(self.edges[f"{i}-{j}"].values())
        running = [(k, candidates[k]) for k in sample.active[edge]]
        if sample.weight is None or sample.weight[edge] is None:
            return [candidate(x) for k, candidate in running if k != self.none]
        weights = sample.weight[edge].unbind()
        return [
            weight * candidate(x)
            for weight, (k, candidate) in zip(weights, running, strict=True)
            if k != self.none
        ]

    def zeros(self, x: Tensor) -> Tensor:
        """The sum of no edges, in the shape of a node."""
        stride = 2 if self.reduction else 1
        return torch.zeros_like(x[:, :, ::stride, ::stride])


class SampledSuperNet(SuperNet):
    """A supernet of which only the drawn candidates run; what is drawn, its `mixes` says.

    Convolutions run one by one, and so do best channels last in memory.
    """

    def __init__(self, *args, **shape):
        super().__init__(*args, **shape)
        self.to(memory_format=torch.channels_last)

    def make_cell(self, place: Place) -> nn.Module:
        """A cell called as cell(s0, s1, sample)."""
        return SampledCell(place, self.nodes, self.candidates)

    def per_cell(self, by_kind: dict[str, Mix]) -> list[Sample | None]:
        """The sample of each cell's kind that a cut mix amounts to."""
        return super().per_cell({kind: Sample.of(mix) for kind, mix in by_kind.items()})
