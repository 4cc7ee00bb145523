"""How each paper trains the networks that it evaluates.

A recipe sets fields of `config.RetrainConfig`. `evaluate/README.md` has them in one table with the
papers' sections and marks what a paper leaves open; a test compares the two.
"""

from __future__ import annotations

from typing import Any, Literal

from common.data.images import LARGE
from common.errors import InputError
from common.networks.genotype import FixedCell, Genotype
from common.run.flags import PresetInt

Name = Literal["pc_darts", "gdas", "edas", "itnas", "pr_darts", "darts", "nasbench201"]
Preset = Literal["cifar10", "cifar100", "svhn", "cinic10", "imagenet", "digits"]
Settings = dict[str, Any]

# DARTS on CIFAR-10, the base of all others: 600 epochs of SGD with a cosine schedule.
CIFAR: Settings = {
    "channels": 36, "cells": 20,
    "epochs": 600, "batch_size": 96,
    "schedule": "cosine", "learning_rate": 0.025, "learning_rate_min": 0.0,
    "learning_rate_warmup": 0,
    "momentum": 0.9, "optimizer": "sgd", "weight_decay": 3e-4, "grad_clip": 5.0,
    "drop_path": 0.2, "auxiliary_weight": 0.4, "label_smoothing": 0.0,
    "crop_padding": PresetInt(4), "flip": True, "cutout": PresetInt(16), "color_jitter": 0.0,
}  # fmt: skip

# DARTS on ImageNet: 250 epochs at batch 128; the rate falls by 3 % per epoch.
IMAGENET_SMALL_BATCH: Settings = CIFAR | {
    "channels": 48, "cells": 14,
    "epochs": 250, "batch_size": 128,
    "schedule": "exponential", "learning_rate": 0.1, "weight_decay": 3e-5,
    "drop_path": 0.0, "label_smoothing": 0.1,
    "cutout": 0, "color_jitter": 0.4,
}  # fmt: skip

# PC-DARTS on ImageNet: the same at batch 1,024, with a warm-up and a linear decay.
IMAGENET_LARGE_BATCH: Settings = IMAGENET_SMALL_BATCH | {
    "batch_size": 1024,
    "schedule": "linear", "learning_rate": 0.5, "learning_rate_warmup": 5,
}  # fmt: skip

# NAS-Bench-201: 200 epochs of Nesterov's SGD, the same on CIFAR-10 and CIFAR-100.
NASBENCH201: Settings = CIFAR | {
    "channels": 16, "cells": 5,
    "epochs": 200, "batch_size": 256,
    "learning_rate": 0.1, "optimizer": "nesterov", "weight_decay": 5e-4, "grad_clip": 0.0,
    "drop_path": 0.0, "auxiliary_weight": 0.0, "cutout": 0,
}  # fmt: skip

PC_DARTS_CIFAR = CIFAR | {"batch_size": 128, "drop_path": 0.3}
EDAS_CIFAR = CIFAR | {"batch_size": 64, "learning_rate_min": 0.001}
PR_DARTS_CIFAR = CIFAR | {"drop_path": 0.3}

RECIPES: dict[str, dict[str, Settings]] = {
    "pc_darts": {
        "cifar10": PC_DARTS_CIFAR,
        "cifar100": PC_DARTS_CIFAR,
        "imagenet": IMAGENET_LARGE_BATCH,
    },
    "gdas": {
        "cifar10": CIFAR,
        "cifar100": CIFAR,
        "imagenet": IMAGENET_SMALL_BATCH | {"channels": 50},
    },
    "edas": {"cifar10": EDAS_CIFAR, "cifar100": EDAS_CIFAR},
    "itnas": {
        "cifar10": CIFAR,
        "cifar100": CIFAR,
        "svhn": CIFAR | {"flip": False},  # a mirrored 2 is no digit
        "cinic10": CIFAR,
        "imagenet": IMAGENET_LARGE_BATCH,
    },
    "pr_darts": {"cifar10": PR_DARTS_CIFAR, "cifar100": PR_DARTS_CIFAR},
    "darts": {"cifar10": CIFAR, "imagenet": IMAGENET_SMALL_BATCH},
    "nasbench201": {"cifar10": NASBENCH201, "cifar100": NASBENCH201},
}

# GDAS' Table 2: with the fixed reduction cell, whose convolutions have eight groups.
GDAS_FRC_IMAGENET_CHANNELS = 52

# No paper's: a minute on a CPU.
DIGITS: Settings = CIFAR | {
    "channels": 16, "cells": 5,
    "epochs": 20, "batch_size": 64, "learning_rate": 0.05,
    "drop_path": 0.1, "auxiliary_weight": 0.0,
    "crop_padding": 1, "flip": False, "cutout": 0,
}  # fmt: skip


def settings(recipe: str, images: str, genotype: Genotype | None = None) -> Settings:
    """What the recipe's paper trains networks on these images by.

    Args:
        recipe: its name.
        images: a data set's name.
        genotype: whose network it is, if that is known.

    Raises:
        InputError: the paper has no such experiment.
    """
    own = RECIPES[recipe]
    if images not in own:
        others = [name for name, sets in RECIPES.items() if images in sets]
        elsewhere = f"; {images} is in --recipe {', '.join(others)}" if others else ""
        if images == "digits":
            elsewhere = "; digits have --preset digits, without --recipe"
        raise InputError(
            f"--recipe {recipe}: has no settings for {images}, but for {', '.join(own)} and for "
            f"folder{elsewhere}"
        )
    chosen = own[images]
    fixed = genotype is not None and isinstance(genotype.cells.get("reduction"), FixedCell)
    if (recipe, images) == ("gdas", "imagenet") and fixed:
        chosen = chosen | {"channels": GDAS_FRC_IMAGENET_CHANNELS}
    return chosen


def of_folder(recipe: str, image_size: int | None) -> Preset:
    """As which data set's a folder's images are trained: by their size, and what the paper has."""
    large = image_size is not None and image_size >= LARGE
    return "imagenet" if large and "imagenet" in RECIPES[recipe] else "cifar10"


def of_method(method: str, images: str | None = None) -> str:
    """The recipe of the paper whose search this is, by its name or by a published cell's.

    The name's beginning decides, as of `gdas_frc` or `gdas_best_of`. PC-DARTS' where it is none of
    them (random cells); given a data set that its paper does not have, the first one's that has it.
    """
    own = next((name for name in RECIPES if method.startswith(name)), "pc_darts")
    if images is None or images in RECIPES[own]:
        return own
    return next(name for name, sets in RECIPES.items() if images in sets)


def of_genotype(genotype: Genotype, images: str | None = None) -> str:
    """The recipe of the paper that a genotype comes from, see `of_method`, or of its benchmark."""
    if "cell" in genotype.cells:
        return of_method("nasbench201", images)
    method = genotype.provenance.get("method")
    return of_method(method if isinstance(method, str) else genotype.name, images)
