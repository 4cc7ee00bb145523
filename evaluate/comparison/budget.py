"""The budget of a search: one for all methods (matched), or each method's own settings."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# Table I of PR-DARTS: epochs (here shares of all epochs), morphisms and candidates kept of its nine
# cycles; and three cycles for a search that is too short for nine.
NINE = ((15, 15, *[10] * 7), (3, 3, 3, 3, 3, 0, 0, 0, 0), (6, 6, 6, 6, 6, 4, 3, 2, 1))
THREE = ((15, 10, 10), (3, 0, 0), (6, 3, 1))


@dataclass(frozen=True)
class Budget:
    """A search's epochs, supernet size and step sizes.

    Attributes:
        preset: of every method; the other fields change it.
        matched: whether they do; if not, each method keeps its preset's settings.
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
# Retraining flags. Pin one recipe so that all methods share one budget: by default
# evaluate/train.py takes the recipe of the cells' own paper.
TRAIN = {"digits": {"--epochs": "10"}, "cifar10": {"--recipe": "darts"}}
# Why a method gets other flags than the shared ones.
WHY = {
    "pc_darts": "its warm-up is 30 % of the epochs, rounded down (the paper: 15 of 50)",
    "pr_darts": "its epochs are shared out among cycles as in the paper's Table I, or among three "
    "cycles below nine epochs; the batch size is constant, where the paper's grows",
    "random": "as many passes over the images as in a search",
}
Flags = Mapping[str, str | tuple[str, ...]]  # "": a flag without a value


def budget_of(preset: str, matched: bool, given: Mapping[str, Any]) -> Budget:
    """The preset's budget, changed by the flags given (those that are not None)."""
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(MATCHED[preset], matched=matched, **changed)


def search_flags(method: str, budget: Budget, own: Flags, hessian: bool = False) -> Flags:
    """The flags of a search.

    Args:
        method: a key of METHODS.
        budget: of all methods.
        own: the flags that make it this method; they take precedence.
        hessian: record the Hessian's dominant eigenvalue.
    """
    flags: dict = {"--preset": budget.preset}
    if budget.matched:
        flags |= {
            "--batch-size": str(budget.batch_size), "--channels": str(budget.channels),
            "--cells": str(budget.cells), "--learning-rate": str(budget.learning_rate),
        }  # fmt: skip
        # EDAS updates one edge of 28 per step; its rate is 83 times DARTS' for that reason.
        if budget.arch_learning_rate is not None and method not in ("edas", "random"):
            flags["--arch-learning-rate"] = str(budget.arch_learning_rate)
        if method != "random":
            flags["--cut-accuracy"] = "off"  # it costs time, and only some presets have it
        flags |= _epochs(method, budget)
    if hessian and method != "random":
        flags["--hessian"] = ""
    return {**flags, **own}


def changed(method: str, budget: Budget) -> str:
    """What a matched budget changes in a method besides the shared settings; empty: nothing."""
    if not budget.matched:
        return ""
    if method == "edas" and budget.arch_learning_rate is not None:
        return "edas keeps its own --arch-learning-rate"
    shared = "--epochs", str(budget.epochs)
    own = dict(item for item in _epochs(method, budget).items() if item != shared)
    return f"{method} gets {shlex.join(words(own))}: {WHY[method]}" if own else ""


def words(flags: Flags) -> list[str]:
    """The flags as words of a command line."""
    line = []
    for flag, value in flags.items():
        line += [flag, *(value if isinstance(value, tuple) else (value,) if value else ())]
    return line


def _epochs(method: str, budget: Budget) -> Flags:
    """The budget's epochs in each method's own flags."""
    epochs = budget.epochs
    if method == "pr_darts":
        shares, morphisms, kept = NINE if epochs >= 9 else THREE
        of_cycles = shared_out(max(epochs, 3), shares)
        grace = [count // 3 for count in of_cycles]
        rows = {
            "--cycle-epochs": of_cycles, "--grace-epochs": grace, "--morphisms": morphisms,
            "--kept": kept,
        }  # fmt: skip
        batch = {"--batch-max": str(budget.batch_size), "--batch-step": "1"}  # a constant size
        return {**{flag: tuple(map(str, row)) for flag, row in rows.items()}, **batch}
    if method == "random":
        # An epoch of a search reads both halves of the images, one of a random cell reads one.
        passes = 2 * epochs
        each = max(n for n in range(1, math.isqrt(passes) + 1) if passes % n == 0)
        return {"--epochs": str(each), "--samples": str(passes // each)}
    flags = {"--epochs": str(epochs)}
    if method == "pc_darts":
        flags["--warmup-epochs"] = str(math.floor(0.3 * epochs))  # 15 of 50 (4.2)
    return flags


def shared_out(total: int, shares: tuple[int, ...]) -> list[int]:
    """Split `total` into integers in these proportions, each at least 1."""
    counts = [max(1, total * share // sum(shares)) for share in shares]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        lacks = [
            step * (total * share / sum(shares) - count) if count + step >= 1 else -math.inf
            for share, count in zip(shares, counts, strict=True)
        ]
        counts[lacks.index(max(lacks))] += step
    return counts
