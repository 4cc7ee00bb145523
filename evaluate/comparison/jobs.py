"""The runs of a comparison: command lines, the folders they leave, and what became of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # accelerate brings it

from common.errors import InputError
from common.files import json_object
from common.networks.genotype import load
from common.run.config import described
from comparison.methods import ROOT

TAIL = 8  # lines of a failed run's log that are shown


@dataclass
class Job:
    """A search, or the retraining of what it found.

    Attributes:
        name: of its folder.
        label: of the row or of the search that it belongs to.
        seed: of the run.
        script: what python is given.
        flags: and what the script is.
        folder: the run folder it makes.
        needs: names of jobs that must be done before.
        cells: gives what a retraining trains, once what it needs is done; None: flags say it, or
            it is a search.
        what: search, rank or train.
        spares: whether it goes on without what it needs that failed, but for one.
        launcher: what stands before the script; none: this Python.
        state: waiting, running, done or failed.
        process: while it runs.
        started: when, in seconds since the epoch.
        why: it failed.
    """

    name: str
    label: str
    seed: int
    script: Sequence[str]
    flags: Sequence[str]
    folder: Path
    needs: Sequence[str] = ()
    cells: Callable[[], Path] | None = None
    what: str = "search"
    spares: bool = False
    launcher: Sequence[str] = ()
    state: str = "waiting"
    process: subprocess.Popen | None = field(default=None, repr=False)
    started: float = 0.0
    why: str = ""

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def clock(self) -> Path:
        """Wall seconds, a line a start."""
        return self.folder.with_name(self.folder.name + ".time")

    @property
    def is_search(self) -> bool:
        """Or a training."""
        return self.what == "search"

    def finished(self) -> bool:
        """Whether an earlier start of the comparison has done it."""
        return json_object(self.folder / "result.json") is not None

    def stale(self) -> bool:
        """Whether its folder is a training of other cells than those that it is to train now.

        As when the search whose cells were the best then failed at first and has ended since.
        """
        if self.cells is None or not (self.folder / "genotype.json").exists():
            return False
        try:
            return load(self.folder).cells != load(self.cells()).cells
        except InputError:  # they are not there, or damaged: its start will say so
            return False

    def set_aside(self) -> None:
        """Keep what its folder holds under another name."""
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.replaced-{number}")).exists():
            number += 1
        self.folder.rename(aside)
        self.clock.unlink(missing_ok=True)

    def seconds(self) -> float:
        """Wall time of all starts so far."""
        running = time.time() - self.started if self.process is not None else 0.0
        return wall_seconds(self.folder) + running

    def progress(self) -> float:
        """Share of its epochs that are behind it."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            config = described(self.folder)
            epochs, folders = config["epochs"], [self.folder]
            if "samples" in config:  # of random search, of each cell
                epochs *= config["samples"]
                folders = list((self.folder / "cells").glob("*"))
            return min(1.0, sum(_lines(folder) for folder in folders) / epochs)
        return 0.0

    def start(self, threads: int, device: str | None) -> None:
        """Begin it, or go on where an earlier start of it stopped.

        Raises:
            InputError: that one is still running, or the cells to train are not there.
        """
        if self.stale():
            self.set_aside()
        line = [*(self.launcher or [sys.executable]), *self.script]
        if (self.folder / "config.json").exists():
            line += ["--resume", str(self.folder)]
        else:
            shutil.rmtree(self.folder, ignore_errors=True)  # killed before it had written anything
            own = [] if self.cells is None else ["--genotype", str(self.cells())]
            line += [*self.flags, *own, "--seed", str(self.seed), "--threads", str(threads)]
            line += ["--output", str(self.folder)]
        environment = dict(os.environ)
        paths = [str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                line, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.started, self.state = time.time(), "running"
        _pid(self.folder).write_text(str(self.process.pid))

    def poll(self) -> bool:
        """Whether it has ended by now; then its state says how."""
        status = self.process.poll()
        if status is None:
            return False
        with contextlib.suppress(OSError):  # on a full disk
            with open(self.clock, "a") as file:
                file.write(f"{time.time() - self.started:.3f}\n")
            _pid(self.folder).unlink(missing_ok=True)
        self.process = None
        self.state = "done" if status == 0 and self.finished() else "failed"
        if self.state == "failed":
            self.why = "\n".join(tail(self.log)) or f"exit status {status}, and nothing in its log"
        return True


def tail(log: Path, count: int = TAIL) -> list[str]:
    """The last lines of a log, of progress bars what they said at last."""
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace")
    except OSError:
        return []
    lines = [line.split("\r")[-1].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-count:]


def wall_seconds(folder: Path) -> float:
    """Wall time of a run's command over all its starts; 0 where none is written beside it."""
    with contextlib.suppress(OSError, ValueError):
        clock = folder.with_name(folder.name + ".time")
        return sum(float(line) for line in clock.read_text().split())
    return 0.0


def refuse_running(jobs: Sequence[Job]) -> None:
    """See that no earlier start of this comparison left a run behind that still goes on.

    Raises:
        InputError: one did.
    """
    folders = {str(job.folder) for job in jobs}
    for process in psutil.process_iter(["pid", "cmdline"]):  # a launcher's child is one of them
        words = process.info["cmdline"] or []
        for flag, folder in zip(words, words[1:], strict=False):
            if flag in ("--output", "--resume") and folder in folders:
                raise InputError(
                    f"{folder} is still written by process {process.info['pid']}, of an earlier "
                    "start; wait for it or stop it, then start again"
                )


def settle_clocks(jobs: Sequence[Job]) -> None:
    """Count the starts that nobody saw end, as the comparison was killed: to their last words."""
    for job in jobs:
        pid = _pid(job.folder)
        with contextlib.suppress(OSError):
            seconds = job.log.stat().st_mtime - pid.stat().st_mtime
            with open(job.clock, "a") as file:
                file.write(f"{max(0.0, seconds):.3f}\n")
            pid.unlink()


def _pid(folder: Path) -> Path:
    return folder.with_name(folder.name + ".pid")


def _lines(folder: Path) -> int:
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0
