"""The network of a genotype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data.images import large
from common.errors import InputError
from common.networks import ops
from common.networks.drop_path import DropPath
from common.networks.genotype import Cell, FixedCell, Genotype, Op
from common.networks.macro import CellInputs, Place
from common.networks.spaces import space_of


class DerivedCell(nn.Module):
    """The cell of a genotype: each node is the sum of its edges, without any it is zero.

    Edges out of a state share its ReLU, and two cells that of an output.
    """

    def __init__(self, cell: Cell, place: Place):
        super().__init__()
        self.cell, self.place = cell, place
        self.inputs = place.adapters(affine=True)
        self.edges = nn.ModuleList(
            DerivedEdge(e.op, place.channels, place.stride(e.source)) for e in cell.edges
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        """What `Space.handed_on` gives of the cell's inputs -> [B, nodes x C, H, W]."""
        states, relus = self.inputs.past_relu(*inputs), {}

        def read(i: int, module: DerivedEdge) -> Tensor:
            if not module.begins_with_relu:
                return states[i]
            if i not in relus:
                relus[i] = F.relu(states[i])
            return relus[i]

        for node in range(self.cell.inputs, self.cell.inputs + self.cell.nodes):
            flows = [
                module(read(edge.source, module))
                for edge, module in zip(self.cell.edges, self.edges, strict=True)
                if edge.target == node
            ]
            states.append(sum(flows[1:], flows[0]) if flows else self.place.zeros(states[0]))
        return join([states[node] for node in self.cell.output], self.cell.join)


def join(states: Sequence[Tensor], how: str) -> Tensor:
    """Join node outputs: `concat` along the channels, or `mean`."""
    return torch.cat(list(states), 1) if how == "concat" else torch.stack(list(states)).mean(0)


class DerivedEdge(nn.Sequential):
    """An operation with drop-path, except for the stride-1 identity.

    Attributes:
        begins_with_relu: the operation begins with a ReLU; its input has passed one.
    """

    def __init__(self, op: Op, channels: int, stride: int):
        identity = op.name == "skip_connect" and stride == 1
        super().__init__(
            ops.build(op, channels, stride, search=False),
            nn.Identity() if identity else DropPath(),
        )
        self.begins_with_relu = hasattr(self[0], "past_relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] of a state, or of its ReLU -> [B, C, H', W']."""
        operation, drop_path = self
        return drop_path(operation.past_relu(x) if self.begins_with_relu else operation(x))


class FixedReductionCell(nn.Module):
    """GDAS (FRC), Fig. 3: a factorised grouped convolution and a max-pool of each input.

    The 8 groups, ReLUs and normalisations are from the authors' code.
    """

    groups = 8

    def __init__(self, place: Place):
        super().__init__()
        self.inputs = CellInputs(place, affine=True)
        self.convolutions = nn.ModuleList(self._convolution(place.channels) for _ in range(2))
        self.pools = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(3, 2, padding=1), nn.BatchNorm2d(place.channels))
            for _ in range(2)
        )
        self.drop_path = DropPath()

    def _convolution(self, c: int) -> nn.Module:
        return nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(c, c, (1, 3), (1, 2), padding=(0, 1), groups=self.groups, bias=False),
            nn.Conv2d(c, c, (3, 1), (2, 1), padding=(1, 0), groups=self.groups, bias=False),
            nn.BatchNorm2d(c),
            nn.ReLU(),
            nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c),
        )

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        """ReLUs of the outputs of two cells -> [B, 4C, H/2, W/2]."""
        states = self.inputs.past_relu(s0, s1)
        branches = [*self.convolutions, *self.pools]
        return torch.cat(
            [self.drop_path(branch(states[k % 2])) for k, branch in enumerate(branches)], 1
        )


class PoolTo2x2(nn.Module):
    """Average pool with a window of 5/8 of the map in each corner.

    On 8x8 (CIFAR) and 7x7 maps (ImageNet) these are the papers' 5x5 windows with strides 3 and 2;
    the papers have no other sizes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 2, 2]."""
        size = x.shape[-2:]
        if min(size) < 3:  # 2 pixels: windows of one pixel; 1 pixel: repeated
            return F.adaptive_avg_pool2d(x, 2)
        window = [-(-5 * side // 8) for side in size]  # rounded up
        stride = [side - length for side, length in zip(size, window, strict=True)]
        return F.avg_pool2d(x, window, stride)


class AuxiliaryHead(nn.Sequential):
    """A second classifier after the second reduction cell, for training only.

    DARTS, PC-DARTS and GDAS omit the second normalisation on ImageNet (authors' code).
    """

    def __init__(self, channels: int, classes: int, *, large_images: bool):
        super().__init__(
            nn.ReLU(),
            PoolTo2x2(),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),  # -> 1x1
            nn.Identity() if large_images else nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes),
        )


