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
    checkpoints/        the newest two, with digests of the files above that they stand on
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
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from common.errors import InputError
from common.files import digest, first_lines, json_lines, json_object, write_whole
from common.run import checkpoint
from common.run.cli import module_form
from common.run.config import LEFT_BY_A_KILL, LoopConfig, config_digest, described, unknown, younger
from common.run.flags import flag

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "einops", "numpy", "scikit-learn")
EPOCH_FILES = ("metrics.jsonl", "architecture.jsonl", "genotypes.jsonl")  # a line an epoch
LINE_FILES = (*EPOCH_FILES, "iterations.jsonl")


class Run:
    """A run folder. Every process has one; only the main process writes.

    Attributes:
        folder: where it is.
        method: what made it.
        commit: of the code that began it.
        accelerator: the processes of this run.
        config_digest: of its config.json.
        pinned: digests of what it began with, by the files that tell of it.
        used: the checkpoint that it goes on from.
        stands_on: that one's digests of config.json, pinned files and epoch files' first lines.
    """

    def __init__(self, folder: Path, method: str, accelerator: Accelerator):
        self.folder, self.method, self.accelerator = folder, method, accelerator
        self.commit: str | None = None
        self.config_digest: str | None = None
        self.pinned: dict[str, str] = {}
        self.used: Path | None = None
        self.stands_on: dict[str, Any] = {}
        self.waiting: dict[str, Any] | None = None  # its state, until the loop loads it

    @classmethod
    def open(cls, config: LoopConfig, method: str, accelerator: Accelerator) -> Run:
        """The folder to resume, or a new one with its config written.

        Raises:
            InputError: the folder is in use or cannot be written, or the run in it cannot be gone
                on with; on every process.
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
            description = described(run.folder)
            run._check_description(config, description)
        run.commit, run.config_digest = description.get("commit"), config_digest(description)
        if config.resume is not None:
            run.waiting = run._newest()
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
        if json_object(run.folder / "config.json") is None:
            run.write("config.json", _describe(config, method, run.folder, self.accelerator))
        self.accelerator.wait_for_everyone()  # until it is there
        run.config_digest = config_digest(described(run.folder))
        if run.result() is None:
            run.waiting = run._newest()
        return run

    def result(self) -> dict[str, Any] | None:
        """What result.json holds; None: the run is not finished, or the file is damaged."""
        return json_object(self.folder / "result.json")

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
        content = json_object(self.folder / name)
        if content is None:
            raise InputError(f"--resume {self.folder}: its {name} is damaged")
        return content

    def pin_images(self, name: str, content: dict[str, Any], accept: bool = False) -> None:
        """Write down which images the run uses, or see that a resumed one uses the same.

        Args:
            name: of the file.
            content: with the names of their `classes`.
            accept: go on with other files of the same classes and number.

        Raises:
            InputError: it does not, or the file is damaged.
        """
        self._pin(name, content, "the images at --data-root are not those", accept)

    def pin_text(self, content: dict[str, Any]) -> None:
        """The same for a text and its vocabulary, in text.json."""
        otherwise = "the text at --data-root, or its vocabulary, is not the one"
        self._pin("text.json", content, otherwise)

    def recorded(self, name: str) -> str | None:
        """The digest of a file that the checkpoint to resume from stands on; None: it has none."""
        return self.stands_on.get("pinned", {}).get(name)

    def _pin(
        self, name: str, content: dict[str, Any], otherwise: str, accept: bool = False
    ) -> None:
        path = self.folder / name
        self.pinned[name] = ours = digest(content)
        recorded, was, there = self.recorded(name), json_object(path), os.path.lexists(path)
        if recorded == ours or (recorded is None and not there):
            if was != content:
                if recorded == ours:
                    self.say(f"{name} was missing or damaged; it is written again")
                self.write(name, content)
            return
        was = self.read(name) if there else {}
        if "classes" in was and was["classes"] != content["classes"]:
            raise InputError(
                f"--resume {self.folder}: the run began with {_counted(was['classes'])}, the "
                f"images at --data-root are of {_counted(content['classes'])}"
            )
        if accept and _but_digests(was) == _but_digests(content):
            self.say(f"{otherwise} that the run began with; going on, as --accept-images asks")
            self.write(name, content)
            return
        # Of an older version it may say less; the digests of what the run uses are always there.
        told = any("sha256" in key for key in was)
        if recorded is not None or not told or was != {key: content.get(key) for key in was}:
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
        """The whole lines of an epoch file (a kill may leave half of one at the end).

        Raises:
            InputError: it is damaged.
        """
        path = self.folder / name
        return json_lines(path) if path.exists() else []

    def rewind(self, epoch: int) -> None:
        """Forget what epoch files and checkpoints tell of this epoch and later ones.

        Raises:
            InputError: they do not tell of every epoch before it.
        """
        kept = {name: self._until(name, epoch) for name in LINE_FILES}
        self.accelerator.wait_for_everyone()  # until each has read its checkpoint
        if not self.accelerator.is_main_process:
            return
        for name, data in kept.items():
            if os.path.lexists(self.folder / name):
                write_whole(self.folder / name, data)
        if self.used is not None:
            checkpoint.drop_later(self.used.parent, self.used)
        checkpoint.tidy(self.folder / "checkpoints")

    def _until(self, name: str, epoch: int) -> bytes:
        """The lines of an epoch file before this epoch's."""
        path, known = self.folder / name, self.stands_on.get("lines", {})
        if name in known:  # and compared already
            return first_lines(path, known[name][0])
        if epoch == 0 or (name != "metrics.jsonl" and not os.path.lexists(path)):
            return b""
        if name not in EPOCH_FILES or [
            line.get("epoch") for line in self.lines(name)[:epoch]
        ] != list(range(epoch)):
            raise InputError(
                f"--resume {self.folder}: its {name} does not hold a line of each of the "
                f"{epoch} epochs so far; put it back as the run wrote it, or start a new run"
            )
        return first_lines(path, epoch)

    def save_checkpoint(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """The state after `step` steps of `epoch`."""
        if self.accelerator.is_main_process:
            folder = self.folder / "checkpoints"
            folder.mkdir(exist_ok=True)
            lines = {name: first_lines(self.folder / name) for name in LINE_FILES}
            stands_on = {
                "config": self.config_digest,
                "pinned": self.pinned,
                "lines": {k: [v.count(b"\n"), digest(v)] for k, v in lines.items()},
            }
            state = {**state, "stands_on": stands_on}
            checkpoint.save(folder, f"epoch-{epoch:05d}-step-{step:07d}", state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest whole checkpoint whose files are there; None before a run's first.

        Raises:
            InputError: there are some, and none can be used.
        """
        state, self.waiting = self.waiting or self._newest(), None
        return state

    def _newest(self) -> dict[str, Any] | None:
        folder, passed = self.folder / "checkpoints", []
        if os.path.lexists(folder) and not folder.is_dir():
            raise InputError(f"{folder}: is not a folder; start a new run")
        try:
            for path, state in checkpoint.newest(folder):
                damaged = f"{path.name} is damaged"
                passed.append(damaged if state is None else self._changed(path, state))
                if passed[-1] is None:
                    for why in passed[:-1]:
                        self.say(f"{why}; going on from {path.name} instead")
                    self.used, self.stands_on = path, state.get("stands_on") or {}
                    return state
        except UnpicklingError:
            raise InputError(
                f"--resume {self.folder}: a checkpoint holds more than tensors and plain values; "
                "it was not loaded"
            ) from None
        if not passed:
            return None
        raise InputError(
            f"--resume {self.folder}: every checkpoint is damaged, or its files are "
            f"({', '.join(passed)}); put them back as the run wrote them, or start a new run"
        )

    def _changed(self, path: Path, state: dict[str, Any]) -> str | None:
        """Why a checkpoint cannot be used: what it stands on is not there any more.

        Raises:
            InputError: config.json is not the one that the run began with.
        """
        known = state.get("stands_on") or {}
        if known.get("config") not in (None, self.config_digest):
            raise InputError(
                f"--resume {self.folder}: its config.json was changed since the run began; put it "
                "back as it was, or start a new run with other flags"
            )
        for name, (count, known_digest) in known.get("lines", {}).items():
            lines = first_lines(self.folder / name, count)
            if lines is None or digest(lines) != known_digest:
                return f"{name} has lost or changed lines since {path.name}"
        return None

    def _check_description(self, config: LoopConfig, description: dict[str, Any]) -> None:
        """Whether this version and this launch can go on with a run of that config.json."""
        processes = self.accelerator.num_processes
        if description.get("processes") != processes:
            raise InputError(
                f"--resume {self.folder}: is a run of {description.get('processes')} processes, "
                f"not of {processes}; launch it with as many as before"
            )
        foreign = unknown(config, description)
        if foreign:
            raise InputError(
                f"--resume {self.folder}: its config.json has {', '.join(foreign)}, which this "
                f"version does not know; go on with the code of commit {description.get('commit')}"
            )
        added = younger(config, description)
        if added:
            told = ", ".join(f"{flag(name)} {value}" for name, value in added.items())
            self.say(f"note: flags that this run did not know yet have their defaults: {told}")

    def say(self, text: str) -> None:
        """A line for the person who watches, from the main process."""
        self.accelerator.print(text, flush=True)


def _new_folder(config: LoopConfig, method: str) -> Path:
    """`--output`, which must be empty, or a folder under runs/ that does not exist yet."""
    if config.output is not None:
        folder = Path(config.output)
        left = LEFT_BY_A_KILL
        if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - left):
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


def _but_digests(content: dict[str, Any]) -> dict[str, Any]:
    """What is left of images.json or split.json where images were changed."""
    return {
        key: value for key, value in content.items()
        if not key.endswith("_sha256") and key not in ("mean", "std")
    }


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
