"""Draws from a categorical distribution by Gumbel noise, and their temperature."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel(*shape: int, generator: torch.Generator) -> Tensor:
    """i.i.d. Gumbel(0, 1), -log(-log u) with u uniform: on the CPU, in 64 bits, finite."""
    exponential = torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator)
    return -exponential.clamp_min(1e-300).log()


def linear(start: float, end: float, epoch: int, epochs: int) -> float:
    """From `start` in epoch 0 to `end` in the last; a single epoch is at the end."""
    share = epoch / (epochs - 1) if epochs > 1 else 1.0
    return (1 - share) * start + share * end
