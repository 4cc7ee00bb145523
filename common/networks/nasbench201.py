"""NAS-Bench-201's space (Dong and Yang, ICLR 2020), where every cell's accuracy is known.

A cell has one input and three nodes; each of the six edges keeps one of five operations, `none`
among them; the last node is the output. Three stages of N cells have C, 2C and 4C channels, with a
residual block between them that halves the resolution. In a search, unlike in DARTS' space, no
normalisation follows a pool, as in the benchmark's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from common.networks import ops
from common.networks.macro import Place
from common.networks.space import Space

STAGES = 3


@dataclass(frozen=True)
class StagePlace(Place):
    """The place of a cell, which never halves the resolution, or of a residual block."""

    @property
    def kind(self) -> str:
        """`cell`, as a genotype names it, or `residual`."""
        return "residual" if self.reduction else "cell"

    def block(self) -> nn.Module | None:
        return Residual(self.inputs[0], self.channels) if self.reduction else None

    def adapters(self, affine: bool) -> nn.Module:
        return Unchanged()

    def candidate(self, name: str, source: int, width: int) -> nn.Module:
        if name in ops.POOLS:
            return ops.pooling(name, self.stride(source))
        return super().candidate(name, source, width)

    def outputs(self, nodes: int) -> tuple[int, ...]:
        """The last node."""
        return (nodes,)


class NASBench201Space(Space):
    """`--cells` is N. The benchmark's networks have C = 16 and N = 5: 5 + 1 + 5 + 1 + 5 places."""

    def outputs(self, nodes: int) -> int:
        return 1

    def stem(
        self, image_channels: int, channels: int, large_images: bool, search: bool
    ) -> nn.Module:
        """The same for images of all sizes."""
        return Stem(image_channels, channels)

    def places(
        self, cells: int, channels: int, nodes: Mapping[str, int], stem: nn.Module
    ) -> list[Place]:
        """Stages of so many cells."""
        stack: list[Place] = []
        for stage in range(STAGES):
            width = channels * 2**stage
            if stage > 0:
                stack.append(StagePlace(len(stack), width, (width // 2,), True, False))
            for _ in range(cells):
                stack.append(StagePlace(len(stack), width, (width,), False, False))
        return stack

    def head(self, width: int) -> nn.Module:
        """Normalisation and ReLU."""
        return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())


class Stem(nn.Sequential):
    """A 3x3 convolution to the first cell's channels."""

    def __init__(self, image_channels: int, channels: int):
        super().__init__(
            nn.Conv2d(image_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.outputs, self.after_reduction = (channels,), False

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """The first cell's only input."""
        return (super().forward(x),)


class Unchanged(nn.Module):
    """The input of a cell is its first state."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]

    def past_relu(self, x: Tensor) -> list[Tensor]:
        """The same, as cells hand on their outputs without a ReLU."""
        return [x]


class Residual(nn.Module):
    """ResNet's basic block with stride 2: two 3x3 convolutions, and a pool on the shortcut.

    Deviation: odd sizes are rounded up on the shortcut, too, so that all image sizes work.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            ops.ReluConvNorm(inputs, outputs, affine=True, kernel=3, stride=2),
            ops.ReluConvNorm(outputs, outputs, affine=True, kernel=3),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 2C, H / 2, W / 2]."""
        return self.convolutions(x) + self.shortcut(x)


NASBENCH201 = NASBench201Space(
    "nasbench201", inputs=1, kinds=("cell",),
    candidates=("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
    kept=None, derives_none=True, least_cells=1,
)  # fmt: skip
