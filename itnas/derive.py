"""Algorithm 1: transition-induced iterative edge pruning (3.4), in the paper's names.

Numbers in comments are the lines of Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.genotype import Cell, Edge, Op
from common.networks.space import DARTS, Space

Reweighting = Literal["logits", "scores"]
Pair, Triple = tuple[int, int], tuple[int, int, int]


def prune(
    outer: Mapping[Pair, Tensor],
    P: Mapping[Triple, Tensor],
    b: Mapping[Triple, Tensor],
    candidates: Sequence[str],
    reweighting: Reweighting = "logits",
    space: Space = DARTS,
) -> Cell:
    """Keep two edges a node (NAS-Bench-201: all), one node after another.

    Lines 3 to 6 are left out: line 16 computes the same Z^(i,j) again before line 19 reads it.

    Deviation: the text prunes a node's weakest edge (3.4), Algorithm 1 keeps the two strongest. We
    follow Algorithm 1, which leaves two edges at nodes with more than three, too.

    Args:
        outer: rows Z^(i,j) [K] of the outer edges (i is an input), distributions.
        P: transition matrices P^(m,i,j) [K, K], each row a distribution.
        b: attention logits, scalars; beta^(m,i,j) is their softmax over m.
        candidates: the operation of each of the K columns.
        reweighting: see `attention`.
        space: of the cell.

    Returns:
        The cell; a node's stronger edge comes first, of equal ones the earlier.
    """
    Z = dict(outer)  # 1
    nodes = sorted({j for _, j in outer})  # 2, 3, ...
    first = nodes[0]
    M = {first: strongest(Z, first, space.kept)}  # 8: it has only outer edges
    for j in nodes[1:]:  # 9
        for i in range(first, j):  # 10; all these edges (i, j) are inner, 11
            for edge in M[i]:  # 12, 13
                Z[edge] = one_hot(Z[edge])  # 14, Eq. 13
            Z[i, j] = transit(Z, P, b, i, j, (m for m, _ in M[i]), reweighting)  # 16
        M[j] = strongest(Z, j, space.kept)  # 19, 20
    kept = [Edge(i, j, Op(candidates[int(Z[i, j].argmax())])) for j in nodes for i, _ in M[j]]
    return Cell(space.inputs, tuple(kept), tuple(nodes[-space.outputs(len(nodes)) :]))


def transit(
    Z: Mapping[Pair, Tensor],
    P: Mapping[Triple, Tensor],
    b: Mapping[Triple, Tensor],
    i: int,
    j: int,
    predecessors: Iterable[int],
    reweighting: Reweighting = "logits",
) -> Tensor:
    """Eq. 11 for one inner edge: Z^(i,j) = sum over m of beta^(m,i,j) Z^(m,i) P^(m,i,j).

    Deviation: line 16 sums over all m. We follow Eq. 15, which sums over the remaining
    predecessors, with beta summing to 1 over them; so Z^(i,j) is a distribution.

    Args:
        Z, P, b: see `prune`; Z with the rows of the predecessors.
        i, j: the edge.
        predecessors: the m of the remaining edges (m, i).
        reweighting: see `attention`.
    """
    left = list(predecessors)
    beta = attention(torch.stack([b[m, i, j] for m in range(i)]), left, reweighting)
    return sum(weight * (Z[m, i] @ P[m, i, j]) for weight, m in zip(beta, left, strict=True))


def attention(logits: Tensor, left: Sequence[int], reweighting: Reweighting) -> Tensor:
    """beta over the remaining predecessors: "we reweight the attention score ... by softmax" (3.4).

    Args:
        logits: [m], of all predecessors; their softmax gives the scores of Eq. 12.
        left: the remaining predecessors.
        reweighting: "logits": softmax of the remaining logits, which keeps the scores' ratios;
            "scores": softmax of the remaining scores, once some were pruned.
    """
    scores = logits.softmax(0)
    if reweighting == "scores" and len(left) < len(logits):
        return scores[left].softmax(0)
    return logits[left].softmax(0)


def strongest(Z: Mapping[Pair, Tensor], j: int, kept: int | None = 2) -> list[Pair]:
    """The edges into node j with top-2 max(Z^(i,j)), the stronger first; None: all, in order."""
    edges = [(i, j) for i in range(j)]
    if kept is not None:
        edges.sort(key=lambda edge: -Z[edge].max().item())  # stable: ties keep their order
    return edges[:kept]


def one_hot(row: Tensor) -> Tensor:
    """Eq. 13: all weight on the best operation."""
    return F.one_hot(row.argmax(), len(row)).to(row)
