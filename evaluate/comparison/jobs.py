"""The runs of a comparison: their command lines, run folders and states."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import json_lines, json_object
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
        state: waiting, queued (on a cluster), running, done or failed.
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
    def script_file(self) -> Path:
        """The script that a cluster runs."""
        return self.folder.with_name(self.folder.name + ".sbatch")

    @property
    def clock(self) -> Path:
        """A file of wall seconds, one line per start."""
        return self.folder.with_name(self.folder.name + ".time")

    @property
    def pid(self) -> Path:
        """A file that exists while the job runs here; its time is that of the start."""
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

    def has_begun(self) -> bool:
        """Whether there is a run to resume."""
        return (self.folder / "config.json").exists()

    def prepare(self) -> None:
        """Remove what is in the way of its next start."""
        if self.stale():
            self.set_aside()
        if not self.has_begun():  # killed before it wrote its config
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)

    def begin_line(self, threads: int | None) -> list[str]:
        """The command line of a new run.

        Raises:
            InputError: the cells that it trains are missing or damaged.
        """
        cells = [] if self.cells is None else ["--genotype", str(self.cells())]
        own = [] if threads is None else ["--threads", str(threads)]
        own = ["--seed", str(self.seed), *own, "--output", str(self.folder)]
        return [*self._start(), *self.flags, *cells, *own]

    def resume_line(self) -> list[str]:
        """The command line that continues its run."""
        return [*self._start(), "--resume", str(self.folder)]

    def _start(self) -> list[str]:
        return [*(self.launcher or [sys.executable]), *self.script, *self.operations]

    def end(self, succeeded: bool, how: str, cut_short: bool = False) -> None:
        """Note how it ended.

        Args:
            succeeded: its command did.
            how: in words.
            cut_short: it was killed, so the last line of its log is not the reason.
        """
        self.state = "done" if succeeded and self.finished() else "failed"
        if self.state == "failed":
            lines = tail(self.log)
            if cut_short or not lines:
                lines.append(how)
            self.why = "\n".join(lines)

    def start_clock(self, pid: int) -> None:
        """Note that it runs on this machine."""
        self.started = time.time()
        self.pid.write_text(str(pid))

    def stop_clock(self) -> None:
        """Count the time since `start_clock`."""
        with contextlib.suppress(OSError):  # the disk is full
            self._clock(time.time() - self.started)

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
            lines, total = epochs(self.folder)
            return min(1.0, len(lines) / total)
        return 0.0


def epochs(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """The metrics of a run's finished epochs, and the number of all its epochs.

    Raises:
        InputError: a file is damaged.
        KeyError: config.json lacks the number.
    """
    config, folders = described(folder), [folder]
    total = config["epochs"]
    if "samples" in config:  # random search: epochs per cell
        total *= config["samples"]
        folders = sorted((folder / "cells").glob("*"))
    files = [place / "metrics.jsonl" for place in folders]
    return [line for file in files if file.exists() for line in json_lines(file)], total


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
