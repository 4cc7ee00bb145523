"""Reads run folders, and pairs each search with the retraining of its cells."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import json_lines
from common.networks.genotype import Genotype, load
from common.run.config import TOLD
from common.run.operations import digest_of
from comparison.jobs import tail, wall_seconds
from comparison.methods import name_of
from retraining.loop import METHOD as RETRAIN

# Fields of config.json that may differ between runs of one comparison. (Two runs of equal epochs
# differ if one of them was extended: their learning rates were not the same.)
OF_A_RUN = TOLD - {"extended"} | {
    "seed", "genotype", "commit", "threads", "checkpoint_steps", "log_with", "hessian",
    "cut_accuracy",
}  # fmt: skip
NEWER = {"optimizer": "sgd", "split": "halves"}  # settings that older runs have without saying so


@dataclass(frozen=True)
class RunFolder:
    """A run folder with its config.json."""

    folder: Path
    config: dict[str, Any]

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """result.json; None while the run is unfinished."""
        return _json(self.folder / "result.json")

    @cached_property
    def genotype(self) -> Genotype:
        """The cells found or trained."""
        return load(self.folder)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """One of its files with a line per epoch; empty where it is missing.

        Raises:
            InputError: it is damaged.
        """
        path = self.folder / name
        return json_lines(path) if path.exists() else []

    def read(self, name: str) -> dict[str, Any]:
        """One of its JSON files; empty where it is missing."""
        return _json(self.folder / name) or {}

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def started(self) -> str:
        """When it was started (UTC), to the minute; empty in runs of older versions."""
        return str(self.config.get("started", ""))[:16].replace("T", " ")

    @property
    def log(self) -> Path:
        """The output of its command, if evaluate/compare.py started it."""
        return self.folder.with_name(self.folder.name + ".log")

    def wall_seconds(self) -> float | None:
        """Wall time of its command over all starts; None where it was not recorded."""
        return wall_seconds(self.folder) or None


@dataclass(frozen=True)
class Result:
    """A method's run with one seed: the search, and the retraining of its cells.

    Attributes:
        label: of its row.
        seed: of both.
        search: None where it has not begun.
        training: None where it failed or has not finished.
        failure: why there is no training.
    """

    label: str
    seed: int
    search: RunFolder | None
    training: RunFolder | None
    failure: str = ""

    @property
    def runs(self) -> list[RunFolder]:
        """The run folders there are."""
        return [run for run in (self.search, self.training) if run is not None]


@dataclass(frozen=True)
class LeftOut:
    """Something of a comparison that its report does not use.

    Attributes:
        what: a run folder, or a method and seed.
        why: in words, and the last lines of its log if it has not finished.
    """

    what: str
    why: str


def run_folder(folder: Path) -> RunFolder | None:
    """Read a run folder; None where it has no config.json.

    Raises:
        InputError: its config.json is damaged.
    """
    config = _json(folder / "config.json")
    if config is None:
        return None
    if not isinstance(config, dict) or not {"method", "seed"} <= config.keys():
        raise InputError(f"--runs {folder}: its config.json is not that of a run")
    return RunFolder(folder, config)


def found(folders: Sequence[str]) -> tuple[list[RunFolder], list[LeftOut]]:
    """The runs in these folders: each a run folder, or a folder of run folders.

    Returns:
        The run folders, and those that have a log but no config.json.

    Raises:
        InputError: a folder holds no run folder.
    """
    runs: dict[Path, RunFolder] = {}
    left = []
    for name in folders:
        folder = Path(name)
        if not folder.is_dir():
            raise InputError(f"--runs {name}: no such folder")
        inside = folder / "runs" if (folder / "runs").is_dir() else folder
        places = [folder] if (folder / "config.json").exists() else sorted(inside.iterdir())
        here = []
        for place in places:
            if run := run_folder(place):
                here.append(run)
            elif place.suffix == ".log" and _never_began(place):
                why = "ended before it wrote its config.json"
                left.append(LeftOut(str(place.with_suffix("")), _with_log(why, place)))
        if not here:
            raise InputError(f"--runs {name}: no run folder there (it would hold a config.json)")
        runs |= {run.folder.resolve(): run for run in here}
    return list(runs.values()), left


def results_of(runs: Sequence[RunFolder]) -> tuple[list[Result], list[RunFolder], list[LeftOut]]:
    """Each finished search with the retraining of its cells.

    A retraining belongs to the search with its seed and its cells.

    Returns:
        The results, the finished retrainings of random cells, and the runs that are in neither.
    """
    trainings = [run for run in runs if run.config["method"] == RETRAIN]
    searches = [run for run in runs if run.config["method"] != RETRAIN and run.result is not None]
    results, told = [], []
    for search, label in zip(searches, _labels(searches), strict=True):
        own = [run for run in trainings if not _of_a_random_cell(run) and _retrains(run, search)]
        # Two searches can find the same cells: prefer the retraining that names this one.
        own.sort(key=lambda t: Path(str(t.config.get("genotype"))).name != search.folder.name)
        own.sort(key=lambda t: t.result is None)
        if not own:
            training, failure = None, f"no retraining of its cells with seed {search.seed}"
        elif own[0].result is None:
            why = f"its retraining, {own[0].folder}, has not finished"
            training, failure = None, _with_log(why, own[0].log)
            told.append(own[0])
        else:
            training, failure = own[0], ""
        results.append(Result(label, search.seed, search, training, failure))
    left = [
        LeftOut(str(run.folder), _with_log("has not finished", run.log))
        for run in runs if run.result is None and run not in told
    ]  # fmt: skip
    used = [result.training for result in results]
    random = []
    for run in trainings:
        if run.result is None or run in used:
            continue
        if _of_a_random_cell(run):
            random.append(run)
        elif any(_retrains(run, search) for search in searches):
            left.append(LeftOut(str(run.folder), "another retraining of the same cells is used"))
        else:
            left.append(LeftOut(str(run.folder), "retrains the cells of no finished search here"))
    return results, random, left


def _retrains(training: RunFolder, search: RunFolder) -> bool:
    """Whether it trains a search's cells."""
    return (
        training.seed == search.seed and _has_cells(training)
        and training.genotype.cells == search.genotype.cells
    )  # fmt: skip


