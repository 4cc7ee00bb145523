"""ITNAS as its equations are written, edge by edge and triple by triple: the tests' oracle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.networks.macro import Place
from common.supernet.equation_form import EquationCell
from common.supernet.gumbel import gumbel
from itnas.supernet import ITNASSuperNet


class EquationITNAS(ITNASSuperNet):
    """The supernet of equation-shaped cells; its checkpoints fit `ITNASSuperNet`."""

    memory_format = torch.contiguous_format

    def make_cell(self, place: Place) -> nn.Module:
        return EquationCell(place, self.nodes, self.candidates)

    def sample(self, kind: str, generator: torch.Generator | None, tau: float) -> Tensor:
        """Eq. 5 edge by edge, from the probabilities alpha."""
        logits, Z = self.arch[f"alpha_{kind}"], []
        for row, G in zip(logits, gumbel(*logits.shape, generator=generator), strict=True):
            alpha = row.exp() / row.exp().sum()
            scaled = ((alpha.log() + G.to(alpha)) / tau).exp()
            Z.append(scaled / scaled.sum())
        return torch.stack(Z)

    def rows(self, kind: str, outer: Tensor) -> Tensor:
        """Eq. 9 to 12, triple by triple and operation by operation."""
        if not self.transition:
            return outer
        P, b = {}, {}
        for n, triple in enumerate(self.triples()):
            exp = self.arch[f"P_{kind}"][n].exp()
            P[triple] = exp / exp.sum(1, keepdim=True)  # Eq. 10: sum over t of p_st = 1
            b[triple] = self.arch[f"beta_{kind}"][n].exp()
        inputs = self.space.inputs
        Z = dict(zip([(i, j) for i, j in self.edges if i < inputs], outer, strict=True))
        for i, j in self.edges:
            if i < inputs:
                continue
            Z[i, j] = torch.zeros_like(outer[0])
            total = sum(b[m, i, j] for m in range(i))
            for m in range(i):
                beta = b[m, i, j] / total  # Eq. 12
                for s in range(len(self.candidates)):
                    Z[i, j] = Z[i, j] + beta * Z[m, i][s] * P[m, i, j][s]  # Eq. 9 and 11
        return torch.stack([Z[edge] for edge in self.edges])
