"""Trains the network that a genotype describes, from scratch (`evaluate/train.py` is the command).

Its flags are in `retrain_config.py`, the papers' values of them in `recipes.py`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from common import draw
from common.batches import Augmentation, Batch
from common.command import start, test_images, training_images
from common.data import Images, Split
from common.distributed import average, seed_of, set_gradients
from common.errors import InputError
from common.genotype import Genotype, parse
from common.loop import Loop, prepare
from common.macro import large
from common.network import Network
from common.retrain_config import RetrainConfig
from common.run import Run
from common.schedules import schedule, warm_up
from common.small_images import fit_to_images

METHOD = "retrain"


def retrain(config: RetrainConfig) -> None:
    """Train a genotype's network and report it on images that it was not trained on."""
    config, accelerator = start(config)
    images = training_images(config, accelerator)
    config = fit_to_images(config, images, accelerator)
    if config.held_out == "valid":
        split = Split.holding_out(len(images), config.held_out_share, config.seed)
        if len(split.valid) == 0:
            raise InputError(
                f"--held-out-share {config.held_out_share}: is no image of {len(images)}"
            )
        images, held_out = images.subset(split.train), images.subset(split.valid)
    else:
        held_out = test_images(config, accelerator, images)
    config.check_images(images)
    run = Run.open(config, METHOD, accelerator)
    train(config, run, run.genotype(config.genotype), images, held_out)
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
    run.pin_genotype(genotype)
    torch.manual_seed(seed_of(config.seed, "weights"))  # alike on every process
    network = build(config, genotype, len(images.classes), images.shape)
    trainer = Retrainer(config, genotype, network, run, images, held_out)
    for _ in trainer.epochs():
        for batch in trainer.batches():
            trainer.weight_step(batch)
    trainer.finish()


def build(
    config: RetrainConfig, genotype: Genotype, classes: int, shape: tuple[int, int, int]
) -> Network:
    """The network that a retraining trains, for images [C, H, W]."""
    return Network(
        genotype, config.channels, config.cells, classes,
        image_channels=shape[0], large_images=large(shape),
        auxiliary=config.auxiliary_weight > 0,
    )


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
        if config.compile:  # in place: the names in checkpoints stay
            for compiled in (network, *([] if self.ema is None else [self.ema.module])):
                compiled.compile()
        optimizer = torch.optim.SGD(
            self.weights, config.learning_rate, config.momentum,
            weight_decay=config.weight_decay, fused=accelerator.device.type in ("cpu", "cuda"),
        )
        ours = {"rank": accelerator.process_index, "processes": accelerator.num_processes}
        augmentation = Augmentation(
            config.crop_padding, config.flip, config.cutout, config.color_jitter
        )
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

    def new_schedule(self) -> Scheduler:
        """See `Loop.new_schedule`."""
        config = self.config
        return schedule(config.schedule, self.optimizer, config.epochs, config.learning_rate_min)

    def set_learning_rate(self) -> None:
        """See `Loop.set_learning_rate`."""
        super().set_learning_rate()
        config = self.config
        warm_up(self.optimizer, config.learning_rate, self.epoch, config.learning_rate_warmup)

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
        gradients = self.gradients(batch)
        set_gradients(self.weights, average(self.accelerator, gradients))
        if self.config.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.weights, self.config.grad_clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.network)

    def gradients(self, batch: Batch) -> Sequence[Tensor]:
        """Of the batch's mean loss, added up over its parts (`--accumulate`)."""
        count, total = self.config.accumulate, None
        for images, labels in zip(*(tensor.chunk(count) for tensor in batch), strict=True):
            loss = self.loss(images, labels) / count
            # A written cell need not use all its inputs; what it leaves out has gradient zero.
            found = torch.autograd.grad(loss, self.weights, materialize_grads=True)
            total = found if total is None else torch._foreach_add(total, found)
        return total

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of the classifier and, by its weight, of the auxiliary head; the first is recorded."""
        outputs = self.network(images)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        smoothing, weight = self.config.label_smoothing, self.config.auxiliary_weight
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        self.record(loss, logits, labels)
        if weight > 0:
            loss = loss + weight * F.cross_entropy(outputs[1], labels, label_smoothing=smoothing)
            self.watch(loss)
        return loss

    def report(self) -> dict[str, Any]:
        """Figures on the images held out; those of the other split are None."""
        network = self.network if self.ema is None else self.ema.module
        found = self.held_out(network, self.held_out_batches)
        names = ("loss", "top1", "top5")
        none = {f"{part}_{name}": None for part in ("valid", "test") for name in names}
        part = self.config.held_out
        return none | {f"{part}_{name}": value for name, value in zip(names, found, strict=True)}

    def state(self) -> dict[str, Any]:
        """See `Loop.state`."""
        ema = None if self.ema is None else self.ema.module.state_dict()
        return {**super().state(), "ema": ema, "genotype": json.dumps(self.genotype.to_json())}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Loop.load_state`.

        Raises:
            InputError: it is the state of another genotype's network.
        """
        found = parse(state["genotype"], "the checkpoint")
        if found.cells != self.genotype.cells:
            raise InputError(
                f"--resume {self.run.folder}: its checkpoints are of the genotype {found.name}, "
                f"its genotype.json is {self.genotype.name}, of other cells; put the one back "
                "that it began with, or start a new run with --genotype"
            )
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
            f"{part}_top5": last[f"{part}_top5"],
            f"{part}_top1_last_five": statistics.mean(line[f"{part}_top1"] for line in epochs[-5:]),
            "train_seconds": round(sum(line["seconds"] for line in epochs), 1),
            "peak_memory_mib": max(line["peak_memory_mib"] for line in epochs),
        })
        images = {"test": "test", "valid": "validation"}[part]
        self.run.say(
            f"\n{self.genotype.name}: {last[f'{part}_top1']:.2f} % of the {images} images after "
            f"{len(epochs)} epochs, {parameters - extra:,} parameters\nrun folder: {folder}"
        )
