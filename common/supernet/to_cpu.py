"""The one place where a step may wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def read(values: Tensor) -> Tensor:
    """A copy on the CPU of what decides which operations run; once a network pass, if at all.

    `torch.cuda.set_sync_debug_mode("error")` finds every other wait and lets this one pass.
    """
    if values.device.type != "cuda":
        return values.detach().cpu()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("default")
    try:
        return values.detach().cpu()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
