"""An item as jobs: searches, the trainings that choose among them, and those that are read."""

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
from comparison.budget import words
from comparison.jobs import Job
from comparison.planned import slug
from reproduction.plan import TRAIN_RNN, Cells, Choice, Command, Item, Searches, Training
from reproduction.settings import FLAGS_OF, ReproduceConfig


@dataclass
class Part:
    """The jobs of a training.

    Attributes:
        training: what it is.
        searches: of its normal cells.
        judged: by whose results one of them is chosen; none, where none is.
        runs: the trainings themselves.
    """

    training: Training
    searches: list[Job] = field(default_factory=list)
    judged: list[Job] = field(default_factory=list)
    runs: list[Job] = field(default_factory=list)


class Expansion:
    """All jobs of an item, each once, however many rows share it.

    Args:
        item: to be expanded.
        config: at which scale, with how many searches and trainings.
        folder: for their run folders.

    Attributes:
        jobs: each after those that it needs.
        parts: by row and training.
    """

    def __init__(self, item: Item, config: ReproduceConfig, folder: Path):
        self.config, self.folder = config, folder
        self.jobs: list[Job] = []
        self.parts: dict[str, dict[str, Part]] = {}
        self._known: list[Part] = []
        for label, row in item.rows.items():
            self.parts[label] = {}
            for name, training in row.trainings.items():
                self.parts[label][name] = self._part(label, name, training)

    def _part(self, label: str, name: str, training: Training) -> Part:
        for part in self._known:
            if part.training == training:
                return part
        part = Part(training)
        cells = training.cells
        published = self.config.published or cells.searches is None
        if not published:
            part.searches = self.searches(cells.searches)
            part.judged = self.judged(cells)
        if training.command is not None and (cells.published or not published):
            prefix = ".".join(filter(None, (slug(label), slug(name))))
            part.runs = self.trainings(prefix, label, training, part)
        self._known.append(part)
        return part

    # ------------------------------------------------------------------------------ its jobs

    def searches(self, searches: Searches) -> list[Job]:
        """One a seed."""
        return [
            self._job(f"{slug(searches.name)}-{seed}", searches.name, seed, searches.command)
            for seed in counted(searches.seeds, self.config.searches)
        ]

    def judged(self, cells: Cells) -> list[Job]:
        """What says how good each search's cells are; nothing where none is chosen."""
        searches = self.searches(cells.searches)
        if cells.choice is None:
            return []
        if cells.choice.ranking is None:
            return searches
        return [
            self._job(  # all with one seed, and so with one split
                f"{search.name}.rank", f"{search.name}: ranking", searches[0].seed,
                cells.choice.ranking, "rank", needs=(search.name,),
                cells=lambda search=search: search.folder,
            )
            for search in searches
        ]  # fmt: skip

    def trainings(self, prefix: str, label: str, training: Training, part: Part) -> list[Job]:
        """The runs that are read: of the chosen cells with each seed, or of each search's once."""
        cells, command, config = training.cells, training.command, self.config
        seeds = counted(training.seeds, config.trainings)
        if config.published or cells.searches is None:
            return [
                self._job(f"{prefix}-{seed}.train", label, seed, command, "train",
                          flags=["--genotype", cells.published])
                for seed in seeds
            ]  # fmt: skip
        chosen = cells.choice is not None
        reduction = None
        if cells.reduction is not None:
            reduction = self.searches(cells.reduction.searches), self.judged(cells.reduction)
        jobs = []
        for n, seed in enumerate(seeds if chosen else [job.seed for job in part.searches]):
            name, flags, found = f"{prefix}-{seed}.train", [], None
            judged = part.judged if chosen else [part.searches[n]]
            if training.weights_of:
                before = self._of_weights(label, training.weights_of)[n]
                judged, flags = [before], ["--weights", str(before.folder)]
            else:
                file = self.folder / "cells" / f"{name.removesuffix('.train')}.json"
                found = partial(cells_of, cells, part.searches, judged, reduction, file)
            more = reduction[1] if reduction else []
            needs = tuple(dict.fromkeys(job.name for job in (*judged, *more)))
            jobs.append(self._job(
                name, label, seed, command, "train", flags, needs, found, spares=len(needs) > 1,
            ))  # fmt: skip
        return jobs

    def _of_weights(self, label: str, name: str) -> list[Job]:
        return self.parts[label][name].runs

    def _job(
        self, name: str, label: str, seed: int, command: Command, what: str = "search",
        flags: Sequence[str] = (), needs: tuple[str, ...] = (),
        cells: Callable[[], Path] | None = None, spares: bool = False,
    ) -> Job:  # fmt: skip
        for job in self.jobs:
            if job.name == name:
                return job
        config = self.config
        line = words(command.at(config.scale))
        if config.scale == "paper":
            line += ["--data-root", str(config.root(command.data))]
        line += [*shlex.split(getattr(config, FLAGS_OF[what])), *flags]
        job = Job(
            name, label, seed, command.script, line, self.folder / "runs" / name, needs, cells,
            what, spares, shlex.split(config.launcher),
        )  # fmt: skip
        self.jobs.append(job)
        return job

    def commands(self) -> list[tuple[str, Sequence[str], list[str]]]:
        """What each job's script must accept: see `ReproduceConfig.check_commands`.

        Published cells stand for those that are not there yet.
        """
        return [(job.what, job.script, checkable(job)) for job in self.jobs]


