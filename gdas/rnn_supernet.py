"""GDAS' supernet for a recurrent cell: an activation an edge is drawn for each chunk (4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.language.cell import ACTIVATIONS, GatedNodes
from common.language.model import Dropouts, LanguageModel
from common.networks.genotype import RECURRENT_OPS, Cell, Edge, Op
from common.supernet.gumbel import gumbel
from common.supernet.supernet import small_noise
from common.supernet.to_cpu import read
from gdas.supernet import straight_through

KIND = "recurrent"


@dataclass(frozen=True)
class Draw:
    """What every edge of the cell does for a chunk.

    Attributes:
        active: of each edge, the columns of its activations that run.
        weight: of each edge, their weights [active]; None: 1 each.
    """

    active: Sequence[Sequence[int]]
    weight: Sequence[Tensor] | None = None


class RecurrentSearchCell(GatedNodes):
    """Node j is the normalised sum over all i < j (as in DARTS' and GDAS' code; 4.3 is silent).

    Each state is normalised over the columns, without scale and shift. Deviation: always by its own
    statistics; the authors' code validates by running ones, one set for all nine states.

    Args:
        units: d.
        nodes: N computed ones.
        candidates: activations, in the column order of alpha.
    """

    def __init__(self, units: int, nodes: int, candidates: Sequence[str]):
        super().__init__(units, nodes)
        self.candidates = tuple(candidates)
        self.norm = nn.BatchNorm1d(units, affine=False, track_running_stats=False)

    def forward(
        self, x: Tensor, hidden: Tensor, x_mask: Tensor | None, h_mask: Tensor | None, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """See `RecurrentCell.forward`; what the edges do is the same at every time step."""
        d = self.units
        from_x = (x if x_mask is None else x * x_mask) @ self.W0[:d]  # [T, B, 2d]
        sources = [self.source(i, draw) for i in range(self.nodes)]
        h, outputs = hidden[0], []
        for at_node_0 in from_x:
            met = h if h_mask is None else h * h_mask
            c, a = torch.addmm(at_node_0, met, self.W0[d:]).chunk(2, 1)
            flows: list[list[Tensor]] = [[] for _ in range(self.nodes + 1)]  # into each node
            states = [self.norm(torch.lerp(h, a.tanh(), c.sigmoid()))]
            for i, (weight, edges) in enumerate(sources):
                s = states[i]
                if edges:
                    met = s if h_mask is None else s * h_mask
                    gates = (met @ weight).view(len(s), 2, len(edges), d)  # [B, 2, edges, d]
                    c, a = gates[:, 0].sigmoid(), gates[:, 1]
                    for n, (j, names, weights) in enumerate(edges):
                        flows[j].append(flow(s, c[:, n], a[:, n], names, weights))
                flowing = flows[i + 1]
                total = sum(flowing[1:], flowing[0]) if flowing else torch.zeros_like(s)
                states.append(self.norm(total))
            h = torch.stack(states[1:]).mean(0)
            outputs.append(h)
        return torch.stack(outputs), h[None]

    def source(self, i: int, draw: Draw) -> tuple[Tensor | None, list[tuple]]:
        """The edges out of a state that carry anything, and their matrices side by side.

        Returns:
            [d, 2 edges d], columns c of all edges, then a of all; and of each edge its target, its
            activations and their weights (None: 1).
        """
        edges = []
        for j in range(i + 1, self.nodes + 1):
            row = j * (j - 1) // 2 + i
            weights = None if draw.weight is None else draw.weight[row]
            names = [self.candidates[k] for k in draw.active[row]]
            if "none" in names:
                there = [n for n, name in enumerate(names) if name != "none"]
                weights = None if weights is None else weights[there]
                names = [names[n] for n in there]
            if names:
                edges.append((j, names, weights))
        if not edges:
            return None, []
        own = [self.W[j - 1] for j, *_ in edges]
        d = self.units
        return torch.cat([w[:, :d] for w in own] + [w[:, d:] for w in own], 1), edges


def flow(
    s: Tensor, c: Tensor, a: Tensor, names: Sequence[str], weights: Tensor | None
) -> Tensor:
    """The sum over an edge's activations f of weight_f (s + c (f(a) - s)), [B, d]."""
    if weights is None:
        (name,) = names
        return torch.lerp(s, ACTIVATIONS[name](a), c)
    if len(names) == 1:
        return weights * torch.lerp(s, ACTIVATIONS[names[0]](a), c)
    mixed = sum(w * ACTIVATIONS[name](a) for w, name in zip(weights.unbind(), names, strict=True))
    return torch.lerp(weights.sum() * s, mixed, c)


