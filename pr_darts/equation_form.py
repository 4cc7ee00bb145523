"""PR-DARTS as its equations are written: the oracle of tests and benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.networks.macro import Place
from common.networks.network import join
from common.supernet.cell import Mix
from pr_darts.supernet import PoolCell, PRDARTSSuperNet


class EquationPoolCell(PoolCell):
    """x_j = sum over i < j, and over o in the pool of (i, j), of softmax(alpha)_o o(x_i) (II-B)."""

    share_pools = False

    def forward(self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor]) -> Tensor:
        states, weight = self.inputs.past_relu(s0, s1), iter(weights)
        for j in range(2, 2 + self.nodes):
            node = 0
            for i in range(j):
                for candidate in self.edges[f"{i}-{j}"].values():
                    node = node + next(weight) * candidate(states[i])
            states.append(node)
        return join(states[2:], self.output)


class EquationPRDARTS(PRDARTSSuperNet):
    """The supernet of equation-shaped cells; its checkpoints fit `PRDARTSSuperNet`."""

    memory_format = torch.contiguous_format

    def make_cell(self, place: Place) -> nn.Module:
        return EquationPoolCell(place, self.nodes, self.pools[place.kind], self.cell_output)

    def per_cell(
        self, by_kind: dict[str, Mix], generator: torch.Generator | None = None
    ) -> list[Sequence[Tensor]]:
        """The softmax of each edge over its own pool (II-B)."""
        softmax = {}
        for kind in self.kinds:
            softmax[kind] = []
            for alpha, pool in zip(self.arch[f"alpha_{kind}"], self.pools[kind], strict=True):
                own = [alpha[self.candidates.index(str(op))].exp() for op in pool.candidates]
                softmax[kind] += [value / sum(own) for value in own]
        return [softmax[place.kind] for place in self.places]