def checkable(job: Job) -> list[str]:
    """Its flags, without what only its run will find."""
    flags = list(job.flags)
    if "--weights" in flags:
        at = flags.index("--weights")
        del flags[at : at + 2]
    if job.cells is not None:
        flags += ["--genotype", "gdas_rnn" if job.script == TRAIN_RNN else "darts_v2"]
    return flags


def counted(seeds: Sequence[int], count: int | None) -> list[int]:
    """These seeds, or so many from the first on."""
    return list(seeds) if count is None else list(range(seeds[0], seeds[0] + count))


# ------------------------------------------------------------------------------------- its cells


def ranked(choice: Choice, judged: Sequence[Job]) -> list[tuple[int, float]]:
    """Of those that have ended, place in `judged` and figure, the winner first.

    Equals are told apart by their validation loss, then by their order.
    """
    sign = 1 if choice.smallest else -1
    found = []
    for n, job in enumerate(judged):
        result = json_object(job.folder / "result.json")
        if result is not None and result.get(choice.figure) is not None:
            figure = result[choice.figure]
            found.append((sign * figure, result.get("valid_loss", 0.0), n, figure))
    return [(n, figure) for _, _, n, figure in sorted(found)]


def winner(choice: Choice, searches: Sequence[Job], judged: Sequence[Job]) -> Job:
    """The search whose cells are taken.

    Raises:
        InputError: too few have ended well.
    """
    order = ranked(choice, judged)
    if choice.place >= len(order):
        raise InputError(
            f"{len(order)} of {len(judged)} searches ended well, and number {choice.place + 1} of "
            "them is wanted; --searches runs more"
        )
    return searches[order[choice.place][0]]


def cells_of(
    cells: Cells, searches: Sequence[Job], judged: Sequence[Job],
    reduction: tuple[Sequence[Job], Sequence[Job]] | None, file: Path,
) -> Path:  # fmt: skip
    """What `--genotype` is given: a search's folder, or a file that is written here.

    Args:
        cells: which.
        searches: of the normal cell.
        judged: see `Part`; without a choice the search itself.
        reduction: likewise of the reduction cell; None: the same.
        file: to write to, unless they are one search's at its end.

    Raises:
        InputError: a search left no such cells.
    """
    normal = winner(cells.choice, searches, judged) if cells.choice else judged[0]
    if cells.share == 1 and reduction is None:
        return normal.folder
    found = snapshot(normal.folder, cells.share)
    of = {"normal": normal.folder.name, "share": cells.share}
    if reduction is not None:
        other = winner(cells.reduction.choice, *reduction)
        found = Genotype(found.name, {
            "normal": found.cells["normal"], "reduction": load(other.folder).cells["reduction"],
        }, {})  # fmt: skip
        of["reduction"] = other.folder.name
    file.parent.mkdir(parents=True, exist_ok=True)
    save(Genotype(file.stem, found.cells, of), file)
    return file


def snapshot(folder: Path, share: float) -> Genotype:
    """What a search had derived when this share of its epochs was behind it."""
    if share == 1:
        return load(folder)
    lines = json_lines(folder / "genotypes.jsonl")
    return parse(json.dumps(lines[round(share * (len(lines) - 1))]["genotype"]), str(folder))
