"""Trains a genotype's network from scratch; `evaluate/train.py` is the command.

Flags are in `config.py`, the papers' values in `recipes.py`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data import loader
from common.data.batches import Augmentation, Batch
from common.data.images import ImageFiles, Images
from common.data.split import Split
from common.distributed import average, seed_of
from common.errors import InputError
from common.networks import fits
from common.networks.genotype import Genotype, parse
from common.networks.network import Network, build
from common.networks.small_images import fit_batch, fit_to_images
from common.networks.trained import METHOD
from common.run.folder import Run
from common.run.start import start, test_images, training_images
from common.training.images import ImageLoop
from common.training.loop import prepare
from common.training.schedules import LearningRate
from common.training.steps import descend
from retraining.config import RetrainConfig, TrainConfig
from retraining.optimizer import optimizer_of
from retraining.pinned import genotype_of, pin_genotype, with_operations


def retrain(config: RetrainConfig) -> None:
    """Train a genotype's network and report its accuracy on held-out images."""
    config, accelerator = start(config)
    images = training_images(config, accelerator)
    config = fit_to_images(config, images, accelerator)
    if config.held_out == "valid":
        split = Split.holding_out(len(images), config.held_out_share, config.seed)
        if len(split.valid) == 0:
            raise InputError(
                f"--held-out-share {config.held_out_share}: no image of {len(images)}; use more"
            )
        images, held_out = images.subset(split.train), images.subset(split.valid)
    else:
        held_out = test_images(config, accelerator, images)
    config = fit_batch(config, len(images), accelerator)
    check_images(config, images)
    with Run.open(config, METHOD, accelerator) as run:
        train(config, run, genotype_of(run, config.genotype), images, held_out)


def check_images(config: TrainConfig, images: Images | ImageFiles) -> None:
    """Check the flags against the training images.

    Raises:
        InputError: naming the flag and what fits, or the images are too small for any network.
    """
    fits.check_images(config, images)
    if config.color_jitter > 0 and not isinstance(images, ImageFiles):
        raise InputError(
            f"--color-jitter {config.color_jitter}: only for images read from disk (ImageNet, or "
            "--image-size 128 or more); use --color-jitter 0"
        )
    if config.batch_size > len(images):
        raise InputError(
            f"--batch-size {config.batch_size}: only {len(images)} training images; use fewer"
        )


def train(
    config: RetrainConfig, run: Run, genotype: Genotype, images: Images, held_out: Images
) -> None:
    """Start or resume a run, up to its result."""
    check_images(config, images)
    run.pin_images("images.json", {
        "dataset": config.dataset, **images.described(),
        "train_sha256": images.sha256(), f"{config.held_out}_sha256": held_out.sha256(),
    }, config.accept_images)
    genotype = with_operations(run, genotype, config.operations)
    if config.held_out == "valid" and genotype.provenance.get("split") == "shared":
        run.say(f"warning: the search of {genotype.name} trained on these held-out images, too")
    pin_genotype(run, genotype)
    torch.manual_seed(seed_of(config.seed, "weights"))  # the same on every process
    network = build(
        genotype, config.channels, config.cells, len(images.classes), images.shape,
        auxiliary=config.auxiliary_weight > 0,
    )
    trainer = Retrainer(config, genotype, network, run, images, held_out)
    for epoch in trainer.epochs():
        network.set_drop_path(config.drop_path * epoch / config.epochs)  # linear (authors' code)
        for batch in trainer.batches():
            trainer.weight_step(batch)
        trainer.validate()
    trainer.finish()


