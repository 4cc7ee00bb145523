"""Depthwise and pointwise convolutions of many edges at once.

There is no nonlinearity between the two, so they can be composed or computed one after the other.
All maps are channels-last, where depthwise convolutions and pools are several times faster on a CPU
(see `evaluate/SPEED.md`). They are cut and rearranged as [B, H, W, C], so gradients are
channels-last, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from common.networks.layout import breaks_a_strided_1x1

# Up to this many channels per edge, one dense convolution is faster for edges that share their
# input, and for a single edge. With more, its C times more products cost more than it saves.
COMPOSED_UP_TO = 8


@dataclass(frozen=True)
class Read:
    """What the separable convolutions of E edges read; those of the same dilation share it.

    Attributes:
        x: [B * n * n, E * C, H', W'], or [B, G * C, H', W'] if `composed`.
        groups: G inputs, each of E / G successive edges.
        phases: n, the map is split into images of every n-th pixel.
        stride: that is left for the depthwise convolution.
        dilation: that is left for the depthwise convolution.
        composed: both convolutions are composed into one.
    """

    x: Tensor
    groups: int
    phases: int
    stride: int
    dilation: int
    composed: bool


def separable(
    x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, dilation: int
) -> Tensor:
    """A separable convolution of each of E edges.

    Args:
        x: [B, G * C, H, W]: G inputs, each of E / G successive edges.
        depthwise: [E, C, 1, k, k].
        pointwise: [E, C', C, 1, 1].
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution.

    Returns:
        [B, E * C', H', W'].
    """
    edges, c, _, kernel, _ = depthwise.shape
    if kernel == 1 and stride > 1 and breaks_a_strided_1x1(x, c):
        x, stride, dilation = every(x, stride), 1, 1
    return convolve(read(x, edges, c, stride, dilation), depthwise, pointwise)


def read(x: Tensor, edges: int, c: int, stride: int, dilation: int) -> Read:
    """Lay out x [B, G * C, H, W] for kernels wider than 1; for the arguments see `separable`."""
    groups = x.shape[1] // c
    if torch.is_autocast_enabled(x.device.type):  # it is off in the backward pass
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if stride == dilation > 1:  # it reads only the pixels at multiples of the stride
        x, stride, dilation = every(x, stride), 1, 1
    if c <= COMPOSED_UP_TO and (groups < edges or edges == 1):
        return Read(x, groups, 1, stride, dilation, composed=True)
    # A dilated convolution combines only pixels at equal positions modulo the dilation.
    n = 1
    if stride == 1 and x.shape[2] % dilation == x.shape[3] % dilation == 0:
        x, n, dilation = phases(x, dilation), dilation, 1
    return Read(copies(x, groups, edges), groups, n, stride, dilation, composed=False)


def convolve(what: Read, depthwise: Tensor, pointwise: Tensor) -> Tensor:
    """The convolutions of `separable` of what they read: [B, E * C', H', W']."""
    x, edges, stride, dilation = what.x, len(depthwise), what.stride, what.dilation
    padding = dilation * (depthwise.shape[-1] // 2)
    depthwise, pointwise = depthwise.to(x.dtype), pointwise.to(x.dtype)
    if what.composed:
        # dense[e, o, i] = pointwise[e, o, i] * depthwise[e, i]
        dense = (pointwise * depthwise.transpose(1, 2)).flatten(0, 1)  # [E * C', C, k, k]
        return F.conv2d(x, dense, None, stride, padding, dilation, what.groups)
    x = Separable.apply(
        x, depthwise.flatten(0, 1), pointwise.flatten(0, 1), stride, padding, dilation, edges
    )
    return joined(x, what.phases) if what.phases > 1 else x


def every(x: Tensor, n: int) -> Tensor:
    """Every n-th pixel: [B, C, H, W] -> [B, C, ceil(H / n), ceil(W / n)]."""
    return x.permute(0, 2, 3, 1)[:, ::n, ::n].permute(0, 3, 1, 2)


def phases(x: Tensor, n: int) -> Tensor:
    """Split into images of every n-th pixel: [B, C, H, W] -> [B * n * n, C, H / n, W / n]."""
    x = rearrange(x.permute(0, 2, 3, 1), "b (h m) (w n) c -> (b m n) h w c", m=n, n=n)
    return x.permute(0, 3, 1, 2)


def joined(x: Tensor, n: int) -> Tensor:
    """The inverse of `phases`."""
    x = rearrange(x.permute(0, 2, 3, 1), "(b m n) h w c -> b (h m) (w n) c", m=n, n=n)
    return x.permute(0, 3, 1, 2)


def copies(x: Tensor, groups: int, edges: int) -> Tensor:
    """Repeat each input for all its edges: [B, G * C, H, W] -> [B, E * C, H, W]."""
    if groups == edges:
        return x
    x = x.permute(0, 2, 3, 1).unflatten(-1, (groups, 1, -1))  # [B, H, W, G, 1, C]
    return x.expand(-1, -1, -1, -1, edges // groups, -1).flatten(3).permute(0, 3, 1, 2)


class Separable(torch.autograd.Function):
    """Both convolutions; recomputes the map between them in the backward pass."""

    @staticmethod
    def forward(ctx, x, depthwise, pointwise, stride, padding, dilation, edges):
        """[B, E * C, H, W] -> [B, E * C', H', W']."""
        ctx.save_for_backward(x, depthwise, pointwise)
        ctx.geometry = stride, padding, dilation, len(depthwise)
        ctx.edges = edges
        middle = F.conv2d(x, depthwise, None, *ctx.geometry)
        return F.conv2d(middle, pointwise, groups=edges)

    @staticmethod
    def backward(ctx, g):
        """Only the gradients that are needed; differentiable."""
        x, depthwise, pointwise = ctx.saved_tensors
        of_x, of_depthwise, of_pointwise, *_ = ctx.needs_input_grad
        if of_pointwise:
            middle = F.conv2d(x, depthwise, None, *ctx.geometry)
        else:  # only its shape matters
            middle = torch.empty(
                len(g), len(depthwise), *g.shape[2:], dtype=g.dtype, device=g.device,
                memory_format=torch.channels_last,
            )
        g_middle, g_pointwise = _backward(
            g, middle, pointwise, (1, 0, 1, ctx.edges), of_x or of_depthwise, of_pointwise
        )
        g_x = g_depthwise = None
        if of_x or of_depthwise:
            strips = of_depthwise and faster_in_strips(g_middle, depthwise, ctx.geometry)
            g_x, g_depthwise = _backward(
                g_middle, x, depthwise, ctx.geometry, of_x, of_depthwise and not strips
            )
            if strips:
                g_depthwise = gradient_in_strips(g_middle, x, depthwise, ctx.geometry)
        return g_x, g_depthwise, g_pointwise, None, None, None, None


def faster_in_strips(g: Tensor, depthwise: Tensor, geometry: tuple[int, ...]) -> bool:
    """Whether `gradient_in_strips` can compute this gradient, and faster: mostly 2 to 4 times.

    Args:
        g: gradient of the convolution's output, [B, C, H', W'].
        depthwise: its kernels, [C, 1, k, k].
        geometry: its stride, padding, dilation and groups.
    """
    _, _, dilation, _ = geometry
    wide, small = depthwise.shape[-1] > 3, g.shape[-1] < 8
    return g.device.type == "cpu" and wide and not small and dilation == 1


def gradient_in_strips(
    g: Tensor, x: Tensor, depthwise: Tensor, geometry: tuple[int, ...]
) -> Tensor:
    """The gradient of depthwise kernels wider than 3, as strips of three columns: [C, 1, k, k].

    oneDNN's gradient of up to three columns takes a tenth of the time of a wider kernel's. For the
    arguments see `faster_in_strips`; x is the convolution's input, [B, C, H, W].
    """
    stride, padding, _, groups = geometry  # not dilated
    x, kernel = x.permute(0, 2, 3, 1), depthwise.shape[-1]
    strips = []
    for start in range(0, kernel - 2, 2):  # they share a column, as all have to have three
        # Pad or cut x, so that the strip starts `start` columns into the kernel.
        columns = F.pad(x, (0, 0, padding - start, start + 3 - kernel + padding))
        _, strip, _ = torch.ops.aten.convolution_backward(
            g, columns.permute(0, 3, 1, 2), depthwise[..., :3], None, [stride] * 2, [padding, 0],
            [1, 1], False, [0, 0], groups, [False, True, False],
        )
        strips.append(strip[..., 1:] if strips else strip)
    return torch.cat(strips, 3)


def _backward(g, x, weight, geometry, of_x, of_weight):
    """Gradients of a convolution with respect to input and weight; None if not needed."""
    stride, padding, dilation, groups = geometry
    found = torch.ops.aten.convolution_backward(
        g, x, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], groups,
        [of_x, of_weight, False],
    )
    return found[:2]
