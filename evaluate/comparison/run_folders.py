"""Reads run folders, and pairs each search with the retraining of its cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import json_lines
from common.networks.genotype import Genotype, load
from comparison.jobs import tail, wall_seconds
from comparison.methods import name_of
from retraining.loop import METHOD as RETRAIN

# Fields of config.json that may differ between runs of one comparison.
OF_A_RUN = {
    "seed", "output", "resume", "genotype", "command", "commit", "machine", "versions", "device",
    "threads", "data_root", "checkpoint_steps", "log_with", "hessian", "cut_accuracy",
}  # fmt: skip


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


def found(folders: Sequence[str]) -> list[RunFolder]:
    """The runs in these folders: each a run folder, or a folder of run folders.

    Raises:
        InputError: a folder holds none.
    """
    runs: dict[Path, RunFolder] = {}
    for name in folders:
        folder = Path(name)
        if not folder.is_dir():
            raise InputError(f"--runs {name}: no such folder")
        inside = folder / "runs" if (folder / "runs").is_dir() else folder
        places = [folder] if (folder / "config.json").exists() else sorted(inside.iterdir())
        here = [run for place in places if place.is_dir() and (run := run_folder(place))]
        if not here:
            raise InputError(f"--runs {name}: no run folder there (it would hold a config.json)")
        runs |= {run.folder.resolve(): run for run in here}
    return list(runs.values())


def results_of(runs: Sequence[RunFolder]) -> tuple[list[Result], list[RunFolder]]:
    """Each search with the retraining of its cells, and the retrainings of no search.

    A retraining belongs to the search with its seed and its cells.
    """
    trainings = [
        run for run in runs  # one that still reads its images has no genotype.json
        if run.config["method"] == RETRAIN and (run.folder / "genotype.json").exists()
    ]  # fmt: skip
    searches = [run for run in runs if run.config["method"] != RETRAIN]
    results, left = [], trainings
    for search, label in zip(searches, _labels(searches), strict=True):
        training = None
        if search.result is None:
            log = search.folder.with_name(search.folder.name + ".log")
            failure = "\n".join(["its search has not finished", *tail(log)])
        else:
            cells = search.genotype.cells
            own = [t for t in trainings if t.seed == search.seed and t.genotype.cells == cells]
            left = [t for t in left if t not in own]
            # Two searches can find the same cells: prefer the retraining that names this one.
            own.sort(key=lambda t: Path(str(t.config.get("genotype"))).name != search.folder.name)
            if not own:
                failure = f"no retraining of its cells with seed {search.seed}"
            elif own[0].result is None:
                failure = "its retraining has not finished"
            else:
                training, failure = own[0], ""
        results.append(Result(label, search.seed, search, training, failure))
    return results, left


def _labels(searches: Sequence[RunFolder]) -> list[str]:
    """The method of each search, with the settings that differ between searches of the method."""
    names = [name_of(run.config) for run in searches]
    labels = []
    for run, name in zip(searches, names, strict=True):
        same = [s.config for s, n in zip(searches, names, strict=True) if n == name]
        keys = sorted(set(run.config) - OF_A_RUN)
        told = [key for key in keys if len({str(config.get(key)) for config in same}) > 1]
        labels.append(" ".join([name, *(f"{key}={run.config[key]}" for key in told)]))
    return labels


def differences(one: RunFolder, other: RunFolder) -> dict[str, str]:
    """The settings in which two runs differ and must not, each with both values."""
    keys = sorted((one.config.keys() | other.config.keys()) - OF_A_RUN)
    return {
        key: f"{key} {one.config.get(key)} and {other.config.get(key)}"
        for key in keys if one.config.get(key) != other.config.get(key)
    }  # fmt: skip


def _json(path: Path) -> Any:
    """The content of a JSON file; None where there is no file."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
