"""A plan as jobs, and what they left as results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from common.networks.genotype import save
from comparison.budget import search_flags, words
from comparison.jobs import Cells, Job
from comparison.methods import METHODS
from comparison.plan import Plan, Row, Search
from comparison.run_folders import Result, RunFolder, run_folder
from comparison.settings import CompareConfig
from retraining.random_cells import random_genotype

TRAIN = ("evaluate/train.py",)
RANDOM = "random cells"


def jobs_of(config: CompareConfig, folder: Path) -> list[Job]:
    """All searches and retrainings, seed by seed, so that an early look compares equals."""
    plan, jobs = config.plan(), []
    for seed in range(config.seeds):
        searches = {search.name: _search(config, search, seed, folder) for search in plan.searches}
        for name, job in searches.items():
            jobs.append(job)
            rows = [row for row in plan.rows if row.search == name]
            jobs += [_training(config, row, seed, folder, searches) for row in rows]
        jobs += [_random(config, number, seed, folder) for number in range(config.random_cells)]
    place = {job.name: n for n, job in enumerate(jobs)}  # a row of two searches waits for both
    return sorted(
        jobs, key=lambda job: (max(map(place.get, (job.name, *job.needs))), not job.is_search)
    )


def _search(config: CompareConfig, search: Search, seed: int, folder: Path) -> Job:
    budget = config.search_budget()
    flags = search_flags(search.method, budget, search.flags, search.times, config.hessian)
    flags = {**flags, **config.data_flags(True)}
    name = f"{slug(search.name)}-{seed}"
    return Job(
        name, search.name, seed, METHODS[search.method].script, words(flags),
        folder / "runs" / name,
    )


def _training(
    config: CompareConfig, row: Row, seed: int, folder: Path, searches: dict[str, Job]
) -> Job:
    normal, reduction = searches[row.search], searches[row.reduction or row.search]
    name = f"{slug(row.label)}-{seed}"
    cells = Cells(
        normal.folder, reduction.folder, row.share, folder / "cells" / f"{name}.json"
    )
    needs = tuple(dict.fromkeys((normal.name, reduction.name)))
    flags = [*words(config.retraining_flags()), *config.more_train_words()]
    place = folder / "runs" / f"{name}.train"
    return Job(f"{name}.train", row.label, seed, TRAIN, flags, place, needs, cells)


def _random(config: CompareConfig, number: int, seed: int, folder: Path) -> Job:
    """A random cell's retraining; it is the cell of that number of a random search."""
    file = folder / "cells" / f"random-cell-{seed}-{number}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save(random_genotype(4, seed, number), file)
    flags = [*words(config.retraining_flags()), *config.more_train_words()]
    name = f"random-cell-{seed}-{number}.train"
    flags += ["--genotype", str(file)]
    return Job(name, RANDOM, seed, TRAIN, flags, folder / "runs" / name)


def slug(label: str) -> str:
    """A label as a file's name."""
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", label).strip("-")


def results_of_plan(plan: Plan, jobs: Sequence[Job]) -> tuple[list[Result], list[RunFolder]]:
    """Of each row and seed what its jobs left; and the random cells' retrainings."""
    by_name = {job.name: job for job in jobs}
    results = []
    for row in plan.rows:
        for job in (job for job in jobs if job.cells is not None and job.label == row.label):
            searches = [run_folder(by_name[name].folder) for name in job.needs]
            training = run_folder(job.folder) if job.finished() else None
            failed = [by_name[name] for name in job.needs if by_name[name].state == "failed"]
            why = "" if training else "\n".join(
                f"{one.name}: {one.why or 'not run yet'}\n(log: {one.log})"
                for one in (failed or [job])
            )  # fmt: skip
            there = tuple(search for search in searches if search is not None)
            results.append(Result(row.label, job.seed, there, training, why))
    random = [
        run_folder(job.folder)
        for job in jobs if job.label == RANDOM and job.finished()
    ]  # fmt: skip
    return results, random
