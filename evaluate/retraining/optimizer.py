"""The optimizer of a retraining: the papers' SGD, or another by timm's name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from common.errors import InputError

SOME = "sgd, nesterov, adam, adamw, nadamw, rmsprop, lamb, lion, adan or muon"


def check_optimizer(name: str) -> None:
    """Check that there is an optimizer of this name here.

    Raises:
        InputError: timm does not have it, or it needs another package or second derivatives.
    """
    optimizer_of(name, [nn.Parameter(torch.zeros(1))], 0.1, 0.9, 0.0)


def optimizer_of(
    name: str, weights: Sequence[nn.Parameter], learning_rate: float, momentum: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """The optimizer of this name; weight decay is on all weights alike.

    `sgd` has classical momentum, as in the papers; timm's own `sgd` is `nesterov` here. Momentum
    is used by those that have one. These two run fused.

    Raises:
        InputError: see `check_optimizer`.
    """
    if name in ("sgd", "nesterov"):
        return torch.optim.SGD(
            weights, learning_rate, momentum, weight_decay=weight_decay,
            nesterov=name == "nesterov", fused=weights[0].device.type in ("cpu", "cuda"),
        )
    from timm.optim import create_optimizer_v2  # slow to import

    try:
        optimizer = create_optimizer_v2(weights, name, learning_rate, weight_decay, momentum)
    except (ValueError, TypeError, ImportError, AssertionError) as error:
        raise InputError(f"--optimizer {name}: {error}; use {SOME}, or another of timm's") from None
    if getattr(optimizer, "is_second_order", False):
        raise InputError(f"--optimizer {name}: needs second derivatives; use {SOME}")
    return optimizer
