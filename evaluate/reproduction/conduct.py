"""Runs an item: its jobs, then its table."""

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
from comparison.methods import ROOT
from comparison.pinned import pin
from comparison.progress import View
from comparison.running import Stopped, disk_full, run_all
from reproduction.jobs import Expansion
from reproduction.plan import Item
from reproduction.settings import PAPERS, ReproduceConfig, without


def reproduce(config: ReproduceConfig) -> None:
    """Run the unfinished jobs and write the table.

    Raises:
        InputError: flags, data, folder or disk are wrong.
        SystemExit: after Ctrl-C or a signal (`Stopped`), or 1 where a run failed; the table has
            the finished runs.
    """
    config.check()
    item = config.chosen()
    folder = Path(config.output or "FOLDER").expanduser().resolve()
    expansion = Expansion(item, config, folder)
    config.check_commands(expansion.jobs)
    if config.dry_run:
        print("\n".join(shlex.join(line) for line in command_lines(expansion)))
        return
    if config.output is None:
        raise InputError("--output: name a folder for runs and table, or give --dry-run or --list")
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
    """Run the jobs, then report; after Ctrl-C report what has finished."""
    from reproduction import report

    executor = config.executor(launched=bool(config.launcher))
    stopped = None
    try:
        if expansion.jobs:
            run_all(expansion.jobs, executor, View(expansion.jobs, executor.places))
    except Stopped as error:
        stopped = error
    report.write(config, item, expansion, folder)
    if stopped is not None:
        print(f"\n{stopped.told}", flush=True)
        raise SystemExit(stopped.status)
    if item.drawing:
        draw(item, expansion, folder)
    failed = [job for job in expansion.jobs if job.state == "failed"]
    if failed:
        print(f"{len(failed)} of {len(expansion.jobs)} runs failed; the same command repeats them")
        raise SystemExit(1)


def begin(config: ReproduceConfig, folder: Path) -> None:
    """Make the folder, or check that it is this item's.

    Raises:
        InputError: it belongs to something else, or cannot be written.
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
    """Check that data that no command downloads are there.

    Raises:
        InputError: a folder is missing or empty.
    """
    if config.scale != "paper":
        return
    for data in ("imagenet", "cinic10", "coco", "ptb", "wikitext2"):
        root = config.root(data)
        used = any(str(root) in job.flags for job in expansion.jobs)
        if used and not (root.is_dir() and any(root.iterdir())):
            raise InputError(
                f"--data-root {config.data_root}: {config.paper} {config.item} needs {root}, "
                "which is missing or empty; name the folder that contains it, or try --scale digits"
            )


def draw(item: Item, expansion: Expansion, folder: Path) -> None:
    """Draw all searches of the item together, by the item's command."""
    searches = [job.folder for job in expansion.jobs if job.is_search and job.finished()]
    if not searches:
        return
    line = [sys.executable, *item.drawing, *map(str, searches), "--output", str(folder)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"{shlex.join(item.drawing)}: {done.stderr.strip()}")
    print(f"{folder}: pictures of {shlex.join(item.drawing)}")


# ----------------------------------------------------------------------------- --dry-run, --list


def command_lines(expansion: Expansion) -> Iterator[list[str]]:
    """Every command, in the order in which they start."""
    for job in expansion.jobs:
        cells = [] if job.cells is None else ["--genotype", f"CELLS_OF({', '.join(job.needs)})"]
        start = job.launcher or ["python"]
        own = ["--seed", str(job.seed), "--output", str(job.folder)]
        yield [*start, *job.script, *job.flags, *cells, *own]


def listed(paper: str = "") -> str:
    """Every item of a paper, or of all: its title, cost in the paper, commands and their numbers.

    Raises:
        InputError: no such paper.
    """
    if paper and paper not in PAPERS:
        ReproduceConfig(paper).chosen()
    lines = []
    for name in [paper] if paper else PAPERS:
        for key, item in PAPERS[name].items():
            lines += [f"{name} {key}", f"    {item.title}", f"    in the paper: {item.cost}"]
            expansion = Expansion(item, ReproduceConfig(name, key), Path("FOLDER"))
            counts = Counter(
                shlex.join(["python", *job.script, *without(job.flags, "--data-root", "--weights")])
                for job in expansion.jobs
            )
            lines += [f"    {count} x {line}" for line, count in counts.items()]
            if item.drawing:
                lines.append(f"    python {shlex.join(item.drawing)}")
            if item.cells:
                lines.append(f"    draws {', '.join(item.cells)}")
    return "\n".join(lines)
