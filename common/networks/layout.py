"""Gradients keep their activation's memory format; CPU BatchNorm is slow otherwise.

See `evaluate/SPEED.md`. `torch.compile` chooses formats itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def concatenate(maps: Sequence[Tensor]) -> Tensor:
    """`torch.cat` along the channels: M x [B, C, H, W] -> [B, M*C, H, W].

    The gradient of each map is a tensor of its own, in the memory format of the first map.
    """
    if len(maps) == 1:
        return maps[0]
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


def to_format(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Copy to `memory_format`; the gradient keeps x's format."""
    plain = torch.compiler.is_compiling()
    return x.clone(memory_format=memory_format) if plain else _ToFormat.apply(x, memory_format)


class _ToFormat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, memory_format):
        ctx.memory_format = memory_format_of(x)
        return x.clone(memory_format=memory_format)

    @staticmethod
    def backward(ctx, g):
        return g.contiguous(memory_format=ctx.memory_format), None


def breaks_a_strided_1x1(x: Tensor, channels: int) -> bool:
    """Whether PyTorch's strided 1x1 convolution could corrupt memory.

    Its backward pass on a CPU writes out of bounds (torch 2.14, channels-last maps; seen with 2 to
    6 channels on maps of 8 pixels, and with 8, 10 and 12 on maps of 56 and 64). True, with a
    margin, for all numbers of channels that 16 does not divide.

    Args:
        x: [B, .., H, W].
        channels: input channels of the convolution.
    """
    return channels % 16 != 0 and torch.is_grad_enabled() and x.device.type == "cpu"


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Channels-last if the channels of a pixel are neighbours, as in a slice of such a map."""
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
