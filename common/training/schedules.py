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


class LearningRate:
    """From the optimizer's learning rate to `lowest` (of the cosine only), epoch by epoch.

    cosine: lr(e) = lowest + (lr - lowest) (1 + cos(pi e / E)) / 2, as in DARTS; linear: PC-DARTS'
    on ImageNet; exponential: lr(e) = lr 0.97^e, as DARTS' and GDAS' on ImageNet. In the first
    `warmup` epochs it rises instead: lr(e) = lr (e + 1) / warmup. (In some versions of PC-DARTS'
    code it is the schedule's own rate that is multiplied so.)

    Args:
        name: of the schedule.
        optimizer: whose learning rate it sets.
        epochs: E.
        lowest: where the cosine ends.
        warmup: epochs at the start in which the rate rises.
    """

    def __init__(
        self, name: Schedule, optimizer: torch.optim.Optimizer, epochs: int, lowest: float = 0.0,
        warmup: int = 0,
    ):
        self.optimizer, self.warmup = optimizer, warmup
        self.rates = [group["lr"] for group in optimizer.param_groups]
        if name == "linear":
            self.scheduler = LinearLRScheduler(optimizer, epochs)
        elif name == "exponential":
            self.scheduler = StepLRScheduler(optimizer, decay_t=1, decay_rate=0.97)
        else:
            self.scheduler = CosineLRScheduler(optimizer, t_initial=epochs, lr_min=lowest)

    def step(self, epoch: int) -> None:
        """Set the learning rate of this epoch, counted from 0."""
        self.scheduler.step(epoch)
        if epoch < self.warmup:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * (epoch + 1) / self.warmup
