"""Random search: cells drawn at random, each trained briefly, ranked by validation.

What a search must beat. Cells are uniform over the edges and operations of DARTS' space; mean and
spread of all of them are kept, not the best alone. --preset digits: eight cells in two minutes on
two CPU cores, with nothing to download.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from dataclasses import dataclass
from typing import Any, Literal

import torch

from common import draw, retrain
from common.bilevel import open_search
from common.command import retrain_command
from common.config import at_least, parse
from common.data import Images
from common.distributed import generator_of
from common.errors import errors_are_messages
from common.genotype import CANDIDATES, Cell, Edge, Genotype, Op, save
from common.retrain import RetrainConfig, TrainConfig
from common.run import Run
from common.supernet import KINDS

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
    config.check_images(train)
    cells = []
    for number in range(config.samples):
        genotype = random_genotype(config.nodes - 2, config.seed, number)
        run.say(f"\ncell {number + 1} of {config.samples}")
        cells.append(train_briefly(config, run, genotype, number, train, valid))
    finish(config, run, cells)
    run.say(f"next: {retrain_command(config, run.folder, len(images), images.shape)}")
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


def train_briefly(
    config: RandomSearchConfig, run: Run, genotype: Genotype, number: int, train: Images,
    valid: Images,
) -> dict[str, Any]:
    """The result of one cell; what an earlier run of this folder left of it is used."""
    name = f"cells/{number:03d}"
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    recipe = {key: value for key, value in dataclasses.asdict(config).items() if key in fields}
    own = {"output": None, "resume": str(run.folder / name), "genotype": genotype.name}
    recipe = RetrainConfig(**{**recipe, **own, "preset": config.preset, "held_out": "valid"})
    inner = run.inner(name, recipe, retrain.METHOD)
    if not (inner.folder / "result.json").exists():
        retrain.train(recipe, inner, genotype, train, valid)
        run.accelerator.wait_for_everyone()  # until the result is written
    return {"number": number, **inner.read("result.json")}


def finish(config: RandomSearchConfig, run: Run, cells: list[dict[str, Any]]) -> None:
    """Write and say the ranking; the best cell is the run's genotype."""
    ranked = sorted(cells, key=lambda cell: (-cell["valid_top1"], cell["valid_loss"]))
    top1 = [cell["valid_top1"] for cell in cells]
    mean, std = statistics.mean(top1), statistics.stdev(top1) if len(top1) > 1 else None
    best = dataclasses.replace(
        random_genotype(config.nodes - 2, config.seed, ranked[0]["number"]),
        name=f"{METHOD}-{config.dataset}-seed{config.seed}",
        provenance={
            "method": METHOD, "dataset": config.dataset, "seed": config.seed,
            "samples": config.samples, "number": ranked[0]["number"], "epochs": config.epochs,
            "commit": run.commit,
        },
    )
    run.write("result.json", {
        "genotype": best.name,
        "samples": len(cells),
        "valid_top1": ranked[0]["valid_top1"],  # the best, by which it was chosen
        "valid_top1_mean": mean,
        "valid_top1_std": std,
        "search_seconds": round(sum(cell["train_seconds"] for cell in cells), 1),
        "peak_memory_mib": max(cell["peak_memory_mib"] for cell in cells),
        "cells": cells,
    })
    if run.accelerator.is_main_process:
        save(best, run.folder / "genotype.json")
        draw.run(run.folder)
    run.say(f"\n{'cell':>4} {'valid top-1':>12} {'parameters':>12}")
    for cell in ranked:
        run.say(f"{cell['number']:>4} {cell['valid_top1']:>10.2f} % {cell['params']:>12,}")
    spread = "" if std is None else f", standard deviation {std:.2f}"
    run.say(f"mean {mean:.2f} %{spread}, of {len(cells)} cells\n\n{best}\n")
    run.say(f"run folder: {run.folder} (pictures of both cells and of the spread inside)")


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
