"""EDAS: efficient and differentiable architecture search.

Searches a normal and a reduction cell by relaxing one edge an iteration (Hong, Ahn and Kim).
Without flags this is section 4.1 on CIFAR-10; --variant edas-inv is "warmup" in Table 2; --preset
digits is a few minutes on a laptop, with nothing to download.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from common.data.batches import Batch
from common.distributed import generator_of
from common.errors import InputError, errors_are_messages
from common.run.cli import parse
from common.run.config import SearchConfig
from common.run.flags import at_least, flag
from common.training.bilevel import BilevelTrainer, open_search
from edas import draw
from edas.supernet import EDASSuperNet

METHOD = "edas"


@dataclass(frozen=True)
class EDASConfig(SearchConfig):
    """Section 4.1: CIFAR-10, 20 cells, 25 epochs, batch 64."""

    static: ClassVar[bool] = False

    preset: Literal["cifar10", "cifar100", "digits"] = "cifar10"
    """cifar10, cifar100: the paper's searches (4.1); digits: minutes on two CPU cores."""
    variant: Literal["alpha-max", "edas", "edas-inv"] = "edas"
    """The methods of 5.3. alpha-max: weights are trained with every edge at its best operation;
    edas: with the sampled edge relaxed; edas-inv: and alpha's sign inverted at the start."""
    candidates: Literal[7, 8] = 7
    """7: without zero (3.1); 8: with zero (4.1), which weighs in the relaxed edge only."""
    inversion_epochs: int | None = None
    """Epochs at the start in which every other iteration uses -alpha; by default 10 for edas-inv
    (3 on digits), 0 for the others."""
    arch_weight_decay: float | None = None
    """Of the architecture parameters (added to the gradient, as Adam does); by default 1e-3 for
    edas-inv, 0 for the others."""
    decayed: Literal["all", "adam", "sampled"] = "all"
    """With --arch-weight-decay, what decays. all: every edge's alpha, and an unsampled one by
    nothing else; adam: every edge's by Adam's whole step, which carries older gradients on;
    sampled: the sampled edge's only."""
    decay_epochs: int | None = None
    """Epochs at the start in which alpha decays (4.1); by default those of the inversion."""
    edge_per_kind: bool = False
    """Relax one edge of each kind of cell an iteration, not one of both kinds together (3.2)."""
    move_idle: bool = False
    """Let momentum and decay move the weights of operations that did not run in a step."""
    epochs: int = 25
    """Passes over the training images."""
    cells: int = 20
    """How many are stacked; the reduction cells are at a third and at two thirds."""
    learning_rate_min: float = 0.001
    """Where the cosine ends."""
    arch_learning_rate: float = 0.025
    """Of the architecture parameters' Adam."""

    def resolved(self) -> EDASConfig:
        """Inversion and decay belong to EDAS-inv (4.1)."""
        inverts = self.variant == "edas-inv"
        epochs, decay = self.inversion_epochs, self.arch_weight_decay
        if epochs is None:
            epochs = (3 if self.preset == "digits" else 10) if inverts else 0
        if decay is None:
            decay = 1e-3 if inverts else 0.0
        decaying = epochs if self.decay_epochs is None else self.decay_epochs
        return dataclasses.replace(
            self, inversion_epochs=epochs, arch_weight_decay=decay, decay_epochs=decaying
        )

    def provenance(self) -> dict[str, Any]:
        """See `SearchConfig.provenance`."""
        return {"variant": self.variant, "candidates": self.candidates}

    def check(self) -> None:
        """See `RunConfig.check`."""
        super().check()
        at_least(self, 0, "inversion_epochs", "decay_epochs")
        if self.decayed != "all" and not (self.arch_weight_decay and self.decay_epochs):
            raise InputError(
                f"--decayed {self.decayed}: nothing decays; use --variant edas-inv, and "
                "--arch-weight-decay and --decay-epochs above 0"
            )
        if self.variant != "edas-inv":
            for name in ("inversion_epochs", "arch_weight_decay", "decay_epochs"):
                if getattr(self, name):
                    raise InputError(
                        f"{flag(name)} {getattr(self, name)}: --variant {self.variant} has none; "
                        "use edas-inv"
                    )


PRESETS = {
    "cifar10": EDASConfig(),
    "cifar100": EDASConfig(preset="cifar100", dataset="cifar100"),
    "digits": EDASConfig(
        preset="digits", dataset="digits", epochs=8, batch_size=32, channels=8, cells=8,
        crop_padding=1, flip=False, learning_rate=0.05, cut_accuracy="batch",
    ),
}


def search(config: EDASConfig) -> None:
    """One search in a run folder of its own."""
    config, run, images, split = open_search(config, METHOD)
    supernet = EDASSuperNet(config.candidates, **config.shape(images))
    if config.inversion_epochs >= config.epochs:
        run.say(
            f"note: --inversion-epochs {config.inversion_epochs}: alpha's sign alternates in all "
            f"{config.epochs} epochs, to the end of the search"
        )
    trainer = BilevelTrainer(config, supernet, run, images, split)
    for _ in trainer.epochs():
        for train, valid in trainer.batches():
            iteration(config, trainer, train, valid)
        supernet.sigma = 1  # validated, measured and derived from +alpha
    if run.accelerator.is_main_process:
        draw.run((run.folder,))
    trainer.finish()
    run.close()


def iteration(config: EDASConfig, trainer: BilevelTrainer, train: Batch, valid: Batch) -> None:
    """One edge: its alpha by the validation loss, then weights by the training loss (3.2, 4.1).

    First order. The arch step comes first, as in DARTS' code; the paper gives no order.
    """
    supernet, step = trainer.supernet, trainer.global_step
    # The same edge in both steps.
    supernet.sample(generator_of(config.seed, "edge", step), config.edge_per_kind)
    supernet.sigma = sign(trainer.epoch, step, config.inversion_epochs)
    decays = config.arch_weight_decay > 0 and trainer.epoch < config.decay_epochs
    for group in trainer.arch_optimizer.param_groups:
        group["weight_decay"] = config.arch_weight_decay if decays else 0.0

    trainer.arch_step(valid, move_idle=decays and config.decayed == "adam")
    if decays and config.decayed == "all":
        decay_unsampled(trainer.arch_optimizer)

    if config.variant == "alpha-max":
        supernet.sampled = ()  # every edge by its best operation (5.3)
    trainer.weight_step(train, move_idle=config.move_idle)


def sign(epoch: int, step: int, inversion_epochs: int) -> int:
    """+1, -1, +1, -1, ... by iteration in the first epochs ("alternately", 3.2), then +1."""
    return -1 if epoch < inversion_epochs and step % 2 else 1


@torch.no_grad()
def decay_unsampled(adam: torch.optim.Adam) -> None:
    """alpha - lr decay alpha / (sqrt(v) + eps), at most half of it, where no gradient came (4.1).

    That is Adam's decay, scaled by its edge's second moment v as Adam scales it, without first
    moment and with no change of state: gradients of older iterations move nothing. An edge that
    never was sampled has no v, and nothing scales the decay of its initial noise. At 0 alphas would
    be tied, and the first operation win.
    """
    for group in adam.param_groups:
        lr, decay, eps, (_, beta2) = (group[k] for k in ("lr", "weight_decay", "eps", "betas"))
        for alpha in group["params"]:
            if alpha.grad is not None:
                continue
            state = adam.state.get(alpha)
            v = state["exp_avg_sq"] / (1 - beta2 ** state["step"]) if state else torch.ones(())
            alpha.mul_((1 - lr * decay / (v.sqrt() + eps)).clamp_min(0.5))


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
