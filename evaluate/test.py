"""Test a trained network: top-1, top-5, loss, accuracy of each class, confusion matrix.

    python evaluate/test.py RUN                       on the test images of the run's data set
    python evaluate/test.py RUN --dataset folder --data-root FOLDER    on FOLDER/test/<class>/*

RUN is the folder of a finished `evaluate/train.py`. The results go there: test.json and
pictures/confusion.svg and .png.
"""

from __future__ import annotations

import common  # noqa: F401  before torch: sets how threads wait

# isort: split
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

from common.data import loader
from common.data.batches import Augmentation, Stream
from common.data.datasets import Dataset
from common.data.images import ImageFiles, Images, large
from common.errors import InputError, errors_are_messages
from common.files import write_whole
from common.networks.trained import METHOD, Trained, load_trained
from common.run.cli import read_flags
from common.run.config import described, saved
from common.run.description import commit
from common.run.flags import Between, OperationsFile, check_bounds
from common.run.memory import check_memory, of_network
from common.run.operations import check_recorded
from common.run.start import set_threads, test_images, workers
from common.training.loop import prepare
from retraining.config import RetrainConfig

SHOWN = 20  # classes to print


@dataclass(frozen=True)
class Options:
    """Which network to test on which images."""

    run: tyro.conf.Positional[Path]
    """The folder of a finished retraining."""
    dataset: Dataset | None = None
    """Data set to test on; by default the run's. A folder's images are resized."""
    data_root: str | None = None
    """Folder of the data; by default the run's."""
    batch_size: Annotated[int | None, Between(1, 2**20)] = None
    """Batch size, over all processes together; by default the run's."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads per process; by default the usable cores, shared by the processes."""
    operations: OperationsFile = None
    json: bool = False
    """Print JSON: test.json without the confusion matrix."""


def test(options: Options) -> None:
    """Test a run, print and write the results.

    Raises:
        InputError: no such run, an unfinished run, or no test images for it.
    """
    check_bounds(options)
    check_recorded(options.run, options.operations)
    trained = load_trained(options.run)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=described(options.run)["mixed_precision"],  # as in training
    )
    set_threads(options.threads)
    config = settled(options, trained)
    images = test_images(config, accelerator, like(trained, config))
    if images.classes != trained.classes:
        raise InputError(
            f"--dataset {config.dataset}: other classes than {options.run}; use its data set"
        )
    if images.shape != trained.shape:
        found, wanted = ("x".join(map(str, one.shape)) for one in (images, trained))
        raise InputError(
            f"--dataset {config.dataset}: images of {found} (channels, height, width), but "
            f"{options.run} was trained on {wanted}; --dataset folder resizes image files"
        )
    least = of_network(
        images.shape, config.channels, config.cells, min(config.batch_size, len(images)), 0.5, 0.5
    )
    check_memory(f"--batch-size {config.batch_size}: forward passes", least)
    batches = loader.batches(
        images, accelerator.device, None, config.batch_size, Augmentation(), seed=config.seed,
        stream="test", rank=accelerator.process_index, processes=accelerator.num_processes,
    )
    network = prepare(accelerator, trained.network.to(memory_format=torch.channels_last))
    measured, confusion = measure(network, batches, trained.classes, accelerator)
    if accelerator.is_main_process:
        metrics = {
            "genotype": trained.genotype.name,
            "dataset": config.dataset,
            **measured,
            "test_sha256": images.sha256(),
            "batch_size": config.batch_size,
            "mixed_precision": str(accelerator.mixed_precision),
            "device": accelerator.device.type,
            "torch": torch.__version__,
            "commit": commit(),
        }
        print(json.dumps(metrics) if options.json else report(options.run, metrics))
        write(options.run, metrics, confusion)
        if not options.json:
            print(f"\nwritten: {options.run}/test.json, pictures/confusion.svg and .png")
    accelerator.end_training()


def settled(options: Options, trained: Trained) -> RetrainConfig:
    """The run's config, changed by the given flags."""
    names = ("dataset", "data_root", "batch_size")
    given = {name: getattr(options, name) for name in names}
    was = replace(saved(RetrainConfig, options.run, METHOD), resume=None)
    config = replace(was, **{k: v for k, v in given.items() if v is not None})
    _, height, width = trained.shape
    if config.dataset == "folder" and was.dataset != "folder" and height == width:
        config = replace(config, image_size=height)
    return config


