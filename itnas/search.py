"""ITNAS: inter-layer transition in neural architecture search.

Searches a normal and a reduction cell whose inner edges follow from their predecessors (Ma, Zhang,
Xia and Tao). Without flags: section 4.1.1 on CIFAR-10. The three --no- flags give the rows of
Table 2. --preset digits takes two minutes on a laptop and downloads nothing.
"""

from __future__ import annotations

import sys

from common.errors import errors_are_messages
from common.run.cli import parse
from common.supernet.gumbel import linear
from common.supernet.supernet import shape
from common.training.bilevel import BilevelTrainer
from common.training.opening import open_search
from itnas.config import METHOD, PRESETS, ITNASConfig
from itnas.supernet import ITNASSuperNet


def search(config: ITNASConfig) -> None:
    """Eq. 3 in first order; arch step first, as in DARTS' code."""
    from itnas import figures

    config, run, images, split = open_search(config, METHOD)
    with run:
        supernet = ITNASSuperNet(
            config.gumbel, config.transition, config.pruning, derive_tau=config.derive_tau,
            reweighting=config.reweighting, candidates=config.candidates, **shape(config, images),
        )
        trainer = BilevelTrainer(config, supernet, run, images, split)
        for epoch in trainer.epochs():
            tau = linear(config.tau_max, config.tau_min, epoch, config.epochs)
            for train, valid in trainer.batches():
                trainer.arch_step(valid, tau=tau)  # alpha, P and beta jointly, on L_val (3.3)
                trainer.weight_step(train, tau=tau)  # omega, on L_train
            trainer.validate(tau=tau)
        trainer.finish(figures.run if config.transition else None)


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
