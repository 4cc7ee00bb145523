"""The search cell as its equation: one module per edge and candidate, one after another.

The slow reference for tests and benchmarks of the fast cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.networks.macro import Place
from common.supernet.cell import Mix, cell_edges
from common.supernet.supernet import SuperNet


class EquationCell(nn.Module):
    """x_j = sum over i < j of edge_ij * sum over o of op_ij^o * o(x_i) (DARTS, Eq. 1 and 2)."""

    def __init__(
        self, place: Place, nodes: int, candidates: Sequence[str], width: int | None = None
    ):
        super().__init__()
        self.place, self.outputs = place, place.outputs(nodes)
        self.inputs = place.adapters(affine=False)
        self.edges = nn.ModuleDict()
        for i, j in cell_edges(nodes, len(place.inputs)):
            self.edges[f"{i}-{j}"] = nn.ModuleDict(
                {name: place.candidate(name, i, width or place.channels) for name in candidates}
            )
        self.targets = range(len(place.inputs), len(place.inputs) + nodes)

    def forward(self, *given: Tensor | Mix) -> Tensor:
        """What cells hand on, and a mix: [B, C_k-2, ..], [B, C_k-1, ..] -> [B, nodes x C, H, W]."""
        *inputs, mix = given
        states = self.inputs.past_relu(*inputs)
        row = 0
        for j in self.targets:
            node = 0
            for i in range(j):
                flow = self.edge(states[i], i, j, mix.op[row])
                node = node + (flow if mix.edge is None else mix.edge[row] * flow)
                row += 1
            states.append(node)
        return torch.cat([states[j] for j in self.outputs], 1)

    def edge(self, x: Tensor, i: int, j: int, weight: Tensor) -> Tensor:
        """f_ij(x): the weighted sum of an edge's candidates."""
        candidates = self.edges[f"{i}-{j}"].values()
        return sum(w * o(x) for w, o in zip(weight, candidates, strict=True))


class EquationSuperNet(SuperNet):
    """DARTS with equation-shaped cells; checkpoints are compatible with `SuperNet`."""

    memory_format = torch.contiguous_format

    def make_cell(self, place: Place) -> nn.Module:
        """A cell with one module per edge and candidate."""
        return EquationCell(place, self.nodes, self.candidates)
