"""PR-DARTS: prune and replace NAS.

Searches a normal and a reduction cell by cycles that prune each edge's candidates and replace them
by morphisms of the better ones (Laube and Zell). Without flags this is section IV on CIFAR-10 in
the DARTS-like space; --space dr and ur are the others; --preset digits is two or three minutes on a
laptop, with nothing to download.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from common.data.datasets import Images
from common.distributed import generator_of, seed_of
from common.errors import InputError, errors_are_messages
from common.networks.genotype import Op
from common.run.cli import parse
from common.run.config import SearchConfig
from common.run.flags import at_least
from common.training.bilevel import open_search
from pr_darts import draw
from pr_darts.cycles import Cycle, check
from pr_darts.morphisms import SPACES, candidate, is_convolution, reachable
from pr_darts.pools import prune, replenish
from pr_darts.similarity import discovered
from pr_darts.supernet import Parents, Pools, PRDARTSSuperNet
from pr_darts.trainer import CycleTrainer

METHOD = "pr_darts"
FIRST = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3(dilation 1, [])")


@dataclass(frozen=True)
class PRDARTSConfig(SearchConfig):
    """Section IV-A and Table I: CIFAR-10, 8 cells, 16 channels, nine cycles of 100 epochs."""

    static: ClassVar[bool] = False

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's search (IV-A); digits: two or three minutes on two CPU cores."""
    space: Literal["dl", "dr", "ur"] = "dl"
    """What convolutions can become (Table II): DARTS-like, depth-restricted or unrestricted."""
    candidates: tuple[str, ...] = FIRST
    """What every edge begins with (IV-A), a convolution among them."""
    cycle_epochs: tuple[int, ...] = (15, 15, 10, 10, 10, 10, 10, 10, 10)
    """Epochs of each cycle (Table I)."""
    grace_epochs: tuple[int, ...] = (5, 5, 3, 3, 3, 3, 3, 3, 3)
    """Of these, how many at the start in which alpha rests (Table I)."""
    morphisms: tuple[int, ...] = (3, 3, 3, 3, 3, 0, 0, 0, 0)
    """Morphed children that each edge gets after each cycle (Table I)."""
    kept: tuple[int, ...] = (6, 6, 6, 6, 6, 4, 3, 2, 1)
    """Candidates that an edge has after each cycle, children counted (Table I)."""
    cell_output: Literal["concat", "mean"] = "concat"
    """Of a cell's nodes: concatenated (authors' code, Table III) or averaged (III-A)."""
    epochs: int | None = None
    """Follows from --cycle-epochs."""
    batch_size: int = 24
    """Images of a step, over all processes together, at the least (b_min, III-C)."""
    batch_step: int = 8
    """What it changes by (b_mult)."""
    batch_max: int = 128
    """And at the most (b_max). On a GPU a cycle begins with the least, and every five steps takes
    what the memory allows; on a CPU it has b_max times the first cycle's number of candidates over
    its own."""
    memory_threshold: float = 0.95
    """Share of a GPU's memory that a batch may be expected to use (III-C)."""
    memory_gib: float | None = None
    """Take a GPU's memory to be this large, where it is larger: 11 is the paper's card. By default
    all of it, so that a larger GPU may keep to the largest batch in every cycle."""
    learning_rate_min: float = 0.01
    """Where the cosine of each cycle ends."""

    def resolved(self) -> PRDARTSConfig:
        """The epochs are those of all cycles."""
        epochs = sum(self.cycle_epochs) if self.epochs is None else self.epochs
        return dataclasses.replace(self, epochs=epochs)

    def provenance(self) -> dict[str, Any]:
        """See `SearchConfig.provenance`."""
        return {"space": self.space}

    def first(self) -> list[Op]:
        """What every edge begins with.

        Raises:
            InputError: an operation is unknown.
        """
        return [candidate(name) for name in self.candidates]

    def least_size(self) -> tuple[float, float]:
        """See `SearchConfig.least_size`; what the candidates are is free but for a convolution."""
        edges = (self.nodes - 2) * (self.nodes + 1) / 2
        return 2 * edges, edges

    def check(self) -> None:
        """See `RunConfig.check`."""
        first = self.first()
        names = " ".join(self.candidates)
        if len(set(first)) < len(first):
            raise InputError(f"--candidates {names}: names an operation twice")
        if not any(map(is_convolution, first)):
            raise InputError(
                f"--candidates {names}: no convolution, so nothing could be morphed; add one, as "
                f"'{FIRST[-1]}'"
            )
        for op in first:
            if is_convolution(op) and not SPACES[self.space].holds(op):
                raise InputError(
                    f"--candidates '{op}': lies outside of --space {self.space}, which has "
                    f"{SPACES[self.space]} (Table II)"
                )
        check(self, first, SPACES[self.space])
        super().check()
        if self.stop_on_collapse != "off":
            raise InputError(
                f"--stop-on-collapse {self.stop_on_collapse}: its cells come of the last cycle's "
                "pruning, so there is nothing to stop with before"
            )
        if self.epochs != sum(self.cycle_epochs):
            raise InputError(
                f"--epochs {self.epochs}: the cycles have {sum(self.cycle_epochs)} in all; "
                "change --cycle-epochs"
            )
        at_least(self, 1, "batch_step")
        if self.batch_max < self.batch_size:
            raise InputError(
                f"--batch-max {self.batch_max}: must be --batch-size {self.batch_size} or more"
            )
        if (self.batch_max - self.batch_size) % self.batch_step:
            raise InputError(
                f"--batch-max {self.batch_max}: must be --batch-size {self.batch_size} and a "
                f"multiple of --batch-step {self.batch_step}"
            )
        if not 0 < self.memory_threshold <= 1:
            raise InputError(
                f"--memory-threshold {self.memory_threshold}: must be above 0 and 1 or less"
            )

        if self.memory_gib is not None and not 0 < self.memory_gib < math.inf:
            raise InputError(f"--memory-gib {self.memory_gib}: must be above 0; 11 is the paper's")

    def check_images(self, images: Images) -> None:
        """See `RunConfig.check_images`: the largest batch must fit, too."""
        super().check_images(images)
        split = self.split(images)
        least = min(len(split.train), len(split.valid))
        if self.batch_max > least:
            raise InputError(
                f"--batch-max {self.batch_max}: a part of the {len(images)} training images, "
                f"{least}, is less than one batch; make it smaller, and --batch-size"
            )


