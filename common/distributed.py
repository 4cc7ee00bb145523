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
def average(
    accelerator: Accelerator, tensors: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The mean of each tensor over the processes; one process gets its tensors back untouched.

    None, the gradient of what did not run, stays None; all processes run the same.
    """
    if accelerator.num_processes == 1:
        return list(tensors)
    there = [tensor for tensor in tensors if tensor is not None]
    if not there:
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in there])
    flat = accelerator.reduce(flat, reduction="mean")
    parts = iter(flat.split([tensor.numel() for tensor in there]))
    return [None if tensor is None else next(parts).view_as(tensor) for tensor in tensors]


def set_gradients(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> None:
    """Each parameter's `.grad`, in the parameter's own memory layout; None: it does not move.

    A fused optimizer pairs their elements as they lie in memory, and on a CPU it does not check
    that they lie alike; averaging, for one, leaves gradients contiguous.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None and gradient.stride() != parameter.stride():
            gradient = torch.empty_like(parameter).copy_(gradient)
        parameter.grad = gradient
