"""Random search: cells drawn at random, each trained briefly, ranked by validation.

What a search must beat. Cells are uniform over the edges and operations of DARTS' space; mean and
spread of all of them are kept, not the best alone. --preset digits: eight cells in two minutes on
two CPU cores, with nothing to download.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import torch

from common.distributed import generator_of
from common.errors import errors_are_messages
from common.networks.genotype import CANDIDATES, Cell, Edge, Genotype, Op
from common.run.cli import parse
from common.run.flags import at_least
from common.run.start import retrain_command
from common.supernet.supernet import KINDS
from common.training.bilevel import open_search
from retraining.config import TrainConfig
from retraining.ranking import check_log, conclude, seconds, train_briefly

METHOD = "random_search"
OPERATIONS = [name for name in CANDIDATES if name != "none"]


@dataclass(frozen=True)
class RandomSearchConfig(TrainConfig):
    """24 cells, each trained for 100 epochs, as deep and wide as a search's supernet."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: 24 cells for 100 epochs each; digits: eight cells in two minutes on two cores."""
    samples: int = 24
    """How many cells are drawn and trained."""
    nodes: int = 6
    """N of a cell, its two inputs counted: 6 are 4 computed nodes."""
    epochs: int = 100
    """Passes of each cell's network over one half of the training images."""

    def check(self) -> None:
        """See `RunConfig.check`."""
        super().check()
        check_log(self)
        at_least(self, 1, "samples")
        at_least(self, 3, "nodes")


PRESETS = {
    "cifar10": RandomSearchConfig(),
    "digits": RandomSearchConfig(
        preset="digits", dataset="digits", samples=8, epochs=8, channels=8, cells=5,
        crop_padding=1, flip=False, learning_rate=0.05,
    ),
}


def search(config: RandomSearchConfig) -> None:
    """Draw, train, rank; the halves of the images are those of a search with this seed."""
    config, run, images, split = open_search(config, METHOD)
    train, valid = images.subset(split.train), images.subset(split.valid)
    nodes = config.nodes - 2
    genotypes = [random_genotype(nodes, config.seed, number) for number in range(config.samples)]
    cells = []
    for number, genotype in enumerate(genotypes):
        run.say(f"\ncell {number + 1} of {config.samples}")
        cells.append(train_briefly(config, run, genotype, number, train, valid))
    conclude(config, run, genotypes, cells, seconds(cells))
    run.say(f"next: {retrain_command(config, METHOD, run.folder, len(images))}")
    run.close()


def random_genotype(nodes: int, seed: int, number: int) -> Genotype:
    """The cell number `number` of a seed: each node takes two inputs and two operations.

    Uniform over the pairs of earlier states, and over the operations but `none` of each edge.
    """
    generator = generator_of(seed, "random cell", number)
    cells = {}
    for kind in KINDS:
        edges = []
        for node in range(2, 2 + nodes):
            sources = torch.randperm(node, generator=generator)[:2].sort().values.tolist()
            columns = torch.randint(len(OPERATIONS), (2,), generator=generator).tolist()
            edges += [
                Edge(source, node, Op(OPERATIONS[column]))
                for source, column in zip(sources, columns, strict=True)
            ]
        cells[kind] = Cell(2, tuple(edges), tuple(range(2, 2 + nodes)))
    return Genotype(f"random-seed{seed}-{number:03d}", cells, {"method": METHOD, "seed": seed})


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
