"""An item from its flags to its table."""

from __future__ import annotations

import errno
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.errors import InputError
from common.files import json_object
from comparison.jobs import Job
from comparison.methods import ROOT
from comparison.pinned import pin
from comparison.progress import View
from comparison.running import devices, disk_full, run_all, threads_each
from reproduction import report
from reproduction.jobs import Expansion
from reproduction.plan import Item
from reproduction.settings import PAPERS, ReproduceConfig


def reproduce(config: ReproduceConfig) -> None:
    """Run what is lacking, report what is there.

    Raises:
        InputError: whatever is wrong with flags, data, folder or disk.
        SystemExit: 130, after Ctrl-C; what is finished has been reported.
    """
    config.check()
    item = config.chosen()
    folder = Path(config.output or "FOLDER").expanduser().resolve()
    expansion = Expansion(item, config, folder)
    config.check_commands(expansion.commands())
    if config.dry_run:
        print("\n".join(shlex.join(line) for line in command_lines(expansion)))
        return
    if config.output is None:
        raise InputError("--output: say where runs and the table go, or give --dry-run or --list")
    check_data(config, expansion)
    begin(config, folder)
    try:
        run(config, item, expansion, folder)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(folder) from None
        raise InputError(f"--output {folder}: cannot be written ({error.strerror})") from None


def run(config: ReproduceConfig, item: Item, expansion: Expansion, folder: Path) -> None:
    """Its jobs, then its report; after Ctrl-C the report of what is there."""
    places = [None] * (config.jobs or 1) if config.launcher else devices(config.jobs)
    threads = threads_each(config.threads, len(places))
    stopped = False
    if expansion.jobs:
        try:
            run_all(expansion.jobs, places, threads, View(expansion.jobs, len(places)))
        except KeyboardInterrupt:
            stopped = True
    report.write(config, item, expansion, folder)
    if not stopped and item.drawing:
        draw(item, expansion, folder)
    if stopped:
        print("\nstopped; the same command goes on where this one was", flush=True)
        raise SystemExit(130)
    failed = [job for job in expansion.jobs if job.state == "failed"]
    if failed:
        print(f"{len(failed)} of {len(expansion.jobs)} runs failed; the same command tries them again")
        raise SystemExit(1)


def begin(config: ReproduceConfig, folder: Path) -> None:
    """Make the folder, or see that it is this item's.

    Raises:
        InputError: it is another's, or in use, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "asked.json").exists() and any(folder.iterdir()):
            raise InputError(f"--output {folder}: exists and is not empty; name another folder")
        before = json_object(folder / "asked.json") or {}
        what, was = f"{config.paper} {config.item}", f"{before.get('paper')} {before.get('item')}"
        if "item" in before and was != what:
            raise InputError(f"--output {folder}: holds {was}, not {what}; name another folder")
        pin(folder, config.pinned())
    except OSError as error:
        raise InputError(
            f"--output {folder}: cannot be written ({error.strerror}); name another folder"
        ) from None


def check_data(config: ReproduceConfig, expansion: Expansion) -> None:
    """See that images and texts are there that no command downloads.

    Raises:
        InputError: naming the folder.
    """
    if config.scale != "paper":
        return
    for data in ("imagenet", "cinic10", "coco", "ptb", "wikitext2"):
        root = config.root(data)
        used = any(str(root) in job.flags for job in expansion.jobs)
        if used and not (root.is_dir() and any(root.iterdir())):
            raise InputError(
                f"--data-root {config.data_root}: {config.paper} {config.item} needs {root}, "
                "which is not there or empty; name the folder that holds it, or try --scale digits"
            )


def draw(item: Item, expansion: Expansion, folder: Path) -> None:
    """All searches of the item beside one another."""
    searches = [job.folder for job in expansion.jobs if job.is_search and job.finished()]
    if not searches:
        return
    line = [sys.executable, *item.drawing, *map(str, searches), "--output", str(folder)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"{shlex.join(item.drawing)}: {done.stderr.strip()}")
    print(f"{folder}: pictures of {shlex.join(item.drawing)}")


# --------------------------------------------------------------------------------- what would run


def command_lines(expansion: Expansion) -> Iterator[list[str]]:
    """Every command, in the order in which they start."""
    for job in expansion.jobs:
        cells = [] if job.cells is None else ["--genotype", f"CELLS_OF({', '.join(job.needs)})"]
        start = job.launcher or ["python"]
        own = ["--seed", str(job.seed), "--output", str(job.folder)]
        yield [*start, *job.script, *job.flags, *cells, *own]


def listed(paper: str = "") -> str:
    """Every item: what it is, its cost in the paper, its commands and how often each runs.

    Raises:
        InputError: no such paper.
    """
    if paper and paper not in PAPERS:
        ReproduceConfig(paper).chosen()
    lines = []
    for name, items in PAPERS.items():
        for key, item in items.items() if paper in ("", name) else ():
            lines += [f"{name} {key}", f"    {item.title}", f"    in the paper: {item.cost}"]
            expansion = Expansion(item, ReproduceConfig(name, key), Path("FOLDER"))
            lines += [f"    {count} x {line}" for line, count in _counted(expansion.jobs).items()]
            if item.drawing:
                lines.append(f"    python {shlex.join(item.drawing)}")
            if item.cells:
                lines.append(f"    draws {', '.join(item.cells)}")
    return "\n".join(lines)


def _counted(jobs: list[Job]) -> Counter:
    """Commands without folders, seeds and cells."""
    counts: Counter = Counter()
    for job in jobs:
        flags, skip = [], False
        for word in job.flags:
            if word in ("--data-root", "--weights"):
                skip = True
            elif skip:
                skip = False
            else:
                flags.append(word)
        counts[shlex.join(["python", *job.script, *flags])] += 1
    return counts
