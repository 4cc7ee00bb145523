"""An edge's pool of candidates, and how it changes after a cycle (III-B.2).

Independent of networks: these functions map a pool and its candidates' weights to a new pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch

from common.networks.genotype import Op
from pr_darts.morphisms import Space, is_convolution, morphisms


@dataclass(frozen=True)
class Pool:
    """The candidates of one edge.

    Attributes:
        candidates: in the order of the edge's alphas.
        tried: all candidates this edge ever had, in order of discovery.
    """

    candidates: tuple[Op, ...]
    tried: tuple[Op, ...]

    @classmethod
    def first(cls, candidates: Sequence[Op]) -> Pool:
        """The pool before the first cycle."""
        return cls(tuple(candidates), tuple(candidates))

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {key: [list(astuple(op)) for op in ops] for key, ops in vars(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Pool:
        """The inverse of `to_json`."""
        return cls(**{key: tuple(_op(*op) for op in ops) for key, ops in data.items()})


def prune(pool: Pool, weights: Sequence[float], size: int) -> Pool:
    """Remove the worst candidates, but never the best convolution (III-B.2).

    "except when finalizing the architecture": that is `PRDARTSSuperNet.derive`.

    Args:
        pool: of one edge.
        weights: of its candidates; of equal ones the earlier stays.
        size: number of candidates to keep; a smaller pool stays as it is.
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
    """Add morphed children to a pruned pool (III-B.2).

    The paper draws a parent "distributed by the Softmax function" and one of its morphisms
    "uniformly", and draws again while the child "is or was already part of the candidate pool".
    That gives each pair of parent and new child a probability proportional to the parent's weight
    divided by the number of its morphisms, so we draw the pair directly. If no morphism of any
    survivor is new, a pruned one is re-admitted in the same way; if there is none, the pool stays
    smaller.

    Args:
        pool: the survivors, which are the only parents.
        weights: softmax of alpha at the end of the cycle, of the survivors at least.
        count: number of children to add.
        space: limits of the morphisms.
        generator: of the draws.

    Returns:
        The new pool, and the parent of each child.
    """
    pairs = []  # (parent, child, probability up to a factor)
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


def _op(name: str, kernel: int | None, dilation: int | None, expansions: Any) -> Op:
    return Op(name, kernel, dilation, None if expansions is None else tuple(expansions))
