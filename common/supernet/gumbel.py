"""Gumbel noise for sampling, and the temperature schedule."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel(*shape: int, generator: torch.Generator) -> Tensor:
    """i.i.d. Gumbel(0, 1), -log(-log u) with u uniform: finite float64, on the CPU."""
    exponential = torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator)
    return -exponential.clamp_min(1e-300).log()


def linear(start: float, end: float, epoch: int, epochs: int) -> float:
    """Linear from `start` in epoch 0 to `end` in the last; a single epoch has `end`."""
    share = epoch / (epochs - 1) if epochs > 1 else 1.0
    return (1 - share) * start + share * end
