"""EDAS: efficient and differentiable architecture search.

Searches a normal and a reduction cell by relaxing one edge per iteration (Hong, Ahn and Kim).
The default is section 4.1 on CIFAR-10; --variant edas-inv is "warmup" in Table 2; --preset digits
takes a few minutes on a laptop, no download.
"""

from __future__ import annotations

import common  # noqa: F401  before torch: sets how threads wait

# isort: split
import sys

import torch

from common.data.batches import Batch
from common.distributed import generator_of
from common.errors import errors_are_messages
from common.run.cli import parse
from common.supernet.supernet import shape
from common.training.bilevel import BilevelTrainer
from common.training.opening import open_search
from edas.config import METHOD, PRESETS, EDASConfig
from edas.supernet import EDASSuperNet


def search(config: EDASConfig) -> None:
    """Coordinate descent: each iteration relaxes one edge, drawn at random (3.2)."""
    from edas import figures

    config, run, images, split = open_search(config, METHOD)
    with run:
        supernet = EDASSuperNet(config.candidates, **shape(config, images))
        if config.inversion_epochs >= config.epochs:
            run.say(
                f"note: --inversion-epochs {config.inversion_epochs}: alpha's sign alternates "
                f"in all {config.epochs} epochs, to the end of the search"
            )
        trainer = BilevelTrainer(config, supernet, run, images, split)
        for _ in trainer.epochs():
            for train, valid in trainer.batches():
                relaxed = iteration(config, trainer, train, valid)
            trainer.validate(sampled=relaxed)  # from +alpha
        trainer.finish(figures.of_run)


def iteration(
    config: EDASConfig, trainer: BilevelTrainer, train: Batch, valid: Batch
) -> tuple[int, ...]:
    """Draw an edge; step on its alpha by the validation loss, on weights by the training loss.

    First order. The paper gives no order of the two steps (3.2, 4.1); the arch step comes first, as
    in DARTS' code.

    Returns:
        The edges relaxed in the weight step.
    """
    step = trainer.global_step
    generator = generator_of(config.seed, "edge", step)
    edges = trainer.supernet.sample(generator, config.edge_per_kind)
    sigma = sign(trainer.epoch, step, config.inversion_epochs)  # Eq. 3
    decays = config.arch_weight_decay > 0 and trainer.epoch < config.decay_epochs
    for group in trainer.arch_optimizer.param_groups:
        group["weight_decay"] = config.arch_weight_decay if decays else 0.0

    adam_decays = decays and config.decayed == "adam"
    trainer.arch_step(valid, move_idle=adam_decays, sampled=edges, sigma=sigma)
    if decays and config.decayed == "all":
        decay_unsampled(trainer.arch_optimizer)

    relaxed = () if config.variant == "alpha-max" else edges  # (): every edge its argmax (5.3)
    trainer.weight_step(train, move_idle=config.move_idle, sampled=relaxed, sigma=sigma)
    return relaxed


def sign(epoch: int, step: int, inversion_epochs: int) -> int:
    """+1, -1, +1, ... by iteration in the first epochs ("alternately", 3.2), then +1."""
    return -1 if epoch < inversion_epochs and step % 2 else 1


@torch.no_grad()
def decay_unsampled(adam: torch.optim.Adam) -> None:
    """alpha <- alpha (1 - lr decay / (sqrt(v) + eps)), at most halved, where alpha has no gradient.

    This is Adam's weight decay (4.1) scaled by its second moment v, without the first moment, so
    earlier gradients move nothing; Adam's state stays. Before an edge's first sample v is 1. The
    bound keeps alpha off 0, where all candidates would be tied.
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
