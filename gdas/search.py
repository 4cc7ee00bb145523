"""GDAS: searching for a robust neural architecture in four GPU hours.

Searches a normal and a reduction cell by drawing one sub-graph a step (Dong and Yang, CVPR 2019).
Without flags this is section 4.2 on CIFAR-10; --reduction fixed is GDAS (FRC); --preset digits is
a minute on a laptop, with nothing to download.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from common.data.datasets import Images, Split
from common.errors import InputError, errors_are_messages
from common.networks.network import FixedReductionCell
from common.run.cli import parse
from common.run.config import SearchConfig
from common.run.flags import flag
from common.run.folder import Run
from common.supernet.gumbel import linear
from common.training.bilevel import BilevelTrainer, open_search
from gdas.supernet import GDASSuperNet

METHOD = "gdas"


@dataclass(frozen=True)
class GDASConfig(SearchConfig):
    """Section 4.2: CIFAR-10, 8 cells (N = 2), 16 channels, 240 epochs."""

    static: ClassVar[bool] = False

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's search (4.2); digits: a minute on two CPU cores."""
    reduction: Literal["searched", "fixed"] = "searched"
    """Search both kinds of cell, or normal cells only between fixed reduction cells (FRC, 3.3)."""
    draw: Literal["cell", "kind"] = "cell"
    """Every cell draws its own operations (3.2), or all cells of a kind share one draw."""
    tau_max: float = 10.0
    """Temperature of the first epoch (4.2)."""
    tau_min: float = 0.1
    """Temperature of the last epoch; between them it is linear."""
    derive_none: bool = False
    """Let `none` be derived, as the paper's Omega does (3.2); such an edge sends zeros."""
    move_idle: bool = False
    """Let momentum and decay move the weights of operations that did not run in a step."""
    epochs: int = 240
    """Passes over the training images."""
    batch_size: int = 128
    """Images of a step, over all processes together."""
    learning_rate_min: float = 0.001
    """Where the cosine ends."""
    arch_learning_rate: float = 3e-4
    """Of the architecture parameters' Adam."""

    def provenance(self) -> dict[str, Any]:
        """See `SearchConfig.provenance`."""
        return {
            "reduction": self.reduction, "draw": self.draw, "derive_none": self.derive_none,
        }

    def least_size(self) -> tuple[float, float]:
        """See `SearchConfig.least_size`; a fixed reduction cell has far fewer weights."""
        return (8, 1) if self.reduction == "fixed" else super().least_size()

    def check(self) -> None:
        """See `RunConfig.check`."""
        super().check()
        for name in ("tau_max", "tau_min"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{flag(name)} {getattr(self, name)}: must be above 0 and finite")
        groups = FixedReductionCell.groups
        if self.reduction == "fixed" and 2 * self.channels % groups:
            raise InputError(
                f"--reduction fixed: its convolutions have {groups} groups and its first cell "
                f"2 x {self.channels} channels; --channels must be a multiple of {groups // 2}"
            )


PRESETS = {
    "cifar10": GDASConfig(),
    "digits": GDASConfig(
        preset="digits", dataset="digits", epochs=14, batch_size=32, channels=16, cells=3,
        crop_padding=1, flip=False, learning_rate=0.05, arch_learning_rate=6e-3,
        cut_accuracy="batch",
    ),
}


def search(config: GDASConfig) -> None:
    """One search in a run folder of its own."""
    config, run, images, split = open_search(config, METHOD)
    algorithm_1(config, run, images, split)
    run.close()


def algorithm_1(config: GDASConfig, run: Run, images: Images, split: Split) -> None:
    """Algorithm 1: W by a sub-graph's training loss, then A by another one's validation loss."""
    supernet = GDASSuperNet(
        reduction=config.reduction,
        draw=config.draw,
        derive_none=config.derive_none,
        **config.shape(images),
    )
    trainer = BilevelTrainer(config, supernet, run, images, split)
    for epoch in trainer.epochs():
        supernet.tau = linear(config.tau_max, config.tau_min, epoch, config.epochs)
        for train, valid in trainer.batches():
            trainer.weight_step(train, move_idle=config.move_idle)  # W - grad_W L_T
            trainer.arch_step(valid)  # A - grad_A L_V
    trainer.finish()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
