"""Algorithm 1: transition-induced iterative edge pruning (3.4).

Plain code on small tensors, in the paper's names; the numbers are the lines of Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.genotype import Cell, Edge, Op

Reweighting = Literal["logits", "scores"]
Pair, Triple = tuple[int, int], tuple[int, int, int]


def prune(
    outer: Mapping[Pair, Tensor],
    P: Mapping[Triple, Tensor],
    b: Mapping[Triple, Tensor],
    candidates: Sequence[str],
    reweighting: Reweighting = "logits",
) -> Cell:
    """Keep two edges a node, node by node, each decision made before the next is looked at.

    Deviation: the text prunes the weakest edge of a node (3.4), Algorithm 1 keeps the two strongest
    ones; only the second leaves two edges at nodes with more than three.

    Args:
        outer: Z^(i,j) [K] of the outer edges, i < 2: distributions.
        P: P^(m,i,j) [K, K]; each row is a distribution.
        b: the attention's logits, of which beta^(m,i,j) is the softmax over m; scalars.
        candidates: the operation of each column.
        reweighting: see `attention`.

    Returns:
        The cell, stronger edge first, ties to the earlier input.
    """
    Z = dict(outer)  # 1
    nodes = sorted({j for _, j in outer})  # 2, 3, ...

    for j in nodes:  # 3, 4: topology initialization; any (m, i) comes before (i, j)
        for i in range(2, j):
            Z[i, j] = transit(Z, P, b, i, j, range(i))  # 5; 16 will do each anew before 19 reads it

    M = {2: strongest(Z, 2)}  # 8: there are only these two
    for j in nodes[1:]:  # 9
        for i in range(2, j):  # 10; all of these (i, j) are inner, 11
            for m in range(i):  # 12
                if (m, i) in M[i]:  # 13
                    Z[m, i] = one_hot(Z[m, i])  # 14, Eq. 13
            Z[i, j] = transit(Z, P, b, i, j, (m for m, _ in M[i]), reweighting)  # 16
        M[j] = strongest(Z, j)  # 19, 20

    kept = [
        Edge(i, j, Op(candidates[int(Z[i, j].argmax())])) for j in nodes for i, _ in M[j]
    ]
    return Cell(2, tuple(kept), tuple(nodes))


def transit(
    Z: Mapping[Pair, Tensor],
    P: Mapping[Triple, Tensor],
    b: Mapping[Triple, Tensor],
    i: int,
    j: int,
    predecessors: Iterable[int],
    reweighting: Reweighting = "logits",
) -> Tensor:
    """Eq. 11 of one inner edge: Z^(i,j) = sum over m of beta^(m,i,j) Z^(m,i) P^(m,i,j).

    Deviation: line 16 prints the sum over all m; here, as in Eq. 15, over the predecessors that
    are left, and beta sums to 1 over them (see `attention`), so Z^(i,j) is a distribution.

    Args:
        Z, P, b: see `prune`; Z with the rows of the predecessors.
        i, j: the edge.
        predecessors: m of the edges (m, i) that are there.
        reweighting: see `attention`.
    """
    left = list(predecessors)
    beta = attention(torch.stack([b[m, i, j] for m in range(i)]), left, reweighting)
    return sum(weight * (Z[m, i] @ P[m, i, j]) for weight, m in zip(beta, left, strict=True))


def attention(logits: Tensor, left: Sequence[int], reweighting: Reweighting) -> Tensor:
    """beta of the predecessors left; "we reweight the attention score ... by softmax" (3.4).

    Args:
        logits: [m], of all predecessors; their softmax are the scores of Eq. 12.
        left: those that are left.
        reweighting: "logits": the softmax of the logits left, so scores keep their ratios;
            "scores": the softmax of the scores left, where some are gone.
    """
    scores = logits.softmax(0)
    if reweighting == "scores" and len(left) < len(logits):
        return scores[left].softmax(0)
    return logits[left].softmax(0)


def strongest(Z: Mapping[Pair, Tensor], j: int) -> list[Pair]:
    """The edges into node j with top-2 max(Z^(i,j)), the stronger first."""
    edges = [(i, j) for i in range(j)]
    edges.sort(key=lambda edge: -Z[edge].max().item())  # stable: ties keep their order
    return edges[:2]


def one_hot(row: Tensor) -> Tensor:
    """Eq. 13: all weight to the best operation."""
    return F.one_hot(row.argmax(), len(row)).to(row)
