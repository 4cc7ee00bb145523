"""What a new candidate takes over from its parent's weights (III-B).

Growing the kernel and widening a layer keep the function. The other four, "strictly speaking not
network morphisms", keep what they can, as the authors' code does where the text gives no more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.ops import SeparableConv, SeparableUnit


@torch.no_grad()
def inherit(child: SeparableConv, parent: SeparableConv) -> None:
    """Give a child its parent's weights and running statistics.

    Args:
        child: as it was built, for one of the `morphisms` of its parent's operation.
        parent: stays as it is.
    """
    units = list(child.units)
    if len(units) > len(parent.units):
        _pass_on(units.pop())
    for unit, model in zip(units, parent.units, strict=True):
        _resize_kernel(unit, model)
        _widen(unit, model)


def _resize_kernel(unit: SeparableUnit, model: SeparableUnit) -> None:
    """1. grow by zeros around, 4. keep the centre; 5. and 6., a dilation changes no weight.

    Channels that are new keep what they were built with.
    """
    weight = model.depthwise.weight  # [inputs, 1, k, k]
    border = (unit.depthwise.kernel_size[0] - weight.shape[-1]) // 2  # negative: crops
    unit.depthwise.weight[: len(weight)] = F.pad(weight, [border] * 4)


def _widen(unit: SeparableUnit, model: SeparableUnit) -> None:
    """2. New outputs are drawn anew, new inputs are multiplied by zero: nothing changes."""
    new, old = unit.pointwise.weight, model.pointwise.weight  # [outputs, inputs, 1, 1]
    outputs, inputs = old.shape[:2]
    if new.shape != old.shape:
        nn.init.xavier_normal_(new)
        new[:, inputs:] = 0
    new[:outputs, :inputs] = old
    for name, buffer in model.norm.named_buffers():
        _first(unit.norm.get_buffer(name), buffer)  # of new channels: mean 0, variance 1


def _first(new: Tensor, old: Tensor) -> None:
    if old.ndim:
        new[: len(old)] = old
    else:
        new.copy_(old)


def _pass_on(unit: SeparableUnit) -> None:
    """3. A further unit computes ReLU and its normalisation, as exactly as both allow."""
    nn.init.dirac_(unit.pointwise.weight)
    nn.init.dirac_(unit.depthwise.weight, groups=unit.depthwise.groups)
    unit.norm.reset_running_stats()
