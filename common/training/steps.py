"""Parts of a training step: freeze parameters, and make one clipped optimizer step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from common.distributed import set_gradients


@contextlib.contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Compute no gradients of these parameters inside the context."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def descend(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor | None], clip: float = 0.0,
) -> None:
    """One step of an optimizer.

    Args:
        optimizer: of the parameters.
        parameters: of the step.
        gradients: one per parameter, averaged over the processes; None: the parameter stays.
        clip: largest norm of all gradients together; 0: no limit.
    """
    set_gradients(parameters, gradients)
    if clip > 0:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
