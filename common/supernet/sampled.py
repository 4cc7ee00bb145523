"""Cell for sampling methods: runs only the sampled operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.layout import concatenate
from common.networks.macro import Place
from common.supernet.candidate import run
from common.supernet.cell import Mix
from common.supernet.equation_form import EquationCell
from common.supernet.supernet import SuperNet


@dataclass(frozen=True)
class Sample:
    """The sampled candidates of each edge of a cell in one forward pass.

    Attributes:
        active: [edges], columns of the candidates to run, as numbers on the CPU.
        weight: [edges], for each edge the weights [active] of its candidates; None: 1 each.
    """

    active: Sequence[Sequence[int]]
    weight: Sequence[Tensor | None] | None = None

    @classmethod
    def of(cls, mix: Mix) -> Sample:
        """The candidates of a cut mix (weights 0 and 1) with weight 1; one read from the device."""
        return cls([[k for k, w in enumerate(row) if w] for row in mix.op.tolist()])


class SampledCell(EquationCell):
    """x_j = sum over i < j of the active candidates of edge (i, j).

    Args:
        place: widths and resolution.
        nodes: computed nodes.
        candidates: names of the operations, in the column order of the sample.
    """

    def __init__(self, place: Place, nodes: int, candidates: Sequence[str]):
        super().__init__(place, nodes, candidates)
        self.none = candidates.index("none") if "none" in candidates else None

    def forward(self, *given: Tensor | Sample) -> Tensor:
        """What cells hand on, and a sample: see `SearchCell.forward`."""
        *inputs, sample = given
        states, relus = self.inputs.past_relu(*inputs), {}
        edge = 0
        for j in self.targets:
            flows = []
            for i in range(j):
                if i not in relus:
                    relus[i] = F.relu(states[i])
                flows += self.flows(states[i], relus[i], f"{i}-{j}", sample, edge)
                edge += 1
            if not flows:  # all edges into the node sampled `none`
                flows = [self.place.zeros(states[0])]
            states.append(sum(flows[1:], flows[0]))
        return concatenate([states[j] for j in self.outputs])

    def flows(
        self, x: Tensor, relu: Tensor, name: str, sample: Sample, edge: int
    ) -> list[Tensor]:
        """Outputs of the active candidates of an edge but `none`."""
        candidates, active = list(self.edges[name].values()), sample.active[edge]
        weights = None if sample.weight is None else sample.weight[edge]
        weights = [None] * len(active) if weights is None else weights.unbind()
        return [
            run(candidates[k], x, relu, weight)
            for k, weight in zip(active, weights, strict=True)
            if k != self.none
        ]


class EquationSampledCell(EquationCell):
    """The equation-shaped form: the weighted active candidates, edge by edge."""

    def forward(self, *given: Tensor | Sample) -> Tensor:
        """What cells hand on, and a sample: see `SearchCell.forward`."""
        *inputs, sample = given
        states = self.inputs.past_relu(*inputs)
        rows = iter(zip(sample.active, sample.weight, strict=True))
        for j in self.targets:
            node = 0
            for i in range(j):
                candidates = list(self.edges[f"{i}-{j}"].values())
                for k, weight in zip(*next(rows), strict=True):
                    node = node + weight * candidates[k](states[i])
            states.append(node)
        return torch.cat([states[j] for j in self.outputs], 1)


class SampledSuperNet(SuperNet):
    """A supernet that runs only the sampled candidates; `mixes` samples them."""

    def make_cell(self, place: Place) -> nn.Module:
        """A cell called as cell(s0, s1, sample)."""
        return SampledCell(place, self.nodes, self.candidates)

    def relaxed(self, generator: torch.Generator | None = None) -> list[Sample | None]:
        """See `SuperNet.relaxed`; all candidates run."""
        every = [list(range(len(self.candidates)))] * len(self.edges)
        samples = {kind: Sample(every, self.mix(kind).op.unbind()) for kind in self.kinds}
        return [samples.get(place.kind) for place in self.places]

    def per_cell(
        self, by_kind: dict[str, Mix], generator: torch.Generator | None = None
    ) -> list[Sample | None]:
        """The sample of each cell, from a cut mix of its kind."""
        return super().per_cell({kind: Sample.of(mix) for kind, mix in by_kind.items()})
