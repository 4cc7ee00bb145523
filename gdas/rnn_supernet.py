"""GDAS' supernet for a recurrent cell: samples the activation of each edge once per chunk (4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.language.cell import ACTIVATIONS, GatedNodes, masked
from common.language.model import Dropouts, LanguageModel
from common.networks.genotype import RECURRENT_OPS, Cell, Edge, Op
from common.supernet.gumbel import gumbel
from common.supernet.measures import best_operations
from common.supernet.supernet import small_noise
from common.supernet.to_cpu import read
from gdas.supernet import straight_through

KIND = "recurrent"


@dataclass(frozen=True)
class Draw:
    """The sampled operations of the cell for one chunk.

    Attributes:
        active: per edge, the columns of alpha whose activations run.
        weight: per edge, their weights, [active]; None: all 1.
    """

    active: Sequence[Sequence[int]]
    weight: Sequence[Tensor] | None = None


class RecurrentSearchCell(GatedNodes):
    """Node j is the normalised sum over all i < j (DARTS' and GDAS' code; the paper is silent).

    Each state is normalised over the columns, without scale and shift. Deviation: always by batch
    statistics; the authors' code validates with running ones, shared by all nine states.

    Args:
        units: d.
        nodes: N, computed nodes without state 0.
        candidates: activations, in the column order of alpha.
    """

    def __init__(self, units: int, nodes: int, candidates: Sequence[str]):
        super().__init__(units, nodes)
        self.candidates = tuple(candidates)
        self.norm = nn.BatchNorm1d(units, affine=False, track_running_stats=False)

    def forward(
        self, x: Tensor, hidden: Tensor, x_mask: Tensor | None, h_mask: Tensor | None, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """See `RecurrentCell.forward`; all time steps share one draw."""
        d = self.units
        from_x = masked(x, x_mask) @ self.W0[:d]  # [T, B, 2d]
        outgoing = [self.outgoing(i, draw) for i in range(self.nodes)]
        h, outputs = hidden[0], []
        for word in from_x:
            c, a = torch.addmm(word, masked(h, h_mask), self.W0[d:]).chunk(2, 1)
            inputs: list[list[Tensor]] = [[] for _ in range(self.nodes + 1)]  # of each node
            states = [self.norm(torch.lerp(h, a.tanh(), c.sigmoid()))]
            for i, (weight, edges) in enumerate(outgoing):
                s = states[i]
                if edges:
                    gates = (masked(s, h_mask) @ weight).view(len(s), 2, len(edges), d)
                    c, a = gates[:, 0].sigmoid(), gates[:, 1]  # [B, edges, d]
                    for n, (j, names, weights) in enumerate(edges):
                        inputs[j].append(edge_output(s, c[:, n], a[:, n], names, weights))
                into_next = inputs[i + 1]
                total = sum(into_next[1:], into_next[0]) if into_next else torch.zeros_like(s)
                states.append(self.norm(total))
            h = torch.stack(states[1:]).mean(0)
            outputs.append(h)
        return torch.stack(outputs), h[None]

    def outgoing(self, i: int, draw: Draw) -> tuple[Tensor | None, list[tuple]]:
        """The edges out of state i that do not only run `none`, with their matrices concatenated.

        Returns:
            The matrix [d, 2 edges d], columns c of all edges and then a of all; for each edge its
            target, its activations and their weights (None: 1).
        """
        edges = []
        for j in range(i + 1, self.nodes + 1):
            row = j * (j - 1) // 2 + i
            active = draw.active[row]
            kept = [n for n, k in enumerate(active) if self.candidates[k] != "none"]
            if kept:
                weights = draw.weight
                if weights is not None:  # an index list would be copied to the device each time
                    each = weights[row].unbind()
                    weights = torch.stack([each[n] for n in kept])
                edges.append((j, [self.candidates[active[n]] for n in kept], weights))
        if not edges:
            return None, []
        own = [self.W[j - 1] for j, *_ in edges]
        d = self.units
        return torch.cat([w[:, :d] for w in own] + [w[:, d:] for w in own], 1), edges


def edge_output(
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
    """A language model whose cell is sampled for each chunk; call net(words, hidden, draw).

    Args:
        words: vocabulary size.
        units: d.
        nodes: N computed nodes, B - 1: the paper's B includes state 0.
        dropouts: applied in training mode.
        sample: "hard": one activation per edge, straight-through (3.2); "soft": all, weighted by
            their relaxed sample (authors' code).
        derive_none: whether `none` can be derived.

    Attributes:
        arch: `alpha_recurrent`, [edges, candidates].
        edges: (source, target) of each row, sorted by target, then source.
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
        """Sample every edge by Eq. 5 to 7; noise and argmax are computed on the CPU.

        Args:
            generator: of the noise; None: torch's global one.
            tau: temperature of Eq. 7, above 0.
        """
        log_pr = self.arch[f"alpha_{KIND}"].log_softmax(-1)  # Eq. 4
        o = gumbel(*log_pr.shape, generator=generator)
        if self.sample == "soft":
            o = o.to(log_pr.device, log_pr.dtype, non_blocking=True)
            relaxed = ((log_pr + o) / tau).softmax(-1)  # Eq. 7
            return Draw([range(len(self.candidates))] * len(self.edges), relaxed.unbind())
        h = (read(log_pr).double() + o).argmax(-1)  # Eq. 6
        weight = straight_through(log_pr, o, h, tau)
        return Draw(h[:, None].tolist(), weight)

    def probabilities(self) -> Tensor:
        """Pr of Eq. 4, [edges, candidates]."""
        return self.arch[f"alpha_{KIND}"].softmax(-1)

    @torch.no_grad()
    def derive(self) -> Cell:
        """Keep T = 1 edge per node, the one of largest Pr, with its best activation.

        Deviation: without `derive_none`, `none` is not derived; it still takes its share of Pr.
        The authors' code for recurrent cells derives it, as the paper's Omega allows.
        """
        pr = self.probabilities().cpu()
        best = best_operations(pr, self.candidates, self.derive_none)  # [edges]
        highest = pr.gather(-1, best[:, None]).flatten().tolist()
        kept = []
        for node in range(1, self.cell.nodes + 1):
            rows = [row for row, (_, j) in enumerate(self.edges) if j == node]
            row = max(rows, key=highest.__getitem__)  # the first of equals
            kept.append(Edge(self.edges[row][0], node, Op(self.candidates[best[row]])))
        return Cell(1, tuple(kept), tuple(range(1, self.cell.nodes + 1)))

    def arch_parameters(self) -> list[nn.Parameter]:
        """The parameters of the arch step."""
        return list(self.arch.values())

    def weight_parameters(self) -> list[nn.Parameter]:
        """The parameters of the weight step."""
        return [p for name, p in self.named_parameters() if not name.startswith("arch.")]
