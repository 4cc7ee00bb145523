"""The jobs of a comparison, and their results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from common.networks.genotype import save
from comparison.budget import search_flags, words
from comparison.jobs import Job
from comparison.methods import METHODS
from comparison.run_folders import Result, RunFolder, run_folder
from comparison.settings import CompareConfig
from retraining.random_cells import random_genotype

TRAIN = ("evaluate/train.py",)
RANDOM = "random cells"


def jobs_of(config: CompareConfig, folder: Path) -> list[Job]:
    """All searches and retrainings, seed by seed, so that an early report has complete seeds."""
    jobs = []
    training = [*words(config.retraining_flags()), *config.more_train_words()]
    operations = config.operation_words()

    def add(name: str, label: str, script: Sequence[str], flags: Sequence[str], **more) -> Job:
        place = folder / "runs" / name
        jobs.append(Job(name, label, seed, script, flags, place, operations=operations, **more))
        return jobs[-1]

    for seed in range(config.seeds):
        for name in config.names():
            method = METHODS[name]
            flags = search_flags(name, config.search_budget(), method.flags, config.hessian)
            flags = words({
                **flags, **config.data_flags(True), **config.space_flags(),
                **config.candidate_flags(),
            })  # fmt: skip
            search = add(f"{name}-{seed}", name, method.script, flags)
            if config.space != "darts":
                continue
            add(
                f"{search.name}.train", name, TRAIN, training, needs=(search.name,),
                cells=lambda search=search: search.folder, what="train",
            )  # fmt: skip
        for number in range(config.random_cells if config.space == "darts" else 0):
            cell = f"random-cell-{seed}-{number}"
            file = folder / "cells" / f"{cell}.json"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                save(random_genotype(4, seed, number, candidates=config.candidates), file)
            flags = [*training, "--genotype", str(file)]
            add(f"{cell}.train", RANDOM, TRAIN, flags, what="train")
    return jobs


def searches_of_jobs(jobs: Sequence[Job]) -> list[Result]:
    """The results of searches that are not retrained."""
    return [
        Result(
            job.label, job.seed, run_folder(job.folder), None,
            "" if job.finished() else f"{job.why or 'not run yet'}\n(log: {job.log})",
        )
        for job in jobs
    ]  # fmt: skip


def slug(label: str) -> str:
    """A label as a file name."""
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", label).strip("-")


def results_of_jobs(jobs: Sequence[Job]) -> tuple[list[Result], list[RunFolder]]:
    """The results of each method and seed, and the retrainings of random cells."""
    by_name = {job.name: job for job in jobs}
    results, random = [], []
    for job in jobs:
        training = run_folder(job.folder) if job.finished() else None
        if job.label == RANDOM:
            random += [training] if training else []
        elif job.cells is not None:
            search = by_name[job.needs[0]]
            failed = search if search.state == "failed" else job
            why = f"{failed.name}: {failed.why or 'not run yet'}\n(log: {failed.log})"
            search = run_folder(search.folder)
            results.append(Result(job.label, job.seed, search, training, "" if training else why))
    return results, random
