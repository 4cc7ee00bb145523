"""Mean and standard deviation of each channel, which normalise images."""

from __future__ import annotations

import torch
from torch import Tensor

# Pixels from 0 to 1. Other data sets are measured on their training images.
# Deviation: DARTS' and PC-DARTS' code normalises CIFAR-100 by CIFAR-10's statistics.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def measure(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 [N, C, H, W], in pixels from 0 to 1.

    Counts grey levels, which needs no floating-point copy of the images.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in pixels.unbind(1):
        counts = sum(
            torch.bincount(some.flatten().long(), minlength=256) for some in channel.split(4096)
        )
        share = counts.double() / channel.numel()
        mean.append(float((share * values).sum()))
        std.append(max(float(((share * values**2).sum() - mean[-1] ** 2).sqrt()), 1e-3))
    return tuple(mean), tuple(std)
