"""ITNAS as its equations are written, edge by edge and triple by triple; the tests' oracle."""

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
        """A cell with one module an edge and candidate."""
        return EquationCell(place, self.nodes, self.candidates)

    def sample(self, kind: str, generator: torch.Generator | None, tau: float) -> Tensor:
        """Eq. 5 edge by edge, alpha the probabilities of each."""
        a, Z = self.arch[f"alpha_{kind}"], []
        for logits, noise in zip(a, gumbel(*a.shape, generator=generator), strict=True):
            alpha = logits.exp() / logits.exp().sum()
            scaled = ((alpha.log() + noise.to(alpha)) / tau).exp()
            Z.append(scaled / scaled.sum())
        return torch.stack(Z)

    def rows(self, kind: str, outer: Tensor) -> Tensor:
        """Eq. 9 to 12, triple by triple and operation by operation."""
        if not self.transition:
            return outer
        P, b = {}, {}
        numbers = iter(range(len(self.arch[f"beta_{kind}"])))
        for i in range(2, 2 + self.nodes):
            for j in range(i + 1, 2 + self.nodes):
                for m in range(i):
                    n = next(numbers)
                    exp = self.arch[f"P_{kind}"][n].exp()
                    P[m, i, j] = exp / exp.sum(1, keepdim=True)  # Eq. 10: sum over t of p_st = 1
                    b[m, i, j] = self.arch[f"beta_{kind}"][n].exp()
        edges = [(i, j) for i, j in self.edges if i < 2]
        Z = dict(zip(edges, outer, strict=True))
        for i, j in self.edges:
            if i >= 2:
                row = torch.zeros_like(outer[0])
                total = sum(b[m, i, j] for m in range(i))
                for m in range(i):
                    beta = b[m, i, j] / total  # Eq. 12
                    for s in range(len(row)):
                        row = row + beta * Z[m, i][s] * P[m, i, j][s]  # Eq. 9 and 11
                Z[i, j] = row
        return torch.stack([Z[edge] for edge in self.edges])
