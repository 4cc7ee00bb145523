"""Flags of a retraining, and the preset that a command line starts from."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from common.data.datasets import Dataset
from common.errors import InputError
from common.networks.genotype import Genotype, load, published
from common.networks.network import check_genotype
from common.networks.spaces import space_of
from common.networks.trained import METHOD
from common.run.cli import given
from common.run.config import RunConfig, described
from common.run.flags import Between, CellName, flag
from common.run.operations import load_file
from common.training.schedules import Schedule
from retraining import recipes
from retraining.optimizer import check_optimizer


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Flags of training a derived network."""

    drop_path: Annotated[float, Between(0, 1, below=True)] = 0.0
    """Drop-path probability in the last epoch; rises linearly from 0."""
    auxiliary_weight: Annotated[float, Between(0, 1000)] = 0.0
    """Weight of the auxiliary head's loss; 0: no auxiliary head."""
    label_smoothing: Annotated[float, Between(0, 1, below=True)] = 0.0
    """Label smoothing, in both losses."""
    color_jitter: Annotated[float, Between(0, 10)] = 0.0
    """Colour jitter strength for images read from disk: brightness, contrast, saturation; hue
    gets half."""
    optimizer: str = "sgd"
    """Optimizer of the weights: sgd (the papers'), nesterov (NAS-Bench-201's), or one of
    timm's: adamw, lamb, lion ... Give its --learning-rate too: the recipe's is for SGD."""
    schedule: Schedule = "cosine"
    """Learning-rate schedule: cosine (DARTS), linear to 0 (PC-DARTS on ImageNet), or
    exponential, 0.97 per epoch (DARTS and GDAS on ImageNet)."""
    learning_rate_warmup: Annotated[int, Between(0, 10**6)] = 0
    """Learning-rate warm-up epochs (linear)."""
    ema_decay: Annotated[float, Between(0, 1, below=True)] = 0.0
    """Report an exponential moving average of the weights with this decay; 0: off."""
    accumulate: Annotated[int, Between(1, 2**20)] = 1
    """Gradient-accumulation steps: split each batch into so many parts, to save memory."""
    compile: bool = False
    """Compile the network with torch.compile. Takes minutes; meant for a GPU."""

    def check(self) -> None:
        super().check()
        if self.schedule != "cosine" and self.learning_rate_min > 0:
            raise InputError(
                f"--learning-rate-min {self.learning_rate_min}: only for --schedule cosine, not "
                f"{self.schedule}; use --learning-rate-min 0"
            )
        check_optimizer(self.optimizer)

    def check_processes(self, processes: int) -> None:
        """Also check the parts of `--accumulate`; each has its own batch statistics."""
        super().check_processes(processes)
        parts = processes * self.accumulate
        if self.batch_size % parts or self.batch_size < 2 * parts:
            raise InputError(
                f"--accumulate {self.accumulate}: --batch-size {self.batch_size}, shared by "
                f"{processes} processes, must be a multiple of {parts} and give each part at "
                "least 2 images to normalise over"
            )


@dataclass(frozen=True)
class RetrainConfig(TrainConfig):
    """A paper's recipe for a data set (`evaluate/retraining/recipes.py`)."""

    unextended: ClassVar[str] = ""

    genotype: CellName = None
    recipe: recipes.Name | None = None
    """Whose training settings; by default those of the genotype's paper or method, else
    PC-DARTS'."""
    preset: recipes.Preset = "cifar10"
    """Data set that the recipe is for; by default --dataset. digits: no paper's, one minute on
    a CPU."""
    held_out: Literal["test", "valid"] = "test"
    """test: train on all training images, report on the test split; valid: hold out a share of
    the training images and never read the test split."""
    test_split: str | None = None
    """Folder of the test images below --data-root; by default the first of test/, val/, valid/
    with class folders."""
    held_out_share: Annotated[float, Between(0, 1, above=True, below=True)] = 0.5
    """Share of the training images that --held-out valid holds out: 0.5, the search's halves,
    or 0.1 as PC-DARTS' ranking."""

    def least_cells(self) -> int:
        """See `RunConfig.least_cells`; a run folder's were checked."""
        known = self.genotype is not None and self.resume is None
        return space_of(load(self.genotype)).least_cells if known else 1

    def check(self) -> None:
        super().check()
        if self.held_out == "test" and self.held_out_share != 0.5:
            raise InputError(
                f"--held-out-share {self.held_out_share}: only for --held-out valid; --held-out "
                "test trains on all training images"
            )
        if self.genotype is None:
            raise InputError(
                "--genotype: give a run folder, a genotype file, or one of "
                f"{', '.join(published())}"
            )
        if self.resume is None:  # a run folder has its own genotype
            check_genotype(load(self.genotype), self.channels)


def preset(recipe: str | None, name: str, genotype: Genotype | None = None) -> RetrainConfig:
    """A recipe's flags for a data set; None: the digits preset, which is no paper's."""
    if recipe is None:
        return RetrainConfig(preset=name, dataset=name, **recipes.DIGITS)
    return RetrainConfig(
        recipe=recipe, preset=name, dataset=name, **recipes.settings(recipe, name, genotype)
    )


FEW_BATCHES = 2  # a folder with fewer images than two batches keeps its search's batch size

PRESETS = {"cifar10": preset("pc_darts", "cifar10"), "digits": preset(None, "digits")}


def chosen_preset(argv: list[str]) -> dict[str, RetrainConfig]:
    """The preset for `parse` that --recipe, --preset, --dataset and --genotype ask for.

    Raises:
        InputError: the recipe has no such data set, or there is no such genotype.
    """
    recipe, name, dataset, what, size = (
        given(argv, flag(field))
        for field in ("recipe", "preset", "dataset", "genotype", "image_size")
    )
    known = {*get_args(recipes.Preset), "folder", None}
    unknown = not {name, dataset} <= known or recipe not in {*recipes.RECIPES, None}
    if unknown or given(argv, "--resume") is not None:
        return PRESETS  # `parse` lists the choices, or reads the run's config
    if (operations := given(argv, "--operations")) is not None:  # for the genotype
        load_file(operations)
    searched = {} if what is None or name or dataset else images_of_search(what)
    images = name or dataset or searched.get("dataset", "cifar10")
    if images == "digits" and recipe is None:
        return {images: PRESETS[images]}
    genotype = None if what is None else load(what)
    own = None if images == "folder" else searched.get("dataset")
    if recipe is None:
        recipe = "pc_darts" if genotype is None else recipes.of_genotype(genotype, own)
    if images == "folder":
        pixels = size or str(searched.get("image_size"))
        known = re.fullmatch("[0-9]{1,9}", pixels)  # `parse` refuses what is none
        images = recipes.of_folder(recipe, int(pixels) if known else None)
    return {images: replace(preset(recipe, images, genotype), **searched)}


def images_of_search(what: str) -> dict[str, Any]:
    """The data flags of a search's run folder; empty if it is no such folder.

    A folder with few images also keeps the search's batch size.
    """
    if not os.path.isfile(Path(what) / "config.json"):
        return {}
    run = described(Path(what))
    if run["method"] == METHOD or run.get("dataset") not in get_args(Dataset):
        return {}
    found = {name: run.get(name) for name in ("dataset", "data_root", "image_size")}
    images = load(what).provenance.get("images", math.inf)
    if found["dataset"] == "folder" and images < FEW_BATCHES * recipes.CIFAR["batch_size"]:
        found["batch_size"] = run["batch_size"]
    return found
