"""What the supernets and derived networks of DARTS' space share: stems, and the stack of cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.data.images import large
from common.errors import InputError
from common.networks import ops
from common.networks.genotype import Op

LEAST = 4  # pixels: each of the two reductions gets 2 or more


def check_size(shape: tuple[int, int, int], channels: int) -> None:
    """Refuse images [C, H, W] or channels too small for stem and reduction cells.

    Raises:
        InputError: with the flag and the smallest value.
    """
    height, width = shape[1:]
    if min(height, width) < LEAST:
        raise InputError(
            f"images of {height}x{width} pixels are too small: two reduction cells need {LEAST} "
            f"pixels per side; --image-size {LEAST} or more scales the images of a folder"
        )
    least = 2 if large(shape) else 1  # ImageNet's stem begins with half the channels
    if channels < least:
        raise InputError(f"--channels {channels}: must be at least {least} for these images")


@dataclass(frozen=True)
class Place:
    """A cell's place in the stack: its widths, and whether the resolution changes.

    Another space (`space.py`) subclasses it.
    """

    index: int
    channels: int  # of each of its nodes
    inputs: tuple[int, ...]  # channels of its inputs; DARTS': the outputs of the cells k-2 and k-1
    reduction: bool
    after_reduction: bool  # the cell k-2 has twice this cell's input resolution

    @property
    def kind(self) -> str:
        """`normal` or `reduction`, as a genotype names its cells."""
        return "reduction" if self.reduction else "normal"

    def block(self) -> nn.Module | None:
        """What stands here instead of a cell; None: a cell."""
        return None

    def adapters(self, affine: bool) -> nn.Module:
        """A module from the inputs to a list of the cell's first states.

        Its `past_relu` does the same from what `Space.handed_on` gives.
        """
        return CellInputs(self, affine)

    def stride(self, source: int) -> int:
        """The stride of the edges out of a state."""
        return 2 if self.reduction and source < len(self.inputs) else 1

    def candidate(self, name: str, source: int, width: int) -> nn.Module:
        """An operation of a supernet, on an edge out of a state, with so many channels."""
        return ops.build(Op(name), width, self.stride(source), search=True)

    def outputs(self, nodes: int) -> tuple[int, ...]:
        """The states that a cell of so many computed nodes concatenates."""
        return tuple(range(len(self.inputs), len(self.inputs) + nodes))

    def zeros(self, x: Tensor) -> Tensor:
        """A node of zeros, from the cell's first state."""
        stride = self.stride(0)
        return torch.zeros_like(x[:, :, ::stride, ::stride])


def places(
    cells: int, channels: int, nodes: dict[str, int], stem_outputs: tuple[int, int],
    after_reduction: bool = False,
) -> Iterator[Place]:
    """The stack of DARTS: reduction cells at L//3 and 2L//3, channels double at each.

    Args:
        cells: L.
        channels: of the first cell's nodes.
        nodes: number of node outputs that a cell of each kind concatenates.
        stem_outputs: channels of the two inputs of the first cell.
        after_reduction: whether the first input has twice the resolution (ImageNet).
    """
    inputs = stem_outputs
    for index in range(cells):
        reduction = index in (cells // 3, 2 * cells // 3)
        channels *= 2 if reduction else 1
        place = Place(index, channels, inputs, reduction, after_reduction)
        yield place
        inputs = (inputs[1], nodes[place.kind] * channels)
        after_reduction = reduction


class CellInputs(nn.Module):
    """Adapts the outputs of the two previous cells to this cell's width and resolution."""

    def __init__(self, place: Place, affine: bool):
        super().__init__()
        first = ops.FactorizedReduce if place.after_reduction else ops.ReluConvNorm
        self.first = first(place.inputs[0], place.channels, affine)
        self.second = ops.ReluConvNorm(place.inputs[1], place.channels, affine)

    def forward(self, s0: Tensor, s1: Tensor) -> list[Tensor]:
        """Two states [B, C, H, W]."""
        return [self.first(s0), self.second(s1)]

    def past_relu(self, s0: Tensor, s1: Tensor) -> list[Tensor]:
        """`forward` from the ReLUs of both outputs; two cells read each output."""
        return [self.first.past_relu(s0), self.second.past_relu(s1)]


class SmallStem(nn.Sequential):
    """CIFAR's stem: a 3x3 convolution to three times the channels."""

    def __init__(self, image_channels: int, channels: int):
        super().__init__(
            nn.Conv2d(image_channels, 3 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(3 * channels),
        )
        self.outputs = (3 * channels, 3 * channels)
        self.after_reduction = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both inputs of the first cell are the stem's output."""
        s = super().forward(x)
        return s, s


class LargeStem(nn.Module):
    """ImageNet's stem: three stride-2 convolutions, from 224 pixels to 56 and 28."""

    def __init__(self, image_channels: int, channels: int):
        super().__init__()
        self.quarter = nn.Sequential(
            nn.Conv2d(image_channels, channels // 2, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.eighth = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.outputs = (channels, channels)
        self.after_reduction = True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The maps at a quarter and at an eighth of the image's size."""
        s0 = self.quarter(x)
        return s0, self.eighth(s0)
