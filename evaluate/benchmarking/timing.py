"""Seconds and memory of a step."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from common.data.batches import Batch
from common.training.steps import frozen


def in_turn(
    steps: dict[str, Callable[[int], None]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each step in each round, after one round that does not count.

    Steps take turns, so that a machine whose speed drifts slows them alike.

    Args:
        steps: by name; each is given the number of the round.
        rounds: timed rounds.
        device: to wait for.
    """
    seconds = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            synchronise(device)
            started = time.perf_counter()
            step(number)
            synchronise(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in seconds.items()}


def spread(seconds: Sequence[float]) -> str:
    """Median (minimum to maximum, number) in milliseconds."""
    values = [1e3 * value for value in seconds]
    median = statistics.median(values)
    return f"{median:.0f} ({min(values):.0f} to {max(values):.0f}, {len(values)})"


def synchronise(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def saved_mib(
    network: nn.Module, batch: Batch, rest: Sequence[nn.Parameter] = (), **given: Any
) -> float:
    """MiB that a forward pass keeps for its backward pass, without the parameters.

    Args:
        network: with a `loss`.
        batch: of images.
        rest: parameters whose gradient the step does not need.
        **given: arguments of a supernet's `mixes`.
    """
    own, packed = {p.data_ptr() for p in network.parameters()}, []

    def keep(tensor: Tensor) -> Tensor:
        held = tensor.detach()  # an output that kept itself through its graph would never be freed
        packed.append(weakref.ref(held))
        return held

    with frozen(rest), saved_tensors_hooks(keep, lambda tensor: tensor):
        mixes = [network.mixes(**given)] if given else []
        loss, _ = network.loss(*batch, *mixes)
    alive = (tensor.untyped_storage() for ref in packed if (tensor := ref()) is not None)
    kept = {storage.data_ptr(): storage.nbytes() for storage in alive}
    del loss  # its graph held what was kept
    return sum(size for pointer, size in kept.items() if pointer not in own) / 2**20