class RecurrentSuperNet(LanguageModel):
    """A language model whose cell is drawn for each chunk: called as net(words, hidden, draw).

    Args:
        words: size of the vocabulary.
        units: d.
        nodes: N computed ones: B - 1, as the paper's B counts state 0.
        dropouts: while training.
        sample: "hard": one activation an edge, straight-through (3.2); "soft": all, by their
            relaxed draw (the authors' code).
        derive_none: whether `none` can be derived.

    Attributes:
        arch: `alpha_recurrent`, [edges, candidates].
        edges: (source, target) of each row: by target, then source.
    """

    def __init__(
        self, words: int, units: int, nodes: int, dropouts: Dropouts, sample: str = "soft",
        derive_none: bool = False,
    ):
        cell = RecurrentSearchCell(units, nodes, RECURRENT_OPS)
        super().__init__(words, units, cell, dropouts)
        self.candidates, self.sample = RECURRENT_OPS, sample
        self.derive_none = derive_none
        self.edges = [(i, j) for j in range(1, nodes + 1) for i in range(j)]
        self.arch = nn.ParameterDict(
            {f"alpha_{KIND}": small_noise(len(self.edges), len(RECURRENT_OPS))}
        )

    def draw(self, generator: torch.Generator | None = None, tau: float = 10.0) -> Draw:
        """Eq. 5 to 7 for every edge, shared by a chunk's time steps; noise and choice on the CPU.

        Args:
            generator: of the noise; None: torch's own.
            tau: the softmax temperature of Eq. 7, above 0.
        """
        log_pr = self.arch[f"alpha_{KIND}"].log_softmax(-1)  # Eq. 4
        o = gumbel(*log_pr.shape, generator=generator)
        if self.sample == "soft":
            relaxed = ((log_pr + o.to(log_pr)) / tau).softmax(-1)  # Eq. 7
            return Draw([range(len(self.candidates))] * len(self.edges), relaxed.unbind())
        h = (read(log_pr).double() + o).argmax(-1)  # Eq. 6
        weight = straight_through(log_pr, o, h, tau)
        return Draw(h[:, None].tolist(), weight)

    def probabilities(self) -> Tensor:
        """Pr of Eq. 4, [edges, candidates]."""
        return self.arch[f"alpha_{KIND}"].softmax(-1)

    @torch.no_grad()
    def derive(self) -> Cell:
        """T = 1 connection a node by the largest Pr, and its activation.

        Deviation: unless `derive_none`, `none` only lowers the others' Pr. The authors' code for
        recurrent cells derives it, as the paper's Omega allows.
        """
        allowed = [self.derive_none or name != "none" for name in self.candidates]
        columns = [k for k, can_be in enumerate(allowed) if can_be]
        best = self.probabilities()[:, columns].cpu().max(-1)
        kept = []
        for node in range(1, self.cell.nodes + 1):
            rows = [row for row, (_, j) in enumerate(self.edges) if j == node]
            row = max(rows, key=lambda row: best.values[row].item())  # the first of equals
            op = Op(self.candidates[columns[best.indices[row]]])
            kept.append(Edge(self.edges[row][0], node, op))
        return Cell(1, tuple(kept), tuple(range(1, self.cell.nodes + 1)))

    def arch_parameters(self) -> list[nn.Parameter]:
        """What the arch step trains."""
        return list(self.arch.values())

    def weight_parameters(self) -> list[nn.Parameter]:
        """What the weight step trains."""
        return [p for name, p in self.named_parameters() if not name.startswith("arch.")]
