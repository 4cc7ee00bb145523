"""The supernet: with nothing overridden, first-order DARTS.

A method defines its architecture parameters (`init_arch`), their mixing weights (`mix`, or `mixes`
if cells of a kind differ), the computation of a cell (`make_cell`), the loss of the arch step
(`arch_loss`), and the derivation of a cell (`strengths` or `derive`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data.images import Images, large
from common.networks.genotype import CANDIDATES, Cell, Edge, FixedCell, Op
from common.networks.macro import Place
from common.networks.space import DARTS, Space
from common.networks.spaces import SPACES
from common.run.config import SearchConfig, SpaceFlags
from common.supernet.cell import Mix, SearchCell, cell_edges

KINDS = DARTS.kinds


class SuperNet(nn.Module):
    """A stack of search cells with shared architecture parameters (DARTS, section 2).

    Args:
        channels: of the first cell's nodes.
        cells: number of cells, with reduction cells at a third and two thirds.
        nodes: computed nodes of a cell (the papers' N includes the two inputs: N = nodes + 2).
        classes: outputs of the classifier.
        image_channels: 1 for grey, 3 for colour.
        large_images: the ImageNet stem instead of CIFAR's.
        derive_none: allow `none` as the best operation of an edge.
        candidates: names of the operations of each edge; None: the method's own.
        space: of the cells.
    """

    candidates: Sequence[str] = CANDIDATES
    kinds: Sequence[str] = ()  # of cells that are searched; empty: all of the space
    memory_format = torch.channels_last  # of all maps; fastest for convolutions and pools

    def __init__(
        self,
        channels: int = 16,
        cells: int = 8,
        nodes: int = 4,
        classes: int = 10,
        *,
        image_channels: int = 3,
        large_images: bool = False,
        derive_none: bool = False,
        candidates: Sequence[str] | None = None,
        space: Space = DARTS,
    ):
        super().__init__()
        self.space, self.kinds = space, self.kinds or space.kinds
        self.candidates = tuple(candidates or space.searched(self.candidates))
        self.nodes, self.derive_none = nodes, derive_none or space.derives_none
        self.edges = cell_edges(nodes, space.inputs)
        self.stem = space.stem(image_channels, channels, large_images, search=True)
        concatenated = self.concatenated()
        self.places = space.places(cells, channels, concatenated, self.stem)
        self.cells = nn.ModuleList(place.block() or self.make_cell(place) for place in self.places)
        last = self.places[-1]
        width = concatenated[last.kind] * last.channels
        self.head, self.classifier = space.head(width), nn.Linear(width, classes)
        self.arch = nn.ParameterDict()
        self.init_arch()

    # --------------------------------------------------------------- what a method may override

    def init_arch(self) -> None:
        """alpha_normal and alpha_reduction, [edges, candidates], 1e-3 N(0, 1)."""
        for kind in self.kinds:
            self.arch[f"alpha_{kind}"] = small_noise(len(self.edges), len(self.candidates))

    def concatenated(self) -> dict[str, int]:
        """Number of node outputs that a cell of each kind concatenates."""
        return dict.fromkeys(self.space.kinds, self.space.outputs(self.nodes))

    def make_cell(self, place: Place) -> nn.Module:
        """A search cell, called as cell(s0, s1, mix), or cell(s0, s1) if its kind is not searched.

        s0 and s1 are ReLUs of the outputs of the two previous cells; in another space, what
        `Space.handed_on` gives of as many as cells have inputs.
        """
        return SearchCell(place, self.nodes, self.candidates)

    def mix(self, kind: str) -> Mix:
        """The weights of a cell of this kind: softmax over the candidates (DARTS, Eq. 2)."""
        return Mix(self.arch[f"alpha_{kind}"].softmax(-1))

    def mixes(self, generator: torch.Generator | None = None) -> list[Mix | None]:
        """The mix of each cell in one forward pass; cells of a kind share it.

        Methods add further arguments, such as a temperature. A search's draws here are equal on
        all processes and after a resume, whether by `generator` or by torch's own generators.

        Args:
            generator: for sampling; None: torch's own.
        """
        return self.relaxed(generator)

    def relaxed(self, generator: torch.Generator | None = None) -> list[Mix | None]:
        """The mix of each cell with all candidates on every edge, without sampling."""
        return self.per_cell({kind: self.mix(kind) for kind in self.kinds}, generator)

    def arch_loss(
        self, images: Tensor, labels: Tensor, mixes: Sequence[Mix] | None = None
    ) -> tuple[Tensor, Tensor]:
        """`loss` in the arch step; a method may add terms that the weight step does not have."""
        return self.loss(images, labels, mixes)

    def strengths(self, kind: str) -> Tensor:
        """[edges, candidates]: strengths that derivation ranks."""
        mix = self.mix(kind)
        return mix.op if mix.edge is None else mix.op * mix.edge[:, None]

    @torch.no_grad()
    def derive(self) -> dict[str, Cell | FixedCell]:
        """The discrete cells of the current architecture parameters."""
        return {
            kind: strongest(
                self.strengths(kind).cpu(), self.edges, self.candidates, self.derive_none,
                self.space,
            )
            for kind in self.kinds
        }

    # ------------------------------------------------------------------------- what all share

    def forward(self, images: Tensor, mixes: Sequence[Mix] | None = None) -> Tensor:
        """[B, image channels, H, W] -> logits [B, classes].

        Args:
            images: normalised.
            mixes: one per cell; None: `self.mixes()`.
        """
        images = images.contiguous(memory_format=self.memory_format)
        stem = (s.contiguous(memory_format=self.memory_format) for s in self.stem(images))
        *earlier, out = stem
        states = [self.space.handed_on(s) for s in earlier]
        for cell, mix in zip(self.cells, mixes or self.mixes(), strict=True):
            states.append(self.space.handed_on(out))
            out = cell(*states) if mix is None else cell(*states, mix)
            del states[0]
        out = self.head(out)
        # Average pooling gives gradients in the maps' memory format, unlike `mean`.
        return self.classifier(F.avg_pool2d(out, out.shape[2:]).flatten(1))

    def per_cell(
        self, by_kind: dict[str, Mix], generator: torch.Generator | None = None
    ) -> list[Mix | None]:
        """The mix of each cell, by its kind; None if the kind is not searched."""
        return [by_kind.get(place.kind) for place in self.places]

    def metrics(self, **given: Any) -> dict[str, float]:
        """Further metrics of a method for each epoch.

        Args:
            **given: arguments of `mixes`.
        """
        return {}

    def recorded(self, kind: str) -> dict[str, Any]:
        """Further entries of a method in architecture.jsonl, for one kind of cell."""
        return {}

    def loss(
        self, images: Tensor, labels: Tensor, mixes: Sequence[Mix] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy (a scalar) and logits [B, classes]."""
        # Sample here, outside of the compiled `forward`.
        logits = self(images, self.mixes() if mixes is None else mixes)
        return F.cross_entropy(logits, labels), logits

    def arch_parameters(self) -> list[nn.Parameter]:
        """Parameters of the arch step."""
        return list(self.arch.values())

    def weight_parameters(self) -> list[nn.Parameter]:
        """Parameters of the weight step."""
        return [p for name, p in self.named_parameters() if not name.startswith("arch.")]


def shape(config: SearchConfig, images: Images) -> dict[str, Any]:
    """Arguments of `SuperNet` for these images."""
    space = SPACES[config.space] if isinstance(config, SpaceFlags) else DARTS
    return {
        "channels": config.channels, "cells": config.cells, "nodes": config.nodes - space.inputs,
        "classes": len(images.classes), "image_channels": images.shape[0],
        "large_images": large(images.shape), "space": space,
    }


def small_noise(*shape: int) -> nn.Parameter:
    """1e-3 N(0, 1): nearly equal initial mixing weights."""
    return nn.Parameter(1e-3 * torch.randn(shape))


def strongest(
    strengths: Tensor, edges: Sequence[tuple[int, int]], candidates: Sequence[str],
    derive_none: bool = False, space: Space = DARTS,
) -> Cell:
    """DARTS' derivation: the best operation of each edge, the strongest edges of each node.

    Args:
        strengths: [edges, candidates]; the best operation gives the strength of an edge.
        edges: (source, target) of each row.
        candidates: the operation of each column.
        derive_none: let `none` compete; an edge with `none` outputs zeros.
        space: keeps two edges of each node, or all.

    Returns:
        The cell; of a node's two edges, the stronger first, and ties in order of their inputs.
    """
    names = [name for name in candidates if derive_none or name != "none"]
    columns = [candidates.index(name) for name in names]
    best = strengths[:, columns].max(-1)
    nodes, kept = sorted({j for _, j in edges}), []
    for node in nodes:
        rows = [row for row, (_, j) in enumerate(edges) if j == node]
        if space.kept is not None:
            rows.sort(key=lambda row: -best.values[row].item())  # stable: ties keep their order
        rows = rows[: space.kept]
        kept += [Edge(edges[row][0], node, Op(names[best.indices[row]])) for row in rows]
    return Cell(space.inputs, tuple(kept), tuple(nodes[-space.outputs(len(nodes)) :]))
