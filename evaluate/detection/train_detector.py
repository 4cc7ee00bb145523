"""Trains a detector on a derived network and scores it (`evaluate/detect.py` is the command).

PC-DARTS 4.5 names the backbone, SSD, 320 pixels and the images: COCO's training set and all but
5,000 images of its validation set, today's train2017. The rest is open: augmentation, momentum,
weight decay and batch are SSD's (Liu et al. 2016, section 3), learning rate and epochs those of
torchvision's reference for SSD300.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from accelerate import Accelerator

from common.data.image_folder import check_files
from common.distributed import seed_of
from common.errors import InputError
from common.networks.complexity import CallCounter, multiply_adds, parameters
from common.networks.fits import check_network
from common.networks.genotype import Genotype, load
from common.networks.network import Network, check_genotype, weightless
from common.networks.trained import load_trained
from common.run.config import RunConfig
from common.run.flags import Between
from common.run.folder import Run
from common.run.operations import check_recorded
from common.run.start import main_first, start
from detection.average_precision import check_installed
from detection.batches import TrainBatches
from detection.coco import read_split
from detection.loop import DetectorTrainer
from detection.ssd import STRIDE, detector
from retraining.pinned import pin_genotype, with_operations

METHOD = "detect"
PAPER = "pc_darts_imagenet"  # Table 5's backbone


@dataclass(frozen=True)
class DetectConfig(RunConfig):
    """Flags of `evaluate/detect.py`."""

    dataset: Literal["coco"] = "coco"
    """Any folder in COCO's layout: annotations/instances_<split>.json beside <split>/."""
    data_root: str = "data/coco"
    """Path of that folder."""
    train_split: str = "train2017"
    """Images to train on."""
    # Deviation: the paper scores on test-dev, whose boxes are not published.
    valid_split: str = "val2017"
    """Images to score on; they decide nothing."""
    image_size: int = 320
    """Images are resized to a square of this side, a multiple of 32."""
    genotype: str | None = None
    """The backbone's cells, in any form that evaluate/train.py takes. By default those of
    --weights, or pc_darts_imagenet (Table 5)."""
    weights: str | None = None
    """Start from the network of this finished run of evaluate/train.py."""
    score_epochs: Annotated[int, Between(1, 10**6)] = 10
    """Epochs between scores; the last epoch is always scored."""
    count: bool = False
    """Print the multiply-adds of backbone and detector for COCO's 80 classes, and stop."""

    seed: int = 2
    epochs: int = 120
    batch_size: int = 32
    channels: int = 48
    cells: int = 14
    # Deviation: SSD divides its learning rate by 10 at 2/3 and at 5/6 of the training and does not
    # clip gradients; all trainings here use a cosine and clip.
    learning_rate: float = 0.002
    """Initial learning rate of SGD; a cosine lowers it every epoch."""
    weight_decay: float = 5e-4

    # SSD's augmentation replaces the classifiers'.
    crop_padding: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 0
    cutout: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 0

    def resolved(self) -> DetectConfig:
        return replace(self, genotype=self.genotype or self.weights or PAPER)

    def check(self) -> None:
        super().check()
        if self.image_size < 2 * STRIDE or self.image_size % STRIDE:
            raise InputError(
                f"--image-size {self.image_size}: must be a multiple of {STRIDE}, {2 * STRIDE} or "
                f"more; the network divides it by {STRIDE}"
            )
        if self.channels < 2:  # ImageNet's stem begins with half of them
            raise InputError(f"--channels {self.channels}: must be 2 or more")
        if self.resume is None:  # a run has its own
            check_genotype(load(self.genotype), self.channels)
        check_network(self, (3, self.image_size, self.image_size))


