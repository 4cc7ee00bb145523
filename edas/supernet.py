"""EDAS' supernet: one edge relaxed, every other edge its best operation (Eq. 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from common.networks.space import DARTS, Space
from common.supernet.cell import Mix
from common.supernet.measures import best_operations
from common.supernet.sampled import Sample, SampledSuperNet
from common.supernet.supernet import small_noise
from common.supernet.to_cpu import read


class EDASSuperNet(SampledSuperNet):
    """A supernet that runs one operation per edge, except on one edge, which mixes all (3.2).

    Args:
        candidates: 7: without `none`, N_o of 3.1; 8: with `none`, the list of 4.1; or names.
        **shape: see `SuperNet`.
    """

    def __init__(
        self, candidates: int | Sequence[str] = 7, *, space: Space = DARTS, **shape: int
    ):
        if isinstance(candidates, int):
            candidates = [o for o in space.candidates if candidates == 8 or o != "none"]
        super().__init__(candidates=candidates, space=space, **shape)

    def init_arch(self) -> None:
        """alpha^(i,j) [candidates] of each edge of both kinds of cell, 1e-3 N(0, 1).

        One parameter per edge: rows of a single tensor would all move by Adam's momentum.
        """
        for kind in self.kinds:
            for i, j in self.edges:
                self.arch[f"alpha_{kind}_{i}-{j}"] = small_noise(len(self.candidates))

    def mix(self, kind: str) -> Mix:
        """softmax(+alpha) of all edges: derived and recorded, not run."""
        alpha = torch.stack([self.arch[f"alpha_{kind}_{i}-{j}"] for i, j in self.edges])
        return Mix(alpha.softmax(-1))

    def sample(self, generator: torch.Generator, per_kind: bool = False) -> tuple[int, ...]:
        """Draw one edge of both kinds of cell together, uniformly (3.2).

        Args:
            generator: of the draw.
            per_kind: draw one edge of each kind of cell instead.

        Returns:
            Numbers of edges: first the normal cell's, then the reduction cell's.
        """
        groups = len(self.kinds) if per_kind else 1
        size = len(self.arch) // groups
        drawn = torch.randint(size, (groups,), generator=generator).tolist()
        return tuple(group * size + edge for group, edge in enumerate(drawn))

    def mixes(
        self, generator: torch.Generator | None = None, sampled: Sequence[int] = (), sigma: int = 1
    ) -> list[Sample | None]:
        """Eq. 2; with sigma = -1 Eq. 3.

        f_j(x_i) = sum_o softmax(sigma alpha^(i,j))_o o(x_i) on the sampled edge (k, l),
                   o_m(x_i) with m = argmax sigma alpha^(i,j) and weight 1 otherwise.

        Deviation: `none` is never o_m, because it would cut the path; the paper does not say.

        Copying all alphas to the CPU is the pass' only wait for the device.

        Args:
            generator: unused; a pass draws nothing.
            sampled: numbers of the relaxed edges, as `sample` returns them; relaxed in every cell
                of their kind.
            sigma: +1, or -1 to use -alpha in softmax and argmax alike.
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
        return [by_kind.get(place.kind) for place in self.places]
