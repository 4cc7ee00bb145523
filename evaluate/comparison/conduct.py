"""A comparison from its flags to its report."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError
from comparison.budget import words
from comparison.fairness import check
from comparison.jobs import Job
from comparison.methods import METHODS
from comparison.paired import pairs
from comparison.pinned import pin
from comparison.planned import RANDOM, jobs_of, results_of_jobs
from comparison.progress import View
from comparison.report import Report, rendered, write
from comparison.rows import mean_of, summaries
from comparison.run_folders import Result, RunFolder, found, results_of
from comparison.running import devices, disk_full, run_all, threads_each
from comparison.settings import CompareConfig


def compare(config: CompareConfig) -> None:
    """Run what is missing and report; with `--runs` only report.

    Raises:
        InputError: flags, run folders or the disk do not allow it.
        SystemExit: 130, after Ctrl-C; finished runs have been reported.
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
                report_jobs(config, jobs, folder)
            print("\nstopped; give the same command again to continue", flush=True)
            raise SystemExit(130) from None
        report_jobs(config, jobs, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(folder) from None
        raise InputError(f"--output {folder}: cannot be written ({error.strerror})") from None


def read(config: CompareConfig) -> None:
    """Report existing run folders.

    Raises:
        InputError: they cannot be compared.
    """
    results, left = results_of(found(config.runs))
    if not results:
        raise InputError(f"--runs {' '.join(config.runs)}: no folder of a search among them")
    random = [run for run in left if run.genotype.provenance.get("method") == "random_search"]
    notes = [
        f"{run.folder}: retrains the cells of no search in --runs; ignored."
        for run in left if run not in random
    ]  # fmt: skip
    budget = "Existing run folders; every search with its own settings."
    folder = Path(config.output).resolve() if config.output else None
    report(budget, results, random, notes, folder)


def report_jobs(config: CompareConfig, jobs: Sequence[Job], folder: Path) -> None:
    """Report what the jobs of a comparison have finished so far."""
    results, random = results_of_jobs(jobs)
    notes = [
        f"{job.name} failed, so gains are over fewer random cells: {job.why.splitlines()[-1]} "
        f"(log: {job.log})"
        for job in jobs if job.label == RANDOM and job.state == "failed"
    ]  # fmt: skip
    report(_budget_text(config), results, random, notes, folder)


def report(
    budget: str, results: Sequence[Result], random: Sequence[RunFolder], notes: Sequence[str],
    folder: Path | None,
) -> None:  # fmt: skip
    """Print the report, and write it where there is a folder.

    Raises:
        InputError: the runs cannot be compared.
    """
    notes = [*notes, *check(results, random)]
    rows = summaries(results, random)
    baseline = mean_of({n: run.result["test_top1"] for n, run in enumerate(random) if run.result})
    accuracies = {row.label: row.means["accuracy"] for row in rows}
    tested = pairs({label: mean.values for label, mean in accuracies.items() if mean})
    printed = {row.label: METHODS[row.label].printed for row in rows if row.label in METHODS}
    command = shlex.join(["python", "evaluate/compare.py", *sys.argv[1:]])
    made = Report(
        "Comparison of methods", command, budget, printed, results, rows, baseline, tested, notes
    )
    print(f"\n{rendered(made, 'report.md.jinja')}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write(made, folder)
        print(f"{folder}: comparison.json, comparison.md, report.html")


def _budget_text(config: CompareConfig) -> str:
    train = shlex.join([*words(config.retraining_flags()), *config.more_train_words()])
    seeds = f"seeds 0 to {config.seeds - 1}" if config.seeds > 1 else "seed 0"
    text = (
        f"Each search with {seeds}, then evaluate/train.py {train} for each, with the same seed."
    )
    if config.budget == "paper":
        return f"{text} Every search keeps the settings of its own {config.preset} preset."
    budget = config.search_budget()
    return (
        f"{text} Matched searches: {budget.epochs} epochs on the same images, batch size "
        f"{budget.batch_size}, {budget.channels} channels, {budget.cells} cells, learning rate "
        f"{budget.learning_rate:g}; other settings are each method's own."
    )
