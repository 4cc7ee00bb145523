"""ITNAS' supernet: outer edges are sampled, inner edges follow from their predecessors (Eq. 5, 11).

An edge (i, j) is outer if i is an input of the cell, and inner if i is one of its nodes. The
predecessors of an inner edge are the edges (m, i) into its source. Each triple (m, i, j) has a
transition matrix and an attention score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.networks.genotype import CANDIDATES, Cell
from common.supernet.cell import Mix
from common.supernet.gumbel import gumbel
from common.supernet.supernet import SuperNet, small_noise
from itnas.derive import Reweighting, prune


def triples(nodes: int, inputs: int = 2) -> list[tuple[int, int, int]]:
    """The triples (m, i, j) of a cell with that many computed nodes, by i, then j, then m.

    Four nodes have 16. All triples of one i are contiguous, and reshape to [j, m].
    """
    end = inputs + nodes
    return [(m, i, j) for i in range(inputs, end) for j in range(i + 1, end) for m in range(i)]


class ITNASSuperNet(SuperNet):
    """A DARTS supernet over seven candidates, whose inner edges have no weights of their own.

    The three switches give the rows of Table 2; with all of them off this is DARTS.

    Args:
        gumbel: sample outer rows by Gumbel-softmax (3.2) instead of softmax alone.
        transition: compute inner rows from their predecessors (3.3) instead of their own alphas.
        pruning: derive cells by Algorithm 1 (3.4) instead of DARTS' two strongest edges a node.
        derive_tau: temperature of the outer rows in derived, measured and recorded cells.
        reweighting: attention after pruning, see `derive.attention`.
        **shape: see `SuperNet`.

    Raises:
        ValueError: pruning without transitions.
    """

    candidates = tuple(name for name in CANDIDATES if name != "none")  # K = 7 (4.1.1)

    def __init__(
        self, gumbel: bool = True, transition: bool = True, pruning: bool = True,
        derive_tau: float = 1.0, reweighting: Reweighting = "logits", **shape,
    ):
        if pruning and not transition:
            raise ValueError("pruning (Algorithm 1) needs transitions")
        self.gumbel, self.transition, self.pruning = gumbel, transition, pruning
        self.derive_tau, self.reweighting = derive_tau, reweighting
        super().__init__(**shape)

    def init_arch(self) -> None:
        """Logits 1e-3 N(0, 1) for each kind of cell: alpha [outer edges, K], P [triples, K, K]
        and beta [triples]. Without transitions: DARTS' alpha of all edges.
        """
        if not self.transition:
            super().init_arch()
            return
        K, count = len(self.candidates), len(self.triples())
        outer = self.space.inputs * self.nodes
        shapes = {"alpha": (outer, K), "P": (count, K, K), "beta": (count,)}
        for name, shape in shapes.items():
            for kind in self.kinds:
                self.arch[f"{name}_{kind}"] = small_noise(*shape)

    def triples(self) -> list[tuple[int, int, int]]:
        """The triples of a cell."""
        return triples(self.nodes, self.space.inputs)

    def mix(self, kind: str) -> Mix:
        """All rows without noise at `derive_tau`: for derived, measured and recorded cells."""
        return Mix(self.rows(kind, (self.arch[f"alpha_{kind}"] / self.derive_tau).softmax(-1)))

    def mixes(self, generator: torch.Generator | None = None, tau: float = 5.0) -> list[Mix]:
        """One sample per kind of cell and pass: its outer rows Z and the inner rows that follow.

        Args:
            generator: see `SuperNet.mixes`.
            tau: the softmax temperature of Eq. 5, above 0.
        """
        if not self.gumbel:
            return super().mixes()
        outer = {kind: self.sample(kind, generator, tau) for kind in self.kinds}
        return self.per_cell({kind: Mix(self.rows(kind, Z)) for kind, Z in outer.items()})

    def sample(self, kind: str, generator: torch.Generator | None, tau: float) -> Tensor:
        """Eq. 5: Z = softmax((log alpha + G) / tau), soft; [outer edges, K].

        Eq. 5's alphas are probabilities; we train their logits, hence log_softmax.
        """
        log_alpha = self.arch[f"alpha_{kind}"].log_softmax(-1)
        G = gumbel(*log_alpha.shape, generator=generator)
        G = G.to(log_alpha.device, log_alpha.dtype, non_blocking=True)
        return ((log_alpha + G) / tau).softmax(-1)

    def transitions(self, kind: str) -> tuple[list[Tensor], list[Tensor]]:
        """P (Eq. 10) and beta (Eq. 12) of the edges (i, j) out of each computed node i.

        Returns:
            For each i, P [j, m, K, K]: each row a distribution over the operations t on (i, j).
            For each i, beta [j, m]: a distribution over m.
        """
        first, last = self.space.inputs, self.space.inputs + self.nodes - 1
        sources = range(first, last)  # the last node has no edge out of it
        leaving = [last - i for i in sources]
        sizes = [i * edges for i, edges in zip(sources, leaving, strict=True)]
        P = self.arch[f"P_{kind}"].softmax(-1).split(sizes)
        beta = self.arch[f"beta_{kind}"].split(sizes)
        return (
            [part.unflatten(0, (edges, -1)) for part, edges in zip(P, leaving, strict=True)],
            [part.view(edges, -1).softmax(-1) for part, edges in zip(beta, leaving, strict=True)],
        )

    def rows(self, kind: str, outer: Tensor) -> Tensor:
        """Eq. 11, node by node: Z^(i,j) = sum over m of beta^(m,i,j) Z^(m,i) P^(m,i,j).

        Deviation: Z is a row on the left of P. Eq. 9 prints P Z, which is a distribution only if
        the columns of P sum to 1; in Eq. 10 its rows do.

        Args:
            kind: normal or reduction.
            outer: rows Z [outer edges, K]; without transitions [edges, K], returned as they are.

        Returns:
            [edges, K], each row a distribution.
        """
        if not self.transition:
            return outer
        first = self.space.inputs
        into = {j: [*rows] for j, rows in enumerate(outer.unflatten(0, (-1, first)), first)}
        for i, (P, beta) in enumerate(zip(*self.transitions(kind), strict=True), first):
            Z = torch.stack(into[i])  # [m, K]; all edges into node i are known by now
            # A sum of products: autocast would round a matrix product.
            weighted = beta[..., None] * Z  # [j, m, K]
            leaving = (weighted[..., None] * P).sum((1, 2))  # [j, K]
            for j, row in enumerate(leaving, i + 1):
                into[j].append(row)
        return torch.stack([row for node in into.values() for row in node])

    @torch.no_grad()
    def derive(self) -> dict[str, Cell]:
        """Algorithm 1; without pruning, DARTS' two strongest edges a node."""
        if not self.pruning:
            return super().derive()
        cells = {}
        for kind in self.kinds:
            Z = dict(zip(self.edges, self.mix(kind).op.cpu(), strict=True))
            outer = {(i, j): row for (i, j), row in Z.items() if i < self.space.inputs}
            P, b = (
                dict(zip(self.triples(), values.cpu(), strict=True))
                for values in (self.arch[f"P_{kind}"].softmax(-1), self.arch[f"beta_{kind}"])
            )
            cells[kind] = prune(outer, P, b, self.candidates, self.reweighting, self.space)
        return cells

    def recorded(self, kind: str) -> dict[str, list]:
        """P [triples, K, K] and beta [triples] as probabilities."""
        if not self.transition:
            return {}
        _, beta = self.transitions(kind)
        return {
            "triples": self.triples(),
            "P": self.arch[f"P_{kind}"].softmax(-1).tolist(),
            "beta": [score for part in beta for score in part.flatten().tolist()],
        }

    def metrics(self, tau: float) -> dict[str, float]:
        """The temperature, unless there is none."""
        return {"tau": tau} if self.gumbel else {}
