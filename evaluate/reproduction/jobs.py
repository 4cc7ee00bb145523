"""An item's jobs: searches, the trainings that rank them, and the trainings that are read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from common.errors import InputError
from common.files import json_lines, json_object
from common.networks.genotype import Genotype, load, parse, save
from comparison.jobs import Job
from comparison.planned import slug
from reproduction.plan import Cells, Command, Item, Training
from reproduction.settings import ReproduceConfig


@dataclass
class Part:
    """The jobs of a training.

    Attributes:
        cells: that it trains.
        searches: of these cells, or of their normal cell.
        judged: the jobs whose results rank the searches; none without a choice.
        runs: the trainings.
    """

    cells: Cells
    searches: list[Job] = field(default_factory=list)
    judged: list[Job] = field(default_factory=list)
    runs: list[Job] = field(default_factory=list)

    def ranking(self) -> list[tuple[Job, float]]:
        """The searches whose ranking has finished, the best first, with the value that ranks them.

        Of equal ones, the one with the lower validation loss comes first.
        """
        choice = self.cells.choice
        sign = 1 if choice.smallest else -1
        found = []
        for search, job in zip(self.searches, self.judged, strict=True):
            result = json_object(job.folder / "result.json") or {}
            if (value := result.get(choice.figure)) is not None:
                found.append((sign * value, result.get("valid_loss", 0.0), search, value))
        found.sort(key=lambda entry: entry[:2])
        return [(search, value) for _, _, search, value in found]

    def search(self, n: int) -> Job:
        """The search whose cells training `n` takes.

        Raises:
            InputError: the choice is among more searches than have finished.
        """
        choice = self.cells.choice
        if choice is None:
            return self.searches[n]
        ranking = self.ranking()
        if choice.place >= len(ranking):
            raise InputError(
                f"{len(ranking)} of {len(self.judged)} searches finished, and number "
                f"{choice.place + 1} of their ranking is needed; --searches runs more"
            )
        return ranking[choice.place][0]

    def needed(self, n: int) -> list[Job]:
        """The jobs that must end before training `n` has its cells."""
        return self.judged or [self.searches[n]]


class Expansion:
    """All jobs of an item, each once, however many rows share it.

    Args:
        item: to run.
        config: its scale, and the numbers of searches and trainings.
        folder: for run folders.

    Attributes:
        jobs: each after those that it needs.
        parts: by row and training.
    """

    def __init__(self, item: Item, config: ReproduceConfig, folder: Path):
        self.config, self.folder = config, folder
        self.jobs: list[Job] = []
        self.parts: dict[str, dict[str, Part]] = {}
        for label, row in item.rows.items():
            self.parts[label] = {}
            for name, training in row.items():
                part = self._found(training.cells)
                self.parts[label][name] = part
                if training.command is not None:
                    self._train(label, name, training, part)

    def _found(self, cells: Cells) -> Part:
        """The searches of some cells, and what ranks them."""
        part = Part(cells)
        if self.config.published or cells.searches is None:
            return part
        name, command = cells.searches.name, cells.searches.command
        for seed in counted(cells.searches.seeds, self.config.searches):
            part.searches.append(self._job(f"{name}-{seed}", name, seed, command))
        if cells.choice is not None and cells.choice.ranking is None:
            part.judged = part.searches
        elif cells.choice is not None:
            split = part.searches[0].seed  # one seed: all are ranked by the same images
            part.judged = [
                self._job(
                    f"{search.name}.rank", f"{search.name}: ranking", split, cells.choice.ranking,
                    "rank", needs=(search.name,), cells=lambda search=search: search.folder,
                )
                for search in part.searches
            ]  # fmt: skip
        return part

    def _train(self, label: str, name: str, training: Training, part: Part) -> None:
        """The trainings of chosen cells with each seed, or of each search's cells once."""
        cells, command = training.cells, training.command
        prefix = ".".join(filter(None, (slug(label), slug(name))))
        if part.searches and cells.choice is None:
            seeds = [job.seed for job in part.searches]
        else:
            seeds = counted(training.seeds, self.config.trainings)
        other = self._found(cells.reduction) if cells.reduction else None
        for n, seed in enumerate(seeds):
            flags, needs, take = [], [], None
            if training.weights_of and part.searches:
                needs = [self.parts[label][training.weights_of].runs[n]]
                flags = ["--weights", str(needs[0].folder)]
            elif part.searches:
                needs = [*part.needed(n), *(other.needed(n) if other else ())]
                take = partial(
                    cells_of, part, n, other, self.folder / "cells" / f"{prefix}-{seed}.json"
                )
            elif cells.published:
                flags = ["--genotype", cells.published]
            else:
                return
            part.runs.append(self._job(
                f"{prefix}-{seed}.train", label, seed, command, "train", flags,
                tuple(dict.fromkeys(job.name for job in needs)), take,
            ))  # fmt: skip

    def _job(
        self, name: str, label: str, seed: int, command: Command, what: str = "search",
        flags: Sequence[str] = (), needs: tuple[str, ...] = (),
        cells: Callable[[], Path] | None = None,
    ) -> Job:  # fmt: skip
        for job in self.jobs:
            if job.name == name:
                return job
        config = self.config
        line = command.at(config.scale)
        if config.scale == "paper":
            line += ["--data-root", str(config.root(command.data))]
        line += [*shlex.split(config.flags_of(what)), *flags]
        job = Job(
            name, label, seed, tuple(command.script.split()), line, self.folder / "runs" / name,
            needs, cells, what, len(needs) > 1, shlex.split(config.launcher),
        )  # fmt: skip
        self.jobs.append(job)
        return job


def counted(seeds: Sequence[int], count: int | None) -> list[int]:
    """The paper's seeds, or `count` of them from its first."""
    return list(seeds) if count is None else list(range(seeds[0], seeds[0] + count))


# ------------------------------------------------------------------------------------- its cells


def cells_of(part: Part, n: int, reduction: Part | None, file: Path) -> Path:
    """The genotype of training `n`: a search's folder, or a file that is written here.

    Args:
        part: the searches of the cells.
        n: number of the training.
        reduction: the searches of the reduction cell; None: the same.
        file: to write, where the cells are not those at the end of one search.

    Raises:
        InputError: a search has no such cells.
    """
    search, share = part.search(n), part.cells.share
    if share == 1 and reduction is None:
        return search.folder
    cells = dict(snapshot(search.folder, share).cells)
    origin = {"normal": search.name, "share": share}
    if reduction is not None:
        other = reduction.search(n)
        cells["reduction"] = load(other.folder).cells["reduction"]
        origin["reduction"] = other.name
    file.parent.mkdir(parents=True, exist_ok=True)
    save(Genotype(file.stem, cells, origin), file)
    return file


def snapshot(folder: Path, share: float) -> Genotype:
    """The cells that a search derives after a share of its epochs: 0 the first, 1 the last."""
    if share == 1:
        return load(folder)
    lines = json_lines(folder / "genotypes.jsonl")
    return parse(json.dumps(lines[round(share * (len(lines) - 1))]["genotype"]), str(folder))
