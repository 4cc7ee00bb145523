"""The steps as the authors' code makes them: the oracle of `bilevel`, the benchmark's yardstick.

With supernets of equation-shaped cells this is the equation-shaped form of a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from common.data.batches import Batch
from common.distributed import seed_of
from common.training.bilevel import BilevelTrainer, optimizers


class EquationTrainer(BilevelTrainer):
    """Everything gets a gradient in both steps, of one process; optimizers are the plain ones."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.optimizer, self.arch_optimizer = self.optimizers = optimizers(
            self.config, self.weights, self.arch, fused=False
        )

    def _gradients(
        self, batch: Batch, of: Sequence[nn.Parameter], draw: str, given: dict[str, Any]
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """See `BilevelTrainer._gradients`: by one `loss.backward()`."""
        self.generator.manual_seed(seed_of(self.config.seed, draw, self.global_step))
        for parameter in (*self.weights, *self.arch):
            parameter.grad = None
        loss, logits = self.supernet.loss(*batch, self.supernet.mixes(self.generator, **given))
        loss.backward()
        return loss.detach(), logits.detach(), [parameter.grad for parameter in of]