def _of_a_random_cell(training: RunFolder) -> bool:
    """Whether its cells were drawn, not chosen: the choice of a random search says of how many.

    A random search draws the same cells as the baseline with its seed, so cells do not tell.
    """
    provenance = training.genotype.provenance if _has_cells(training) else {}
    return provenance.get("method") == "random_search" and "of" not in provenance


def _has_cells(training: RunFolder) -> bool:
    """A retraining that still reads its images has none."""
    return (training.folder / "genotype.json").exists()


def _never_began(log: Path) -> bool:
    """Whether this is the log of a job of evaluate/compare.py without a run folder."""
    is_job = any(log.with_suffix(end).exists() for end in (".time", ".pid"))
    return is_job and run_folder(log.with_suffix("")) is None


def _with_log(why: str, log: Path) -> str:
    return "\n".join([why, *tail(log)])


def _labels(searches: Sequence[RunFolder]) -> list[str]:
    """The method of each search, with the settings that differ between searches of the method."""
    names = [name_of(run.config) for run in searches]
    labels = []
    for run, name in zip(searches, names, strict=True):
        same = [_settings(s) for s, n in zip(searches, names, strict=True) if n == name]
        own = _settings(run)
        told = [key for key in own if len({str(one.get(key)) for one in same}) > 1]
        labels.append(" ".join([name, *(f"{key}={own[key]}" for key in told)]))
    return labels


def _settings(run: RunFolder) -> dict[str, Any]:
    """What makes a method's variant, sorted; a file of operations by its name and SHA-256."""
    config = {**NEWER, **run.config}
    if digest := digest_of(config.get("operations")):
        config["operations"] = f"{config['operations'].get('file')}:{digest[:8]}"
    return {key: config[key] for key in sorted(set(config) - OF_A_RUN)}


def differences(one: RunFolder, other: RunFolder) -> dict[str, str]:
    """The settings in which two runs differ and must not, each with both values.

    A file of operations is no such setting, but what the cells are made of.
    """
    first, second = ({**NEWER, **run.config} for run in (one, other))
    keys = sorted((first.keys() | second.keys()) - OF_A_RUN - {"operations"})
    return {
        key: f"{key} {first.get(key)} and {second.get(key)}"
        for key in keys if first.get(key) != second.get(key)
    }  # fmt: skip


def flags_given(results: Sequence[Result]) -> list[str]:
    """The flags that the searches were started with, which change their presets.

    Returns:
        A line on those of all searches, then one for each label with more.
    """
    flags: dict[str, list[str]] = {}
    for result in results:
        if result.search is not None:
            flags.setdefault(result.label, _flags(str(result.search.config.get("command", ""))))
    every = [*flags.values()]
    shared = [text for text in every[0] if all(text in own for own in every)] if every else []
    lines = {"all searches": shared}
    lines |= {label: [text for text in own if text not in shared] for label, own in flags.items()}
    return [f"{name}: {' '.join(own)}" for name, own in lines.items() if own]


def _flags(command: str) -> list[str]:
    """The flags of a command line with their values, but those that belong to one run."""
    _, *flags = command.split(" --")
    names = [re.split("[ =]", text)[0].replace("-", "_") for text in flags]
    return [f"--{text}" for text, name in zip(flags, names, strict=True) if name not in OF_A_RUN]


def _json(path: Path) -> Any:
    """The content of a JSON file; None where there is no file."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
