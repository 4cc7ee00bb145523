"""A comparison from its flags to its report."""

from __future__ import annotations

import dataclasses
import errno
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError
from common.networks.spaces import space_of
from common.networks.table import DATASETS, read_table
from comparison.budget import changed, words
from comparison.fairness import check
from comparison.jobs import Job
from comparison.methods import METHODS
from comparison.paired import pairs
from comparison.pinned import pin
from comparison.planned import RANDOM, jobs_of, results_of_jobs, searches_of_jobs
from comparison.progress import View
from comparison.provenance import provenance
from comparison.report import Plan, Report, rendered, write
from comparison.rows import AVERAGE, Measured, measure, summaries
from comparison.run_folders import LeftOut, Result, RunFolder, flags_given, found, results_of
from comparison.running import Stopped, disk_full, run_all
from comparison.settings import CompareConfig


def compare(config: CompareConfig) -> None:
    """Run what is missing and report; with `--runs` only report.

    Raises:
        InputError: flags, run folders or the disk do not allow it.
        SystemExit: after Ctrl-C or a signal (`Stopped`); finished runs have been reported.
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
        executor = config.executor()
        try:
            run_all(jobs, executor, View(jobs, executor.places))
        except Stopped as stopped:
            if any(job.finished() for job in jobs):
                report_jobs(config, jobs, folder)
            print(f"\n{stopped.told}", flush=True)
            raise SystemExit(stopped.status) from None
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
    runs, left = found(config.runs)
    results, random, unused = results_of(runs)
    left += unused
    if not results:
        reasons = "".join(f"\n{one.what}: {one.why.splitlines()[0]}" for one in left)
        raise InputError(
            f"--runs {' '.join(config.runs)}: no folder of a finished search among them{reasons}"
        )
    for one in results:
        if (space := space_of(one.search.genotype).name) != config.space:
            told = f"--space {space}" + (" --table FILE" if space != "darts" else "")
            raise InputError(
                f"--runs {one.search.folder}: searched in the space {space}, not {config.space}; "
                f"compare such runs with {told}, and no others"
            )
    budget = (
        "Existing run folders. The searches' flags, which change their presets, are below; all "
        "settings of a run are in its config.json, the papers' in the README of each method."
    )
    folder = Path(config.output).resolve() if config.output else None
    plan = Plan(budget, flags_given(results))
    if config.space == "darts":
        report(plan, results, random, left, folder)
    else:
        known = [dataclasses.replace(one, failure="") for one in results]  # none is retrained
        report_known(plan, known, left, config.table, folder)


def report_jobs(config: CompareConfig, jobs: Sequence[Job], folder: Path) -> None:
    """Report what the jobs of a comparison have finished so far."""
    if config.space != "darts":
        report_known(plan_of(config), searches_of_jobs(jobs), [], config.table, folder)
        return
    results, random = results_of_jobs(jobs)
    left = [
        LeftOut(
            job.name,
            f"{job.state}, so gains are over fewer random cells\n{job.why}\n(log: {job.log})",
        )
        for job in jobs if job.label == RANDOM and not job.finished()
    ]  # fmt: skip
    report(plan_of(config), results, random, left, folder)


def report(
    plan: Plan, results: Sequence[Result], random: Sequence[RunFolder], left: Sequence[LeftOut],
    folder: Path | None,
) -> None:  # fmt: skip
    """Print the report, and write it where there is a folder.

    Raises:
        InputError: the runs cannot be compared.
    """
    notes = check(results, random)
    measured = measure(results, random)
    rows = summaries(measured)
    accuracies = {row.label: row.means["accuracy"] for row in rows if row.label != AVERAGE}
    tested = pairs({label: mean.values for label, mean in accuracies.items() if mean})
    printed = {row.label: METHODS[row.label].printed for row in rows if row.label in METHODS}
    command = shlex.join(["python", "evaluate/compare.py", *sys.argv[1:]])
    failed = [
        LeftOut(f"{row.label}, seed {seed}", why)
        for row in rows for seed, why in row.failures.items()
    ]  # fmt: skip
    made = Report(
        "Comparison of methods", command, plan, printed, measured, rows, tested,
        [*failed, *left], notes, provenance(measured),
    )  # fmt: skip
    print(f"\n{rendered(made, 'report.md.jinja')}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write(made, folder)
        print(f"{folder}: comparison.json, comparison.csv, comparison.md, report.html")


def report_known(
    plan: Plan, results: Sequence[Result], left: Sequence[LeftOut], table: str,
    folder: Path | None,
) -> None:  # fmt: skip
    """Print the report of searches whose cells' accuracies are known, and write it.

    Raises:
        InputError: the runs cannot be compared.
    """
    from comparison import true_accuracy

    command = shlex.join(["python", "evaluate/compare.py", *sys.argv[1:]])
    texts = [f"`{command}`", plan.budget, *plan.changes, *check(results, [])]
    measured = [Measured(result, {}) for result in results if not result.failure]
    searched = {one.result.search.config.get("dataset") for one in measured}
    on = next((name for name in DATASETS if searched == {name}), "cifar10")
    about = provenance(measured)
    made = true_accuracy.known(results, left, read_table(table), on, texts, about)
    print(f"\n{true_accuracy.markdown(made)}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        true_accuracy.write(made, folder)
        print(f"{folder}: true_accuracy.md, .json, .csv and .svg")


def plan_of(config: CompareConfig) -> Plan:
    """What the flags ask for, in words."""
    budget = config.search_budget()
    changes = [text for name in config.names() if (text := changed(name, budget))]
    return Plan(_budget_text(config), changes)


def _budget_text(config: CompareConfig) -> str:
    train = shlex.join([*words(config.retraining_flags()), *config.more_train_words()])
    seeds = f"seeds 0 to {config.seeds - 1}" if config.seeds > 1 else "seed 0"
    text = (
        f"Each search with {seeds}, then evaluate/train.py {train} for each, with the same seed."
        if config.space == "darts" else f"Each search with {seeds}; nothing is retrained."
    )
    if config.budget == "paper":
        return f"{text} Every search keeps the settings of its own {config.preset} preset."
    budget = config.search_budget()
    return (
        f"{text} Matched searches: {budget.epochs} epochs on the same images, batch size "
        f"{budget.batch_size}, {budget.channels} channels, {budget.cells} cells, learning rate "
        f"{budget.learning_rate:g}; other settings are each method's own."
    )
