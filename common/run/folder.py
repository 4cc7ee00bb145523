"""The run folder: everything that a search or a retraining writes.

    config.json         every flag, method, versions, commit, command line
    split.json          a search's two halves of the images, with their SHA-256
    images.json         a retraining's images: classes, shape, mean, std, SHA-256
    text.json           SHA-256 of a language model's text and vocabulary
    metrics.jsonl       one JSON object per epoch
    architecture.jsonl  a search's parameters and mixing weights, one object per epoch
    genotypes.jsonl     the derived cells, one object per epoch
    genotype.json       the cells found (search) or trained (retraining)
    result.json         written last: the run is finished
    test.json           written by evaluate/test.py
    export.json, network.onnx, network.pt2, timm/    written by evaluate/export.py
    checkpoints/        the newest two, with digests of the files they depend on
    running.json        while a process writes here (`lock.py`)
    pictures/           cells, their evolution, curves, measures, architecture weights
    cells/, searches/   run folders within a run that ranks cells
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from common.errors import InputError
from common.files import digest, first_lines, json_lines, json_object, write_whole
from common.preemption import Preempted
from common.run import checkpoint
from common.run.config import LEFT_BY_A_KILL, LoopConfig, config_digest, described, unknown, younger
from common.run.description import describe, program
from common.run.flags import flag
from common.run.lock import Lock
from common.run.operations import flag_words
from common.run.trackers import log_results, start_trackers

EPOCH_FILES = ("metrics.jsonl", "architecture.jsonl", "genotypes.jsonl")  # one line per epoch
LINE_FILES = (*EPOCH_FILES, "iterations.jsonl")


class Run:
    """A run folder. Every process has one; only the main process writes.

    `with run:` closes it at the end. After Ctrl-C or on a full disk, the exception's text then is
    the command that continues the run.

    Attributes:
        folder: its path.
        method: the method that made it.
        operations: the file of `--operations`, which a resume must name again.
        commit: of the code that started it.
        accelerator: the processes of this run.
        config_digest: of config.json.
        threads: per process, where a resume changed them.
        pinned: digests of the data it started with, by file name.
        used: the checkpoint to resume from.
        stands_on: that checkpoint's digests of config.json, the pinned files, and the lines
            written before it.
    """

    def __init__(self, folder: Path, method: str, accelerator: Accelerator):
        self.folder, self.method, self.accelerator = folder, method, accelerator
        self.operations: str | None = None
        self.commit: str | None = None
        self.config_digest: str | None = None
        self.threads: int | None = None
        self.pinned: dict[str, str] = {}
        self.used: Path | None = None
        self.stands_on: dict[str, Any] = {}
        self.waiting: dict[str, Any] | None = None  # the checkpoint, until the loop loads it
        self.lock: Lock | None = None  # of the main process

    @classmethod
    def open(cls, config: LoopConfig, method: str, accelerator: Accelerator) -> Run:
        """The folder to resume, or a new one with its config written.

        Raises:
            InputError: the folder is in use, cannot be written, or its run cannot be resumed; on
                every process.
        """
        answer: list[Any] = [None, None]  # folder and error, from the main process to all
        lock = None
        if accelerator.is_main_process:
            try:
                answer[0] = str(config.resume or _new_folder(config, method))
                lock = Lock(Path(answer[0]))
                lock.take()
            except InputError as error:
                answer[1] = str(error)
            except OSError as error:
                flag = "--output" if config.resume is None else "--resume"
                folder = answer[0] or config.output
                answer[1] = f"{flag} {folder}: cannot be written ({error.strerror}); use another"
        if accelerator.num_processes > 1:
            broadcast_object_list(answer)
        if answer[1] is not None:
            raise InputError(answer[1])
        run = cls(Path(answer[0]), method, accelerator)
        run.lock = lock
        run.operations = getattr(config, "operations", None)  # texts have none
        if config.resume is None:
            description = describe(config, method, run.folder, accelerator)
            run.write("config.json", description)
            run.say(f"run folder: {run.folder}")
        else:
            description = described(run.folder)
            run._check_description(config, description)
            if description.get("threads") not in (None, config.threads):
                run.threads = config.threads
            if config.extend_epochs is None:
                run.say(f"{run.folder} holds this run, unfinished; continuing")
        run.commit, run.config_digest = description.get("commit"), config_digest(description)
        if config.resume is not None:
            run.waiting = run._newest()
        if config.log_with:
            start_trackers(accelerator, run.folder, description)
        return run

    def inner(self, name: str, config: LoopConfig, method: str) -> Run:
        """A run inside this run's folder, new or resumed."""
        self.accelerator.free_memory()  # used by the inner run before
        run = Run(self.folder / name, method, self.accelerator)
        run.commit = self.commit
        if self.accelerator.is_main_process:
            run.folder.mkdir(parents=True, exist_ok=True)
        if json_object(run.folder / "config.json") is None:
            run.write("config.json", describe(config, method, run.folder, self.accelerator))
        self.accelerator.wait_for_everyone()  # until it is there
        run.config_digest = config_digest(described(run.folder))
        if run.result() is None:
            run.waiting = run._newest()
        return run

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None:
            self.close()
            return
        if self.lock is not None:
            self.lock.release()
        if isinstance(error, Preempted):
            raise Preempted(f"{error}; to continue: {self.continuation()}") from error
        elif isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"to continue: {self.continuation()}") from error
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            fix = f"make room, then continue: {self.continuation()}"
            raise OSError(errno.ENOSPC, f"{error.strerror}: {fix}") from error

    def continuation(self) -> str:
        """The command that resumes this run, with as many processes and threads."""
        start, count = program(), self.accelerator.num_processes
        if count > 1:
            start = start.replace("python", f"torchrun --nproc-per-node {count}", 1)
        words = ["--resume", str(self.folder), *flag_words(self.operations)]
        words += [] if self.threads is None else ["--threads", str(self.threads)]
        return f"{start} {shlex.join(words)}"

    def result(self) -> dict[str, Any] | None:
        """Contents of result.json; None if the run is not finished or the file is damaged."""
        return json_object(self.folder / "result.json")

    def close(self) -> None:
        """Wait for every process, then end trackers and processes."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.trackers:
            log_results(self.accelerator, self.folder)
        if self.lock is not None:
            self.lock.release()
        self.accelerator.end_training()

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run atomically."""
        if self.accelerator.is_main_process:
            self._check_lock()
            indent = None if name == "split.json" else 2
            text = json.dumps(content, indent=indent, allow_nan=False)
            write_whole(self.folder / name, (text + "\n").encode())

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the run.

        Raises:
            InputError: it is damaged.
        """
        content = json_object(self.folder / name)
        if content is None:
            raise InputError(f"--resume {self.folder}: {name} is damaged")
        return content

    def pin_images(self, name: str, content: dict[str, Any], accept: bool = False) -> None:
        """Record the images of a run, or check that a resumed run has the same.

        Args:
            name: the file's name.
            content: what identifies them, `classes` among it.
            accept: continue with changed files of the same classes and number.

        Raises:
            InputError: the images differ, or the file is damaged.
        """
        self._pin(name, content, "the images at --data-root are not those", accept)

    def pin_text(self, content: dict[str, Any]) -> None:
        """As `pin_images`, for a text and its vocabulary, in text.json."""
        otherwise = "the text at --data-root, or its vocabulary, is not the one"
        self._pin("text.json", content, otherwise)

    def recorded(self, name: str) -> str | None:
        """Digest of a file in the checkpoint to resume from; None if it has none."""
        return self.stands_on.get("pinned", {}).get(name)

    def extend(self, epochs: int, outdated: Sequence[str]) -> None:
        """Make a finished run an unfinished one of more epochs; its checkpoints stay usable.

        Args:
            epochs: the new total.
            outdated: files that only a finished run has.
        """
        description = self.read("config.json")
        self.accelerator.wait_for_everyone()  # until each has read it
        if self.accelerator.is_main_process:
            for name in outdated:  # first: a kill between leaves a run to finish
                (self.folder / name).unlink(missing_ok=True)
        before = {**description.get("extended", {}), self.config_digest: description["epochs"]}
        description |= {"epochs": epochs, "extended": before}
        self.write("config.json", description)
        self.config_digest = config_digest(description)

    def _pin(
        self, name: str, content: dict[str, Any], otherwise: str, accept: bool = False
    ) -> None:
        path = self.folder / name
        self.pinned[name] = ours = digest(content)
        recorded, was, there = self.recorded(name), json_object(path), os.path.lexists(path)
        if recorded == ours or (recorded is None and not there):
            if was != content:
                if recorded == ours:
                    self.say(f"{name} was missing or damaged; writing it again")
                self.write(name, content)
            return
        was = self.read(name) if there else {}
        if "classes" in was and was["classes"] != content["classes"]:
            raise InputError(
                f"--resume {self.folder}: the run has {_counted(was['classes'])}, but the images "
                f"at --data-root have {_counted(content['classes'])}"
            )
        if accept and _but_digests(was) == _but_digests(content):
            self.say(f"{otherwise} of the run; continuing, as --accept-images says")
            self.write(name, content)
            return
        # An older version wrote fewer keys, but always the digests.
        told = any("sha256" in key for key in was)
        if recorded is not None or not told or was != {key: content.get(key) for key in was}:
            raise InputError(
                f"--resume {self.folder}: {otherwise} of the run (see {name})"
            )

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Append a line to an epoch file."""
        if self.accelerator.is_main_process:
            self._check_lock()
            with open(self.folder / name, "a") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())  # before the checkpoint that follows

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of an epoch file (a kill may cut the last one).

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
        """The lines of a file before this epoch."""
        path, known = self.folder / name, self.stands_on.get("lines", {})
        if name == "metrics.jsonl" and [x.get("epoch") for x in self.lines(name)[:1]] == [0]:
            raise InputError(
                f"--resume {self.folder}: an older version began this run and counted epochs from "
                f"0; resume with the code of commit {self.commit}"
            )
        if name in known:  # already compared
            return first_lines(path, known[name][0])
        if epoch == 0 or (name != "metrics.jsonl" and not os.path.lexists(path)):
            return b""
        if name not in EPOCH_FILES or [
            line.get("epoch") for line in self.lines(name)[:epoch]
        ] != list(range(1, epoch + 1)):
            raise InputError(
                f"--resume {self.folder}: {name} lacks lines of the {epoch} epochs so far; restore "
                "it, or start a new run"
            )
        return first_lines(path, epoch)

    def save_checkpoint(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """Save the state after `step` steps of `epoch`."""
        if self.accelerator.is_main_process:
            self._check_lock()
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

    def _check_lock(self) -> None:
        if self.lock is not None:
            self.lock.check()

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest usable checkpoint; None before the first.

        Raises:
            InputError: there are checkpoints, but none is usable.
        """
        state, self.waiting = self.waiting or self._newest(), None
        if len(set(gather_object([self.used and self.used.name]))) > 1:
            raise InputError(
                f"--resume {self.folder}: the processes read different checkpoints, as a network "
                "file system may show the newest late; start again"
            )
        return state

    def _newest(self) -> dict[str, Any] | None:
        folder, passed = self.folder / "checkpoints", []
        if os.path.lexists(folder) and not folder.is_dir():
            raise InputError(f"{folder}: not a folder; start a new run")
        try:
            for path, state in checkpoint.newest(folder):
                damaged = f"{path.name} is damaged"
                passed.append(damaged if state is None else self._changed(path, state))
                if passed[-1] is None:
                    for why in passed[:-1]:
                        self.say(f"{why}; resuming from {path.name} instead")
                    self.used, self.stands_on = path, state.get("stands_on") or {}
                    return state
        except UnpicklingError:
            raise InputError(
                f"--resume {self.folder}: a checkpoint holds more than tensors and plain values; "
                "not loaded, for safety"
            ) from None
        if not passed:
            return None
        raise InputError(
            f"--resume {self.folder}: no checkpoint is usable ({', '.join(passed)}); restore the "
            "files, or start a new run"
        )

    def _changed(self, path: Path, state: dict[str, Any]) -> str | None:
        """Why a checkpoint is not usable: files that it depends on have changed; None: it is.

        Raises:
            InputError: config.json has changed since the run started.
        """
        known = state.get("stands_on") or {}
        extended = (json_object(self.folder / "config.json") or {}).get("extended", {})
        if known.get("config") not in (None, self.config_digest, *extended):
            raise InputError(
                f"--resume {self.folder}: config.json has changed since the run started; restore "
                "it, or start a new run with other flags"
            )
        for name, (count, known_digest) in known.get("lines", {}).items():
            lines = first_lines(self.folder / name, count)
            if lines is None or digest(lines) != known_digest:
                return f"{name} has lost or changed lines since {path.name}"
        return None

    def _check_description(self, config: LoopConfig, description: dict[str, Any]) -> None:
        """Check that this version and launch can resume the run."""
        processes = self.accelerator.num_processes
        if description.get("processes") != processes:
            raise InputError(
                f"--resume {self.folder}: a run of {description.get('processes')} processes, not "
                f"{processes}; launch it with as many as before"
            )
        foreign = unknown(config, description)
        if foreign:
            raise InputError(
                f"--resume {self.folder}: config.json has {', '.join(foreign)}, unknown to this "
                f"version; resume with the code of commit {description.get('commit')}"
            )
        added = younger(config, description)
        if added:
            told = ", ".join(f"{flag(name)} {value}" for name, value in added.items())
            self.say(f"note: flags newer than this run get their defaults: {told}")

    def say(self, text: str) -> None:
        """Print a line, from the main process."""
        self.accelerator.print(text, flush=True)


def _new_folder(config: LoopConfig, method: str) -> Path:
    """`--output`, which must be empty, or a new folder under runs/."""
    if config.output is not None:
        folder = Path(config.output)
        left = LEFT_BY_A_KILL
        if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - left):
            raise InputError(
                f"--output {folder}: not empty, and holds no run to continue; use another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").unlink(missing_ok=True)
        return folder
    name = f"{method}-{config.dataset}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):  # another run may start in the same second
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def _but_digests(content: dict[str, Any]) -> dict[str, Any]:
    """images.json or split.json without what changes with the files."""
    return {
        key: value for key, value in content.items()
        if not key.endswith("_sha256") and key not in ("mean", "std")
    }


def _counted(classes: Sequence[str]) -> str:
    """`12 classes (cat, cow, dog, ...)`."""
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"
