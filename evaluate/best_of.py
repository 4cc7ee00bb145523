"""GDAS' protocol (4.2): several searches with different seeds, the best cell by validation.

The searches share one split. Each found cell is then trained from scratch for a short while on one
half of the images and validated on the other, as random search ranks its cells, so no test image is
looked at; the best one becomes the run's genotype. Flags are those of gdas/search.py.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from common.data.images import Images
from common.data.split import Split
from common.distributed import seed_of
from common.errors import NotFinite, errors_are_messages
from common.networks.genotype import load
from common.run.cli import parse
from common.run.flags import Between
from common.run.folder import Run
from common.training.bilevel import open_search, pin_split
from gdas import config as gdas_config
from gdas.config import GDASConfig
from gdas.search import algorithm_1
from retraining import random_cells
from retraining.config import TrainConfig
from retraining.ranking import check_log, conclude, seconds, train_briefly

METHOD = "gdas_best_of"


@dataclass(frozen=True)
class BestOfConfig(GDASConfig):
    """Four searches with the seeds from --seed on (4.2)."""

    searches: Annotated[int, Between(1, 1000)] = 4
    """How many; their seeds are --seed, --seed + 1, and so on."""
    train_epochs: Annotated[int, Between(1, 10**6)] = 100
    """Of the short training by which the found cells are ranked."""

    def check(self) -> None:
        """See `RunConfig.check`."""
        super().check()
        check_log(self)

    def single(self, number: int, folder: str) -> GDASConfig:
        """The config of one of the searches."""
        fields = [field.name for field in dataclasses.fields(GDASConfig)]
        own = {field: getattr(self, field) for field in fields}
        return GDASConfig(**{**own, "seed": self.seed + number, "resume": folder})

    def short_training(self) -> TrainConfig:
        """Random search's recipe, on this search's images, their augmentation and its batches."""
        recipe = random_cells.PRESETS[self.preset]
        images = ("dataset", "data_root", "image_size", "limit_images")
        batches = ("crop_padding", "flip", "cutout", "batch_size")
        run = ("seed", "threads", "checkpoint_steps")
        own = {field: getattr(self, field) for field in (*images, *batches, *run)}
        return dataclasses.replace(recipe, **own, epochs=self.train_epochs)


def preset(name: str, **changes) -> BestOfConfig:
    """The protocol around one of the search's presets."""
    return BestOfConfig(**{**dataclasses.asdict(gdas_config.PRESETS[name]), **changes})


PRESETS = {"cifar10": preset("cifar10"), "digits": preset("digits", train_epochs=8)}


def best_of(config: BestOfConfig) -> None:
    """Search, search, search, search; rank."""
    config, run, images, split = open_search(config, METHOD)
    found = []  # number and result of each search
    for number in range(config.searches):
        run.say(f"\nsearch {number + 1} of {config.searches}, seed {config.seed + number}")
        found.append((number, search_within(config, run, number, images, split)))
    there = [(number, result) for number, result in found if "failed" not in result]
    if not there:
        raise NotFinite(f"none of the {len(found)} searches ended: {found[0][1]['failed']}")

    recipe = config.short_training()
    train, valid = images.subset(split.train), images.subset(split.valid)
    genotypes, cells = [], []
    for number, _ in there:
        run.say(f"\ntraining the cells of search {number + 1} of {config.searches}")
        genotypes.append(load(run.folder / folder(number)))
        cells.append(train_briefly(recipe, run, genotypes[-1], number, train, valid))
    searching = sum(result["search_seconds"] for _, result in there)
    conclude(recipe, run, genotypes, cells, searching + seconds(cells))
    command = shlex.join(["python", "evaluate/train.py", "--genotype", str(run.folder)])
    run.say(f"next: {command}")
    run.close()


def folder(number: int) -> str:
    """Where a search of the protocol lies in its run folder."""
    return f"searches/{number:03d}"


def search_within(
    config: BestOfConfig, run: Run, number: int, images: Images, split: Split
) -> dict[str, Any]:
    """The result of one search, from an earlier run of this folder if it is there.

    One whose loss was not finite has `failed`, with the reason, for a result.
    """
    single = config.single(number, str(run.folder / folder(number)))
    inner = run.inner(folder(number), single, gdas_config.METHOD)
    if inner.result() is None:
        pin_split(inner, images, split)
        torch.manual_seed(seed_of(single.seed, "weights"))  # as in a run of its own
        try:
            algorithm_1(single, inner, images, split)
        except NotFinite as error:
            run.say(f"search {number + 1} failed: {error}")
            inner.write("result.json", {"failed": str(error)})
        run.accelerator.wait_for_everyone()  # until the result is written
    return inner.read("result.json")


if __name__ == "__main__":
    with errors_are_messages():
        best_of(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
