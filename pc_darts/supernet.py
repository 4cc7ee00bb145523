"""PC-DARTS' supernet: partial channel connections (Eq. 1) and edge normalisation (Eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.macro import Place
from common.supernet.cell import Mix, MixedEdges, SearchCell, weighted_sums
from common.supernet.supernet import SuperNet, small_noise


class PCDARTSSuperNet(SuperNet):
    """DARTS that mixes 1/K of the channels and learns a weight for each edge.

    Args:
        K: 1/K of the channels enters the candidates (3.2); must divide `channels`.
        edge_normalization: learn beta (3.3); without it a node is a plain sum of its edges.
        mask: "first": mix the first 1/K of the channels, then shuffle (4.1); "random": draw the
            mask S_ij of Eq. 1 for every edge of every cell in each pass (3.2).
        **shape: see `SuperNet`.
    """

    def __init__(
        self, K: int = 4, edge_normalization: bool = True, mask: str = "first", **shape: int
    ):
        self.K, self.edge_normalization, self.mask = K, edge_normalization, mask
        super().__init__(**shape)

    def init_arch(self) -> None:
        """alpha [edges, candidates] and beta [edges] of both kinds of cell, 1e-3 N(0, 1)."""
        super().init_arch()
        for kind in self.kinds if self.edge_normalization else ():
            self.arch[f"beta_{kind}"] = small_noise(len(self.edges))

    def make_cell(self, place: Place) -> nn.Module:
        cell = RandomMaskCell if self.mask == "random" else PartialCell
        return cell(place, self.nodes, self.candidates, self.K)

    def mix(self, kind: str) -> Mix:
        """softmax(alpha_ij) over the candidates (Eq. 1), softmax(beta_j) over a node's (Eq. 2).

        `derive` ranks by their product (3.3).
        """
        alpha = self.arch[f"alpha_{kind}"].softmax(-1)
        if not self.edge_normalization:
            return Mix(alpha)
        first = self.space.inputs
        incoming = range(first, first + self.nodes)  # node j has j incoming edges
        by_node = self.arch[f"beta_{kind}"].split(list(incoming))
        return Mix(alpha, torch.cat([beta.softmax(0) for beta in by_node]))

    def per_cell(
        self, by_kind: dict[str, Mix], generator: torch.Generator | None = None
    ) -> list[Mix]:
        """The mix of each cell's kind; with random masks, each cell gets its own masks."""
        mixes = super().per_cell(by_kind)
        if self.mask == "first":
            return mixes
        return [
            MaskedMix(mix.op, mix.edge, [
                torch.randperm(place.channels, generator=generator) for _ in self.edges
            ]) if mix else None
            for place, mix in zip(self.places, mixes, strict=True)
        ]  # fmt: skip


@dataclass(frozen=True)
class MaskedMix(Mix):
    """A mix and the mask S_ij of Eq. 1 on each edge.

    Attributes:
        order: [edges], each a permutation of the C channels; the first C/K are selected.
    """

    order: Sequence[Tensor] = ()


class PartialCell(SearchCell):
    """Eq. 1 and 2; S selects the first C/K channels.

    The channels are shuffled once per node. Shuffling each edge instead gives the same sum.
    """

    def __init__(self, place: Place, nodes: int, candidates: Sequence[str], K: int):
        self.K = K
        super().__init__(place, nodes, candidates, width=place.channels // K)

    def partition(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Both inputs together: for few channels, fewer operations are faster."""
        (_, targets), *rest = steps = super().partition()
        if self.K == 1:
            return steps
        return [(tuple(range(self.first)), targets), *rest[self.first - 1 :]]

    def flows(
        self, step: MixedEdges, sources: list[Tensor], mix: Mix
    ) -> Sequence[tuple[Tensor, ...]]:
        """sum_i beta_ij [ sum_o alpha_ij^o o(S * x_i)  +  (1 - S) * x_i ]   (Eq. 1 in Eq. 2).

        Here alpha and beta are past their softmax. Both summands have channels of their own: C/K
        and C - C/K. `node` puts them side by side.
        """
        width = step.channels
        parts = [x.split([width, x.shape[1] - width], 1) for x in sources]
        selected, masked = zip(*parts, strict=True)  # S x [B, C/K, ..], S x [B, C - C/K, ..]
        # Every candidate ends in a normalisation without scale (or is the identity), so
        # alpha * beta can be its scale: the weighted sum costs nothing extra.
        alpha, beta = mix.of(step)  # [S, T, candidates], [S, T]
        if beta is None:
            beta = torch.ones_like(alpha[..., 0])
        mixed = step(selected, alpha * beta[..., None])  # T x [B, C/K, H', W']
        if self.K == 1:
            return list(zip(mixed))
        past = bypass(masked, beta, step.stride)  # T x [B, C - C/K, H', W']
        return list(zip(mixed, past, strict=True))

    def node(self, flows: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """The sum of a node's edges, shuffled: channel g * C/K + c moves to c * K + g (4.1)."""
        parts = [sum(part[1:], part[0]) for part in zip(*flows, strict=True)]
        return parts[0] if self.K == 1 else F.channel_shuffle(torch.cat(parts, 1), self.K)


class RandomMaskCell(PartialCell):
    """Eq. 1 with a new mask for each edge in each pass (3.2), without a shuffle."""

    def partition(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Every edge alone, because each selects other channels."""
        return [((i,), (j,)) for i, j in self.edges]

    def flows(
        self, step: MixedEdges, sources: list[Tensor], mix: MaskedMix
    ) -> Sequence[Tensor]:
        """Move the selected channels to the front, apply Eq. 1, and move them back."""
        (x,), (i,), (j,) = sources, step.sources, step.targets
        order = mix.order[self.edges.index((i, j))]
        back = order.argsort().to(x.device, non_blocking=True)
        order = order.to(x.device, non_blocking=True)
        (parts,) = super().flows(step, [x[:, order]], mix)
        return [torch.cat(parts, 1)[:, back]]

    node = SearchCell.node  # a sum, not shuffled


def bypass(masked: Sequence[Tensor], beta: Tensor, stride: int) -> Sequence[Tensor]:
    """sum_i beta_ij (1 - S) * x_i: S x [B, C', H, W], [S, T] -> T x [B, C', H', W'].

    Deviation: on stride-2 edges the channels pass a 2x2 max-pool, as in the authors' code; the
    paper does not say how their resolution is halved.
    """
    if stride == 2:
        masked = [F.max_pool2d(x, 2, ceil_mode=True) for x in masked]
    return weighted_sums(masked, beta)
