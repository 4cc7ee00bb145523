"""How every run starts: threads, processes, images."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from common.data import datasets
from common.data.image_folder import check_files
from common.data.images import ImageFiles, Images
from common.distributed import seed_of
from common.errors import InputError
from common.files import json_object
from common.run.config import ConfigT, LoopConfig, RunConfig, described
from common.run.trackers import check_trackers

Loaded = TypeVar("Loaded")
GIVES_WAY = ("idle", "iowait", "nice", "guest", "guest_nice")  # a guest's time is in user, too


def start(config: ConfigT) -> tuple[ConfigT, Accelerator]:
    """Set up threads and processes; return the config with the thread count filled in.

    Raises:
        InputError: the processes cannot split the batch, the precision is not supported, or a
            tracker is not installed.
        SystemExit: 0, the run to resume is finished.
    """
    check_trackers(config.log_with)
    precision = None  # the launcher's; a resumed run keeps its own
    if config.resume is not None:
        precision = described(Path(config.resume)).get("mixed_precision")
        config.check_precision(precision)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else torchrun's processes do not connect
        mixed_precision=precision,
        log_with=config.log_with or None,  # it warns of an empty list
        project_dir="." if config.log_with else None,  # the run folder takes its place
    )
    config.check_precision(accelerator.mixed_precision)
    if len(set(gather_object([config.resume]))) > 1:  # a network file system shows it late
        raise InputError(f"--output {config.output}: only some processes see its run; start again")
    threads = own_threads(config, accelerator) if config.threads is None else config.threads
    # After the accelerator, which may set its own number.
    config = dataclasses.replace(config, threads=set_threads(threads))
    if config.resume is not None:
        _check_whether_finished(config, Path(config.resume), accelerator)
        was = described(Path(config.resume)).get("threads")
        if was not in (None, config.threads):
            accelerator.print(
                f"--threads {config.threads}: the run began with {was}. Other thread counts round "
                "differently, so a search may end in other cells; repeat the flag on later resumes"
            )
    config.check_processes(accelerator.num_processes)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(seed_of(config.seed, "weights"))  # the same on every process
    return config, accelerator


def own_threads(config: LoopConfig, accelerator: Accelerator) -> int:
    """The number of CPU threads of a run that was not told; it keeps it when it is resumed.

    The free cores, at least one: a thread whose core other programs use makes the others wait.
    """
    if config.dataset == "digits":
        return 1  # 8x8 pixels: a second gains little, and beside other programs loses much
    cores = share_of_cores()
    if cores == 1 or accelerator.num_processes > 1 or accelerator.device.type != "cpu":
        return cores
    busy = busy_cores()
    free = max(1, round(cores - busy))
    if free < cores:
        accelerator.print(
            f"other programs use {busy:.1f} of {cores} cores, so this run takes --threads {free}; "
            "more would wait for each other. Other numbers round differently: to repeat a run, "
            "give its --threads"
        )
    return free


def _check_whether_finished(config: LoopConfig, folder: Path, accelerator: Accelerator) -> None:
    if (folder / "result.json").is_dir():
        raise InputError(f"--resume {folder}: result.json is a folder; remove it")
    finished = json_object(folder / "result.json") is not None
    if config.extend_epochs is not None:
        if not finished:
            raise InputError(
                f"--extend-epochs {config.extend_epochs}: {folder} is not finished; finish it with "
                "--resume alone"
            )
        return
    if finished:
        accelerator.print(f"{folder} is finished: see result.json and pictures/")
        accelerator.end_training()
        raise SystemExit(0)
    if (folder / "result.json").exists():
        accelerator.print(f"{folder}: result.json is damaged; writing it again")


def training_images(config: RunConfig, accelerator: Accelerator) -> Images:
    """The training images.

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
    """The test split for these training images.

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
    """Decode a user's large images once before the run, to report all damaged ones in one message.

    Small images are decoded when loaded. ImageNet is not checked: it would take 15 minutes.
    """
    if isinstance(images, ImageFiles) and config.dataset == "folder" and config.resume is None:
        here = accelerator.is_local_main_process
        main_first(accelerator, lambda: check_files(images.root, images.names) if here else None)


def main_first(accelerator: Accelerator, load: Callable[[], Loaded]) -> Loaded:
    """Load (and download) first in one process per machine; an error reaches every process."""
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
    """Set the number of CPU threads; by default the process's share of the usable cores.

    Launchers set their own number (one on a CPU), and other thread counts round differently, so
    it is set here whatever the launcher.
    """
    torch.set_num_threads(share_of_cores() if count is None else count)
    return torch.get_num_threads()


def workers(config: RunConfig) -> int:
    """Number of processes that read image files, per stream of batches."""
    return min(16, share_of_cores()) if config.workers is None else config.workers


def share_of_cores() -> int:
    """This process's share of the usable cores."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, len(usable_cores()) // processes)


def usable_cores() -> set[int]:
    """The cores that this process may use; macOS does not tell, so all."""
    knows = hasattr(os, "sched_getaffinity")
    return os.sched_getaffinity(0) if knows else set(range(os.cpu_count()))


def busy_cores(seconds: float = 0.3) -> float:
    """How many of the usable cores run something, while this process sleeps for so long.

    Programs that give way (`nice`) do not count.
    """
    before = psutil.cpu_times(percpu=True)  # seconds, of each core of the machine
    time.sleep(seconds)
    after = psutil.cpu_times(percpu=True)
    busy = [field for field in before[0]._fields if field not in GIVES_WAY]
    cores = [core for core in usable_cores() if core < len(before)]
    spent = [
        getattr(after[core], field) - getattr(before[core], field)
        for core in cores
        for field in busy
    ]
    return sum(spent) / seconds
