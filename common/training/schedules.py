"""Learning rates by epoch, counted from 0; within an epoch the rate is constant."""

from __future__ import annotations

import math
from typing import Literal

import torch

Schedule = Literal["cosine", "linear", "exponential"]

TAIL = 5  # epochs at the end of the linear schedule with a smaller slope


def learning_rate(
    name: Schedule, rate: float, epoch: int, epochs: int, lowest: float = 0.0, warmup: int = 0
) -> float:
    """The learning rate of an epoch.

    cosine: lr(e) = lowest + (lr - lowest) (1 + cos(pi e / E)) / 2, as in DARTS.
    linear: lr(e) = lr (E - 5 - e) / (E - 5), PC-DARTS' on ImageNet.
    exponential: lr(e) = lr 0.97^e, as DARTS' and GDAS' on ImageNet.
    In the first `warmup` epochs, instead: lr(e) = lr (e + 1) / warmup. (Some versions of PC-DARTS'
    code multiply the schedule's own rate by this.)

    Deviation: the paper's line (PC-DARTS, 4.3) ends at 0; in the authors' code, and here, the last
    five epochs have a smaller slope, lr(e) = lr (E - e) / (5 (E - 5)).

    Args:
        name: of the schedule.
        rate: lr, the first epoch's rate without warm-up.
        epoch: e, from 0.
        epochs: E.
        lowest: where the cosine ends.
        warmup: number of warm-up epochs.
    """
    if epoch < warmup:
        return rate * (epoch + 1) / warmup
    if name == "exponential":
        return rate * 0.97**epoch
    if name == "cosine":
        return lowest + 0.5 * (rate - lowest) * (1 + math.cos(math.pi * epoch / epochs))
    left, line = epochs - epoch, max(1, epochs - TAIL)
    return rate * ((left - TAIL) / line if left > TAIL else left / (TAIL * line))


class LearningRate:
    """Sets the rate of an optimizer's parameter groups, each from its own initial rate.

    Args:
        name: of the schedule, see `learning_rate`.
        optimizer: with initial rates.
        epochs: E.
        lowest: where the cosine ends.
        warmup: number of warm-up epochs.
    """

    def __init__(
        self, name: Schedule, optimizer: torch.optim.Optimizer, epochs: int, lowest: float = 0.0,
        warmup: int = 0,
    ):
        self.name, self.optimizer, self.shape = name, optimizer, (epochs, lowest, warmup)
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def at(self, epoch: int) -> float:
        """The first group's learning rate in an epoch, counted from 0."""
        return learning_rate(self.name, self.rates[0], epoch, *self.shape)

    def step(self, epoch: int) -> None:
        """Set the learning rate of this epoch, counted from 0."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = learning_rate(self.name, rate, epoch, *self.shape)
