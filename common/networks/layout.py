"""How gradients lie in memory: as the maps they are of, which a normalisation wants.

On a CPU, one whose gradient lies otherwise than its input takes several times as long
(`evaluate/SPEED.md`). `torch.compile` is left to lay memory out as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def concatenate(maps: Sequence[Tensor]) -> Tensor:
    """`torch.cat` along the channels: M x [B, C, H, W] -> [B, M*C, H, W].

    The gradient of each map is a tensor of its own, laid as the first map lies, not a part of a
    wider one.
    """
    plain = torch.compiler.is_compiling() or not torch.is_grad_enabled()
    return torch.cat(list(maps), 1) if plain else _Concatenate.apply(*maps)


class _Concatenate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *maps):
        ctx.widths = [x.shape[1] for x in maps]
        ctx.memory_format = memory_format_of(maps[0])
        return torch.cat(maps, 1)

    @staticmethod
    def backward(ctx, g):
        parts = zip(g.split(ctx.widths, 1), ctx.needs_input_grad, strict=True)
        return tuple(
            part.contiguous(memory_format=ctx.memory_format) if asked else None
            for part, asked in parts
        )


def laid_as(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """A copy that lies so, whose gradient comes to `x` as `x` lies."""
    plain = torch.compiler.is_compiling()
    return x.clone(memory_format=memory_format) if plain else _LaidAs.apply(x, memory_format)


class _LaidAs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, memory_format):
        ctx.memory_format = memory_format_of(x)
        return x.clone(memory_format=memory_format)

    @staticmethod
    def backward(ctx, g):
        return g.contiguous(memory_format=ctx.memory_format), None


def breaks_a_strided_1x1(x: Tensor, channels: int) -> bool:
    """Whether a strided 1x1 convolution of a map may not be left to PyTorch.

    Its backward pass on a CPU writes past its memory (torch 2.14, maps that lie channels last):
    seen with 8, 10 and 12 channels on maps of 56 and 64 pixels. With a margin: any number of
    channels that 16 does not divide, beyond 32 x 32 pixels.

    Args:
        x: [B, .., H, W].
        channels: that the convolution reads.
    """
    return (
        channels % 16 != 0 and torch.is_grad_enabled() and x.device.type == "cpu"
        and x.shape[-2] * x.shape[-1] > 32 * 32
    )  # fmt: skip


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Channels last where a pixel's channels are neighbours, as in a part of such a map, too."""
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