class Retrainer(ImageLoop):
    """Trains a derived network.

    Args:
        config: the retraining's flags.
        genotype: of the network.
        network: on the CPU.
        run: its run folder.
        images: training images, on the CPU.
        held_out: evaluated after each epoch; nothing is selected by them.
    """

    results = ("result.json", "test.json")

    def __init__(
        self, config: RetrainConfig, genotype: Genotype, network: Network, run: Run,
        images: Images, held_out: Images,
    ):
        from timm.utils import ModelEmaV3

        accelerator = run.accelerator
        self.genotype, self.derived = genotype, network
        # Channels last: convolutions run twice as fast on a CPU.
        network = prepare(accelerator, network.to(memory_format=torch.channels_last))
        self.weights = list(network.parameters())
        self.ema = ModelEmaV3(network, config.ema_decay) if config.ema_decay else None
        if config.compile:  # in place, so names in checkpoints stay
            for compiled in (network, *([] if self.ema is None else [self.ema.module])):
                compiled.compile()
        optimizer = optimizer_of(
            config.optimizer, self.weights, config.learning_rate, config.momentum,
            config.weight_decay,
        )
        ours = {"rank": accelerator.process_index, "processes": accelerator.num_processes}
        augmentation = Augmentation(
            config.crop_padding, config.flip, config.cutout, config.color_jitter
        )
        self.held_out_batches = loader.batches(
            held_out, accelerator.device, None, config.batch_size, Augmentation(),
            seed=config.seed, stream="held out", **ours,
        )
        super().__init__(
            config, run, network, optimizer,
            LearningRate(
                config.schedule, optimizer, config.epochs, config.learning_rate_min,
                config.learning_rate_warmup,
            ),
            loader.batches(
                images, accelerator.device, None, config.batch_size, augmentation,
                seed=config.seed, stream="train", **ours,
            ),
        )
        if self.ema is not None:
            self.averaged.append(self.ema.module)

    def batches(self) -> Iterator[Batch]:
        """The epoch's batches."""
        for step in self.steps():
            yield self.train_batches.cut(self.epoch, self.seen, step)

    def weight_step(self, batch: Batch) -> None:
        """One optimizer step with a clipped gradient."""
        gradients = average(self.accelerator, self.gradients(batch))
        descend(self.optimizer, self.weights, gradients, self.config.grad_clip)
        if self.ema is not None:
            self.ema.update(self.network)

    def gradients(self, batch: Batch) -> Sequence[Tensor]:
        """Gradients of the batch's mean loss, summed over its parts (`--accumulate`)."""
        count, total = self.config.accumulate, None
        for images, labels in zip(*(tensor.chunk(count) for tensor in batch), strict=True):
            loss = self.loss(images, labels) / count
            # A hand-written genotype may leave an input unused; its gradient is zero.
            found = torch.autograd.grad(loss, self.weights, materialize_grads=True)
            total = found if total is None else torch._foreach_add(total, found)
        return total

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of the classifier, recorded, plus the weighted loss of the auxiliary head."""
        outputs = self.network(images)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        smoothing, weight = self.config.label_smoothing, self.config.auxiliary_weight
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        self.record(loss, logits, labels)
        if weight > 0:
            loss = loss + weight * F.cross_entropy(outputs[1], labels, label_smoothing=smoothing)
            self.watch(loss)
        return loss

    def held_out_metrics(self) -> dict[str, Any]:
        """Metrics on the held-out split; None for the other split."""
        network = self.network if self.ema is None else self.ema.module
        found = self.held_out(network.eval(), self.held_out_batches)
        names = ("loss", "top1", "top5")
        none = {f"{part}_{name}": None for part in ("valid", "test") for name in names}
        part = self.config.held_out
        return none | {f"{part}_{name}": value for name, value in zip(names, found, strict=True)}

    def state(self) -> dict[str, Any]:
        ema = None if self.ema is None else self.ema.module.state_dict()
        return {**super().state(), "ema": ema, "genotype": json.dumps(self.genotype.to_json())}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`.

        Raises:
            InputError: the state belongs to another genotype.
        """
        found = parse(state["genotype"], "the checkpoint")
        if found.cells != self.genotype.cells:
            raise InputError(
                f"--resume {self.run.folder}: the checkpoints are of genotype {found.name}, but "
                f"genotype.json is {self.genotype.name} with other cells; restore it, or start "
                "a new run with --genotype"
            )
        super().load_state(state)
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])

    def finish(self) -> None:
        """Draw pictures, write the result and print it."""
        from common.draw import pictures

        folder, epochs = self.run.folder, self.run.lines("metrics.jsonl")
        if self.accelerator.is_main_process:
            pictures.run(folder)
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
