"""The runs of a comparison: their command lines, run folders and states."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.files import json_object
from common.networks.genotype import load
from common.run.config import described

TAIL = 8  # lines of a failed run's log that are shown


@dataclass
class Job:
    """A search, or the retraining of its cells.

    Attributes:
        name: of the run folder; other jobs name it in `needs`.
        label: of the row that it belongs to.
        seed: its `--seed`.
        script: Python's arguments before the flags.
        flags: the script's flags, without seed, threads, cells and output.
        folder: the run folder.
        needs: names of the jobs that must end first.
        cells: returns the genotype to retrain, once `needs` have ended; None: `flags` name it, or
            the job is a search.
        what: search, rank or train.
        spares: whether it can run when some, but not all, of `needs` failed.
        launcher: the command in place of this Python, as torchrun.
        operations: the words of `--operations`, which a resume needs too.
        state: waiting, running, done or failed.
        started: when it was started last, in seconds since the epoch.
        why: the reason of a failure.
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
    operations: Sequence[str] = ()
    state: str = "waiting"
    started: float = 0.0
    why: str = ""

    @property
    def log(self) -> Path:
        """Its output, of all starts."""
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def clock(self) -> Path:
        """A file of wall seconds, one line per start."""
        return self.folder.with_name(self.folder.name + ".time")

    @property
    def pid(self) -> Path:
        """A file that exists while the job runs; its time is that of the start."""
        return self.folder.with_name(self.folder.name + ".pid")

    @property
    def is_search(self) -> bool:
        return self.what == "search"

    def finished(self) -> bool:
        """Whether its run folder has a result."""
        return json_object(self.folder / "result.json") is not None

    def stale(self) -> bool:
        """Whether its folder trains other cells than it should train now.

        For example, the best search had failed at the first start and has finished since.
        """
        if self.cells is None or not (self.folder / "genotype.json").exists():
            return False
        try:
            return load(self.folder).cells != load(self.cells()).cells
        except InputError:  # missing or damaged: its start reports that
            return False

    def set_aside(self) -> None:
        """Rename its folder, so that it starts anew and nothing is lost."""
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.replaced-{number}")).exists():
            number += 1
        self.folder.rename(aside)
        self.clock.unlink(missing_ok=True)

    def command(self, threads: int) -> list[str]:
        """Its command line: a new run, or `--resume` where its folder has a config.

        Raises:
            InputError: the cells that it trains are missing or damaged.
        """
        if self.stale():
            self.set_aside()
        line = [*(self.launcher or [sys.executable]), *self.script, *self.operations]
        if (self.folder / "config.json").exists():
            return [*line, "--resume", str(self.folder)]
        shutil.rmtree(self.folder, ignore_errors=True)  # killed before it wrote its config
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        cells = [] if self.cells is None else ["--genotype", str(self.cells())]
        line += [*self.flags, *cells, "--seed", str(self.seed), "--threads", str(threads)]
        return [*line, "--output", str(self.folder)]

    def begin(self, pid: int) -> None:
        """Note that it runs."""
        self.started, self.state = time.time(), "running"
        self.pid.write_text(str(pid))

    def end(self, status: int) -> None:
        """Note how it ended."""
        with contextlib.suppress(OSError):  # the disk is full
            self._clock(time.time() - self.started)
        self.state = "done" if status == 0 and self.finished() else "failed"
        if self.state == "failed":
            self.why = "\n".join(tail(self.log)) or f"exit status {status}, and nothing in its log"

    def settle_clock(self) -> None:
        """Count the time of a start that was killed with the comparison, up to its last output."""
        with contextlib.suppress(OSError):  # most jobs have none
            self._clock(max(0.0, self.log.stat().st_mtime - self.pid.stat().st_mtime))

    def _clock(self, seconds: float) -> None:
        with open(self.clock, "a") as file:
            file.write(f"{seconds:.3f}\n")
        self.pid.unlink(missing_ok=True)

    def seconds(self) -> float:
        """Wall time of all starts so far."""
        running = time.time() - self.started if self.state == "running" else 0.0
        return wall_seconds(self.folder) + running

    def progress(self) -> float:
        """Share of its epochs that are finished, 0 to 1."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            config = described(self.folder)
            epochs, folders = config["epochs"], [self.folder]
            if "samples" in config:  # random search: epochs per cell
                epochs *= config["samples"]
                folders = list((self.folder / "cells").glob("*"))
            files = [folder / "metrics.jsonl" for folder in folders]
            lines = sum(file.read_bytes().count(b"\n") for file in files if file.exists())
            return min(1.0, lines / epochs)
        return 0.0


def tail(log: Path, count: int = TAIL) -> list[str]:
    """The last lines of a log; of a progress bar only its last state."""
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace")
    except OSError:
        return []
    lines = [line.split("\r")[-1].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-count:]


def wall_seconds(folder: Path) -> float:
    """Wall time of a run's command over all starts; 0 where it was not recorded."""
    with contextlib.suppress(OSError, ValueError):
        clock = folder.with_name(folder.name + ".time")
        return sum(float(line) for line in clock.read_text().split())
    return 0.0
