"""Several processes: averages that leave all of them equal, and draws that are equal to begin with.

Supernets are not wrapped in DDP: candidates that did not run would break its reducer, and
`torch.autograd.grad` passes it by. Averages are explicit instead, one reduction for all tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn


def seed_of(*key: str | int) -> int:
    """A seed for this key, e.g. `seed_of(config.seed, "augment", step)`.

    All randomness of a run is a function of the seed and the step, so a resumed run draws what an
    uninterrupted one would have, and every process draws the same.
    """
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")


def generator_of(*key: str | int) -> torch.Generator:
    """A CPU generator at the seed of this key."""
    return torch.Generator().manual_seed(seed_of(*key))


@torch.no_grad()
def average(accelerator: Accelerator, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over the processes; one process gets its tensors back untouched."""
    if accelerator.num_processes == 1:
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    flat = accelerator.reduce(flat, reduction="mean")
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def set_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """Each parameter's `.grad`, in the parameter's own memory layout.

    A fused optimizer pairs their elements as they lie in memory, and on a CPU it does not check
    that they lie alike; averaging, for one, leaves gradients contiguous.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        alike = gradient.stride() == parameter.stride()
        parameter.grad = gradient if alike else torch.empty_like(parameter).copy_(gradient)
