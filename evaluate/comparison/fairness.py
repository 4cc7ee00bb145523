"""Checks in the run folders that a comparison is fair."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from common.errors import InputError
from common.run.config import RunConfig, SearchConfig
from common.run.operations import digest_of
from comparison.methods import name_of
from comparison.run_folders import Result, RunFolder, differences


def check(results: Sequence[Result], random: Sequence[RunFolder]) -> list[str]:
    """Refuse what cannot be compared.

    Args:
        results: all labels, all seeds.
        random: retrainings of random cells.

    Returns:
        Notes on differences that are allowed.

    Raises:
        InputError: other images, another split, test split or retraining recipe; or searches of
            one method under several budgets.
    """
    first: dict[tuple[str, int], Result] = {}
    for result in results:
        twin = first.setdefault((result.label, result.seed), result)
        if twin is not result:
            raise InputError(
                f"{twin.search.folder} and {result.search.folder} are both "
                f"{result.label} with seed {result.seed}; leave one of them out"
            )
    trainings = [result.training for result in results if result.training] + list(random)
    searches = [result.search for result in results if result.search]
    _equal_settings(trainings, "were retrained")
    if trainings and (held_out := trainings[0].config.get("held_out")) != "test":
        raise InputError(
            f"{trainings[0].folder}: was retrained with --held-out {held_out}, so it has no test "
            "accuracy; retrain it without"
        )
    for seed in sorted({run.seed for run in (*searches, *trainings)}):
        searched = [run for run in searches if run.seed == seed]
        trained = [run for run in trainings if run.seed == seed]
        _equal_digest(searched, "split.json", "images_sha256", "searched other images")
        for kind in ("halves", "shared"):
            alike = [run for run in searched if run.config.get("split", "halves") == kind]
            _equal_digest(alike, "split.json", "sha256", "searched another split of the images")
        _equal_digest(trained, "images.json", "train_sha256", "was retrained on other images")
    _equal_digest(trainings, "images.json", "test_sha256", "was tested on other images")
    shared = {f.name for kind in (RunConfig, SearchConfig) for f in dataclasses.fields(kind)}
    shared.remove("candidates")  # a method's variant, not a budget
    for name in dict.fromkeys(result.label.split()[0] for result in results):
        own = [r.search for r in results if r.label.split()[0] == name and r.search]
        _equal_settings(own, f"are searches of {name}", shared)
    return [*_splits(searches), *_machines("Searches", searches),
            *_machines("Retrainings", trainings), *_missing(results)]  # fmt: skip


def _equal_settings(
    runs: Sequence[RunFolder], what: str, only: Collection[str] | None = None
) -> None:
    for run in runs[1:]:
        unlike = differences(runs[0], run)
        texts = [text for key, text in unlike.items() if only is None or key in only]
        if texts:
            raise InputError(
                f"{runs[0].folder} and {run.folder} {what} under different budgets "
                f"({'; '.join(texts)}); compare them apart, or repeat one as the other"
            )


def _equal_digest(runs: Sequence[RunFolder], file: str, key: str, what: str) -> None:
    runs = [run for run in runs if run.read(file)]  # one that failed early has none
    for run in runs[1:]:
        if run.read(file).get(key) != runs[0].read(file).get(key):
            raise InputError(
                f"{run.folder}: {what} than {runs[0].folder} (seed {run.seed}; {key} in {file}), "
                "so their accuracies cannot be compared. Leave one of them out"
            )


def _splits(searches: Sequence[RunFolder]) -> Iterator[str]:
    shared = {name_of(run.config) for run in searches if run.config.get("split") == "shared"}
    if shared and len(shared) < len({name_of(run.config) for run in searches}):
        yield (
            f"{', '.join(sorted(shared))} searched with --split shared, weights and architecture "
            "on all images; the others on one half each."
        )


def _machines(what: str, runs: Sequence[RunFolder]) -> Iterator[str]:
    files = {digest_of(run.config["operations"]) for run in runs if run.config.get("operations")}
    if len(files) > 1:
        yield f"{what} have {len(files)} different files of operations."
    for key, name in (
        ("commit", "commits of the code"), ("device", "devices"), ("machine", "machines"),
        ("threads", "numbers of threads"), ("mixed_precision", "precisions"),
    ):  # fmt: skip
        values = sorted({str(run.config.get(key))[:8] for run in runs})
        if len(values) > 1:
            yield f"{what} have {len(values)} {name}: {', '.join(values)}."


def _missing(results: Sequence[Result]) -> Iterator[str]:
    every = {result.seed for result in results}
    for label in dict.fromkeys(result.label for result in results):
        there = {r.seed for r in results if r.label == label and not r.failure}
        if missing := ", ".join(map(str, sorted(every - there))):
            yield f"{label} has no result for seed {missing}; its means are over the others."
