"""GDAS' protocol (4.2): several searches with different seeds, the best cell by validation.

The searches share one split. Each found cell is then trained from scratch for a short while on one
half of the images and validated on the other, as random search ranks its cells, so no test image is
looked at; the best one becomes the run's genotype. Flags are those of gdas/search.py.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

import torch

from common.baselines import random_search
from common.bilevel import open_search, pin_split
from common.command import retrain_command
from common.config import at_least, parse
from common.distributed import seed_of
from common.errors import errors_are_messages
from common.genotype import load
from common.ranking import check_log, conclude, seconds, train_briefly
from common.retrain import TrainConfig
from gdas import search
from gdas.search import GDASConfig, algorithm_1

METHOD = "gdas_best_of"


@dataclass(frozen=True)
class BestOfConfig(GDASConfig):
    """Four searches with the seeds from --seed on (4.2)."""

    searches: int = 4
    """How many; their seeds are --seed, --seed + 1, and so on."""
    train_epochs: int = 100
    """Of the short training by which the found cells are ranked."""

    def check(self) -> None:
        """See `RunConfig.check`."""
        super().check()
        check_log(self)
        at_least(self, 1, "searches", "train_epochs")

    def single(self, number: int, folder: str) -> GDASConfig:
        """The config of one of the searches."""
        fields = [field.name for field in dataclasses.fields(GDASConfig)]
        own = {field: getattr(self, field) for field in fields}
        return GDASConfig(**{**own, "seed": self.seed + number, "resume": folder})

    def short_training(self) -> TrainConfig:
        """Random search's recipe, on this search's images."""
        recipe = random_search.PRESETS[self.preset]
        images = ("dataset", "data_root", "image_size", "limit_images")
        run = ("seed", "threads", "checkpoint_steps", "log_with")
        own = {field: getattr(self, field) for field in (*images, *run)}
        return dataclasses.replace(recipe, **own, epochs=self.train_epochs)


def preset(name: str, **changes) -> BestOfConfig:
    """The protocol around one of the search's presets."""
    return BestOfConfig(**{**dataclasses.asdict(search.PRESETS[name]), **changes})


PRESETS = {"cifar10": preset("cifar10"), "digits": preset("digits", train_epochs=8)}


def best_of(config: BestOfConfig) -> None:
    """Search, search, search, search; rank."""
    config, run, images, split = open_search(config, METHOD)
    genotypes, searching = [], 0.0
    for number in range(config.searches):
        name = f"searches/{number:03d}"
        single = config.single(number, str(run.folder / name))
        inner = run.inner(name, single, search.METHOD)
        run.say(f"\nsearch {number + 1} of {config.searches}, seed {single.seed}")
        if not (inner.folder / "result.json").exists():
            pin_split(inner, images, split)
            torch.manual_seed(seed_of(single.seed, "weights"))  # as in a run of its own
            algorithm_1(single, inner, images, split)
            run.accelerator.wait_for_everyone()  # until the result is written
        genotypes.append(load(inner.folder))
        searching += inner.read("result.json")["search_seconds"]

    recipe = config.short_training()
    train, valid = images.subset(split.train), images.subset(split.valid)
    cells = []
    for number, genotype in enumerate(genotypes):
        run.say(f"\ntraining the cells of search {number + 1} of {config.searches}")
        cells.append(train_briefly(recipe, run, genotype, number, train, valid))
    conclude(recipe, run, genotypes, cells, searching + seconds(cells))
    run.say(f"next: {retrain_command(config, run.folder, len(images), images.shape)}")
    run.close()


if __name__ == "__main__":
    with errors_are_messages():
        best_of(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
