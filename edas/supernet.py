"""EDAS' supernet: one edge relaxed, every other edge its best operation (Eq. 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from common.networks.genotype import CANDIDATES
from common.supernet.cell import Mix
from common.supernet.measures import best_operations
from common.supernet.sampled import Sample, SampledSuperNet
from common.supernet.supernet import small_noise
from common.supernet.to_cpu import read


class EDASSuperNet(SampledSuperNet):
    """A network of discrete cells but for one edge, which mixes all its candidates (3.2).

    Args:
        candidates: 7: without `none`, N_o of 3.1; 8: the list of 4.1, with `none` (zero); or names.
        **shape: see `SuperNet`.
    """

    def __init__(self, candidates: int | Sequence[str] = 7, **shape):
        if isinstance(candidates, int):
            candidates = [o for o in CANDIDATES if candidates == 8 or o != "none"]
        self.candidates = tuple(candidates)
        super().__init__(**shape)

    def init_arch(self) -> None:
        """alpha^(i,j) [candidates] of each edge of both kinds of cell, 1e-3 N(0, 1).

        One parameter an edge: of a single tensor's rows, Adam's momentum would move the unsampled.
        """
        for kind in self.kinds:
            for i, j in self.edges:
                self.arch[f"alpha_{kind}_{i}-{j}"] = small_noise(len(self.candidates))

    def mix(self, kind: str) -> Mix:
        """softmax(alpha) of all edges, read from +alpha: what is derived and recorded, not run."""
        alpha = torch.stack([self.arch[f"alpha_{kind}_{i}-{j}"] for i, j in self.edges])
        return Mix(alpha.softmax(-1))

    def sample(self, generator: torch.Generator, per_kind: bool = False) -> tuple[int, ...]:
        """One edge of both kinds of cell together, each as likely as the others (3.2).

        Args:
            generator: of the draw.
            per_kind: one edge of each kind of cell instead.

        Returns:
            Numbers of edges: the normal cell's come first, then the reduction cell's.
        """
        groups = len(self.kinds) if per_kind else 1
        size = len(self.arch) // groups
        drawn = torch.randint(size, (groups,), generator=generator).tolist()
        return tuple(group * size + edge for group, edge in enumerate(drawn))

    def mixes(
        self, generator: torch.Generator | None = None, sampled: Sequence[int] = (), sigma: int = 1
    ) -> list[Sample]:
        """Eq. 2, and with sigma = -1 Eq. 3.

        f_j(x_i) = sum_o softmax(sigma alpha^(i,j))_o o(x_i) on the sampled edge (k, l),
                   o_m(x_i) with m = argmax sigma alpha^(i,j), its weight exactly 1, otherwise.

        Deviation: `none` is never o_m, which would cut the path; the paper does not say.

        The copy of all alphas is the one thing that a pass reads from the device.

        Args:
            generator: not used; nothing is drawn in a pass.
            sampled: numbers of the edges (k, l) that are relaxed, in every cell of their kind, as
                `sample` gives them.
            sigma: +1; -1 where -alpha takes alpha's place (Eq. 3), in softmax and argmax alike.
        """
        alphas = list(self.arch.values())
        known = read(torch.stack(alphas))  # [edges of both kinds, candidates]
        m = best_operations(sigma * known, self.candidates)
        active, weight = [[k] for k in m.tolist()], [None] * len(alphas)
        for edge in sampled:
            active[edge] = list(range(len(self.candidates)))
            weight[edge] = (sigma * alphas[edge]).softmax(-1)
        count, by_kind = len(self.edges), {}
        for n, kind in enumerate(self.kinds):
            own = slice(n * count, (n + 1) * count)
            by_kind[kind] = Sample(active[own], weight[own])
        return [by_kind[place.kind] for place in self.places]
