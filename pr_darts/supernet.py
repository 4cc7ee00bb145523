"""PR-DARTS' supernet: DARTS with a pool of candidates of its own on every edge (II-B, III-A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks import ops
from common.networks.genotype import Cell, Op
from common.networks.macro import CellInputs, Place
from common.networks.network import join
from common.supernet.candidate import run
from common.supernet.cell import Mix, cell_edges
from common.supernet.supernet import KINDS, SuperNet
from pr_darts.inherit import inherit
from pr_darts.pools import Pool
from pr_darts.similarity import discovered, distribution, similarity

Pools = dict[str, list[Pool]]  # kind of cell -> a pool for each edge
Parents = dict[str, list[dict[Op, Op]]]  # kind -> for each edge, new candidate -> its parent


class PRDARTSSuperNet(SuperNet):
    """A supernet whose edges mix their own pools.

    Args:
        first: every edge's candidates in the first cycle.
        nodes: computed nodes of a cell.
        cell_output: how a cell joins its nodes, `concat` or `mean`.
        **shape: see `SuperNet`.

    Attributes:
        pools: of the current cycle.
        operations: all operations in any pool, by name.
        candidates: their names, the columns of alpha and of the mix.
    """

    def __init__(
        self, first: Sequence[Op], nodes: int = 4, *, cell_output: str = "concat", **shape
    ):
        self.cell_output = cell_output
        edges = len(cell_edges(nodes))
        self.pools: Pools = {kind: [Pool.first(first)] * edges for kind in KINDS}
        super().__init__(nodes=nodes, **shape)

    def init_arch(self) -> None:
        """alpha_normal and alpha_reduction, [edges, candidates], zeros: "equally weighted" (III-B).

        An edge uses only the entries of its own pool; the others stay 0.

        Deviation: the authors' code starts from 1e-3 N(0, 1).
        """
        every = [op for pools in self.pools.values() for pool in pools for op in pool.candidates]
        self.operations = {str(op): op for op in every}
        self.candidates = tuple(self.operations)
        like = self.classifier.weight
        for kind in self.kinds:
            at = [
                (row, self.candidates.index(str(op)))
                for row, pool in enumerate(self.pools[kind]) for op in pool.candidates
            ]  # fmt: skip
            at = torch.tensor(at, device=like.device).t()  # [2, all candidates]: row and column
            alpha = like.new_zeros(len(self.edges), len(self.candidates))
            absent = torch.ones_like(alpha, dtype=torch.bool)
            absent[tuple(at)] = False
            self.register_buffer(f"at_{kind}", at, persistent=False)
            self.register_buffer(f"absent_{kind}", absent, persistent=False)
            self.arch[f"alpha_{kind}"] = nn.Parameter(alpha)

    def concatenated(self) -> dict[str, int]:
        """See `SuperNet.concatenated`; a mean is as wide as one node."""
        return super().concatenated() if self.cell_output == "concat" else dict.fromkeys(KINDS, 1)

    def make_cell(self, place: Place) -> nn.Module:
        """A cell called as cell(s0, s1, weights)."""
        return PoolCell(place, self.nodes, self.pools[place.kind], self.cell_output)

    def mix(self, kind: str) -> Mix:
        """Softmax over each edge's own pool (II-B); all other weights are exactly 0."""
        alpha = self.arch[f"alpha_{kind}"]
        return Mix(alpha.masked_fill(self.get_buffer(f"absent_{kind}"), -torch.inf).softmax(-1))

    def per_cell(
        self, by_kind: dict[str, Mix], generator: torch.Generator | None = None
    ) -> list[Sequence[Tensor | None]]:
        """For each cell the weights of its candidates, edge by edge in their pools' order.

        Without gradients, weights of 0 (in cut cells) become None: that candidate need not run.
        """
        weights = {}
        for kind, mix in by_kind.items():
            own = mix.op[tuple(self.get_buffer(f"at_{kind}"))]
            weights[kind] = own.unbind()
            if not torch.is_grad_enabled():  # never in a step, which must not wait for the device
                values = zip(own.tolist(), weights[kind], strict=True)
                weights[kind] = [weight if value else None for value, weight in values]
        return [weights[place.kind] for place in self.places]

    @torch.no_grad()
    def weights(self, kind: str) -> list[list[float]]:
        """Mixing weights as numbers: for each edge one per candidate of its pool."""
        return self.by_pool(kind, self.mix(kind).op)

    def by_pool(self, kind: str, values: Tensor) -> list[list[float]]:
        """[edges, candidates] -> for each edge the numbers of its own pool."""
        return [
            [row[self.candidates.index(str(op))] for op in pool.candidates]
            for row, pool in zip(values.tolist(), self.pools[kind], strict=True)
        ]

    def derive(self) -> dict[str, Cell]:
        """Each edge's best operation; each node's two strongest edges (II-B)."""
        return {
            kind: replace(cell, join=self.cell_output, edges=tuple(
                replace(edge, op=self.operations[edge.op.name]) for edge in cell.edges
            ))
            for kind, cell in super().derive().items()
        }  # fmt: skip

    def rebuild(self, pools: Pools, parents: Parents | None = None) -> None:
        """Change the pools and reset the alphas (III-B.2).

        Remaining candidates keep their modules. New ones inherit from their parents, only here.

        Args:
            pools: of all edges.
            parents: of the new candidates; None: no inheritance (weights come from a checkpoint).
        """
        self.pools = pools
        for cell, place in zip(self.cells, self.places, strict=True):
            mine = [{}] * len(self.edges) if parents is None else parents[place.kind]
            cell.rebuild(pools[place.kind], mine)
        self.init_arch()

    def count(self) -> int:
        """Number of candidates, over all edges of both kinds of cell."""
        return sum(len(pool.candidates) for pools in self.pools.values() for pool in pools)

    def metrics(self) -> dict[str, Any]:
        """What Fig. 2 and Table III show of the pools, for each kind of cell."""
        metrics = {}
        for kind, pools in self.pools.items():
            for name, share in distribution(pools).items():
                metrics[f"{name}_share_{kind}"] = share
            metrics[f"similarity_{kind}"] = similarity(pools)
            metrics[f"candidates_{kind}"] = sum(len(pool.candidates) for pool in pools)
            metrics[f"discovered_{kind}"] = len(discovered(pools))
        return metrics


