"""What must be equal for a comparison to be one, looked at in the run folders themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from common.errors import InputError
from common.run.config import RunConfig, SearchConfig
from comparison.run_folders import Result, RunFolder, differences


def check(results: Sequence[Result], random: Sequence[RunFolder]) -> list[str]:
    """Refuse what cannot be compared; say what is unequal but may be.

    Args:
        results: all rows, all seeds.
        random: retrainings of random cells.

    Raises:
        InputError: other images, another split, test split or recipe of retraining; or searches
            of one method under several budgets.
    """
    once: dict[tuple[str, int], Result] = {}
    for result in results:
        twin = once.setdefault((result.label, result.seed), result)
        if twin is not result:
            raise InputError(
                f"{twin.searches[0].folder} and {result.searches[0].folder} are both "
                f"{result.label} with seed {result.seed}; leave one of them out"
            )
    trainings = [result.training for result in results if result.training] + list(random)
    searches = [search for result in results for search in result.searches]
    _equal_recipe(trainings)
    for seed in sorted({run.seed for run in (*searches, *trainings)}):
        _equal_file([s for s in searches if s.seed == seed], "split.json", "images_sha256",
                    "searched on other images")
        _equal_file([s for s in searches if s.seed == seed], "split.json", "sha256",
                    "searched on another split into halves")
        _equal_file([t for t in trainings if t.seed == seed], "images.json", "train_sha256",
                    "was retrained on other images")
    _equal_file(trainings, "images.json", "test_sha256", "was tested on other images")
    _equal_budgets(results)
    return list(_notes(results, searches, trainings))


def _equal_recipe(trainings: Sequence[RunFolder]) -> None:
    for run in trainings[1:]:
        unlike = differences(trainings[0], run)
        if unlike:
            raise InputError(
                f"{trainings[0].folder} and {run.folder} were retrained under different budgets "
                f"({'; '.join(unlike)}); compare them apart, or retrain one as the other"
            )
    for run in trainings[:1]:
        if run.config.get("held_out") != "test":
            raise InputError(
                f"{run.folder}: was retrained with --held-out {run.config.get('held_out')}, so it "
                "has no test accuracy; retrain it without"
            )


def _equal_file(runs: Sequence[RunFolder], file: str, key: str, what: str) -> None:
    runs = [run for run in runs if run.read(file)]  # one that failed early has none
    for run in runs[1:]:
        if run.read(file).get(key) != runs[0].read(file).get(key):
            raise InputError(
                f"{run.folder}: {what} than {runs[0].folder} (seed {run.seed}; {key} in their "
                f"{file}); what they reached cannot be compared. Leave one of them out"
            )


def _equal_budgets(results: Sequence[Result]) -> None:
    """Within a method, only the method's own settings tell runs apart; never its budget."""
    shared = {f.name for kind in (RunConfig, SearchConfig) for f in dataclasses.fields(kind)}
    first: dict[str, RunFolder] = {}
    for result in results:
        for search in result.searches:
            name = result.label.split()[0]
            one = first.setdefault(name, search)
            unlike = [text for text in differences(one, search) if text.split()[0] in shared]
            if unlike:
                raise InputError(
                    f"{one.folder} and {search.folder} are searches of {name} under different "
                    f"budgets ({'; '.join(unlike)}); compare them apart"
                )


def _notes(
    results: Sequence[Result], searches: Sequence[RunFolder], trainings: Sequence[RunFolder]
) -> Iterable[str]:
    for what, runs in (("Searches", searches), ("Retrainings", trainings)):
        for key, name in (
            ("commit", "commits of the code"), ("device", "devices"), ("machine", "machines"),
            ("threads", "numbers of threads"), ("mixed_precision", "precisions"),
        ):  # fmt: skip
            values = sorted({str(run.config.get(key))[:8] for run in runs})
            if len(values) > 1:
                yield f"{what} are of {len(values)} {name}: {', '.join(values)}."
    every = {result.seed for result in results}
    for label in dict.fromkeys(result.label for result in results):
        there = {r.seed for r in results if r.label == label and r.training is not None}
        if there != every:
            lacking = ", ".join(map(str, sorted(every - there)))
            yield f"{label} has no result for seed {lacking}; its means are over the others."
