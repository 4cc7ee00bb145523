"""Similarity and types of the candidates in a pool (IV-B, Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence

from common.networks.genotype import Op
from common.networks.ops import POOLS
from pr_darts.morphisms import is_convolution
from pr_darts.pools import Pool

TYPES = ("conv", "pool", "skip", "own")  # own: an operation that a user registered


def type_of(op: Op) -> str:
    """IV-B's "id, pool, conv"; the identity is `skip`, as in genotypes; or `own`."""
    if op.name in POOLS:
        return "pool"
    if op.name == "skip_connect":
        return "skip"
    return "conv" if is_convolution(op) else "own"


def alike(one: Op, other: Op) -> float:
    """(1 + k) / (1 + n) for k out of n equal parameters, 0 for different types (IV-B).

    A convolution has three parameters: kernel, dilation and expansions ("partly similar"). A pool
    has two: its type, and its kernel, always 3. The identity has none. A user's operation is
    similar to itself only.
    """
    if type_of(one) != type_of(other):
        return 0.0
    if type_of(one) == "skip":
        return 1.0
    if type_of(one) == "own":
        return float(one == other)
    if type_of(one) == "pool":
        return (1 + 1 + (one.name == other.name)) / (1 + 2)
    pairs = list(zip(one.expansions, other.expansions, strict=False))
    same_length = len(one.expansions) == len(other.expansions)
    expansions = (same_length + sum(a == b for a, b in pairs)) / (len(pairs) + 1)
    k = (one.kernel == other.kernel) + (one.dilation == other.dilation) + expansions
    return (1 + k) / (1 + 3)


def similarity(pools: Sequence[Pool]) -> float:
    """Mean over all pairs of an edge, a candidate with itself included; then over the edges."""
    means = []
    for pool in pools:
        pairs = [alike(a, b) for a in pool.candidates for b in pool.candidates]
        means.append(sum(pairs) / len(pairs))
    return sum(means) / len(means)


def distribution(pools: Sequence[Pool]) -> dict[str, float]:
    """The share of each type among the candidates of all edges; of `own` only if there are any."""
    types = [type_of(op) for pool in pools for op in pool.candidates]
    present = [name for name in TYPES if name != "own" or name in types]
    return {name: types.count(name) / len(types) for name in present}


def discovered(pools: Sequence[Pool]) -> set[Op]:
    """All operations that any edge ever had (Table III, "discovered")."""
    return {op for pool in pools for op in pool.tried}
