"""ITNAS: inter-layer transition in neural architecture search.

Searches a normal and a reduction cell whose inner edges follow from their predecessors (Ma, Zhang,
Xia and Tao). Without flags this is section 4.1.1 on CIFAR-10; the three --no- flags are the rows of
Table 2; --preset digits is two minutes on a laptop, with nothing to download.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Literal

from common.errors import InputError, errors_are_messages
from common.run.cli import parse
from common.run.config import SearchConfig
from common.run.flags import flag
from common.supernet.gumbel import linear
from common.training.bilevel import BilevelTrainer, open_search
from itnas import draw
from itnas.derive import Reweighting
from itnas.supernet import ITNASSuperNet

METHOD = "itnas"


@dataclass(frozen=True)
class ITNASConfig(SearchConfig):
    """Section 4.1.1: CIFAR-10, 8 cells, 16 channels, 50 epochs."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's search (4.1.1); digits: two minutes on two CPU cores."""
    gumbel: bool = True
    """Sample the outer edges' weights by an annealed Gumbel-softmax (3.2)."""
    transition: bool = True
    """Derive the inner edges' weights from their predecessors' (3.3)."""
    pruning: bool = True
    """Read the cells off by iterative edge pruning, Algorithm 1 (3.4); needs transitions."""
    tau_max: float = 5.0
    """Temperature of the first epoch (4.1.1)."""
    tau_min: float = 0.5
    """Temperature of the last epoch; between them it is linear."""
    derive_tau: float = 1.0
    """Temperature of the outer edges' noise-free weights that cells are derived from (3.4); Eq. 5
    has 0.5 in the last epoch."""
    reweighting: Reweighting = "logits"
    """Attention over the predecessors left by pruning (3.4). logits: softmax of their logits, which
    keeps the scores' ratios; scores: softmax of their scores."""
    learning_rate_min: float = 0.001
    """Where the cosine ends."""
    arch_learning_rate: float = 3e-4
    """Of the architecture parameters' Adam."""

    def provenance(self) -> dict[str, Any]:
        """See `SearchConfig.provenance`."""
        return {
            "gumbel": self.gumbel, "transition": self.transition, "pruning": self.pruning,
            "derive_tau": self.derive_tau, "reweighting": self.reweighting,
        }

    def check(self) -> None:
        """See `RunConfig.check`."""
        super().check()
        for name in ("tau_max", "tau_min", "derive_tau"):
            value = getattr(self, name)
            if not 1e-3 <= value < math.inf:
                raise InputError(f"{flag(name)} {value}: must be 0.001 or more, and finite")
            if not self.gumbel and value != getattr(ITNASConfig, name):
                raise InputError(
                    f"{flag(name)} {value}: --no-gumbel has no temperature; leave one of them out"
                )
        if self.reweighting != "logits" and not self.pruning:
            raise InputError(
                f"--reweighting {self.reweighting}: nothing is pruned; leave out it or --no-pruning"
            )
        if self.pruning and not self.transition:
            raise InputError(
                "--no-transition: pruning (Algorithm 1) follows the transitions, and there are "
                "none; add --no-pruning"
            )
        if self.transition and self.nodes < 4:
            raise InputError(
                f"--nodes {self.nodes}: such a cell has no inner edge that a transition could lead "
                "to; use 4 or more, or add --no-transition --no-pruning"
            )


PRESETS = {
    "cifar10": ITNASConfig(),
    "digits": ITNASConfig(
        preset="digits", dataset="digits", epochs=6, batch_size=64, channels=8, cells=4,
        crop_padding=1, flip=False, learning_rate=0.1, arch_learning_rate=6e-3,
        cut_accuracy="batch",
    ),
}


def search(config: ITNASConfig) -> None:
    """One search in a run folder of its own: Eq. 3, first order."""
    config, run, images, split = open_search(config, METHOD)
    supernet = ITNASSuperNet(
        gumbel=config.gumbel,
        transition=config.transition,
        pruning=config.pruning,
        derive_tau=config.derive_tau,
        reweighting=config.reweighting,
        **config.shape(images),
    )
    trainer = BilevelTrainer(config, supernet, run, images, split)
    for epoch in trainer.epochs():
        supernet.tau = linear(config.tau_max, config.tau_min, epoch, config.epochs)
        for train, valid in trainer.batches():
            trainer.arch_step(valid)  # alpha, P and beta by L_val, jointly (3.3)
            trainer.weight_step(train)  # omega by L_train
    if config.transition and run.accelerator.is_main_process:
        draw.run(run.folder)
    trainer.finish()
    run.close()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