def like(trained: Trained, config: RetrainConfig) -> Images | ImageFiles:
    """An empty set of images like those of the training."""
    labels = torch.empty(0, dtype=torch.int64)
    known = {"classes": trained.classes, "mean": trained.mean, "std": trained.std}
    if large(trained.shape):
        return ImageFiles(
            Path(config.data_root), np.array([], "S"), labels, shape=trained.shape,
            workers=workers(config), **known,
        )
    return Images(torch.empty(0, *trained.shape, dtype=torch.uint8), labels, **known)


@torch.no_grad()
def measure(
    network: nn.Module, batches: Stream, classes: Sequence[str], accelerator: Accelerator
) -> tuple[dict[str, Any], list[list[int]]]:
    """Metrics, accuracies in percent, and the confusion matrix with a row per true class.

    Top-5 is None with five classes or fewer.
    """
    count = len(classes)
    loss = torch.zeros((), device=accelerator.device)
    confusion = torch.zeros(count**2, dtype=torch.int64, device=accelerator.device)
    among_five = torch.zeros((), dtype=torch.int64, device=accelerator.device)
    for images, labels in batches.evaluate():
        logits = network(images)  # [B, K]
        loss += F.cross_entropy(logits, labels, reduction="sum")
        among_five += logits.topk(min(5, count)).indices.eq(labels[:, None]).any(1).sum()
        confusion += torch.bincount(labels * count + logits.argmax(1), minlength=count**2)
    confusion = accelerator.reduce(confusion).view(count, count).tolist()
    right = [row[k] for k, row in enumerate(confusion)]
    every = sum(map(sum, confusion))
    metrics = {
        "images": every,
        "top1": 100 * sum(right) / every,
        "top5": 100 * accelerator.reduce(among_five).item() / every if count > 5 else None,
        "loss": accelerator.reduce(loss).item() / every,
        "per_class": {
            name: 100 * right[k] / sum(row) if sum(row) > 0 else None
            for k, (name, row) in enumerate(zip(classes, confusion, strict=True))
        },
    }
    return metrics, confusion


def report(run: Path, metrics: dict[str, Any]) -> str:
    """The printed form: metrics, then the classes, hardest first."""
    known = json.loads((run / "images.json").read_text()).get("test_sha256")
    if known == metrics["test_sha256"]:
        top1 = json.loads((run / "result.json").read_text())["test_top1"]
        compared = f"(the run's result: {top1:.2f} %)"
    else:
        compared = "(the run's result is on other images)"
    lines = [
        f"{metrics['genotype']} on {metrics['images']:,} test images",
        f"  top-1  {metrics['top1']:6.2f} %   {compared}",
    ]
    if metrics["top5"] is not None:
        lines.append(f"  top-5  {metrics['top5']:6.2f} %")
    lines += [f"  loss   {metrics['loss']:8.4f}", "", "top-1 of each class, the lowest first"]
    per_class = {k: v for k, v in metrics["per_class"].items() if v is not None}
    ranked = sorted(per_class, key=per_class.get)
    width = max(map(len, ranked[:SHOWN]))
    lines += [f"  {name:<{width}}  {per_class[name]:6.2f} %" for name in ranked[:SHOWN]]
    if len(ranked) > SHOWN:
        lines.append(f"  ... {len(ranked) - SHOWN} more in test.json")
    return "\n".join(lines)


def write(run: Path, metrics: dict[str, Any], confusion: list[list[int]]) -> None:
    """Write test.json, one line per row of the matrix, and the picture.

    Raises:
        InputError: the run folder cannot be written.
    """
    from common.draw import pictures

    head = json.dumps(metrics, indent=2, allow_nan=False).removesuffix("\n}")
    rows = ",\n".join(f"    {row}" for row in confusion)
    try:
        write_whole(run / "test.json", f'{head},\n  "confusion": [\n{rows}\n  ]\n}}\n'.encode())
        pictures.confusion({**metrics, "confusion": confusion}, run / "pictures")
    except OSError as error:
        raise InputError(f"{run}: cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    with errors_are_messages():
        test(read_flags(Options, sys.argv[1:], __doc__))