class PoolCell(nn.Module):
    """x_j = sum over i < j, and over o in the pool of (i, j), of softmax(alpha)_o o(x_i) (II-B).

    One module an edge and candidate, under the candidate's name.

    Args:
        place: widths and resolution.
        nodes: computed nodes.
        pools: of its edges.
        output: how nodes are joined, `concat` or `mean`.
    """

    share_pools = True  # poolings have no parameters: all edges out of a state share one

    def __init__(self, place: Place, nodes: int, pools: Sequence[Pool], output: str):
        super().__init__()
        self.place, self.nodes, self.output = place, nodes, output
        self.inputs = CellInputs(place, affine=False)
        self.edges = nn.ModuleDict({f"{i}-{j}": nn.ModuleDict() for i, j in cell_edges(nodes)})
        self.rebuild(pools, [{}] * len(self.edges))

    def rebuild(self, pools: Sequence[Pool], parents: Sequence[dict[Op, Op]]) -> None:
        ends, pools_of = cell_edges(self.nodes), {}
        for (i, j), pool, parent_of in zip(ends, pools, parents, strict=True):
            old, new = self.edges[f"{i}-{j}"], nn.ModuleDict()
            for op in pool.candidates:
                shared = pools_of.get((i, op.name))
                if str(op) in old and op not in parent_of:  # re-admitted at once: a new module
                    new[str(op)] = old[str(op)]
                elif shared is not None:
                    new[str(op)] = shared
                else:
                    new[str(op)] = self.build(op, i)
                if op in parent_of:
                    inherit(new[str(op)], old[str(parent_of[op])])
                if op.name in ops.POOLS and self.share_pools:
                    pools_of[i, op.name] = new[op.name]
            self.edges[f"{i}-{j}"] = new

    def build(self, op: Op, i: int) -> nn.Module:
        """Build a candidate of an edge out of state i, on the cell's device and in its dtype."""
        stride = 2 if self.place.reduction and i < 2 else 1
        module = ops.build(op, self.place.channels, stride, search=True)
        return module.to(self.inputs.second[1].weight)

    def forward(self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
        """Past a ReLU, [B, C_k-2, ..], [B, C_k-1, ..] -> [B, nodes x C, H, W]; mean: [B, C, H, W].

        Deviation: concatenates by default, as in the authors' code. "The cell output being their
        mean" (III-A) does not fit the parameters in Table III.
        """
        states, weight = self.inputs.past_relu(s0, s1), iter(weights)
        relus, pooled = {}, {}  # shared by the edges out of a state
        for j in range(2, 2 + self.nodes):
            node = 0
            for i in range(j):
                if i not in relus:
                    relus[i] = F.relu(states[i])
                for name, candidate in self.edges[f"{i}-{j}"].items():
                    if (w := next(weight)) is None:
                        continue
                    if name not in ops.POOLS:
                        node = node + run(candidate, states[i], relus[i], w)
                        continue
                    if candidate not in pooled:
                        pooled[candidate] = run(candidate, states[i], relus[i])
                    node = node + w * pooled[candidate]
            states.append(node)
        return join(states[2:], self.output)
