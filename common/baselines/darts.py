"""DARTS: differentiable architecture search, first and second order.

Searches a normal and a reduction cell (Liu et al., ICLR 2019). Without flags: its search on
CIFAR-10. --preset digits takes a minute or two on a laptop and downloads nothing.
"""

from __future__ import annotations

import common  # noqa: F401  before torch: sets how threads wait

# isort: split
import sys
from dataclasses import dataclass
from typing import Any, Literal

import torch

from common.errors import InputError, errors_are_messages
from common.networks.fits import check_candidates
from common.run.cli import parse
from common.run.config import SearchConfig, SpaceFlags
from common.supernet.supernet import SuperNet, shape
from common.training.bilevel import BilevelTrainer
from common.training.opening import open_search

METHOD = "darts"


@dataclass(frozen=True)
class DARTSConfig(SpaceFlags, SearchConfig):
    """DARTS' search on CIFAR-10: 8 cells, 16 channels, batch 64, 50 epochs."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's search; digits: one or two minutes on a CPU."""
    order: Literal[1, 2] = 1
    """1: alpha's gradient at the current weights; 2: after one virtual weight step."""
    derive_none: bool = False
    """Allow `none` in the derived cell; such an edge is zero."""
    learning_rate_min: float = 0.001
    """Final learning rate of the cosine schedule."""
    arch_learning_rate: float = 3e-4
    """Learning rate of the architecture parameters (Adam)."""

    def check(self) -> None:
        super().check()
        check_candidates(self.candidates, self.channels, self.operations)
        if self.order not in (1, 2):
            raise InputError(f"--order {self.order}: must be 1 or 2")

    def provenance(self) -> dict[str, Any]:
        return {
            **super().provenance(), "order": self.order, "derive_none": self.derive_none,
        }

    def check_precision(self, precision: str) -> None:
        """Second order also refuses bf16: it takes a small difference of gradients."""
        super().check_precision(precision)
        if self.order == 2 and precision != "no":
            raise InputError(
                f"--order 2 with --mixed_precision {precision} (accelerate's flag): the "
                "second-order term is the difference of two gradients whose weights differ by "
                "0.01 in norm, which 8 bits of mantissa do not resolve; use --mixed_precision no, "
                "or --order 1"
            )


PRESETS = {
    "cifar10": DARTSConfig(),
    "digits": DARTSConfig(
        preset="digits", dataset="digits", epochs=6, batch_size=64, channels=8, cells=4,
        crop_padding=1, flip=False, learning_rate=0.1, arch_learning_rate=6e-3,
        cut_accuracy="batch",
    ),
}


def search(config: DARTSConfig) -> None:
    """Algorithm 1 of DARTS; first order is xi = 0."""
    config, run, images, split = open_search(config, METHOD)
    with run:
        if config.order == 2:  # TF32 does not resolve the difference of gradients
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        supernet = SuperNet(
            derive_none=config.derive_none, candidates=config.candidates, **shape(config, images)
        )
        trainer = BilevelTrainer(config, supernet, run, images, split)
        for _ in trainer.epochs():
            for train, valid in trainer.batches():
                if config.order == 2:
                    trainer.unrolled_arch_step(train, valid)
                else:
                    trainer.arch_step(valid)
                trainer.weight_step(train)
            trainer.validate()
        trainer.finish()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
