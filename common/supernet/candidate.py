"""A fast form of a single candidate operation of `ops`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.ops import ReluConvNorm, SeparableConv
from common.supernet.cell import normalise
from common.supernet.separable import separable


def run(operation: nn.Module, x: Tensor, relu: Tensor, weight: Tensor | None = None) -> Tensor:
    """weight * operation(x): [B, C, H, W] -> [B, C, H', W'].

    Args:
        operation: of `ops.build` with `search=True`.
        x: its input.
        relu: ReLU of the input, shared by all operations on it.
        weight: a scalar; None: 1.
    """
    if isinstance(operation, ReluConvNorm):
        _, convolution, norm = operation
        scale = None if weight is None else weight.expand(convolution.out_channels).contiguous()
        return normalise(operation.convolve(relu, convolution.weight), norm, scale)
    if not isinstance(operation, SeparableConv):
        return operation(x) if weight is None else weight * operation(x)
    *units, last = operation.units
    for unit in units:
        relu = F.relu(_unit(relu, unit), inplace=True)
    # The last normalisation has no scale of its own, so the weight becomes its scale.
    scale = None if weight is None else weight.expand(last.pointwise.out_channels).contiguous()
    return _unit(relu, last, scale)


def _unit(relu: Tensor, unit: nn.Module, scale: Tensor | None = None) -> Tensor:
    """A `SeparableUnit` without its ReLU."""
    depthwise, pointwise, norm = unit.depthwise, unit.pointwise, unit.norm
    (stride, _), (dilation, _) = depthwise.stride, depthwise.dilation
    x = separable(relu, depthwise.weight[None], pointwise.weight[None], stride, dilation)
    return normalise(x, norm, scale)
