"""GDAS as its equations are written, edge by edge: the oracle of tests and benchmarks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from common.networks.macro import Place
from common.networks.network import FixedReductionCell
from common.supernet.gumbel import gumbel
from common.supernet.sampled import EquationSampledCell, Sample
from gdas.supernet import GDASSuperNet


class EquationGDAS(GDASSuperNet):
    """Runs the drawn operations one by one; loads checkpoints of `GDASSuperNet`."""

    memory_format = torch.contiguous_format

    def make_cell(self, place: Place) -> nn.Module:
        if self.fixed and place.reduction:
            return FixedReductionCell(place)
        return EquationSampledCell(place, self.nodes, self.candidates)

    def mixes(
        self, generator: torch.Generator | None = None, tau: float = 10.0
    ) -> list[Sample | None]:
        """Eq. 3 to 7, one edge after another; `item` waits for the device at each."""
        return [
            self.sample(place.kind, generator, tau) if place.kind in self.kinds else None
            for place in self.places
        ]

    def sample(self, kind: str, generator: torch.Generator | None, tau: float) -> Sample:
        """Draw for one cell; as in `straight_through`, only Eq. 5's drawn term remains."""
        active, weight = [], []
        A = self.arch[f"alpha_{kind}"]
        for alpha, o in zip(A, gumbel(*A.shape, generator=generator), strict=True):
            log_pr = (alpha.exp() / alpha.exp().sum()).log()  # Eq. 4
            relaxed = ((log_pr + o.to(alpha)) / tau).softmax(-1)  # Eq. 7
            drawn = (log_pr + o.to(alpha)).argmax().item()  # Eq. 6
            h = F.one_hot(log_pr.new_tensor(drawn).long(), len(alpha)) - relaxed.detach() + relaxed
            active.append([drawn])
            weight.append(h[drawn : drawn + 1])
        return Sample(active, weight)
