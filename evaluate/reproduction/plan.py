"""The parts of an item: searches, the choice of cells, trainings, and what is read of them.

Each paper's module (`pc_darts.py`, ...) describes its tables and figures by these; `jobs.py` turns
them into commands, and `report.py` puts their results beside the paper's.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comparison.run_folders import RunFolder
from published.tables import Table

TRAIN, TRAIN_RNN = "evaluate/train.py", "evaluate/train_rnn.py"


@dataclass(frozen=True)
class Command:
    """A command line without seed, cells and output.

    Attributes:
        script: Python's arguments before the flags.
        flags: at both scales.
        paper: more flags at the scale paper.
        digits: more flags at the scale digits.
        data: subfolder of --data-root that it reads at the scale paper; "": --data-root itself.
        tiny: preset of the scale digits.
    """

    script: str
    flags: str = ""
    paper: str = ""
    digits: str = ""
    data: str = ""
    tiny: str = "digits"

    def at(self, scale: str) -> list[str]:
        """Its flags at a scale, without --data-root."""
        own = self.paper if scale == "paper" else f"--preset {self.tiny} {self.digits}"
        return shlex.split(f"{own} {self.flags}")

    def but(self, flags: str) -> Command:
        """The same command with more flags at both scales."""
        return replace(self, flags=f"{self.flags} {flags}")


def retrain(recipe: str, dataset: str = "cifar10", more: str = "") -> Command:
    """`evaluate/train.py` by a paper's recipe, or for 10 epochs at the scale digits.

    Args:
        recipe: of `retraining.recipes`.
        dataset: to train and test on.
        more: flags at the scale paper.
    """
    return Command(
        TRAIN, paper=f"--recipe {recipe} --dataset {dataset} {more}", digits="--epochs 10",
        data=dataset if dataset in ("imagenet", "cinic10") else "",
    )  # fmt: skip


@dataclass(frozen=True)
class Searches:
    """A search, run once per seed; its name is unique in an item."""

    name: str
    command: Command
    seeds: Sequence[int] = (0,)


@dataclass(frozen=True)
class Choice:
    """The rule that picks the cells of one of several searches.

    Attributes:
        rule: in words, with its section of the paper.
        figure: the value of result.json that ranks them.
        ranking: a training that gives this value; None: the search itself.
        smallest: whether the smallest value wins.
        place: 0 for the first of the ranking, 1 for the second.
    """

    rule: str
    figure: str = "valid_top1"
    ranking: Command | None = None
    smallest: bool = False
    place: int = 0


@dataclass(frozen=True)
class Cells:
    """The cells to train.

    Attributes:
        searches: that find them; None: the paper, too, takes published ones.
        choice: of one search; None: the cells of every search, trained with its seed.
        share: of the search's epochs after which they are derived.
        reduction: where the reduction cell comes from; None: from the same search.
        published: name of the authors' cells.
    """

    searches: Searches | None
    choice: Choice | None = None
    share: float = 1
    reduction: Cells | None = None
    published: str = ""


@dataclass(frozen=True)
class Training:
    """The training of some cells.

    Attributes:
        cells: to train.
        command: that trains them; None: only the searches are run.
        seeds: of the trainings of chosen cells.
        weights_of: the row's training that gives the initial weights.
    """

    cells: Cells
    command: Command | None = None
    seeds: Sequence[int] = (0,)
    weights_of: str = ""


Row = Mapping[str, Training]  # by name; the only one of a row is ""


def one(cells: Cells, command: Command | None = None) -> Row:
    """A row with one training."""
    return {"": Training(cells, command)}


@dataclass(frozen=True)
class Reading:
    """What a column shows beside the paper's figure.

    Attributes:
        value: of a finished run.
        digits: after the decimal point.
        searches: whether the searches are read, not the trainings.
        training: the training of the row that is read; "": its first.
        seed: of the only run that is read; None: all.
    """

    value: Callable[[RunFolder], float | None]
    digits: int = 2
    searches: bool = False
    training: str = ""
    seed: int | None = None

    def of(self, training: str, seed: int | None = None) -> Reading:
        """The same value of another training, or of one seed."""
        return replace(self, training=training, seed=seed)


@dataclass(frozen=True)
class Item:
    """A table or a figure of a paper.

    Attributes:
        title: what it shows.
        cost: of the experiment in the paper.
        printed: the paper's table.
        rows: our trainings, by the labels of the paper's rows.
        readings: by column.
        differs: differences from the paper, and what the paper leaves open.
        axes: two columns to draw against each other; (): the first reading, row by row.
        drawing: a command that draws all searches together.
        shown: names of pictures that the searches draw.
        cells: published cells to draw.
        counted: values that need no run, by label and column.
        on_digits: whether it has the scale digits.
    """

    title: str
    cost: str
    printed: Table = Table()
    rows: Mapping[str, Row] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    differs: str = ""
    axes: tuple[str, ...] = ()
    drawing: Sequence[str] = ()
    shown: Sequence[str] = ()
    cells: Sequence[str] = ()
    counted: Callable[[], Mapping[str, Mapping[str, float]]] | None = None
    on_digits: bool = True

    def trainings(self) -> list[Training]:
        """Those of all rows."""
        return [training for row in self.rows.values() for training in row.values()]
