"""Trains a detector on a derived network and scores it (`evaluate/detect.py` is the command).

PC-DARTS 4.5 gives the backbone, SSD, 320 pixels and the images: COCO's training set and what is
left of the validation set without 5,000 images, which today is called train2017. All else it
leaves open: augmentation, momentum, weight decay and batch are SSD's (Liu et al. 2016, section 3),
learning rate and epochs those of torchvision's reference for SSD300.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from common.distributed import seed_of
from common.errors import InputError
from common.networks.complexity import multiply_adds, parameters
from common.networks.fits import check_network
from common.networks.genotype import Genotype, load
from common.networks.network import Network, check_genotype
from common.run.config import RunConfig
from common.run.flags import Between
from common.run.folder import Run
from common.run.start import start, workers
from detection.average_precision import check_installed
from detection.coco import read_split
from detection.coco_batches import TrainBatches
from detection.loop import DetectorTrainer
from detection.ssd import STRIDE, detector, detector_multiply_adds
from retraining.pinned import pin_genotype

METHOD = "detect"
PAPER = "pc_darts_imagenet"  # Table 5's backbone


@dataclass(frozen=True)
class DetectConfig(RunConfig):
    """What training a detector asks for."""

    dataset: Literal["coco"] = "coco"
    """Any folder in COCO's layout: annotations/instances_<split>.json beside <split>/."""
    data_root: str = "data/coco"
    """That folder."""
    train_split: str = "train2017"
    """Images to train on."""
    # Deviation: the paper scores on test-dev, whose boxes are not published.
    valid_split: str = "val2017"
    """Images to score on; nothing is chosen by them."""
    image_size: int = 320
    """Images are brought to a square of this side, a multiple of 32."""
    genotype: str | None = None
    """The backbone: a published name, a genotype file or a run folder. By default that of
    --weights, without these pc_darts_imagenet, Table 5's."""
    weights: str | None = None
    """Start from the network of this finished run of evaluate/train.py."""
    score_epochs: Annotated[int, Between(1, 10**6)] = 10
    """Score after every so many epochs; after the last one always."""
    count: bool = False
    """Print the multiply-adds of backbone and detector for COCO's 80 classes, and stop."""

    seed: int = 2
    """Of initial weights, order and augmentation."""
    epochs: int = 120
    """Passes over the training images."""
    batch_size: int = 32
    """Images of a step, over all processes together."""
    channels: int = 48
    """Of the first cell's nodes; they double at each reduction cell."""
    cells: int = 14
    """How many are stacked; the reduction cells are at a third and at two thirds."""
    # Deviation: SSD divides its learning rate by 10 at 2/3 and at 5/6 of the training and limits
    # no gradient's norm; this is the falling rate and the limit of all trainings here.
    learning_rate: float = 0.002
    """Of SGD at the start; a cosine takes it down epoch by epoch."""
    weight_decay: float = 5e-4
    """Of the weights."""

    crop_padding: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 0
    """Not here: SSD crops in its own way."""
    cutout: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 0
    """Not here."""

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
        if self.resume is None:  # a run holds its own
            check_genotype(load(self.genotype), self.channels)
        check_network(self, (3, self.image_size, self.image_size))


def detect(config: DetectConfig) -> None:
    """Train a detector and score it; or only count it.

    Raises:
        InputError: pycocotools is missing, the images are not usable, or the weights do not fit.
    """
    if config.count:
        print(in_words(counts(load(config.genotype), config, 80)))
        return
    check_installed()
    config, accelerator = start(config)
    train = read_split(config.data_root, config.train_split)
    valid = read_split(config.data_root, config.valid_split)
    if train.categories != valid.categories:
        raise InputError(
            f"--valid-split {config.valid_split}: has other categories than --train-split "
            f"{config.train_split}"
        )
    batches = TrainBatches(
        train, config.image_size, config.batch_size, flip=config.flip, seed=config.seed,
        limit=config.limit_images, workers=workers(config), rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    genotype, network = backbone(config)
    run = Run.open(config, METHOD, accelerator)
    run.pin_images("images.json", {"train_sha256": train.sha256, "valid_sha256": valid.sha256})
    pin_genotype(run, genotype)
    size = counts(genotype, config, len(train.categories))
    run.say(in_words(size))
    ssd = detector(network, len(train.categories), config.image_size)
    trainer = DetectorTrainer(config, ssd, run, batches, valid)
    for _ in trainer.epochs():
        for images, targets in trainer.batches():
            trainer.weight_step(images, targets)
        trainer.validate()
    trainer.finish({"genotype": genotype.name, **size})
    run.close()


def backbone(config: DetectConfig) -> tuple[Genotype, Network]:
    """The network to detect with: new, with given weights, or one that a checkpoint will fill.

    Raises:
        InputError: there is no such genotype, or the weights are another network's.
    """
    run = None if config.resume is None else Path(config.resume)
    genotype = load(run if run and (run / "genotype.json").exists() else config.genotype)
    torch.manual_seed(seed_of(config.seed, "weights"))  # alike on every process
    network = Network(genotype, config.channels, config.cells, 1, large_images=True)
    begun = run is not None and any((run / "checkpoints").glob("*.pt"))
    if config.weights is not None and not begun:
        take_weights(network, genotype, config.weights)
    return genotype, network


def take_weights(network: Network, genotype: Genotype, folder: str) -> None:
    """Copy stem and cells of a trained network.

    Raises:
        InputError: the run has another genotype, other sizes or another stem.
    """
    from common.networks.trained import load_trained

    if load(folder).cells != genotype.cells:
        raise InputError(f"--weights {folder}: was trained with other cells than {genotype.name}")
    trained = load_trained(folder).network
    try:
        network.stem.load_state_dict(trained.stem.state_dict())
        network.cells.load_state_dict(trained.cells.state_dict())
    except RuntimeError:
        raise InputError(
            f"--weights {folder}: its network is of other --channels or --cells (see its "
            "config.json), or was not trained with ImageNet's stem, as a backbone needs"
        ) from None


def counts(genotype: Genotype, config: DetectConfig, classes: int) -> dict[str, Any]:
    """Sizes: the backbone as Table 5 counts it, an ImageNet network, and the whole detector.

    Multiply-adds are of one image: convolutions and linear layers.
    """
    with torch.device("meta"):
        network = Network(genotype, config.channels, config.cells, 1000, large_images=True)
        image = torch.empty(1, 3, config.image_size, config.image_size)
        backbone, _ = multiply_adds(network, image)
        ssd = detector(network, classes, config.image_size)
    return {
        "classes": classes,
        "params": parameters(ssd),
        "backbone_multiply_adds": backbone,
        "multiply_adds": detector_multiply_adds(ssd),
    }


def in_words(size: dict[str, Any]) -> str:
    """`counts` for a reader."""
    backbone, whole = size["backbone_multiply_adds"] / 1e6, size["multiply_adds"] / 1e6
    return (
        f"multiply-adds of an image: {backbone:,.0f} M of the backbone, {whole:,.0f} M of the "
        f"detector of {size['classes']} classes; {size['params']:,} parameters"
    )