class Network(nn.Module):
    """The network of a genotype (DARTS' evaluation network).

    Args:
        genotype: with a normal and a reduction cell.
        channels: of the first cell's nodes (36 on CIFAR, 48 on ImageNet in the papers).
        cells: number of cells (20 on CIFAR, 14 on ImageNet).
        classes: outputs of the classifier; 0: no classifier, outputs the last map's averages.
        image_channels: 1 for grey, 3 for colour.
        large_images: the ImageNet stem instead of CIFAR's.
        auxiliary: add the auxiliary head after the second reduction cell.

    Attributes:
        places: of the cells in the stack.
        widths: channels of each cell's output.

    Raises:
        InputError: a cell is missing, or a fixed cell does not fit the channels.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        cells: int,
        classes: int,
        *,
        image_channels: int = 3,
        large_images: bool = False,
        auxiliary: bool = False,
    ):
        super().__init__()
        check_genotype(genotype, channels)
        space = space_of(genotype)
        self.handed_on = space.handed_on
        self.stem = space.stem(image_channels, channels, large_images, search=False)
        nodes = {kind: outputs(cell) for kind, cell in genotype.cells.items()}
        self.places = space.places(cells, channels, nodes, self.stem)
        self.widths = [nodes.get(place.kind, 1) * place.channels for place in self.places]
        self.cells = nn.ModuleList(
            place.block() or make_cell(genotype.cells[place.kind], place) for place in self.places
        )
        self.auxiliary_at = max(place.index for place in self.places if place.reduction)
        self.auxiliary = None
        if auxiliary:
            width = self.widths[self.auxiliary_at]
            self.auxiliary = AuxiliaryHead(width, classes, large_images=large_images)
        self.head = space.head(self.widths[-1])
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(self.widths[-1], classes) if classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """[B, channels, H, W] -> logits [B, classes]; in training also the auxiliary head's."""
        *earlier, out = self.stem(images)
        states = [self.handed_on(s) for s in earlier]
        for index, cell in enumerate(self.cells):
            states.append(self.handed_on(out))
            out = cell(*states)
            del states[0]
            if self.training and self.auxiliary is not None and index == self.auxiliary_at:
                auxiliary = self.auxiliary(out)
        logits = self.classifier(self.global_pool(self.head(out)).flatten(1))
        return (logits, auxiliary) if self.training and self.auxiliary is not None else logits

    def set_drop_path(self, probability: float) -> None:
        """Set the probability to drop each edge of each image in training."""
        for module in self.modules():
            if isinstance(module, DropPath):
                module.set(probability)


def build(
    genotype: Genotype, channels: int, cells: int, classes: int, shape: tuple[int, int, int],
    auxiliary: bool,
) -> Network:
    """The network of a genotype for images [C, H, W], whose size chooses the stem."""
    return Network(
        genotype, channels, cells, classes,
        image_channels=shape[0], large_images=large(shape), auxiliary=auxiliary,
    )


def weightless(genotype: Genotype) -> torch.device:
    """The device to build a network on whose weights do not matter: meta, where they take no time.

    The CPU for operations of a user's own, which may need real tensors.
    """
    return torch.device("cpu" if genotype.own_operations() else "meta")


def make_cell(cell: Cell | FixedCell, place: Place) -> nn.Module:
    """The module of a cell in its place."""
    fixed = isinstance(cell, FixedCell)
    return FixedReductionCell(place) if fixed else DerivedCell(cell, place)


def outputs(cell: Cell | FixedCell) -> int:
    """Output channels of a cell, as a multiple of its nodes' channels."""
    if isinstance(cell, FixedCell):
        return 4
    return len(cell.output) if cell.join == "concat" else 1


def check_genotype(genotype: Genotype, channels: int) -> None:
    """Refuse a genotype without an image network of these channels.

    Raises:
        InputError: a cell is missing, the groups of a fixed cell do not divide its channels, or an
            operation of the user's own cannot be built or run.
    """
    kinds = space_of(genotype).kinds
    missing = [kind for kind in kinds if kind not in genotype.cells]
    if missing:
        recurrent = "; this one is recurrent" if "recurrent" in genotype.cells else ""
        raise InputError(
            f"genotype {genotype.name}: an image network needs a {' and a '.join(missing)} cell"
            f"{recurrent}"
        )
    if isinstance(first := genotype.cells[kinds[0]], FixedCell):
        raise InputError(
            f"genotype {genotype.name}: {first.name} halves the resolution and can only be the "
            "reduction cell"
        )
    if kinds == ("cell",) and outputs(first) != 1:
        raise InputError(
            f"genotype {genotype.name}: a NAS-Bench-201 cell has one output, not {first.output}"
        )
    groups = FixedReductionCell.groups
    if isinstance(genotype.cells.get("reduction"), FixedCell) and 2 * channels % groups:
        raise InputError(
            f"--channels {channels}: the fixed reduction cell of {genotype.name} has {groups} "
            f"groups; take a multiple of {groups // 2}"
        )
    ops.try_own(genotype.own_operations(), channels, search=False)
