"""Search spaces: what cells there are, what is in them, and how a network is made of them.

A method says how the candidates of an edge are mixed and how a cell is derived; the space says the
rest. `Place` (`macro.py`) is its other half: what surrounds one cell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.genotype import CANDIDATES
from common.networks.macro import LargeStem, Place, SmallStem, places


@dataclass(frozen=True)
class Space(ABC):
    """A search space.

    Attributes:
        name: of `--space`.
        inputs: states of a cell that are not computed: the outputs of so many previous cells.
        kinds: of cells that are searched, as a genotype names them.
        candidates: operations of each edge, in the column order of alpha.
        kept: edges that a derived cell keeps for each node; None: all.
        derives_none: `none` is an operation of derived cells, too.
        least_cells: the smallest `--cells`.
    """

    name: str
    inputs: int
    kinds: tuple[str, ...]
    candidates: tuple[str, ...]
    kept: int | None
    derives_none: bool
    least_cells: int

    def searched(self, own: Sequence[str]) -> Sequence[str]:
        """The candidates of a method whose own, in DARTS' space, are these."""
        return [name for name in self.candidates if name != "none" or "none" in own]

    @abstractmethod
    def outputs(self, nodes: int) -> int:
        """How many node outputs a cell of so many computed nodes concatenates."""

    @abstractmethod
    def stem(
        self, image_channels: int, channels: int, large_images: bool, search: bool
    ) -> nn.Module:
        """From images to the inputs of the first cell, a tuple; `outputs` are their channels."""

    @abstractmethod
    def places(
        self, cells: int, channels: int, nodes: Mapping[str, int], stem: nn.Module
    ) -> list[Place]:
        """The stack of cells, and of blocks between them.

        Args:
            cells: `--cells`.
            channels: of the first cell's nodes.
            nodes: number of node outputs that a cell of each kind concatenates.
            stem: of `stem`.
        """

    def handed_on(self, x: Tensor) -> Tensor:
        """What the next cells get of a cell's output or the stem's."""
        return x

    def head(self, width: int) -> nn.Module:
        """Between the last cell's output and the global pool."""
        return nn.Identity()


class DARTSSpace(Space):
    """Two inputs, two kinds of cell, two edges per node, reduction cells at a third and two."""

    def searched(self, own: Sequence[str]) -> Sequence[str]:
        return own

    def outputs(self, nodes: int) -> int:
        return nodes

    def stem(
        self, image_channels: int, channels: int, large_images: bool, search: bool
    ) -> nn.Module:
        """CIFAR's stem or ImageNet's."""
        if not large_images:
            return SmallStem(image_channels, channels)
        # In a search three times the channels on ImageNet, too, as in PC-DARTS' code (24, 48, 48).
        return LargeStem(image_channels, 3 * channels if search else channels)

    def places(
        self, cells: int, channels: int, nodes: Mapping[str, int], stem: nn.Module
    ) -> list[Place]:
        return list(places(cells, channels, nodes, stem.outputs, stem.after_reduction))

    def handed_on(self, x: Tensor) -> Tensor:
        """Its ReLU, as both cells that read it begin with one."""
        return F.relu(x)


DARTS = DARTSSpace(
    "darts", inputs=2, kinds=("normal", "reduction"), candidates=CANDIDATES, kept=2,
    derives_none=False, least_cells=3,
)  # fmt: skip
