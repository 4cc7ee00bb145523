"""Random cells, and the flags of random search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch

from common.distributed import generator_of
from common.networks.fits import check_candidates
from common.networks.genotype import CANDIDATES, Cell, Edge, Genotype, Op
from common.networks.space import DARTS, Space
from common.run.config import SpaceFlags
from common.run.flags import Between
from common.supernet.cell import cell_edges
from retraining.config import TrainConfig
from retraining.ranking import check_log

METHOD = "random_search"
OPERATIONS = [name for name in CANDIDATES if name != "none"]


@dataclass(frozen=True)
class RandomSearchConfig(SpaceFlags, TrainConfig):
    """24 cells, each trained for 100 epochs in a network of the supernet's size."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: 24 cells for 100 epochs each; digits: eight cells in two minutes on a CPU."""
    samples: Annotated[int, Between(1, 10**5)] = 24
    """Number of random cells."""
    nodes: Annotated[int, Between(3, 32)] = 6
    """Nodes of a cell, its two inputs included: 6 means 4 computed nodes."""
    candidates: tuple[str, ...] | None = None
    """Operations to draw from, by name; by default DARTS'. `none` is never drawn."""
    epochs: int = 100
    """Epochs for each cell, on one half of the training images."""

    def check(self) -> None:
        super().check()
        check_log(self)
        check_candidates(self.candidates, self.channels, self.operations)


PRESETS = {
    "cifar10": RandomSearchConfig(),
    "digits": RandomSearchConfig(
        preset="digits", dataset="digits", samples=8, epochs=8, channels=8, cells=5,
        crop_padding=1, flip=False, learning_rate=0.05,
    ),
}


def random_genotype(
    nodes: int, seed: int, number: int, space: Space = DARTS,
    candidates: Sequence[str] | None = None,
) -> Genotype:
    """Random cells number `number` of a seed: two inputs per node, one operation per input.

    Uniform over pairs of earlier nodes and over operations, `none` excluded. In NAS-Bench-201's
    space every edge has an operation, `none` included.

    Args:
        nodes: computed nodes of a cell.
        seed: of the draw.
        number: of the cells among those of the seed.
        space: where cells are drawn.
        candidates: the operations; None: the space's.
    """
    generator = generator_of(seed, "random cell", number)
    provenance: dict[str, Any] = {"method": METHOD, "seed": seed}
    if candidates is not None:
        provenance["candidates"] = list(candidates)
    names = candidates or space.candidates
    cells = {kind: _random_cell(nodes, generator, space, names) for kind in space.kinds}
    return Genotype(f"random-seed{seed}-{number:03d}", cells, provenance)


def _random_cell(
    nodes: int, generator: torch.Generator, space: Space, names: Sequence[str]
) -> Cell:
    if space.kept is None:
        ends = cell_edges(nodes, space.inputs)
        columns = torch.randint(len(names), (len(ends),), generator=generator).tolist()
        ops = [Op(names[column]) for column in columns]
        edges = tuple(Edge(i, j, op) for (i, j), op in zip(ends, ops, strict=True))
        return Cell(space.inputs, edges, (nodes,))
    edges, names = [], [name for name in names if name != "none"]
    for node in range(2, 2 + nodes):
        sources = torch.randperm(node, generator=generator)[:2].sort().values.tolist()
        columns = torch.randint(len(names), (2,), generator=generator).tolist()
        edges += [
            Edge(source, node, Op(names[column]))
            for source, column in zip(sources, columns, strict=True)
        ]
    return Cell(2, tuple(edges), tuple(range(2, 2 + nodes)))
