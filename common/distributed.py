"""Several processes: seeds that are equal on all of them, averages over them, one answer of all.

Supernets do not use DDP: operations that did not run break its reducer, and `torch.autograd.grad`
bypasses it. Averages are explicit instead, with one reduction for all tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn


def seed_of(*key: str | int) -> int:
    """A seed for this key, e.g. `seed_of(config.seed, "augment", step)`.

    All randomness of a run comes from such seeds, so it is the same after a resume and on every
    process.
    """
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")


def generator_of(*key: str | int) -> torch.Generator:
    """A CPU generator with the seed of this key."""
    return torch.Generator().manual_seed(seed_of(*key))


@contextlib.contextmanager
def seeded(device: torch.device, *key: str | int) -> Iterator[None]:
    """Let torch's own generators, of the CPU and of a device, draw by this key in the context.

    For draws that take no generator, such as those of `torch.distributions`. The generators'
    states are restored at the end.
    """
    owners = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
    states = [owner.get_rng_state() for owner in owners]
    torch.manual_seed(seed_of(*key))
    try:
        yield
    finally:
        for owner, state in zip(owners, states, strict=True):
            owner.set_rng_state(state)


@torch.no_grad()
def average(
    accelerator: Accelerator, tensors: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Average each tensor over the processes; a single process gets its own tensors back.

    None, the gradient of an operation that did not run, stays None; it is None on all processes.
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
    """Set each parameter's `.grad`, in the parameter's memory format.

    A fused optimizer on a CPU pairs elements by their place in memory, without a check; averaged
    gradients, for example, are contiguous.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None and gradient.stride() != parameter.stride():
            gradient = torch.empty_like(parameter).copy_(gradient)
        parameter.grad = gradient


class Vote:
    """Whether any process wants to stop, with the same answer on all of them.

    A reduction of one number per call, which all processes make alike. On a GPU it is not waited
    for: the answer is that of the call before.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.arriving: tuple[Tensor, torch.cuda.Event] | None = None

    def any(self, mine: bool, at_once: bool = False) -> bool:
        """Whether `mine` was true on any process.

        Args:
            mine: the vote of this process.
            at_once: wait for the answer to this call.
        """
        if self.accelerator.num_processes == 1:
            return mine
        device = self.accelerator.device
        votes = self.accelerator.reduce(torch.full((1,), float(mine), device=device))
        if at_once or not votes.is_cuda:
            return votes.item() > 0
        before, copied = self.arriving, torch.cuda.Event()
        self.arriving = votes.to("cpu", non_blocking=True), copied
        copied.record()
        if before is None:
            return False
        before[1].synchronize()
        return before[0].item() > 0
