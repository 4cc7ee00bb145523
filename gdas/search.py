"""GDAS: searching for a robust neural architecture in four GPU hours.

Searches a normal and a reduction cell by drawing one sub-graph per step (Dong and Yang, CVPR 2019).
The default is section 4.2 on CIFAR-10; --reduction fixed is GDAS (FRC); --preset digits takes a
minute on a laptop, no download.
"""

from __future__ import annotations

import sys

from common.errors import errors_are_messages
from common.run.cli import parse
from common.supernet.gumbel import linear
from common.supernet.supernet import shape
from common.training.bilevel import BilevelTrainer
from common.training.opening import open_search
from gdas.config import METHOD, PRESETS, GDASConfig
from gdas.supernet import GDASSuperNet


def search(config: GDASConfig) -> None:
    """Algorithm 1: each step draws its own sub-graph; tau falls linearly over the epochs (4.2)."""
    config, run, images, split = open_search(config, METHOD)
    with run:
        supernet = GDASSuperNet(
            config.reduction, config.draw, derive_none=config.derive_none,
            candidates=config.candidates, **shape(config, images),
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
