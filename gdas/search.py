"""GDAS: searching for a robust neural architecture in four GPU hours.

Searches a normal and a reduction cell by drawing one sub-graph a step (Dong and Yang, CVPR 2019).
Without flags this is section 4.2 on CIFAR-10; --reduction fixed is GDAS (FRC); --preset digits is
a minute on a laptop, with nothing to download.
"""

from __future__ import annotations

import sys

from common.data.images import Images
from common.data.split import Split
from common.errors import errors_are_messages
from common.run.cli import parse
from common.run.folder import Run
from common.supernet.gumbel import linear
from common.supernet.supernet import shape
from common.training.bilevel import BilevelTrainer, open_search
from gdas.config import METHOD, PRESETS, GDASConfig
from gdas.supernet import GDASSuperNet


def search(config: GDASConfig) -> None:
    """One search in a run folder of its own."""
    config, run, images, split = open_search(config, METHOD)
    algorithm_1(config, run, images, split)
    run.close()


def algorithm_1(config: GDASConfig, run: Run, images: Images, split: Split) -> None:
    """Algorithm 1: W by a sub-graph's training loss, then A by another one's validation loss."""
    supernet = GDASSuperNet(
        config.reduction, config.draw, derive_none=config.derive_none, **shape(config, images)
    )
    trainer = BilevelTrainer(config, supernet, run, images, split)
    for epoch in trainer.epochs():
        tau = linear(config.tau_max, config.tau_min, epoch, config.epochs)
        for train, valid in trainer.batches():
            trainer.weight_step(train, move_idle=config.move_idle, tau=tau)  # W - grad_W L_T
            trainer.arch_step(valid, tau=tau)  # A - grad_A L_V
        trainer.validate(tau=tau)
    trainer.finish()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
