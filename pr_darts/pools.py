"""The pool of an edge: what is in it, what ever was, and how it changes after a cycle (III-B.2).

Nothing here depends on networks: a pool and the weights of its candidates come in, a pool goes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.networks.genotype import Op
from pr_darts.morphisms import Space, is_convolution, morphisms


@dataclass(frozen=True)
class Pool:
    """The candidates of one edge.

    Attributes:
        candidates: in the order of the edge's alphas.
        tried: all that ever were candidates here, in the order of their discovery.
    """

    candidates: tuple[Op, ...]
    tried: tuple[Op, ...]

    @classmethod
    def first(cls, candidates: Sequence[Op]) -> Pool:
        """What every edge begins with."""
        return cls(tuple(candidates), tuple(candidates))

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {key: [_plain(op) for op in getattr(self, key)] for key in ("candidates", "tried")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Pool:
        """The inverse of `to_json`."""
        return cls(*(tuple(_op(op) for op in data[key]) for key in ("candidates", "tried")))


def prune(pool: Pool, weights: Sequence[float], size: int) -> Pool:
    """Remove the worst candidates; the best convolution stays whatever it weighs.

    "except when finalising the architecture": that is `PRDARTSSuperNet.derive`, not this.

    Args:
        pool: of one edge.
        weights: of its candidates; ties keep the earlier.
        size: how many may stay; a smaller pool stays as it is.
    """
    ranked = sorted(range(len(pool.candidates)), key=lambda k: -weights[k])
    kept = ranked[:size]
    best = [k for k in ranked if is_convolution(pool.candidates[k])][:1]
    if not set(best) <= set(kept):
        kept = [*kept[:-1], *best]
    return Pool(tuple(pool.candidates[k] for k in sorted(kept)), pool.tried)


def replenish(
    pool: Pool, weights: dict[Op, float], count: int, space: Space, generator: torch.Generator
) -> tuple[Pool, dict[Op, Op]]:
    """Add morphed children of a pruned pool's candidates.

    "we randomly pick candidates distributed by the Softmax function"; "one of the available
    morphisms is picked uniformly"; if the child "is or was already part of the candidate pool ...
    a new parent operation will be sampled". Repeated until it ends, that draws a pair of parent and
    new child with probability proportional to the parent's weight over the number of its
    morphisms; so here the pair is drawn at once. Where no morphism of any survivor is new, a
    pruned configuration comes back by the same law; where none is left of these either, the edge
    gets fewer candidates.

    Args:
        pool: the survivors, who are the only parents: children of this cycle have none.
        weights: softmax of alpha in the cycle that ended, at least of the survivors.
        count: how many to add.
        space: what morphisms keep to.
        generator: of the draws.

    Returns:
        The pool, and the parent of each child.
    """
    pairs = []  # (parent, child, how likely the parent is drawn and becomes this child)
    for parent in pool.candidates:
        children = morphisms(parent, space)
        pairs += [(parent, child, weights[parent] / len(children)) for child in children]
    parents: dict[Op, Op] = {}
    for _ in range(count):
        tried = {*pool.tried, *parents}
        present = {*pool.candidates, *parents}
        options = [pair for pair in pairs if pair[1] not in tried]
        options = options or [pair for pair in pairs if pair[1] not in present]
        if not options:
            break
        chances = torch.tensor([chance for *_, chance in options], dtype=torch.float64)
        drawn = int(torch.multinomial(chances, 1, generator=generator))
        parent, child, _ = options[drawn]
        parents[child] = parent
    tried = dict.fromkeys((*pool.tried, *parents))
    return Pool((*pool.candidates, *parents), tuple(tried)), parents


def _plain(op: Op) -> list[Any]:
    return [op.name, op.kernel, op.dilation, op.expansions and list(op.expansions)]


def _op(plain: list[Any]) -> Op:
    name, kernel, dilation, expansions = plain
    return Op(name, kernel, dilation, None if kernel is None else tuple(expansions))
