"""Cells drawn at random, and the flags of a random search among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from common.distributed import generator_of
from common.networks.genotype import CANDIDATES, Cell, Edge, Genotype, Op
from common.run.flags import Between
from common.supernet.supernet import KINDS
from retraining.config import TrainConfig
from retraining.ranking import check_log

METHOD = "random_search"
OPERATIONS = [name for name in CANDIDATES if name != "none"]


@dataclass(frozen=True)
class RandomSearchConfig(TrainConfig):
    """24 cells, each trained for 100 epochs, as deep and wide as a search's supernet."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: 24 cells for 100 epochs each; digits: eight cells in two minutes on two cores."""
    samples: Annotated[int, Between(1, 10**5)] = 24
    """How many cells are drawn and trained."""
    nodes: Annotated[int, Between(3, 32)] = 6
    """N of a cell, its two inputs counted: 6 are 4 computed nodes."""
    epochs: int = 100
    """Passes of each cell's network over one half of the training images."""

    def check(self) -> None:
        super().check()
        check_log(self)


PRESETS = {
    "cifar10": RandomSearchConfig(),
    "digits": RandomSearchConfig(
        preset="digits", dataset="digits", samples=8, epochs=8, channels=8, cells=5,
        crop_padding=1, flip=False, learning_rate=0.05,
    ),
}


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
