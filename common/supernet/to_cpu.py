"""The one place where a step may wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def read(values: Tensor) -> Tensor:
    """Copy the sampling logits to the CPU: the only sync in a step.

    `torch.cuda.set_sync_debug_mode("error")` reports every other sync and allows this one.
    """
    if values.device.type != "cuda":
        return values.detach().cpu()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("default")
    try:
        return values.detach().cpu()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
