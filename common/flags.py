"""Flags by their names on the command line, and the least and the most that they take."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from common.errors import InputError

# The most that a flag takes, the same in every command: far beyond what papers and machines do, so
# that a slip is answered at once, and not by hours of waiting, an overflow or a killed process.
# What these allow and a machine has no memory for, `common/memory.py` refuses.
MOST = {
    "cells": 200, "nodes": 32, "channels": 4096, "units": 65_536, "K": 4096, "classes": 10**6,
    "batch_size": 2**20, "batch_sizes": 2**20, "batch_step": 2**20, "batch_max": 2**20,
    "accumulate": 2**20, "bptt": 10_000, "bptt_deviation": 1000,
    "image_size": 4096, "crop_padding": 1024, "cutout": 4096, "limit_images": 10**9,
    "epochs": 10**6, "warmup_epochs": 10**6, "learning_rate_warmup": 10**6,
    "inversion_epochs": 10**6, "decay_epochs": 10**6, "train_epochs": 10**6, "rank_epochs": 10**6,
    "score_epochs": 10**6, "cycle_epochs": 10**6, "grace_epochs": 10**6, "trigger": 10**6,
    "searches": 1000, "samples": 10**5, "trainings": 1000, "seeds": 1000, "random_cells": 1000,
    "rounds": 10**6, "kept": 1000, "morphisms": 1000, "jobs": 1024, "threads": 1024,
    "workers": 1024, "checkpoint_steps": 10**9, "seed": 2**63 - 1,
    "learning_rate": 1e38, "learning_rate_min": 1e38, "arch_learning_rate": 1e38,
    "weight_decay": 1e3, "arch_weight_decay": 1e3, "grad_clip": 1e9, "arch_grad_clip": 1e9,
    "momentum": 1, "arch_beta1": 1, "arch_beta2": 1, "train_share": 1, "valid_share": 1,
    "held_out_share": 1, "drop_path": 1, "label_smoothing": 1, "ema_decay": 1,
    "memory_threshold": 1, "color_jitter": 10, "auxiliary_weight": 1000, "slowness": 1e6,
    "dropout_output": 1, "dropout_hidden": 1, "dropout_input": 1, "dropout_embedding": 1,
    "dropout_word": 1, "tau_max": 1e6, "tau_min": 1e6,
    "derive_tau": 1e6, "memory_gib": 1e6,
}  # fmt: skip


class Of32(int):
    """Pixels that a paper's recipe means for images of 32: `common/small_images.py` scales them.

    A number that a user types is a plain one, and stays.
    """


def flag(field: str) -> str:
    """The command line's name of a field."""
    return "--" + field.replace("_", "-")


def at_least(config: Any, least: float, *fields: str) -> None:
    """Refuse values below `least`, infinite ones and NaN; None passes.

    Raises:
        InputError: naming the flag.
    """
    for field in fields:
        value = getattr(config, field)
        if value is not None and not least <= value < math.inf:
            raise InputError(f"{flag(field)} {value}: must be {least} or more")


def at_most(config: Any) -> None:
    """Refuse values above `MOST` in any field of a command's flags, infinite ones and NaN.

    Raises:
        InputError: naming the flag.
    """
    for field in dataclasses.fields(config):
        most = MOST.get(field.name.removeprefix("search_"))
        found = getattr(config, field.name)
        for value in found if isinstance(found, tuple) else (found,):
            number = isinstance(value, int | float)
            if most is not None and number and not value <= most:
                raise InputError(f"{flag(field.name)} {shortened(value)}: must be {most} or less")


def shortened(value: Any) -> str:
    """A value as a message shows it: one of thousands of digits by its first ones."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
