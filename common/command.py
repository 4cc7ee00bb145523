"""What every search and retraining begins with: threads, processes, images."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch
from accelerate import Accelerator

from common import data
from common.config import ConfigT, RunConfig
from common.data import Images
from common.errors import InputError


def start(config: ConfigT) -> tuple[ConfigT, Accelerator]:
    """Threads and processes of this program; the config with the threads settled.

    Raises:
        InputError: the batch cannot be shared out, or the tracker is not installed.
        SystemExit: 0, the run to resume is finished.
    """
    if config.log_with == "tensorboard":
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise InputError(
                "--log-with tensorboard: not installed; pip install -e '.[tensorboard]'"
            ) from None
    config = dataclasses.replace(config, threads=set_threads(config.threads))
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # without this, torchrun's processes stay apart
        log_with=config.log_with,
        project_dir=config.log_with and ".",
    )
    if config.resume is not None and (Path(config.resume) / "result.json").exists():
        accelerator.print(f"{config.resume} is finished: see its result.json and pictures/")
        accelerator.end_training()
        raise SystemExit(0)
    processes = accelerator.num_processes
    if config.batch_size % processes:
        raise InputError(
            f"--batch-size {config.batch_size}: is shared by {processes} processes and must be a "
            f"multiple of {processes}"
        )
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(config.seed)  # initial weights, alike on every process
    return config, accelerator


def training_images(config: RunConfig, accelerator: Accelerator) -> Images:
    """The images that the flags name; the main process looks (and downloads) first.

    Raises:
        InputError: see `data.load`.
    """
    with accelerator.main_process_first():
        images = data.load(
            config.dataset, config.data_root, train=True, image_size=config.image_size
        )
    return images.limited(config.limit_images, config.seed)


def test_images(config: RunConfig, accelerator: Accelerator) -> Images:
    """The test split that the flags name; see `training_images`."""
    with accelerator.main_process_first():
        return data.load(
            config.dataset, config.data_root, train=False, image_size=config.image_size
        )


def set_threads(count: int | None) -> int:
    """Use this many CPU threads, by default this process' share of the usable cores.

    Launchers set one thread a process on a CPU, and another number of threads rounds differently;
    so the number is set here, however the program was started.
    """
    if count is None:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        # macOS does not say which cores a process may use
        knows = hasattr(os, "sched_getaffinity")
        usable = len(os.sched_getaffinity(0)) if knows else os.cpu_count()
        count = max(1, usable // processes)
    torch.set_num_threads(count)
    return count
