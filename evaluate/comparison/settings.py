"""The flags of evaluate/compare.py, and what they must not be."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from common.data.datasets import Dataset
from common.errors import InputError
from common.run.cli import given, parse
from common.run.flags import Between, check_bounds
from comparison.budget import TRAIN, Budget, Flags, budget_of, words
from comparison.methods import METHODS
from comparison.paired import MOST_SEEDS
from comparison.plan import Row, rows_of
from retraining.config import chosen_preset
from retraining.loop import METHOD as RETRAIN

# May differ between two starts of one comparison; whatever else does would mix budgets.
MAY_CHANGE = {
    "methods", "seeds", "jobs", "threads", "output", "runs", "random_cells",
    "data_root",  # images may have moved; that they are the same is checked by their SHA-256
}  # fmt: skip


@dataclass(frozen=True)
class CompareConfig:
    """What to compare, at which budget, and where to put it."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Any of pc_darts gdas gdas_frc edas itnas pr_darts darts darts2 random."""
    runs: tuple[str, ...] = ()
    """Start nothing: read these run folders, or folders that hold some."""
    output: str | None = None
    """Where runs and report go; the same command with the same folder goes on."""
    seeds: Annotated[int, Between(1, 1000)] = 3
    """Each method with the seeds 0, 1, ... so many of them."""
    jobs: Annotated[int | None, Between(1, 1024)] = None
    """Runs at a time; by default one a GPU, or one."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads of each; by default the usable cores divided by the runs at a time."""
    random_cells: Annotated[int, Between(0, 1000)] = 2
    """Random cells a seed that are retrained, not chosen: what a gain is over. 0: none."""
    hessian: bool = False
    """Let every search record the Hessian's dominant eigenvalue in alpha (costly)."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """Of every search and retraining. cifar10: retrained by DARTS' recipe, 600 epochs, whatever
    found the cells; digits: nothing to download, retrained for 10 epochs."""
    budget: Literal["matched", "paper"] = "matched"
    """matched: all searches get the same images, passes over them, batch, size of the supernet and
    learning rate of its weights; paper: each its preset's own. Retraining is the same for all."""
    dataset: Dataset | None = None
    """In place of the preset's."""
    data_root: str | None = None
    """Where it lies: see the searches' own flag."""
    image_size: Annotated[int | None, Between(4, 4096)] = None
    """Scale and crop the images of a folder to this many pixels."""
    limit_images: Annotated[int | None, Between(1, 10**9)] = None
    """Search on only this many training images."""
    search_epochs: Annotated[int | None, Between(1, 10**6)] = None
    """Passes of each search over its images (matched; by default digits 9, cifar10 50)."""
    search_batch_size: Annotated[int | None, Between(1, 2**20)] = None
    """Images of a step (matched; 32, 64)."""
    search_channels: Annotated[int | None, Between(1, 4096)] = None
    """Of the supernets' first cell (matched; 16)."""
    search_cells: Annotated[int | None, Between(1, 200)] = None
    """Of the supernets (matched; 3, 8)."""
    search_learning_rate: Annotated[float | None, Between(0, 1e38, above=True)] = None
    """Of the supernets' weights (matched; 0.05, 0.025)."""
    search_arch_learning_rate: Annotated[float | None, Between(0, 1e38)] = None
    """Of all alphas but EDAS', which move edge by edge (matched; by default each method's)."""
    train_flags: str = ""
    """Further flags of every retraining, in one string: --train-flags='--epochs 6 --channels 8'."""

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            InputError: naming the flag.
        """
        if self.runs:
            return
        check_bounds(self)
        rows = self.rows()
        if self.output is None:
            raise InputError("--output: say where runs and report go")
        if self.seeds > MOST_SEEDS:
            raise InputError(
                f"--seeds {self.seeds}: must be {MOST_SEEDS} or less, as the exact test goes "
                "through all patterns of signs"
            )
        if self.budget == "paper":
            for name, value in self.given().items():
                if value is not None:
                    raise InputError(
                        f"--search-{name.replace('_', '-')} {value}: --budget paper leaves each "
                        "method its own; use --budget matched"
                    )
        pr_darts = any(row.method == "pr_darts" for row in rows)
        if pr_darts and (self.search_epochs or 3) < 3:
            raise InputError(
                f"--search-epochs {self.search_epochs}: pr_darts searches in cycles and needs 3"
            )
        if self.train_flags:
            self._check_retraining()

    def _check_retraining(self) -> None:
        """See that evaluate/train.py takes its flags: it starts when the searches are over.

        Raises:
            InputError: it does not, or would not report on the test images.
        """
        try:
            added = self.more_train_words()
            for name in ("--genotype", "--seed", "--output", "--threads", "--resume"):
                if given(added, name) is not None:
                    raise InputError(f"{name} is not for all; leave it out")
            line = [*words(self.retraining_flags()), *added, "--genotype", "darts_v2"]
            held_out = parse(chosen_preset(line), RETRAIN, line, "").held_out
        except ValueError as error:  # InputError is one; shlex has its own
            raise InputError(f"--train-flags {self.train_flags!r}: {error}") from None
        except SystemExit:
            raise InputError(
                f"--train-flags {self.train_flags!r}: evaluate/train.py does not take them, as it "
                "says above"
            ) from None
        if held_out != "test":
            raise InputError(
                f"--train-flags {self.train_flags!r}: a comparison is of test accuracies; leave "
                "--held-out out"
            )

    def rows(self) -> list[Row]:
        """What is run.

        Raises:
            InputError: an unknown method, or none.
        """
        if not self.methods:
            raise InputError(f"--methods: name some of {', '.join(METHODS)}")
        return rows_of(self.methods)

    def given(self) -> dict[str, Any]:
        """What of the matched budget was given in place of the preset's."""
        names = "epochs", "batch_size", "channels", "cells", "learning_rate", "arch_learning_rate"
        return {name: getattr(self, f"search_{name}") for name in names}

    def search_budget(self) -> Budget:
        """Of every search."""
        return budget_of(self.preset, self.budget == "matched", self.given())

    def data_flags(self, search: bool) -> Flags:
        """Of the images: the same for all, but that a search may use fewer."""
        root = None if self.data_root is None else str(Path(self.data_root).resolve())
        if root is None and self.preset != "digits":
            root = str(Path("data").resolve())  # runs are started elsewhere
        limit = self.limit_images if search else None
        flags = {
            "--dataset": self.dataset, "--data-root": root, "--image-size": self.image_size,
            "--limit-images": limit,
        }  # fmt: skip
        return {flag: str(value) for flag, value in flags.items() if value is not None}

    def retraining_flags(self) -> Flags:
        """Of every retraining, but seed and cells."""
        return {"--preset": self.preset, **TRAIN[self.preset], **self.data_flags(False)}

    def more_train_words(self) -> list[str]:
        """The words of --train-flags."""
        return shlex.split(self.train_flags)

    def pinned(self) -> dict[str, Any]:
        """What two starts of one comparison must have in common."""
        every = dataclasses.asdict(self)
        return {name: value for name, value in every.items() if name not in MAY_CHANGE}
