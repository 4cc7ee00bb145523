"""Forms of one search side by side: how long an iteration takes, what it keeps, what it launches.

An iteration is an arch step and a weight step, with clipping and both optimisers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from common.data.batches import Batch
from common.distributed import set_gradients

Iteration = Callable[[Batch, Batch], None]  # of a training and a validation batch

# Neither computes anything: new memory, and other names for old.
NO_KERNEL = ("aten::empty", "aten::new_empty", "aten::detach", "aten::_unsafe_view")


def fast_iteration(supernet: nn.Module) -> Iteration:
    """As `common.training.bilevel` does it: each step computes its own gradients and no others."""
    weights, arch = supernet.weight_parameters(), supernet.arch_parameters()
    sgd, adam = optimizers(weights, arch, fused=True)
    for weight in weights:  # as common.training.bilevel does
        sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    def gradients(batch: Batch, of: list, frozen: list) -> None:
        with resting(frozen):
            loss, _ = supernet.loss(*batch)
            set_gradients(of, torch.autograd.grad(loss, of, allow_unused=True))

    def iteration(train: Batch, valid: Batch) -> None:
        gradients(valid, arch, weights)
        adam.step()
        gradients(train, weights, arch)
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return iteration


def equation_iteration(supernet: nn.Module) -> Iteration:
    """As the authors' code does it: everything gets a gradient in both steps."""
    weights, arch = supernet.weight_parameters(), supernet.arch_parameters()
    sgd, adam = optimizers(weights, arch, fused=False)

    def iteration(train: Batch, valid: Batch) -> None:
        adam.zero_grad()
        supernet.loss(*valid)[0].backward()
        adam.step()
        sgd.zero_grad()
        supernet.loss(*train)[0].backward()
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return iteration


def weight_step(network: nn.Module) -> Iteration:
    """The second half of `fast_iteration`, of any network with a `loss`."""
    weights = network.weight_parameters()
    sgd, _ = optimizers(weights, [nn.Parameter(torch.zeros(1))], fused=True)
    for weight in weights:
        sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    def iteration(train: Batch, valid: Batch) -> None:
        with resting(network.arch_parameters()):
            loss, _ = network.loss(*train)
            set_gradients(weights, torch.autograd.grad(loss, weights, allow_unused=True))
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return iteration


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


def optimizers(
    weights: Sequence[nn.Parameter], arch: Sequence[nn.Parameter], fused: bool
) -> tuple[torch.optim.SGD, torch.optim.Adam]:
    """PC-DARTS' (4.2)."""
    sgd = torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=3e-4, fused=fused)
    adam = torch.optim.Adam(arch, 6e-4, (0.5, 0.999), weight_decay=1e-3, fused=fused)
    return sgd, adam


@contextmanager
def resting(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Parameters that get no gradient in here."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    yield
    for parameter in parameters:
        parameter.requires_grad_(True)


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


def saved_mib(network: nn.Module, batch: Batch, frozen: Sequence[nn.Parameter] = ()) -> float:
    """MiB that a forward pass keeps for its backward pass, parameters apart.

    Args:
        network: with a `loss`.
        batch: of images.
        frozen: parameters whose gradient the step does not ask for.
    """
    own, kept = {p.data_ptr() for p in network.parameters()}, {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with resting(frozen), saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = network.loss(*batch)  # alive until all is counted
    del loss  # it held what was kept
    return sum(kept.values()) / 2**20


class Kernels(TorchDispatchMode):
    """Counts the operations that reach the device: ATen's leaves but views and new memory.

    A convolution's backward counts one, whichever gradients it computes; so does a fused or
    foreach step of an optimiser.
    """

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not (func.is_view or func._schema.name in NO_KERNEL):
            self.count += 1
        return func(*args, **(kwargs or {}))