PRESETS = {
    "cifar10": PRDARTSConfig(),
    "digits": PRDARTSConfig(
        preset="digits", dataset="digits", cycle_epochs=(2,) * 9, grace_epochs=(1,) * 9,
        batch_size=32, batch_step=16, batch_max=192, channels=8, cells=3, crop_padding=1,
        flip=False, learning_rate=0.05, learning_rate_min=0.02, arch_learning_rate=2e-2,
    ),
}


def search(config: PRDARTSConfig) -> None:
    """The cycles of Table I (III-A, III-B.2), first order.

    The arch step comes first, as in the authors' code; the paper gives no order.
    """
    config, run, images, split = open_search(config, METHOD)
    supernet = PRDARTSSuperNet(
        config.first(),
        cell_output=config.cell_output,
        **config.shape(images),
    )
    trainer = CycleTrainer(config, supernet, run, images, split)
    for cycle in trainer.cycles():
        for epoch in trainer.epochs(until=cycle.end):
            for train, valid in trainer.batches():
                if epoch >= cycle.start + cycle.grace:  # "grace epochs": alpha rests (III-A)
                    trainer.arch_step(valid)
                trainer.weight_step(train)
                trainer.resize_batch()  # III-C
        if not cycle.last:
            run.say(f"cycle {cycle.number + 1}: {next_cycle(config, trainer, cycle)}")
    found = {kind: len(discovered(pools)) for kind, pools in supernet.pools.items()}
    possible = len(discoverable(config))
    if run.accelerator.is_main_process:
        draw.run(run.folder)
    run.say(f"discovered {found['normal']} of {possible} operations of normal cells (Table III)")
    trainer.finish(discovered=found, discoverable=possible)
    run.close()


def next_cycle(config: PRDARTSConfig, trainer: CycleTrainer, cycle: Cycle) -> str:
    """From one cycle to the next, alike on all processes; what the next one searches."""
    supernet = trainer.supernet
    pools, parents = prune_and_replace(config, supernet, cycle)
    torch.manual_seed(seed_of(config.seed, "new candidates", cycle.number))
    supernet.rebuild(pools, parents)  # survivors stay, children inherit, alphas are equal
    trainer.restart()  # new optimisers; learning rate and batch size begin anew
    return summary(pools, parents)


def prune_and_replace(
    config: PRDARTSConfig, supernet: PRDARTSSuperNet, cycle: Cycle
) -> tuple[Pools, Parents]:
    """III-B.2 for every edge of both cells: remove the worst, add morphisms of the others."""
    generator = generator_of(config.seed, "parents", cycle.number)
    pools: Pools = {}
    parents: Parents = {}
    for kind in supernet.kinds:
        edges = []
        for pool, weights in zip(supernet.pools[kind], supernet.weights(kind), strict=True):
            survivors = prune(pool, weights, cycle.survivors)
            weight_of = dict(zip(pool.candidates, weights, strict=True))
            space = SPACES[config.space]
            edges.append(replenish(survivors, weight_of, cycle.morphisms, space, generator))
        pools[kind], parents[kind] = map(list, zip(*edges, strict=True))
    return pools, parents


def discoverable(config: PRDARTSConfig) -> set[Op]:
    """What an edge could come to within the morphing cycles (Table II's total and Table III)."""
    steps = sum(count > 0 for count in config.morphisms)
    return reachable(config.first(), SPACES[config.space], steps)


def summary(pools: Pools, parents: Parents) -> str:
    """A line of what the next cycle searches."""
    count = sum(len(pool.candidates) for edges in pools.values() for pool in edges)
    new = sum(len(edge) for edges in parents.values() for edge in edges)
    return f"{count} candidates on {sum(map(len, pools.values()))} edges, {new} of them new"


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
