"""Drop-path (Larsson et al., 2017) with a probability that may change in a compiled network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops a path for some images of a batch, in training.

    timm's DropPath has a float probability, and torch.compile recompiles for each value. Here it is
    a tensor, not saved in checkpoints, as each epoch sets it.
    """

    def __init__(self):
        super().__init__()
        self.active = False
        self.register_buffer("probability", torch.zeros(()), persistent=False)

    def set(self, probability: float) -> None:
        """Drop a path with this probability, 0 to 1 (exclusive)."""
        self.active = probability > 0
        self.probability.fill_(probability)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W]; each image is zero or divided by its probability to be kept."""
        if not (self.training and self.active):
            return x
        kept = (1 - self.probability).expand(len(x), 1, 1, 1)
        return x * (torch.bernoulli(kept) / kept).to(x.dtype)
