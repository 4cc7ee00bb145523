"""All runs under a folder: state, epoch, accuracy, time left.

    python evaluate/watch.py FOLDER
    watch -n 30 python evaluate/watch.py FOLDER      again and again

Reads files only, so any machine that sees them will do. `running` is a run whose process touched
running.json within four minutes; `queued` one that waits for a cluster, or that Slurm will start
again; `failed` one whose log ends with an error; `stopped` any other that has not finished.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from common.errors import InputError, errors_are_messages
from common.files import json_object
from common.run.cli import read_flags
from common.run.config import described
from common.run.lock import STALE
from comparison.jobs import epochs, tail
from comparison.methods import name_of
from comparison.progress import duration

ERROR = re.compile(r"\berror:|\w(Error|Exception)\b|\bKilled\b")
AGAIN = re.compile("DUE TO (JOB REQUEUE|PREEMPTION|NODE FAILURE)")  # Slurm's last words
ORDER = ("running", "queued", "failed", "stopped", "damaged", "finished")


@dataclass(frozen=True)
class Options:
    """Which runs to show."""

    folder: tyro.conf.Positional[Path]
    """A folder of run folders, at any depth."""
    json: bool = False
    """Print JSON: one object per run."""


@dataclass
class Row:
    """A run.

    Attributes:
        run: its folder, below the one that is watched.
        state: see `ORDER`.
        method, seed: of its config.json.
        epoch, epochs: finished ones, and all.
        top1: the last epoch's, in percent, on its held-out images.
        seconds_left: of a running one.
        note: what is wrong.
    """

    run: str
    state: str
    method: str = ""
    seed: int | None = None
    epoch: int = 0
    epochs: int = 0
    top1: float | None = None
    seconds_left: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """What the table shows."""
        known = self.epochs > 0
        return [
            self.run, self.state, self.method, "" if self.seed is None else str(self.seed),
            f"{self.epoch}/{self.epochs}" if known else "",
            "" if self.top1 is None else f"{self.top1:.2f}",
            "" if self.seconds_left is None else duration(self.seconds_left), self.note,
        ]  # fmt: skip


HEAD = ["run", "state", "method", "seed", "epoch", "top-1 %", "left", ""]


def watch(options: Options) -> None:
    """Print the runs.

    Raises:
        InputError: no such folder, or no run in it.
    """
    if not options.folder.is_dir():
        raise InputError(f"{options.folder}: no such folder")
    rows = [row_of(folder, options.folder) for folder in runs_below(options.folder)]
    if not rows:
        raise InputError(f"{options.folder}: no run in it (no config.json)")
    if options.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], allow_nan=False))
        return
    table = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(f"{cell:<{n}}" for cell, n in zip(line, widths, strict=True)).rstrip())
    counts = {state: sum(row.state == state for row in rows) for state in ORDER}
    print(", ".join(f"{count} {state}" for state, count in counts.items() if count))


def runs_below(root: Path) -> Iterator[Path]:
    """Run folders, sorted, without those inside another run; and those of jobs that have none."""
    for place, folders, files in os.walk(root):
        if "config.json" in files:
            yield Path(place)
            folders.clear()
            continue
        jobs = {Path(name).stem for name in files if name.endswith((".sbatch", ".time", ".pid"))}
        yield from (Path(place) / name for name in sorted(jobs - set(folders)))
        folders.sort()


def row_of(folder: Path, root: Path) -> Row:
    """A run, as its files show it; a damaged one says what is wrong."""
    row = Row(str(folder.relative_to(root)), "queued")
    said = "".join(tail(folder.with_name(folder.name + ".log"), 1))
    failed = ERROR.search(said) is not None and AGAIN.search(said) is None
    try:
        if not (folder / "config.json").exists():
            row.state, row.note = ("failed", said) if failed else ("queued", "")
            return row
        row.state = "damaged"  # until it has been read
        config = described(folder)
        lines, row.epochs = epochs(folder)
        row.method, row.seed, row.epoch = name_of(config), config["seed"], len(lines)
        last = lines[-1] if lines else {}
        row.top1 = last.get("test_top1", last.get("valid_top1"))
        if json_object(folder / "result.json") is not None:
            row.state = "finished"
        elif _touched_within(folder / "running.json", STALE):
            row.state = "running"
            spent = sum(line["seconds"] for line in lines)
            row.seconds_left = spent / len(lines) * (row.epochs - len(lines)) if lines else None
        else:
            row.state = "failed" if failed else "queued" if AGAIN.search(said) else "stopped"
            row.note = said
    except (InputError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        row.state, row.note = "damaged", str(error) or type(error).__name__
    return row


def _touched_within(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime < seconds
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    with errors_are_messages():
        watch(read_flags(Options, sys.argv[1:], __doc__))
