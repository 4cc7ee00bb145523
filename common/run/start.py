"""What every search and retraining begins with (threads, processes, images) and ends with."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from common.data import datasets
from common.data.image_folder import check_files
from common.data.images import ImageFiles, Images
from common.distributed import seed_of
from common.errors import InputError
from common.files import json_object
from common.run.config import ConfigT, RunConfig, described

Loaded = TypeVar("Loaded")


def start(config: ConfigT) -> tuple[ConfigT, Accelerator]:
    """Threads and processes of this program; the config with the threads settled.

    Raises:
        InputError: the batch cannot be shared out, the precision is not supported, or the tracker
            is not installed.
        SystemExit: 0, the run to resume is finished.
    """
    if config.log_with == "tensorboard":
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise InputError(
                "--log-with tensorboard: not installed; pip install -e '.[tensorboard]'"
            ) from None
    precision = None  # what the launcher says; a resumed run keeps its own
    if config.resume is not None:
        precision = described(Path(config.resume)).get("mixed_precision")
        config.check_precision(precision)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # without this, torchrun's processes stay apart
        mixed_precision=precision,
        log_with=config.log_with,
        project_dir=config.log_with and ".",
    )
    config.check_precision(accelerator.mixed_precision)
    # After the accelerator, which in some launches sets a number of its own.
    config = dataclasses.replace(config, threads=set_threads(config.threads))
    if config.resume is not None:
        _say_if_finished(Path(config.resume), accelerator)
    config.check_processes(accelerator.num_processes)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(seed_of(config.seed, "weights"))  # alike on every process
    return config, accelerator


def _say_if_finished(folder: Path, accelerator: Accelerator) -> None:
    if (folder / "result.json").is_dir():
        raise InputError(f"--resume {folder}: its result.json is a folder; move it away")
    if json_object(folder / "result.json") is not None:
        accelerator.print(f"{folder} is finished: see its result.json and pictures/")
        accelerator.end_training()
        raise SystemExit(0)
    if (folder / "result.json").exists():
        accelerator.print(f"{folder}: its result.json is damaged; it is written again")


def training_images(config: RunConfig, accelerator: Accelerator) -> Images:
    """The images that the flags name.

    Raises:
        InputError: see `data.load_train`; on every process.
    """
    images = main_first(
        accelerator,
        lambda: datasets.load_train(
            config.dataset, config.data_root, config.image_size,
            workers=workers(config),
        ),
    ).limited(config.limit_images, config.seed)
    _check_files(config, accelerator, images)
    return images


def test_images(config: RunConfig, accelerator: Accelerator, train: Images) -> Images:
    """The test split that belongs to these training images.

    Raises:
        InputError: see `data.load_test`; on every process.
    """
    images = main_first(
        accelerator,
        lambda: datasets.load_test(
            config.dataset, config.data_root, train, config.image_size,
            getattr(config, "test_split", None),  # a search opens no test split
        ),
    )
    _check_files(config, accelerator, images)
    return images


def _check_files(config: RunConfig, accelerator: Accelerator, images: Images | ImageFiles) -> None:
    """Before a run begins, decode a user's large images once: one message names the damaged ones.

    Small ones are all decoded as they are read. ImageNet's million would take a quarter of an hour.
    """
    if isinstance(images, ImageFiles) and config.dataset == "folder" and config.resume is None:
        here = accelerator.is_local_main_process
        main_first(accelerator, lambda: check_files(images.root, images.names) if here else None)


def main_first(accelerator: Accelerator, load: Callable[[], Loaded]) -> Loaded:
    """One process of each machine loads (and downloads) before its others; all hear of errors."""
    loaded = error = None
    for mine in (accelerator.is_local_main_process, not accelerator.is_local_main_process):
        if mine:
            try:
                loaded = load()
            except InputError as reason:
                error = str(reason)
        errors = [text for text in gather_object([error]) if text is not None]
        if errors:
            raise InputError(errors[0])
    return loaded


def set_threads(count: int | None) -> int:
    """Use this many CPU threads, by default this process' share of the usable cores.

    Launchers set one thread a process on a CPU, and another number of threads rounds differently;
    so the number is set here, however the program was started.
    """
    torch.set_num_threads(share_of_cores() if count is None else count)
    return torch.get_num_threads()


def workers(config: RunConfig) -> int:
    """How many processes read large images' files for each stream of batches."""
    return min(16, share_of_cores()) if config.workers is None else config.workers


def share_of_cores() -> int:
    """How many of the usable cores are this process'."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    # macOS does not say which cores a process may use
    knows = hasattr(os, "sched_getaffinity")
    usable = len(os.sched_getaffinity(0)) if knows else os.cpu_count()
    return max(1, usable // processes)
