"""How long steps take side by side, and what they keep."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from common.data.batches import Batch
from common.training.steps import frozen


def retraining_step(network: nn.Module, fast: bool) -> Callable[[Batch], None]:
    """A training step of a derived network with its auxiliary head.

    Args:
        network: on its device.
        fast: in bf16, channels last, compiled and with a fused optimiser, not plainly in fp32.
    """
    weights = list(network.parameters())
    sgd = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4, fused=fast or None)
    if fast:
        network.to(memory_format=torch.channels_last)
        network.compile()

    def step(batch: Batch) -> None:
        images, labels = batch
        with torch.autocast(images.device.type, torch.bfloat16, enabled=fast):
            logits, auxiliary = network(images)
            loss = F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(auxiliary, labels)
        sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return step


# ------------------------------------------------------------------------------------- measuring


def in_turn(
    iterations: dict[str, Callable[[int], None]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each form in each round, after a round that does not count.

    Forms take turns, so that a machine whose speed drifts slows them alike.
    """
    seconds = {name: [] for name in iterations}
    for number in range(rounds + 1):
        for name, iteration in iterations.items():
            synchronise(device)
            started = time.perf_counter()
            iteration(number)
            synchronise(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in seconds.items()}


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def saved_mib(
    network: nn.Module, batch: Batch, rest: Sequence[nn.Parameter] = (), **given: Any
) -> float:
    """MiB that a forward pass keeps for its backward pass, parameters apart.

    Args:
        network: with a `loss`.
        batch: of images.
        rest: parameters whose gradient the step does not ask for.
        **given: of a supernet's `mixes`.
    """
    own, packed = {p.data_ptr() for p in network.parameters()}, []

    def keep(tensor: Tensor) -> Tensor:
        held = tensor.detach()  # an output that kept itself by its graph would never be freed
        packed.append(weakref.ref(held))
        return held

    with frozen(rest), saved_tensors_hooks(keep, lambda tensor: tensor):
        mixes = [network.mixes(**given)] if given else []
        loss, _ = network.loss(*batch, *mixes)  # alive until all is counted
    there = (tensor.untyped_storage() for ref in packed if (tensor := ref()) is not None)
    kept = {storage.data_ptr(): storage.nbytes() for storage in there}
    del loss  # it held what was kept
    return sum(size for at, size in kept.items() if at not in own) / 2**20
