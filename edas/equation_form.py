"""EDAS as its equations are written, edge by edge: the oracle of tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.networks.macro import Place
from common.supernet.sampled import EquationSampledCell, Sample
from edas.supernet import EDASSuperNet


class EquationEDAS(EDASSuperNet):
    """Runs the operations one by one; loads checkpoints of `EDASSuperNet`."""

    memory_format = torch.contiguous_format

    def make_cell(self, place: Place) -> nn.Module:
        return EquationSampledCell(place, self.nodes, self.candidates)

    def mixes(
        self, generator: torch.Generator | None = None, sampled: Sequence[int] = (), sigma: int = 1
    ) -> list[Sample | None]:
        """Eq. 2 and 3, one edge after another; `item` waits for the device at each."""
        samples = []
        for place in self.places:
            if place.kind not in self.kinds:
                samples.append(None)
                continue
            active, weight = [], []
            for i, j in self.edges:
                columns, weights = self.edge(f"alpha_{place.kind}_{i}-{j}", sampled, sigma)
                active.append(columns)
                weight.append(weights)
            samples.append(Sample(active, weight))
        return samples

    def edge(self, name: str, sampled: Sequence[int], sigma: int) -> tuple[list[int], Tensor]:
        """The candidates that run on an edge, and their weights."""
        alpha = sigma * self.arch[name]
        if list(self.arch).index(name) in sampled:
            return list(range(len(alpha))), alpha.exp() / alpha.exp().sum()
        allowed = [k for k, o in enumerate(self.candidates) if o != "none"]
        m = allowed[alpha[allowed].argmax().item()]
        return [m], alpha.new_ones(1)
