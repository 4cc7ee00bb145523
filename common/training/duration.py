"""How long trainings take: durations in words, and a measurement of a derived network."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.genotype import Genotype
from common.networks.network import build

UNITS = (("days", 86_400), ("hours", 3_600), ("min", 60), ("s", 1))


def in_words(seconds: float) -> str:
    """A rounded duration: `9 days`, `3.5 hours`, `12 min`, `40 s`."""
    name, size = next(((n, s) for n, s in UNITS if seconds >= 1.5 * s), UNITS[-1])
    value = seconds / size
    return f"{value:.1f} {name}" if value < 10 and size >= 3_600 else f"{value:.0f} {name}"


def seconds_per_image(
    genotype: Genotype, channels: int, cells: int, classes: int, images: Tensor, labels: Tensor
) -> float:
    """Time of a training step of the derived network on one batch, divided by its size.

    Args:
        genotype: of the network.
        channels: of its first cell.
        cells: their number.
        classes: of the data set.
        images: [B, C, H, W], normalised, on the device.
        labels: [B].
    """
    shape = tuple(images.shape[1:])
    network = build(genotype, channels, cells, classes, shape, auxiliary=False)
    network = network.to(images.device, memory_format=torch.channels_last).train()
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        with torch.enable_grad():
            F.cross_entropy(network(images), labels).backward()
        if images.is_cuda:
            torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(images)
