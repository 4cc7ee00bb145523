"""The steps as in the authors' code: the reference for `bilevel` in tests and benchmarks.

Together with equation-shaped cells, this is the equation-shaped form of a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from common.data.batches import Batch
from common.training.bilevel import BilevelTrainer, Loss, optimizers


class EquationTrainer(BilevelTrainer):
    """Both steps compute all gradients, in one process; the optimizers are not fused."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.optimizer, self.arch_optimizer = self.optimizers = optimizers(
            self.config, self.weights, self.arch, fused=False
        )

    def _gradients(
        self, of: Loss, batch: Batch, parameters: Sequence[nn.Parameter], draw: str,
        given: dict[str, Any],
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """See `BilevelTrainer._gradients`: by one `loss.backward()`."""
        for parameter in (*self.weights, *self.arch):
            parameter.grad = None
        loss, logits = of(*batch, self._drawn_for(draw, given))
        loss.backward()
        return loss.detach(), logits.detach(), [parameter.grad for parameter in parameters]
