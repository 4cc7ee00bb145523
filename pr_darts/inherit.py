"""How a new candidate inherits its parent's weights (III-B).

A larger kernel (1) and a wider layer (2) keep the function. The other four, "strictly speaking not
network morphisms", keep what they can; where the text is silent, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from common.networks.ops import SeparableConv, SeparableUnit


@torch.no_grad()
def inherit(child: SeparableConv, parent: SeparableConv) -> None:
    """Copy a parent's weights and running statistics into its child.

    Args:
        child: newly built, one of the `morphisms` of its parent's operation.
        parent: not changed.
    """
    units = list(child.units)
    if len(units) > len(parent.units):
        _pass_on(units.pop())
    for unit, model in zip(units, parent.units, strict=True):
        _resize_kernel(unit, model)
        _widen(unit, model)


def _resize_kernel(unit: SeparableUnit, model: SeparableUnit) -> None:
    """1: pad by zeros; 4: keep the centre; 5 and 6 (dilation): no change.

    New channels keep their initial weights.
    """
    weight = model.depthwise.weight  # [inputs, 1, k, k]
    border = (unit.depthwise.kernel_size[0] - weight.shape[-1]) // 2  # negative: crops
    unit.depthwise.weight[: len(weight)] = F.pad(weight, [border] * 4)


def _widen(unit: SeparableUnit, model: SeparableUnit) -> None:
    """2: new outputs are random, new inputs have weight 0, so the function is the same."""
    new, old = unit.pointwise.weight, model.pointwise.weight  # [outputs, inputs, 1, 1]
    outputs, inputs = old.shape[:2]
    if new.shape != old.shape:
        nn.init.xavier_normal_(new)
        new[:, inputs:] = 0
    new[:outputs, :inputs] = old
    for name, buffer in model.norm.named_buffers():
        ours = unit.norm.get_buffer(name)
        (ours[: len(buffer)] if buffer.ndim else ours).copy_(buffer)  # new ones: mean 0, variance 1


def _pass_on(unit: SeparableUnit) -> None:
    """3: a new unit is the identity between its ReLU and its normalisation."""
    nn.init.dirac_(unit.pointwise.weight)
    nn.init.dirac_(unit.depthwise.weight, groups=unit.depthwise.groups)
    unit.norm.reset_running_stats()
