"""Trains the network that a genotype describes, from scratch (`evaluate/train.py` is the command).

Defaults are PC-DARTS' CIFAR-10 recipe (4.2; auxiliary head and cutout length from DARTS, whose
evaluation it follows).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F

from common import draw
from common.batches import Augmentation, Batch
from common.command import start, test_images, training_images
from common.config import RunConfig, at_least, flag
from common.data import Images, Split
from common.distributed import average, seed_of, set_gradients
from common.errors import InputError
from common.genotype import Genotype, load, published, save
from common.loop import Loop, prepare
from common.macro import large
from common.network import Network, check_images
from common.run import Run

METHOD = "retrain"


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """What training a derived network asks for."""

    drop_path: float = 0.0
    """Probability of dropping an edge in the last epoch; it grows linearly from 0."""
    auxiliary_weight: float = 0.0
    """Weight of the auxiliary head's loss; 0: no such head."""
    ema_decay: float = 0.0
    """Report an exponential moving average of the weights with this decay; 0: off."""

    def check(self) -> None:
        """See `RunConfig.check`."""
        super().check()
        at_least(self, 0, "drop_path", "auxiliary_weight", "ema_decay")
        for name in ("drop_path", "ema_decay"):
            if getattr(self, name) >= 1:
                raise InputError(f"{flag(name)} {getattr(self, name)}: must be below 1")

    def check_images(self, images: Images) -> None:
        """See `RunConfig.check_images`: a batch must fit, too."""
        super().check_images(images)
        if self.batch_size > len(images):
            raise InputError(
                f"--batch-size {self.batch_size}: there are only {len(images)} training images"
            )


@dataclass(frozen=True)
class RetrainConfig(TrainConfig):
    """PC-DARTS' CIFAR-10 recipe: 20 cells, 36 channels, 600 epochs."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's recipe (4.2); digits: a minute on two CPU cores."""
    genotype: str | None = None
    """What to train: a published name, a genotype file or a search's run folder."""
    held_out: Literal["test", "valid"] = "test"
    """Train on all training images and report on the test split, or train on one half of them (a
    search's) and report on the other; then no test image is looked at."""
    epochs: int = 600
    """Passes over the training images."""
    batch_size: int = 128
    """Images of a step, over all processes together."""
    channels: int = 36
    """Of the first cell's nodes; they double at each reduction cell."""
    cells: int = 20
    """How many are stacked; the reduction cells are at a third and at two thirds."""
    cutout: int = 16
    """Side of the square cut out of each training image; 0: none."""
    drop_path: float = 0.3
    """Probability of dropping an edge in the last epoch; it grows linearly from 0."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss; 0: no such head."""

    def check(self) -> None:
        """See `RunConfig.check`."""
        super().check()
        if self.genotype is None:
            raise InputError(
                "--genotype: say what to train: a run folder, a genotype file, or one of "
                f"{', '.join(published())}"
            )
        if self.resume is None:  # a run holds its own
            check_images(load(self.genotype), self.channels)


PRESETS = {
    "cifar10": RetrainConfig(),
    "digits": RetrainConfig(
        preset="digits", dataset="digits", epochs=20, batch_size=64, channels=16, cells=5,
        crop_padding=1, flip=False, cutout=0, drop_path=0.1, auxiliary_weight=0,
        learning_rate=0.05,
    ),
}


def retrain(config: RetrainConfig) -> None:
    """Train a genotype's network and report it on images that it was not trained on."""
    config, accelerator = start(config)
    images = training_images(config, accelerator)
    if config.held_out == "valid":
        split = Split.halves(len(images), config.seed)
        images, held_out = images.subset(split.train), images.subset(split.valid)
    else:
        held_out = test_images(config, accelerator, images)
    config.check_images(images)
    run = Run.open(config, METHOD, accelerator)
    own = run.folder / "genotype.json"
    genotype = load(run.folder if own.exists() else config.genotype)
    train(config, run, genotype, images, held_out)
    run.close()


def train(
    config: RetrainConfig, run: Run, genotype: Genotype, images: Images, held_out: Images
) -> None:
    """Begin a run or go on with it, to its result."""
    config.check_images(images)
    run.pin_images("images.json", {
        "dataset": config.dataset, **images.described(),
        "train_sha256": images.sha256(), f"{config.held_out}_sha256": held_out.sha256(),
    })
    if run.accelerator.is_main_process:
        save(genotype, run.folder / "genotype.json")
    torch.manual_seed(seed_of(config.seed, "weights"))  # alike on every process
    network = Network(
        genotype, config.channels, config.cells, len(images.classes),
        image_channels=images.shape[0], large_images=large(images.shape),
        auxiliary=config.auxiliary_weight > 0,
    )
    trainer = Retrainer(config, genotype, network, run, images, held_out)
    for _ in trainer.epochs():
        for batch in trainer.batches():
            trainer.weight_step(batch)
    trainer.finish()


