"""How the learning rate goes over the epochs, counted from 0; within one it is constant."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler

Schedule = Literal["cosine", "linear", "exponential"]

# It warns that a cosine over one epoch is flat.
logging.getLogger("timm.scheduler.cosine_lr").setLevel(logging.ERROR)


class LinearLRScheduler(Scheduler):
    """PC-DARTS' ImageNet schedule of E epochs: lr(e) = lr (E - 5 - e) / (E - 5).

    Deviation: the paper's line (4.3) ends at 0; in the authors' code, and here, the last five
    epochs have a smaller slope, lr(e) = lr (E - e) / (5 (E - 5)), as 1/E of the rate is much there.
    """

    tail = 5

    def __init__(self, optimizer: torch.optim.Optimizer, epochs: int):
        self.epochs = epochs
        super().__init__(optimizer, param_group_field="lr")

    def _get_lr(self, t: int) -> list[float]:
        left, line = self.epochs - t, max(1, self.epochs - self.tail)
        share = (left - self.tail) / line if left > self.tail else left / (self.tail * line)
        return [value * share for value in self.base_values]


def schedule(
    name: Schedule, optimizer: torch.optim.Optimizer, epochs: int, lowest: float = 0.0
) -> Scheduler:
    """From the optimizer's learning rate to `lowest` (of the cosine only).

    cosine: lr(e) = lowest + (lr - lowest) (1 + cos(pi e / E)) / 2, as in DARTS; linear: PC-DARTS'
    on ImageNet; exponential: lr(e) = lr 0.97^e, as DARTS' and GDAS' on ImageNet.
    """
    if name == "linear":
        return LinearLRScheduler(optimizer, epochs)
    if name == "exponential":
        return StepLRScheduler(optimizer, decay_t=1, decay_rate=0.97)
    return CosineLRScheduler(optimizer, t_initial=epochs, lr_min=lowest)


def warm_up(optimizer: torch.optim.Optimizer, rate: float, epoch: int, epochs: int) -> None:
    """In the first `epochs` epochs the rate rises instead: lr(e) = rate (e + 1) / epochs.

    (In some versions of PC-DARTS' code it is the schedule's own rate that is multiplied so.)
    """
    if epoch < epochs:
        for group in optimizer.param_groups:
            group["lr"] = rate * (epoch + 1) / epochs
