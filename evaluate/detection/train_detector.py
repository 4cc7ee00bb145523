"""Trains a detector on a derived network and scores it (`evaluate/detect.py` is the command)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from common.data.image_folder import check_files
from common.distributed import seed_of
from common.errors import InputError
from common.networks.complexity import CallCounter, multiply_adds, parameters
from common.networks.genotype import Genotype, load
from common.networks.network import Network, weightless
from common.networks.space import DARTS
from common.networks.spaces import space_of
from common.networks.trained import load_trained
from common.run.folder import Run
from common.run.operations import check_recorded
from common.run.start import main_first, start
from detection.average_precision import check_installed
from detection.batches import TrainBatches
from detection.coco import read_split
from detection.config import METHOD, DetectConfig
from detection.loop import DetectorTrainer
from detection.ssd import detector
from retraining.pinned import pin_genotype, with_operations


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
        InputError: there is no such genotype, it is of another space, or the weights belong to
            another network.
    """
    run = None if config.resume is None else Path(config.resume)
    genotype = load(run if run and (run / "genotype.json").exists() else config.genotype)
    if space_of(genotype) is not DARTS:
        raise InputError(
            f"--genotype {genotype.name}: a detector needs cells of DARTS' space, whose networks "
            "have maps of strides 8, 16 and 32"
        )
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
        shape = 3, config.image_size, config.image_size
        backbone, _, uncounted = multiply_adds(network, shape)
        ssd = detector(network, classes, config.image_size).eval()
        image = torch.empty(1, 3, config.image_size, config.image_size)
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
