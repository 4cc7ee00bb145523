"""Run folders, read: what a search and the retraining of its cells have left."""

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

# Of config.json: what may differ between runs that are compared.
OF_A_RUN = {
    "seed", "output", "resume", "genotype", "command", "commit", "machine", "versions", "device",
    "threads", "data_root", "checkpoint_steps", "log_with", "hessian", "cut_accuracy",
}  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """A run folder with its config.

    Attributes:
        folder: where it is.
        config: its config.json.
    """

    folder: Path
    config: dict[str, Any]

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """None: the run has not ended."""
        return _json(self.folder / "result.json")

    @cached_property
    def genotype(self) -> Genotype:
        """What was found or trained."""
        return load(self.folder)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Of an epoch file; none where it is not there.

        Raises:
            InputError: it is damaged.
        """
        path = self.folder / name
        try:
            return json_lines(path) if path.exists() else []
        except ValueError:
            raise InputError(f"{path}: damaged; leave this run out, or run it again") from None

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of it; empty where it is not there."""
        return _json(self.folder / name) or {}

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config["seed"]

    def wall_seconds(self) -> float | None:
        """Of its command, over all starts; None where nobody took the time."""
        return wall_seconds(self.folder) or None


@dataclass(frozen=True)
class Result:
    """A row's run with one seed: the search, and the retraining of its cells.

    Attributes:
        label: of the row.
        seed: of both.
        searches: usually one; the normal cell's first.
        training: None: there is none yet, or it failed.
        failure: why; the log's last lines.
    """

    label: str
    seed: int
    searches: tuple[RunFolder, ...]
    training: RunFolder | None
    failure: str = ""


def run_folder(folder: Path) -> RunFolder | None:
    """A run folder; None where there is no config.json.

    Raises:
        InputError: it is damaged.
    """
    config = _json(folder / "config.json")
    if config is None:
        return None
    if not isinstance(config, dict) or "method" not in config or "seed" not in config:
        raise InputError(f"--runs {folder}: its config.json is not that of a run")
    return RunFolder(folder, config)


def found(folders: Sequence[str]) -> list[RunFolder]:
    """The runs in these folders: each a run folder, or one that holds run folders.

    Raises:
        InputError: a folder holds none.
    """
    runs = []
    for name in folders:
        folder = Path(name)
        if not folder.is_dir():
            raise InputError(f"--runs {name}: no such folder")
        inside = folder / "runs" if (folder / "runs").is_dir() else folder
        places = [folder] if (folder / "config.json").exists() else sorted(inside.iterdir())
        here = [run for place in places if place.is_dir() and (run := run_folder(place))]
        if not here:
            raise InputError(f"--runs {name}: no run folder there (it would hold a config.json)")
        runs += here
    return list({run.folder.resolve(): run for run in runs}.values())


def results_of(runs: Sequence[RunFolder]) -> tuple[list[Result], list[RunFolder]]:
    """Each search with the retraining of its cells, and retrainings that belong to no search.

    A retraining belongs to a search with its seed whose cells it trained.
    """
    trainings = [
        run for run in runs  # without those that have begun and read their images
        if run.config["method"] == RETRAIN and (run.folder / "genotype.json").exists()
    ]  # fmt: skip
    searches = [run for run in runs if run.config["method"] != RETRAIN]
    labels = _labels(searches)
    results, left = [], list(trainings)
    for search, label in zip(searches, labels, strict=True):
        if search.result is None:
            log = search.folder.with_name(search.folder.name + ".log")
            why = "\n".join(["its search has not ended", *tail(log)])
            results.append(Result(label, search.seed, (search,), None, why))
            continue
        cells = search.genotype.cells
        own = [t for t in trainings if t.seed == search.seed and t.genotype.cells == cells]
        # Two searches can find the same cells; names tell whose retraining it is.
        own.sort(key=lambda t: Path(str(t.config.get("genotype"))).name != search.folder.name)
        left = [t for t in left if t not in own]
        why = "" if own else f"no retraining of its cells with seed {search.seed}"
        if own and own[0].result is None:
            why = "its retraining has not ended"
        results.append(Result(
            label, search.seed, (search,), None if why else own[0], why
        ))  # fmt: skip
    return results, left


def _labels(searches: Sequence[RunFolder]) -> list[str]:
    """The method, and of several settings of it what tells them apart."""
    names = [name_of(run.config) for run in searches]
    labels = []
    for run, name in zip(searches, names, strict=True):
        same = [s.config for s, n in zip(searches, names, strict=True) if n == name]
        keys = sorted(set(run.config) - OF_A_RUN)
        told = [key for key in keys if len({str(config.get(key)) for config in same}) > 1]
        labels.append(" ".join([name, *(f"{key}={run.config[key]}" for key in told)]))
    return labels


def differences(one: RunFolder, other: RunFolder) -> list[str]:
    """The settings in which two runs differ, but for what may."""
    keys = sorted((set(one.config) | set(other.config)) - OF_A_RUN)
    return [
        f"{key} {one.config.get(key)} and {other.config.get(key)}"
        for key in keys if one.config.get(key) != other.config.get(key)
    ]  # fmt: skip


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
