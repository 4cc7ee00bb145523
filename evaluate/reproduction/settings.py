"""The flags of evaluate/reproduce.py, and their checks."""

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
from comparison.execution import EXECUTION_FLAGS, Execution
from comparison.jobs import Job
from detection import config as detection
from reproduction import edas, gdas, itnas, pc_darts, pr_darts
from reproduction.plan import TRAIN, TRAIN_RNN, Item
from retraining import config as retraining
from retraining import loop, rnn

PAPERS = {
    "pc_darts": pc_darts.ITEMS, "gdas": gdas.ITEMS, "edas": edas.ITEMS, "itnas": itnas.ITEMS,
    "pr_darts": pr_darts.ITEMS,
}  # fmt: skip
KINDS = ("search", "rank", "train")  # of jobs; each has its flag: --search-flags ...
# Flags that may differ between two starts with one folder.
FREE = EXECUTION_FLAGS | {
    "output", "searches", "trainings", "data_root", "launcher", "list", "dry_run",
}  # fmt: skip
OWN = ("--seed", "--output", "--threads", "--resume", "--genotype", "--weights", "--data-root")


@dataclass(frozen=True)
class ReproduceConfig(Execution):
    """Which table or figure, at which scale, and where to put it."""

    paper: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PAPER")] = ""
    """pc_darts, gdas, edas, itnas or pr_darts."""
    item: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ITEM")] = ""
    """A table or figure of it, as table1 or fig3; --list shows all."""
    output: str | None = None
    """Folder of the runs and the table; the same command with the same folder continues."""
    list: bool = False
    """Show every item (of PAPER): its title, its cost in the paper, its commands."""
    dry_run: bool = False
    """Print all commands with all flags, and start none."""

    scale: Literal["paper", "digits"] = "paper"
    """paper: the paper's experiment; digits: the same plan in minutes on two CPU cores."""
    published: bool = False
    """Train the authors' published cells instead of searching."""
    searches: Annotated[int | None, Between(1, 1000)] = None
    """Runs of each search, instead of the paper's number; seeds count from the paper's first."""
    trainings: Annotated[int | None, Between(1, 1000)] = None
    """Trainings of chosen cells, likewise."""
    search_flags: str = ""
    """More flags for every search, in one string: --search-flags='--epochs 10'."""
    rank_flags: str = ""
    """More flags for the trainings that rank searches."""
    train_flags: str = ""
    """More flags for all other trainings."""

    data_root: str = "data"
    """Folder of CIFAR and SVHN (downloaded if missing); the others are its subfolders imagenet,
    cinic10, coco, ptb and wikitext2."""
    launcher: str = ""
    """Command that starts each run, as "accelerate launch --num_processes 8"; by default Python."""

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
        """Check the flags, before anything is written.

        Raises:
            InputError: naming the flag.
        """
        check_bounds(self)
        self.check_execution()
        item = self.chosen()
        if self.scale == "digits" and not item.on_digits:
            raise InputError(f"--scale digits: {self.paper} {self.item} has none; use paper")
        if self.published and not any(t.cells.published for t in item.trainings()):
            raise InputError(f"--published: {self.paper} {self.item} has no published cells")
        for label, row in item.rows.items():
            least = max(t.cells.choice.place + 1 if t.cells.choice else 1 for t in row.values())
            if self.searches and self.searches < least:
                raise InputError(
                    f"--searches {self.searches}: {label} takes number {least} of its searches; "
                    f"give {least} or more"
                )
        for name in (*(f"{kind}_flags" for kind in KINDS), "launcher"):
            try:
                words = shlex.split(getattr(self, name))
            except ValueError as error:  # an open quote
                raise InputError(f"{flag(name)} {getattr(self, name)!r}: {error}") from None
            if name == "launcher" and words and shutil.which(words[0]) is None:
                raise InputError(f"--launcher {words[0]}: no such program")

    def check_commands(self, jobs: Sequence[Job]) -> None:
        """Check that every job's command accepts its flags, before the first one starts.

        Raises:
            InputError: a command refuses them; names the flag of ours.
        """
        for kind in KINDS:
            words, name = shlex.split(self.flags_of(kind)), flag(f"{kind}_flags")
            for word in OWN:
                if given(words, word) is not None:
                    raise InputError(f"{name}: {word} is set for each run; leave it out")
            if words and not any(job.what == kind for job in jobs):
                raise InputError(f"{name}: {self.paper} {self.item} runs no such command")
        for job in jobs:
            own = self.flags_of(job.what)
            told = f"{flag(f'{job.what}_flags')} {own!r}: "
            try:
                settings_of(job)
            except InputError as error:
                raise InputError(f"{told if own else ''}{error}") from None
            except SystemExit:
                raise InputError(f"{told}{' '.join(job.script)} refuses them, see above") from None

    def flags_of(self, kind: str) -> str:
        """The flags that a user adds to jobs of a kind."""
        return getattr(self, f"{kind}_flags")

    def pinned(self) -> dict[str, Any]:
        """What must be the same at each start with one folder."""
        every = dataclasses.asdict(self)
        return {name: value for name, value in every.items() if name not in FREE}

    def root(self, data: str) -> Path:
        """The folder of a data set."""
        return Path(self.data_root).expanduser().resolve() / data


def settings_of(job: Job) -> Any:
    """The config that a job's command makes of its flags.

    A published cell stands for cells that do not exist yet.

    Raises:
        InputError: a value is refused.
        SystemExit: the command has no such flag.
    """
    name, line = job.script[-1], without(job.flags, "--weights")
    if job.cells is not None:
        line += ["--genotype", "gdas_rnn" if name == TRAIN_RNN else "darts_v2"]
    if name == TRAIN:
        return parse(retraining.chosen_preset(line), loop.METHOD, line, "")
    if name == TRAIN_RNN:
        return parse(rnn.chosen_preset(line), rnn.METHOD, line, "")
    if name == "evaluate/detect.py":
        return parse({"coco": detection.DetectConfig()}, detection.METHOD, line, "")
    own = name.removesuffix(".py").replace("/", ".").replace("search", "config")
    module = importlib.import_module(own)  # gdas/rnn_search.py -> gdas.rnn_config
    return parse(module.PRESETS, module.METHOD, line, "")


def without(flags: Sequence[str], *names: str) -> list[str]:
    """A command line without these flags and their values."""
    return [
        word for before, word in zip(("", *flags), flags, strict=False)
        if word not in names and before not in names
    ]  # fmt: skip


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3, 0.4)
    said = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return f"{name or '(nothing)'}: is no {what}; {said}"
