"""PC-DARTS' cell as its equations are written: the oracle that tests hold `PartialCell` to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.macro import Place
from common.supernet.equation_form import EquationCell
from pc_darts.supernet import PCDARTSSuperNet


class PartialEquationCell(EquationCell):
    """Eq. 1 edge by edge, with a shuffle on every edge, as in the authors' code."""

    def __init__(self, place: Place, nodes: int, candidates: Sequence[str], K: int):
        super().__init__(place, nodes, candidates, width=place.channels // K)
        self.K = K

    def edge(self, x: Tensor, i: int, j: int, weight: Tensor) -> Tensor:
        """f_ij(x; S) = sum_o weight_o o(S * x) + (1 - S) * x, S the first 1/K channels."""
        width = x.shape[1] // self.K
        mixed = super().edge(x[:, :width], i, j, weight)
        if self.K == 1:
            return mixed
        masked = x[:, width:]
        if self.place.stride(i) == 2:
            masked = F.max_pool2d(masked, 2, ceil_mode=True)
        x = torch.cat([mixed, masked], 1)
        return rearrange(x, "b (g c) h w -> b (c g) h w", g=self.K)


class EquationPCDARTS(PCDARTSSuperNet):
    """The supernet of equation-shaped cells; loads checkpoints of `PCDARTSSuperNet`."""

    memory_format = torch.contiguous_format

    def make_cell(self, place: Place) -> nn.Module:
        return PartialEquationCell(place, self.nodes, self.candidates, self.K)
