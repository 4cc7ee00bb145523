"""Flags of `evaluate/detect.py`.

PC-DARTS 4.5 names the backbone, SSD, 320 pixels and the images: COCO's training set and all but
5,000 images of its validation set, today's train2017. The rest is open: augmentation, momentum,
weight decay and batch are SSD's (Liu et al. 2016, section 3), learning rate and epochs those of
torchvision's reference for SSD300.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro

from common.errors import InputError
from common.networks.fits import check_network
from common.networks.genotype import load
from common.networks.network import check_genotype
from common.run.config import RunConfig
from common.run.flags import Between

METHOD = "detect"
PAPER = "pc_darts_imagenet"  # Table 5's backbone
STRIDE = 32  # the last map's, in a network with ImageNet's stem


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
