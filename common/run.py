"""The run folder: all that a search or a retraining leaves behind.

    config.json         every flag, method, versions, commit, command line
    split.json          a search's two parts, with SHA-256 of the parts and of the images
    images.json         a retraining's images: classes, shape, mean and std, and as SHA-256
    text.json           a language model's text and vocabulary, as SHA-256
    metrics.jsonl       one object an epoch
    architecture.jsonl  a search's parameters and mixing weights, one object an epoch
    genotypes.jsonl     what they stood for, one object an epoch
    genotype.json       the cells found (a search) or trained (a retraining)
    result.json         last of all: the run is finished
    test.json           what evaluate/test.py found of a finished retraining
    export.json, network.onnx, network.pt2    what evaluate/export.py made of it
    checkpoints/        the newest two
    pictures/           cells, now and over time, curves, measures, architecture weights
    cells/, searches/   of a run that ranks: the runs within it, each such a folder
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from common import checkpoint
from common.arguments import module_form
from common.config import LoopConfig
from common.errors import InputError
from common.files import json_lines, write_whole

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "einops", "numpy", "scikit-learn")
EPOCH_FILES = ("metrics.jsonl", "architecture.jsonl", "genotypes.jsonl")


class Run:
    """A run folder. Every process has one; only the main process writes.

    Attributes:
        folder: where it is.
        method: what made it.
        commit: of the code that began it.
        accelerator: the processes of this run.
    """

    def __init__(self, folder: Path, method: str, accelerator: Accelerator):
        self.folder, self.method, self.accelerator = folder, method, accelerator
        self.commit: str | None = None

    @classmethod
    def open(cls, config: LoopConfig, method: str, accelerator: Accelerator) -> Run:
        """The folder to resume, or a new one with its config written.

        Raises:
            InputError: the folder is in use or cannot be written; on every process.
        """
        answer: list[Any] = [None, None]  # folder, error: one process looks, all hear
        if accelerator.is_main_process:
            try:
                answer[0] = str(config.resume or _new_folder(config, method))
                (Path(answer[0]) / ".writable").touch()
                (Path(answer[0]) / ".writable").unlink()
            except InputError as error:
                answer[1] = str(error)
            except OSError as error:
                flag = "--output" if config.resume is None else "--resume"
                folder = answer[0] or config.output
                answer[1] = f"{flag} {folder}: cannot be written ({error.strerror}); name another"
        if accelerator.num_processes > 1:
            broadcast_object_list(answer)
        if answer[1] is not None:
            raise InputError(answer[1])
        run = cls(Path(answer[0]), method, accelerator)
        if config.resume is None:
            description = _describe(config, method, run.folder, accelerator)
            run.write("config.json", description)
            run.say(f"run folder: {run.folder}")
        else:
            description = run.read("config.json")
            if description["processes"] != accelerator.num_processes:
                raise InputError(
                    f"--resume {run.folder}: is a run of {description['processes']} processes, "
                    f"not of {accelerator.num_processes}; launch it with as many as before"
                )
        run.commit = description["commit"]
        if config.log_with is not None:
            accelerator.project_configuration.logging_dir = str(run.folder)
            accelerator.init_trackers("tensorboard")
        return run

    def inner(self, name: str, config: LoopConfig, method: str) -> Run:
        """A run in a folder of this one, begun or gone on with."""
        self.accelerator.free_memory()  # of what a run before this one prepared
        run = Run(self.folder / name, method, self.accelerator)
        run.commit = self.commit
        if self.accelerator.is_main_process:
            run.folder.mkdir(parents=True, exist_ok=True)
        if not (run.folder / "config.json").exists():
            run.write("config.json", _describe(config, method, run.folder, self.accelerator))
        return run

    def close(self) -> None:
        """End trackers and processes; all of them arrive here before any leaves."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def write(self, name: str, content: dict[str, Any]) -> None:
        """A JSON file of the run, written whole."""
        if self.accelerator.is_main_process:
            indent = None if name == "split.json" else 2
            text = json.dumps(content, indent=indent, allow_nan=False)
            write_whole(self.folder / name, (text + "\n").encode())

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            InputError: it is damaged.
        """
        try:
            return json.loads((self.folder / name).read_text())
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise InputError(f"--resume {self.folder}: its {name} is damaged") from None

    def pin_images(self, name: str, content: dict[str, Any]) -> None:
        """Write down which images the run uses, or see that a resumed one uses the same.

        Args:
            name: of the file.
            content: with the names of their `classes`.

        Raises:
            InputError: it does not, or the file is damaged.
        """
        self._pin(name, content, "the images at --data-root are not those")

    def pin_text(self, content: dict[str, Any]) -> None:
        """The same for a text and its vocabulary, in text.json."""
        otherwise = "the text at --data-root, or its vocabulary, is not the one"
        self._pin("text.json", content, otherwise)

    def _pin(self, name: str, content: dict[str, Any], otherwise: str) -> None:
        if not (self.folder / name).exists():
            self.write(name, content)
            return
        was = self.read(name)
        if "classes" in was and was["classes"] != content["classes"]:
            raise InputError(
                f"--resume {self.folder}: the run began with {_counted(was['classes'])}, the "
                f"images at --data-root are of {_counted(content['classes'])}"
            )
        if was != content:
            raise InputError(
                f"--resume {self.folder}: {otherwise} that the run began with (its {name})"
            )

    def append(self, name: str, line: dict[str, Any]) -> None:
        """One more line of an epoch file."""
        if self.accelerator.is_main_process:
            with open(self.folder / name, "a") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())  # no later than the checkpoint that follows

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of an epoch file (a kill may leave half of one at the end)."""
        path = self.folder / name
        return json_lines(path) if path.exists() else []

    def rewind(self, epoch: int) -> None:
        """Forget what the epoch files say of this epoch and later ones."""
        if not self.accelerator.is_main_process:
            return
        for name in EPOCH_FILES:
            if (self.folder / name).exists():
                kept = [json.dumps(line) for line in self.lines(name) if line["epoch"] < epoch]
                text = "".join(line + "\n" for line in kept)
                write_whole(self.folder / name, text.encode())

    def save_checkpoint(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """The state after `step` steps of `epoch`."""
        if self.accelerator.is_main_process:
            folder = self.folder / "checkpoints"
            folder.mkdir(exist_ok=True)
            checkpoint.save(folder, f"epoch-{epoch:05d}-step-{step:07d}", state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest whole checkpoint; None where a run was killed before its first.

        Raises:
            InputError: there are some, and all are damaged.
        """
        damaged = []
        for path, state in checkpoint.newest(self.folder / "checkpoints"):
            if state is not None:
                for bad in damaged:
                    self.say(f"{bad.name} is damaged; going on from {path.name} instead")
                return state
            damaged.append(path)
        if damaged:
            raise InputError(
                f"--resume {self.folder}: every checkpoint is damaged "
                f"({', '.join(path.name for path in damaged)}); start a new run"
            )
        return None

    def say(self, text: str) -> None:
        """A line for the person who watches, from the main process."""
        self.accelerator.print(text, flush=True)


def _new_folder(config: LoopConfig, method: str) -> Path:
    """`--output`, which must be empty, or a folder under runs/ that does not exist yet."""
    if config.output is not None:
        folder = Path(config.output)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"--output {folder}: exists and is not empty; name another folder, or go on with "
                f"the run in it by --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    name = f"{method}-{config.dataset}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):  # another run may take the same name in the same second
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def _counted(classes: Sequence[str]) -> str:
    """`12 classes (cat, cow, dog, ...)`."""
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"


def _describe(
    config: LoopConfig, method: str, folder: Path, accelerator: Accelerator
) -> dict[str, Any]:
    """What config.json holds."""
    fields = dataclasses.asdict(config)
    return {
        "method": method,
        **fields,
        "output": str(folder),
        "resume": None,
        "processes": accelerator.num_processes,
        "mixed_precision": str(accelerator.mixed_precision),
        "device": _device_name(accelerator.device),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "commit": commit(),
        "command": _command_line(),
    }


def _command_line() -> str:
    start = module_form() or shlex.join(["python", sys.argv[0]])
    return f"{start} {shlex.join(sys.argv[1:])}".strip()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def commit() -> str | None:
    """The commit of this checkout, with a + where files differ from it; None outside one."""
    def git(*words: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return (git("rev-parse", "HEAD") + ("+" if changed else "")) or None
    except OSError:  # no git on this machine
        return None
