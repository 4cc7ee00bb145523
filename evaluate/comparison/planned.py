"""A plan as jobs, and what they left as results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from common.networks.genotype import save
from comparison.budget import search_flags, words
from comparison.jobs import Job
from comparison.methods import METHODS
from comparison.plan import Row
from comparison.run_folders import Result, RunFolder, run_folder
from comparison.settings import CompareConfig
from retraining.random_cells import random_genotype

TRAIN = ("evaluate/train.py",)
RANDOM = "random cells"


def jobs_of(config: CompareConfig, folder: Path) -> list[Job]:
    """All searches and retrainings, seed by seed, so that an early look compares equals."""
    jobs = []
    for seed in range(config.seeds):
        for row in config.rows():
            search = _search(config, row, seed, folder)
            jobs += [search, _training(config, row, seed, folder, search)]
        jobs += [_random(config, number, seed, folder) for number in range(config.random_cells)]
    return jobs


def _search(config: CompareConfig, row: Row, seed: int, folder: Path) -> Job:
    flags = search_flags(row.method, config.search_budget(), row.flags, config.hessian)
    flags = {**flags, **config.data_flags(True)}
    name = f"{slug(row.label)}-{seed}"
    return Job(
        name, row.label, seed, METHODS[row.method].script, words(flags), folder / "runs" / name
    )


def _training(config: CompareConfig, row: Row, seed: int, folder: Path, search: Job) -> Job:
    name = f"{slug(row.label)}-{seed}.train"
    flags = [*words(config.retraining_flags()), *config.more_train_words()]
    return Job(
        name, row.label, seed, TRAIN, flags, folder / "runs" / name, (search.name,),
        lambda: search.folder, what="train",
    )  # fmt: skip


def _random(config: CompareConfig, number: int, seed: int, folder: Path) -> Job:
    """A random cell's retraining; it is the cell of that number of a random search."""
    file = folder / "cells" / f"random-cell-{seed}-{number}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save(random_genotype(4, seed, number), file)
    flags = [*words(config.retraining_flags()), *config.more_train_words()]
    name = f"random-cell-{seed}-{number}.train"
    flags += ["--genotype", str(file)]
    return Job(name, RANDOM, seed, TRAIN, flags, folder / "runs" / name, what="train")


def slug(label: str) -> str:
    """A label as a file's name."""
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", label).strip("-")


def results_of_plan(
    rows: Sequence[Row], jobs: Sequence[Job]
) -> tuple[list[Result], list[RunFolder]]:
    """Of each row and seed what its jobs left; and the random cells' retrainings."""
    by_name = {job.name: job for job in jobs}
    results = []
    for row in rows:
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
