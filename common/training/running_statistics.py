"""Average the running statistics of normalisations over processes, or restore them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import nn

from common.distributed import average


@torch.no_grad()
def average_statistics(accelerator: Accelerator, network: nn.Module) -> None:
    """Replace normalisations' running statistics by their mean over the processes."""
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    for buffer, mean in zip(buffers, average(accelerator, buffers), strict=True):
        buffer.copy_(mean)


@contextmanager
def kept_statistics(network: nn.Module) -> Iterator[None]:
    """Restore the network's buffers at the end of the context."""
    buffers = list(network.buffers())
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in zip(buffers, kept, strict=True):
                buffer.copy_(values)
