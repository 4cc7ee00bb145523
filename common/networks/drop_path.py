"""Drop-path (Larsson et al., 2017), whose probability grows while a compiled network trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Leaves a path out for some images of a batch, in training.

    timm's keeps its probability in a float, for each value of which torch.compile would compile
    the network anew. Here it is a tensor, which no checkpoint holds: the epoch says what it is.
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
        """[B, C, H, W], each image as it was over the probability to be kept, or zero."""
        if not (self.training and self.active):
            return x
        kept = (1 - self.probability).expand(len(x), 1, 1, 1)
        return x * (torch.bernoulli(kept) / kept).to(x.dtype)
