"""A comparison from its flags to its report."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError
from comparison import html_report, text_report
from comparison.budget import words
from comparison.fairness import check
from comparison.jobs import Job
from comparison.methods import METHODS
from comparison.paired import pairs
from comparison.pinned import pin
from comparison.plan import Row
from comparison.planned import RANDOM, jobs_of, results_of_plan
from comparison.progress import View
from comparison.rows import mean_of, summaries
from comparison.run_folders import Result, RunFolder, found, results_of
from comparison.running import devices, disk_full, run_all, threads_each
from comparison.settings import CompareConfig
from comparison.text_report import Report, markdown


def compare(config: CompareConfig) -> None:
    """Run what is lacking, read what is there, report.

    Raises:
        InputError: whatever is wrong with flags, run folders or the disk.
        SystemExit: 130, after Ctrl-C; what is finished has been reported.
    """
    config.check()
    if config.runs:
        read(config)
        return
    folder = Path(config.output).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pin(folder, config.pinned())
        jobs = jobs_of(config, folder)
        places = devices(config.jobs)
        threads = threads_each(config.threads, len(places))
        try:
            run_all(jobs, places, threads, View(jobs, len(places)))
        except KeyboardInterrupt:
            if any(job.finished() for job in jobs):
                _report_plan(config, jobs, folder)
            print("\nstopped; the same command goes on where this one was", flush=True)
            raise SystemExit(130) from None
        _report_plan(config, jobs, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(folder) from None
        raise InputError(f"--output {folder}: cannot be written ({error.strerror})") from None


def read(config: CompareConfig) -> None:
    """Compare run folders that are there already."""
    results, left = results_of(found(config.runs))
    if not results:
        raise InputError(f"--runs {' '.join(config.runs)}: no folder of a search among them")
    random = [run for run in left if run.genotype.provenance.get("method") == "random_search"]
    ignored = [str(run.folder) for run in left if run not in random]
    notes = [f"{name}: trains cells of no search that was named; not read." for name in ignored]
    labels = dict.fromkeys(result.label for result in results)
    rows = [
        Row(label, label, printed=METHODS[label].printed if label in METHODS else ())
        for label in labels
    ]
    text = "Run folders, read as they are; every search with its own settings."
    report = _report("Runs side by side", text, rows, results, random, notes)
    _say(report, Path(config.output).resolve() if config.output else None)


def _report_plan(config: CompareConfig, jobs: Sequence[Job], folder: Path) -> None:
    rows = config.rows()
    results, random = results_of_plan(rows, jobs)
    notes = [
        f"{job.name} failed, so gains are over fewer random cells: {job.why.splitlines()[-1]} "
        f"(log: {job.log})"
        for job in jobs if job.label == RANDOM and job.state == "failed"
    ]  # fmt: skip
    title = "Methods side by side"
    _say(_report(title, _budget_words(config), rows, results, random, notes), folder)


def _report(
    title: str, budget: str, rows: Sequence[Row], results: Sequence[Result],
    random: Sequence[RunFolder], notes: Sequence[str],
) -> Report:  # fmt: skip
    notes = [*notes, *check(results, random)]
    table, _ = summaries(results, random)
    every = mean_of({n: run.result["test_top1"] for n, run in enumerate(random) if run.result})
    tested = pairs({row.label: row.accuracy.values for row in table if row.accuracy is not None})
    command = shlex.join(["python", "evaluate/compare.py", *sys.argv[1:]])
    return Report(title, command, budget, rows, results, table, random, every, tested, notes)


def _say(report: Report, folder: Path | None) -> None:
    """On the terminal, and in files where there is a folder for them."""
    print(f"\n{markdown(report)}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text_report.write(report, folder)
        html_report.write(report, folder)
        print(f"{folder}: comparison.json, comparison.md, report.html")


def _budget_words(config: CompareConfig) -> str:
    train = shlex.join([*words(config.retraining_flags()), *config.more_train_words()])
    seeds = f"seeds 0 to {config.seeds - 1}" if config.seeds > 1 else "seed 0"
    text = (
        f"Each search with {seeds}, then evaluate/train.py {train} "
        "for each, with the search's seed."
    )
    if config.budget == "paper":
        return f"{text} Every search has its own {config.preset} preset's settings."
    budget = config.search_budget()
    return (
        f"{text} Matched searches: {budget.epochs} passes over the same images, batch "
        f"{budget.batch_size}, {budget.channels} channels, {budget.cells} cells, learning rate "
        f"{budget.learning_rate:g}; what makes a method stays its own."
    )
