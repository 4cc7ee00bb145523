"""PC-DARTS: partial channel connections for memory-efficient architecture search.

Searches a normal and a reduction cell (Xu et al., ICLR 2020). The default is section 4.2 on
CIFAR-10; --preset imagenet is section 4.3; --preset digits takes a minute on a laptop, no download.
"""

from __future__ import annotations

import sys

from common.errors import errors_are_messages
from common.run.cli import parse
from common.supernet.supernet import shape
from common.training.bilevel import BilevelTrainer
from common.training.opening import open_search
from pc_darts.config import METHOD, PRESETS, PCDARTSConfig
from pc_darts.supernet import PCDARTSSuperNet


def search(config: PCDARTSConfig) -> None:
    """Bilevel search (3.1), first order, with warm-up (4.2).

    The paper gives no order of the two steps; the arch step comes first, as in the authors' code.
    """
    config, run, images, split = open_search(config, METHOD)
    with run:
        supernet = PCDARTSSuperNet(
            config.K, config.edge_normalization, config.mask, derive_none=config.derive_none,
            candidates=config.candidates, **shape(config, images),
        )
        trainer = BilevelTrainer(
            config, supernet, run, images, split, rate_warmup=config.learning_rate_warmup
        )
        if config.warmup_epochs >= config.epochs:
            run.say(f"note: all {config.epochs} epochs are warm-up; alpha and beta will not move")
        for epoch in trainer.epochs():
            searching = epoch >= config.warmup_epochs
            for train, valid in trainer.batches(valid=searching):
                if searching:
                    trainer.arch_step(valid)  # alpha and beta, on the validation part
                trainer.weight_step(train)  # operation weights, on the training part
            trainer.validate()
        trainer.finish()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
