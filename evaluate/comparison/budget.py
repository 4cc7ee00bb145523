"""What every search is given: one budget for all (matched), or each method's own settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# Table I of PR-DARTS: shares of the epochs, morphisms and candidates of its nine cycles, and the
# cycles of a search that is too short for nine.
NINE = ((15, 15, *[10] * 7), (3, 3, 3, 3, 3, 0, 0, 0, 0), (6, 6, 6, 6, 6, 4, 3, 2, 1))
THREE = ((15, 10, 10), (3, 0, 0), (6, 3, 1))


@dataclass(frozen=True)
class Budget:
    """Of a search: passes over the training images, its supernet's size, and its steps.

    Attributes:
        preset: of every method, on which the rest is put.
        matched: whether the rest is; if not, each method keeps its preset's settings.
    """

    preset: str
    matched: bool
    epochs: int
    batch_size: int
    channels: int
    cells: int
    learning_rate: float
    arch_learning_rate: float | None = None


MATCHED = {
    "digits": Budget("digits", True, 9, 32, 16, 3, 0.05),
    "cifar10": Budget("cifar10", True, 50, 64, 16, 8, 0.025),
}
# Of the retraining, beside its preset. The recipe is DARTS', which all others start from: without
# one, evaluate/train.py takes that of the cells' own paper, and no two methods have one budget.
TRAIN = {"digits": {"--epochs": "10"}, "cifar10": {"--recipe": "darts"}}
Flags = Mapping[str, str | tuple[str, ...]]  # "": a flag without a value


def budget_of(preset: str, matched: bool, given: Mapping[str, Any]) -> Budget:
    """The preset's budget, with what a user gave in its place."""
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(MATCHED[preset], matched=matched, **changed)


def search_flags(
    method: str, budget: Budget, own: Flags, hessian: bool = False
) -> Flags:
    """The flags of a search.

    Args:
        method: a key of METHODS.
        budget: of all.
        own: flags that make it this method; they win.
        hessian: record the Hessian's eigenvalue.
    """
    flags: dict = {"--preset": budget.preset}
    if budget.matched:
        flags |= {
            "--batch-size": str(budget.batch_size), "--channels": str(budget.channels),
            "--cells": str(budget.cells), "--learning-rate": str(budget.learning_rate),
        }  # fmt: skip
        # EDAS steps on one edge of 28 at a time, and its rate is 83 times DARTS' for that.
        if budget.arch_learning_rate is not None and method not in ("edas", "random"):
            flags["--arch-learning-rate"] = str(budget.arch_learning_rate)
        if method != "random":
            flags["--cut-accuracy"] = "off"  # it costs time, and not every preset has it
        flags |= _epochs(method, budget)
    if hessian and method != "random":
        flags["--hessian"] = ""
    return {**flags, **own}


def words(flags: Flags) -> list[str]:
    """As a command line has them."""
    line = []
    for flag, value in flags.items():
        line += [flag, *(value if isinstance(value, tuple) else (value,) if value else ())]
    return line


def _epochs(method: str, budget: Budget) -> Flags:
    """As many passes over the images as the budget's, in each method's own words."""
    epochs = budget.epochs
    if method == "pr_darts":
        shares, morphisms, kept = NINE if epochs >= 9 else THREE
        of_cycles = shared_out(max(epochs, 3), shares)
        grace = [count // 3 for count in of_cycles]
        rows = {
            "--cycle-epochs": of_cycles, "--grace-epochs": grace, "--morphisms": morphisms,
            "--kept": kept,
        }  # fmt: skip
        batch = {"--batch-max": str(budget.batch_size), "--batch-step": "1"}  # one size throughout
        return {**{flag: tuple(map(str, row)) for flag, row in rows.items()}, **batch}
    if method == "random":
        # A search passes over both halves of the images, these cells over one of them.
        passes = 2 * epochs
        each = max(n for n in range(1, math.isqrt(passes) + 1) if passes % n == 0)
        return {"--epochs": str(each), "--samples": str(passes // each)}
    flags = {"--epochs": str(epochs)}
    if method == "pc_darts":
        flags["--warmup-epochs"] = str(math.floor(0.3 * epochs))  # 15 of 50 (4.2)
    return flags


def shared_out(total: int, shares: tuple[int, ...]) -> list[int]:
    """Whole numbers in these proportions, each 1 at least, that sum to `total`."""
    counts = [max(1, total * share // sum(shares)) for share in shares]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        lacks = [
            step * (total * share / sum(shares) - count) if count + step >= 1 else -math.inf
            for share, count in zip(shares, counts, strict=True)
        ]
        counts[lacks.index(max(lacks))] += step
    return counts
