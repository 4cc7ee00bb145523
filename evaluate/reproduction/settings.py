"""The flags of evaluate/reproduce.py, and what they must not be."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from common.errors import InputError
from common.run.cli import given, parse
from common.run.flags import Between, check_bounds, flag
from detection import train_detector
from reproduction import edas, gdas, itnas, pc_darts, pr_darts
from reproduction.plan import TRAIN, TRAIN_RNN, Item
from retraining import config as retraining
from retraining import loop, rnn

PAPERS = {
    "pc_darts": pc_darts.ITEMS, "gdas": gdas.ITEMS, "edas": edas.ITEMS, "itnas": itnas.ITEMS,
    "pr_darts": pr_darts.ITEMS,
}  # fmt: skip
FLAGS_OF = {"search": "search_flags", "rank": "rank_flags", "train": "train_flags"}
# May differ between two starts of one item.
FREE = {
    "output", "searches", "trainings", "data_root", "jobs", "threads", "launcher", "list", "dry_run",
}  # fmt: skip
OWN = ("--seed", "--output", "--threads", "--resume", "--genotype", "--weights", "--data-root")


@dataclass(frozen=True)
class ReproduceConfig:
    """Which table or figure, at which scale, and where to put it."""

    paper: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PAPER")] = ""
    """pc_darts, gdas, edas, itnas or pr_darts."""
    item: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ITEM")] = ""
    """A table or figure of it, as table1 or fig3; --list shows all."""
    output: str | None = None
    """Where runs and the table go; the same command with the same folder goes on."""
    list: bool = False
    """Show every item (of the paper named): what it is, its cost in the paper, its commands."""
    dry_run: bool = False
    """Print all commands with all flags, and start none."""

    scale: Literal["paper", "digits"] = "paper"
    """paper: its experiment to the letter; digits: the same plan in minutes on two CPU cores."""
    published: bool = False
    """Train the authors' published cells instead of searching."""
    searches: Annotated[int | None, Between(1, 1000)] = None
    """Of each kind, in place of the paper's number; their seeds count on from its first."""
    trainings: Annotated[int | None, Between(1, 1000)] = None
    """Of chosen cells, likewise."""
    search_flags: str = ""
    """Further flags of every search, in one string: --search-flags='--epochs 10'."""
    rank_flags: str = ""
    """Of the trainings by which cells are chosen."""
    train_flags: str = ""
    """Of all other trainings."""

    data_root: str = "data"
    """Where CIFAR and SVHN lie (or are downloaded to), and in folders of these names imagenet,
    cinic10, coco, ptb and wikitext2."""
    jobs: Annotated[int | None, Between(1, 1024)] = None
    """Runs at a time; by default one a GPU, or one."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads of each; by default the usable cores divided by the runs at a time."""
    launcher: str = ""
    """What starts each run, as "accelerate launch --num_processes 8"; by default this Python."""

    def chosen(self) -> Item:
        """The item.

        Raises:
            InputError: there is none of this name; near names.
        """
        if self.paper not in PAPERS:
            raise InputError(f"{_unknown('paper', self.paper, PAPERS)}; --list shows all items")
        items = PAPERS[self.paper]
        if self.item not in items:
            raise InputError(
                f"{_unknown(f'item of {self.paper}', self.item, items)}; --list shows them"
            )
        return items[self.item]

    def check(self) -> None:
        """Refuse what cannot work, before anything is written.

        Raises:
            InputError: naming the flag.
        """
        check_bounds(self)
        item = self.chosen()
        if self.scale == "digits" and not item.on_digits:
            raise InputError(f"--scale digits: {self.paper} {self.item} has none; use paper")
        if self.published and not any(
            t.cells.published for row in item.rows.values() for t in row.trainings.values()
        ):
            raise InputError(f"--published: {self.paper} {self.item} has no published cells")
        for label, row in item.rows.items():
            for training in row.trainings.values():
                choice = training.cells.choice
                if choice is not None and self.searches and self.searches <= choice.place:
                    raise InputError(
                        f"--searches {self.searches}: {label} takes number {choice.place + 1} of its "
                        f"searches; give {choice.place + 1} or more"
                    )
        for name in (*FLAGS_OF.values(), "launcher"):
            try:
                words = shlex.split(getattr(self, name))
            except ValueError as error:  # an open quote
                raise InputError(f"{flag(name)} {getattr(self, name)!r}: {error}") from None
            if name == "launcher" and words and shutil.which(words[0]) is None:
                raise InputError(f"--launcher {words[0]}: there is no such program")

    def check_commands(self, commands: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> None:
        """See that every command takes its flags, before the first is started.

        Args:
            commands: of each search, rank or train; the script; its flags.

        Raises:
            InputError: one does not, and which flag of ours it is.
        """
        for what, name in FLAGS_OF.items():
            given_words = shlex.split(getattr(self, name))
            for word in OWN:
                if given(given_words, word) is not None:
                    raise InputError(f"{flag(name)}: {word} is set for each run; leave it out")
            if given_words and not any(kind == what for kind, _, _ in commands):
                raise InputError(f"{flag(name)}: {self.paper} {self.item} runs no such command")
        for what, script, line in commands:
            name = FLAGS_OF[what]
            told = f"{flag(name)} {getattr(self, name)!r}: "
            try:
                settings_of(script, line)
            except InputError as error:
                raise InputError(f"{told if getattr(self, name) else ''}{error}") from None
            except SystemExit:
                raise InputError(
                    f"{told}{' '.join(script)} does not take them, as it says above"
                ) from None

    def pinned(self) -> dict[str, Any]:
        """What two starts of one item must have in common."""
        every = dataclasses.asdict(self)
        return {name: value for name, value in every.items() if name not in FREE}

    def root(self, data: str) -> Path:
        """Where these data lie."""
        return Path(self.data_root).expanduser().resolve() / data


def settings_of(script: Sequence[str], line: Sequence[str]) -> Any:
    """The settings that a command comes to with these flags.

    Raises:
        InputError: a value is refused.
        SystemExit: a flag is none of the command's.
    """
    line = list(line)
    if tuple(script) == TRAIN:
        return parse(retraining.chosen_preset(line), loop.METHOD, line, "")
    if tuple(script) == TRAIN_RNN:
        return parse(rnn.chosen_preset(line), rnn.METHOD, line, "")
    if tuple(script) == ("evaluate/detect.py",):
        return parse({"coco": train_detector.DetectConfig()}, train_detector.METHOD, line, "")
    own = script[-1] if script[0] == "-m" else {
        "gdas/rnn_search.py": "gdas.rnn_config"
    }.get(script[0], script[0].replace("/search.py", ".config"))
    module = importlib.import_module(own)
    return parse(module.PRESETS, module.METHOD, line, "")


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3, 0.4)
    said = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return f"{name or '(nothing)'}: is no {what}; {said}"
