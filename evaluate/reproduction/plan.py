"""What a paper's table or figure takes: searches, how cells are chosen, trainings, what is read.

A module a paper (`pc_darts.py`, ...) writes its items down in these words; `jobs.py` turns them
into commands, `report.py` sets what they found beside what the paper prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comparison.budget import Flags
from comparison.run_folders import RunFolder

TRAIN, TRAIN_RNN = ("evaluate/train.py",), ("evaluate/train_rnn.py",)


@dataclass(frozen=True)
class Command:
    """A command line but for its seed, its cells and its folder.

    Attributes:
        script: what python is given.
        flags: at every scale.
        paper: further ones at the paper's scale.
        digits: and at digits, after `--preset tiny`.
        data: the folder of --data-root that it reads at the paper's scale; "": that one itself.
        tiny: the preset of the scale digits.
    """

    script: tuple[str, ...]
    flags: Flags = field(default_factory=dict)
    paper: Flags = field(default_factory=dict)
    digits: Flags = field(default_factory=dict)
    data: str = ""
    tiny: str = "digits"

    def at(self, scale: str) -> Flags:
        """Its flags at a scale, but for those of the data."""
        own = self.paper if scale == "paper" else {"--preset": self.tiny, **self.digits}
        return {**own, **self.flags}

    def but(self, **flags: str) -> Command:
        """The same with further flags, at every scale: `but(K="1")`."""
        more = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
        return replace(self, flags={**self.flags, **more})


def retrain(recipe: str, dataset: str = "cifar10", **paper: str) -> Command:
    """`evaluate/train.py` by a paper's recipe; on digits 10 epochs.

    Args:
        recipe: whose.
        dataset: to train and test on.
        **paper: further flags at the paper's scale.
    """
    more = {f"--{name.replace('_', '-')}": value for name, value in paper.items()}
    return Command(
        TRAIN, {}, {"--recipe": recipe, "--dataset": dataset, **more}, {"--epochs": "10"},
        data=dataset if dataset in ("imagenet", "cinic10") else "",
    )  # fmt: skip


@dataclass(frozen=True)
class Searches:
    """A search, once with each of these seeds.

    Attributes:
        name: within the item.
        command: without its seed.
        seeds: of the runs.
    """

    name: str
    command: Command
    seeds: Sequence[int] = (0,)


@dataclass(frozen=True)
class Choice:
    """Which one of several searches' cells are trained.

    Attributes:
        rule: in words, with its place in the paper.
        figure: of a result.json, by which they are ranked.
        ranking: a training whose result that is; None: the search's own.
        smallest: whether the smallest wins.
        place: 0: the first of the ranking, 1: the second.
    """

    rule: str
    figure: str = "valid_top1"
    ranking: Command | None = None
    smallest: bool = False
    place: int = 0


@dataclass(frozen=True)
class Cells:
    """Cells to train.

    Attributes:
        searches: that find them; None: they are published ones in the paper, too.
        choice: of one of the searches; None: the cells of each, trained once with its seed.
        share: how far into the search they were derived; 1: at its end.
        reduction: whose reduction cell is taken; None: their own.
        published: the authors' own cells, by name.
    """

    searches: Searches | None
    choice: Choice | None = None
    share: float = 1
    reduction: Cells | None = None
    published: str = ""


@dataclass(frozen=True)
class Training:
    """What is made of some cells.

    Attributes:
        cells: to train.
        command: that trains them; None: only their searches are looked at.
        seeds: of its runs, where cells were chosen.
        weights_of: the row's training whose network and weights it begins with.
    """

    cells: Cells
    command: Command | None = None
    seeds: Sequence[int] = (0,)
    weights_of: str = ""


Value = Callable[[RunFolder], float | None]


@dataclass(frozen=True)
class Reading:
    """What stands in a column beside the paper's figure.

    Attributes:
        value: of a finished run.
        of: the row's training that is read; "": its only one.
        searches: read the searches of its cells instead.
        seed: of the one run that is read; None: all.
        digits: behind the point.
    """

    value: Value
    of: str = ""
    searches: bool = False
    seed: int | None = None
    digits: int = 2


@dataclass(frozen=True)
class Row:
    """A row of ours.

    Attributes:
        trainings: by name; one alone is "".
        readings: by column, where they differ from the item's.
    """

    trainings: Mapping[str, Training]
    readings: Mapping[str, Reading] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """A table or a figure of a paper.

    Attributes:
        title: what it is.
        cost: in the paper.
        printed: as printed: columns divided by |, the heads first, a row a line; `[..]` behind a
            label cites the paper whose figures these are.
        rows: of ours, by label.
        readings: by column.
        differs: what differs from the paper, or what the paper leaves open.
        axes: two columns to draw against each other; (): the first reading, row by row.
        drawing: a command that draws all searches of the item beside one another.
        shown: pictures that the searches draw.
        cells: published ones to draw.
        counted: figures that need no run, by label and column.
        on_digits: whether there is a scale digits.
    """

    title: str
    cost: str
    printed: str
    rows: Mapping[str, Row] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    differs: str = ""
    axes: tuple[str, ...] = ()
    drawing: Sequence[str] = ()
    shown: Sequence[str] = ()
    cells: Sequence[str] = ()
    counted: Callable[[], Mapping[str, Mapping[str, float]]] | None = None
    on_digits: bool = True

    def table(self) -> tuple[list[str], dict[str, list[str]]]:
        """The heads, and the printed rows by label."""
        head, *lines = (
            [cell.strip() for cell in line.split("|")] for line in self.printed.strip().splitlines()
        )
        return head, {line[0]: line[1:] for line in lines}


def one(cells: Cells, command: Command | None = None, seeds: Sequence[int] = (0,)) -> Row:
    """A row with one training."""
    return Row({"": Training(cells, command, seeds)})