def detect(config: DetectConfig) -> None:
    """Train a detector and score it, or only count its multiply-adds.

    Raises:
        InputError: pycocotools is missing, images or annotations are damaged, or the weights do
            not fit.
    """
    if config.count:
        print(in_words(counts(load(config.genotype), config, 80)))
        return
    check_installed()
    config, accelerator = start(config)
    train = read_split(config.data_root, config.train_split)
    valid = read_split(config.data_root, config.valid_split)
    if train.classes != valid.classes:
        raise InputError(
            f"--valid-split {config.valid_split}: has other categories than --train-split "
            f"{config.train_split}"
        )
    batches = TrainBatches(train, config, accelerator.process_index, accelerator.num_processes)
    genotype, network = backbone(config)
    if config.resume is None:
        check_images([train.files[k] for k in batches.indices] + valid.files, accelerator)
    with Run.open(config, METHOD, accelerator) as run:
        run.pin_images("images.json", {"train_sha256": train.sha256, "valid_sha256": valid.sha256})
        genotype = with_operations(run, genotype, config.operations)
        pin_genotype(run, genotype)
        size = counts(genotype, config, len(train.classes))
        run.say(in_words(size))
        ssd = detector(network, len(train.classes), config.image_size)
        trainer = DetectorTrainer(config, ssd, run, batches, valid)
        for _ in trainer.epochs():
            for images, targets in trainer.batches():
                trainer.weight_step(images, targets)
            trainer.validate()
        trainer.finish({"genotype": genotype.name, **size})


def check_images(files: Sequence[Path], accelerator: Accelerator) -> None:
    """Decode every image once, on one process of each machine; a thousand in about a second.

    Raises:
        InputError: some are damaged; the first ones are named.
    """
    names = np.array([os.fsencode(file) for file in files])
    here = accelerator.is_local_main_process
    main_first(accelerator, lambda: check_files(Path(), names) if here else None)


def backbone(config: DetectConfig) -> tuple[Genotype, Network]:
    """The network to detect with: new, with the given weights, or for a checkpoint to fill.

    Raises:
        InputError: there is no such genotype, or the weights belong to another network.
    """
    run = None if config.resume is None else Path(config.resume)
    genotype = load(run if run and (run / "genotype.json").exists() else config.genotype)
    torch.manual_seed(seed_of(config.seed, "weights"))  # alike on every process
    network = Network(genotype, config.channels, config.cells, 1, large_images=True)
    begun = run is not None and any((run / "checkpoints").glob("*.pt"))
    if config.weights is not None and not begun:
        check_recorded(Path(config.weights), config.operations)
        take_weights(network, genotype, config.weights)
    return genotype, network


def take_weights(network: Network, genotype: Genotype, folder: str) -> None:
    """Copy stem and cells of a trained network.

    Raises:
        InputError: the run has another genotype, other sizes or another stem.
    """
    if load(folder).cells != genotype.cells:
        raise InputError(f"--weights {folder}: was trained with other cells than {genotype.name}")
    trained = load_trained(folder).network
    try:
        network.stem.load_state_dict(trained.stem.state_dict())
        network.cells.load_state_dict(trained.cells.state_dict())
    except RuntimeError:
        raise InputError(
            f"--weights {folder}: was trained with other --channels or --cells (see its "
            "config.json), or without ImageNet's stem, which a backbone needs"
        ) from None


def counts(genotype: Genotype, config: DetectConfig, classes: int) -> dict[str, Any]:
    """Parameters, and multiply-adds for one image in convolutions and linear layers.

    Table 5 counts the backbone as the ImageNet classifier that it was.
    """
    with weightless(genotype):
        network = Network(genotype, config.channels, config.cells, 1000, large_images=True)
        image = torch.zeros(1, 3, config.image_size, config.image_size)
        backbone, _, uncounted = multiply_adds(network, image)
        ssd = detector(network, classes, config.image_size).eval()
        with torch.no_grad(), CallCounter() as counter:
            ssd.head(list(ssd.backbone(image).values()))
    return {
        "classes": classes, "params": parameters(ssd), "backbone_multiply_adds": backbone,
        "multiply_adds": counter.counts["product"], "uncounted": list(uncounted),
    }  # fmt: skip


def in_words(size: dict[str, Any]) -> str:
    """`counts` as a sentence."""
    backbone, detector = size["backbone_multiply_adds"] / 1e6, size["multiply_adds"] / 1e6
    return (
        f"multiply-adds for one image: {backbone:,.0f} M in the backbone, {detector:,.0f} M in the "
        f"detector for {size['classes']} classes; {size['params']:,} parameters"
        + (f"; not counted: {', '.join(size['uncounted'])}" if size["uncounted"] else "")
    )