class Retrainer(Loop):
    """The loop of a derived network.

    Args:
        config: the retraining's flags.
        genotype: what `network` was built from.
        network: on the CPU.
        run: its folder.
        images: to train on, on the CPU.
        held_out: to report on after each epoch; nothing is chosen by them.
    """

    def __init__(
        self, config: RetrainConfig, genotype: Genotype, network: Network, run: Run,
        images: Images, held_out: Images,
    ):
        accelerator = run.accelerator
        self.genotype, self.derived = genotype, network
        # Channels last is how convolutions run fastest, twice as fast on a CPU.
        network = prepare(accelerator, network.to(memory_format=torch.channels_last))
        self.weights = list(network.parameters())
        self.ema = ModelEmaV3(network, config.ema_decay) if config.ema_decay else None
        optimizer = torch.optim.SGD(
            self.weights, config.learning_rate, config.momentum,
            weight_decay=config.weight_decay, fused=accelerator.device.type in ("cpu", "cuda"),
        )
        ours = {"rank": accelerator.process_index, "processes": accelerator.num_processes}
        augmentation = Augmentation(config.crop_padding, config.flip, config.cutout)
        self.held_out_batches = held_out.batches(
            accelerator.device, None, config.batch_size, Augmentation(),
            seed=config.seed, stream="held out", **ours,
        )
        super().__init__(
            config, run, network, optimizer,
            images.batches(
                accelerator.device, None, config.batch_size, augmentation,
                seed=config.seed, stream="train", **ours,
            ),
        )
        if self.ema is not None:
            self.averaged.append(self.ema.module)

    def begin_epoch(self) -> None:
        """Drop-path grows linearly: p(e) = p e / E (authors' code)."""
        share = self.epoch / self.config.epochs
        self.derived.set_drop_path(self.config.drop_path * share)

    def batches(self) -> Iterator[Batch]:
        """The epoch's batches."""
        for step in self.steps():
            yield self.train_batches.train(step)

    def weight_step(self, batch: Batch) -> None:
        """One clipped step of SGD."""
        images, labels = batch
        outputs = self.network(images)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        loss = F.cross_entropy(logits, labels)
        total = loss
        if self.config.auxiliary_weight > 0:
            total = loss + self.config.auxiliary_weight * F.cross_entropy(outputs[1], labels)
        # A written cell need not use all its inputs; what it leaves out has gradient zero.
        gradients = torch.autograd.grad(total, self.weights, materialize_grads=True)
        set_gradients(self.weights, average(self.accelerator, gradients))
        if self.config.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.weights, self.config.grad_clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.network)
        self.record(loss, logits, labels)
        self.watch(total)

    def report(self) -> dict[str, Any]:
        """Figures on the images held out; those of the other split are None."""
        network = self.network if self.ema is None else self.ema.module
        loss, top1 = self.held_out(network, self.held_out_batches)
        part = self.config.held_out
        none = dict.fromkeys(("valid_loss", "valid_top1", "test_loss", "test_top1"))
        return {**none, f"{part}_loss": loss, f"{part}_top1": top1}

    def state(self) -> dict[str, Any]:
        """See `Loop.state`."""
        ema = None if self.ema is None else self.ema.module.state_dict()
        return {**super().state(), "ema": ema}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Loop.load_state`."""
        super().load_state(state)
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])

    def finish(self) -> None:
        """Draw the run, write its result and say it."""
        folder, epochs = self.run.folder, self.run.lines("metrics.jsonl")
        if self.accelerator.is_main_process:
            draw.run(folder)
        part, last = self.config.held_out, epochs[-1]
        auxiliary = self.derived.auxiliary
        parameters = sum(weight.numel() for weight in self.weights)
        extra = 0 if auxiliary is None else sum(p.numel() for p in auxiliary.parameters())
        self.run.write("result.json", {
            "genotype": self.genotype.name,
            "params": parameters - extra,
            "epochs": len(epochs),
            f"{part}_loss": last[f"{part}_loss"],
            f"{part}_top1": last[f"{part}_top1"],
            "train_seconds": round(sum(line["seconds"] for line in epochs), 1),
            "peak_memory_mib": max(line["peak_memory_mib"] for line in epochs),
        })
        images = {"test": "test images", "valid": "validation half"}[part]
        self.run.say(
            f"\n{self.genotype.name}: {last[f'{part}_top1']:.2f} % of the {images} after "
            f"{len(epochs)} epochs, {parameters - extra:,} parameters\nrun folder: {folder}"
        )
