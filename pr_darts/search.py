"""PR-DARTS: prune and replace NAS.

Searches a normal and a reduction cell in cycles that prune each edge's candidates and replace them
by morphisms of the better ones (Laube and Zell). Without flags: section IV on CIFAR-10 in the
DARTS-like space; --space dr and ur are the others. --preset digits takes two or three minutes on a
laptop and downloads nothing.
"""

from __future__ import annotations

import common  # noqa: F401  before torch: sets how threads wait

# isort: split
import sys

import torch

from common.distributed import generator_of, seed_of
from common.errors import errors_are_messages
from common.run.cli import parse
from common.supernet.supernet import shape
from common.training.opening import open_search
from pr_darts.config import METHOD, PRESETS, PRDARTSConfig, discoverable
from pr_darts.cycles import Cycle
from pr_darts.morphisms import SPACES
from pr_darts.pools import prune, replenish
from pr_darts.similarity import discovered
from pr_darts.supernet import Parents, Pools, PRDARTSSuperNet
from pr_darts.trainer import CycleTrainer


def search(config: PRDARTSConfig) -> None:
    """The cycles of Table I (III-A, III-B.2) in first order; arch step first (authors' code)."""
    from pr_darts import figures

    config, run, images, split = open_search(config, METHOD)
    with run:
        supernet = PRDARTSSuperNet(
            config.first(), cell_output=config.cell_output, **shape(config, images)
        )
        trainer = CycleTrainer(config, supernet, run, images, split)
        for cycle in trainer.cycles():
            for epoch in trainer.epochs(until=cycle.end):
                for train, valid in trainer.batches():
                    if epoch >= cycle.start + cycle.grace:  # "grace epochs" freeze alpha (III-A)
                        trainer.arch_step(valid)
                    trainer.weight_step(train)
                    trainer.resize_batch()  # III-C
                trainer.validate()
            if not cycle.last:
                next_cycle(config, trainer, cycle)
        found = {kind: len(discovered(pools)) for kind, pools in supernet.pools.items()}
        possible = len(discoverable(config))
        run.say(
            f"discovered {found['normal']} of {possible} operations of normal cells (Table III)"
        )
        trainer.finish(figures.run, discovered=found, discoverable=possible)


def next_cycle(config: PRDARTSConfig, trainer: CycleTrainer, cycle: Cycle) -> None:
    """Prune, morph, rebuild and restart, identically on all processes."""
    supernet = trainer.supernet
    pools, parents = prune_and_morph(config, supernet, cycle)
    torch.manual_seed(seed_of(config.seed, "new candidates", cycle.number))
    supernet.rebuild(pools, parents)  # survivors stay, children inherit, alphas are reset
    trainer.restart()  # new optimisers; learning rate and batch size start again
    count = sum(len(pool.candidates) for edges in pools.values() for pool in edges)
    new = sum(len(edge) for edges in parents.values() for edge in edges)
    trainer.run.say(
        f"cycle {cycle.number + 1}: {count} candidates on {sum(map(len, pools.values()))} edges, "
        f"{new} of them new"
    )


def prune_and_morph(
    config: PRDARTSConfig, supernet: PRDARTSSuperNet, cycle: Cycle
) -> tuple[Pools, Parents]:
    """III-B.2 on every edge of both cells: remove the worst, add morphisms of the others."""
    generator = generator_of(config.seed, "parents", cycle.number)
    pools: Pools = {}
    parents: Parents = {}
    for kind in supernet.kinds:
        edges = []
        for pool, weights in zip(supernet.pools[kind], supernet.weights(kind), strict=True):
            survivors = prune(pool, weights, cycle.survivors)
            weight_of = dict(zip(pool.candidates, weights, strict=True))
            edges.append(
                replenish(survivors, weight_of, cycle.morphisms, SPACES[config.space], generator)
            )
        pools[kind], parents[kind] = map(list, zip(*edges, strict=True))
    return pools, parents


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
