"""The flags of evaluate/compare.py, and their checks."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from common.data.datasets import Dataset
from common.errors import InputError
from common.networks.fits import check_candidates
from common.networks.table import read_table
from common.run.cli import given, parse
from common.run.flags import Between, OperationsFile, check_bounds
from common.run.operations import flag_words, recorded
from comparison.budget import TRAIN, Budget, Flags, budget_of, words
from comparison.execution import EXECUTION_FLAGS, Execution
from comparison.methods import DARTS_ONLY, METHODS, known
from comparison.paired import MOST_SEEDS
from retraining.config import chosen_preset
from retraining.loop import METHOD as RETRAIN

OWN_CELLS = {"digits": 1, "cifar10": 5}  # of NAS-Bench-201's stages
# May differ between two starts of one comparison; any other difference would mix budgets.
MAY_CHANGE = EXECUTION_FLAGS | {
    "methods", "seeds", "output", "runs", "random_cells",
    "data_root",  # images may have moved; their SHA-256 must be the same
}  # fmt: skip


@dataclass(frozen=True)
class CompareConfig(Execution):
    """What to compare, under which budget, and where to write it."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Any of pc_darts gdas gdas_frc edas itnas pr_darts darts darts2 random."""
    runs: tuple[str, ...] = ()
    """Start nothing: read these run folders, or folders that hold some."""
    output: str | None = None
    """Folder for runs and report; the same command with the same folder continues."""
    seeds: Annotated[int, Between(1, 1000)] = 3
    """Number of seeds per method: 0, 1, ..."""
    random_cells: Annotated[int, Between(0, 1000)] = 2
    """Random cells to retrain per seed, the baseline of the gain. 0: none."""
    hessian: bool = False
    """Every search records the Hessian's dominant eigenvalue in alpha (costly)."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """Preset of all searches and retrainings. cifar10: retrained by DARTS' recipe for 600 epochs;
    digits: no download, retrained for 10 epochs."""
    budget: Literal["matched", "paper"] = "matched"
    """matched: all searches get the same images, epochs, batch size, supernet size and learning
    rate of the weights; paper: each keeps its own preset. Retraining is the same for all."""
    space: Literal["darts", "nasbench201"] = "darts"
    """Search space. nasbench201: nothing is retrained; --table has the accuracy of every cell."""
    table: str | None = None
    """CSV file with the accuracies of all NAS-Bench-201 cells."""
    dataset: Dataset | None = None
    """Data set in place of the preset's."""
    data_root: str | None = None
    """Folder of the data set, as in the searches."""
    image_size: Annotated[int | None, Between(4, 4096)] = None
    """Scale and crop the images of a folder to this many pixels."""
    limit_images: Annotated[int | None, Between(1, 10**9)] = None
    """Search on only this many training images."""
    search_epochs: Annotated[int | None, Between(1, 10**6)] = None
    """Epochs of each search (matched; by default digits 9, cifar10 50)."""
    search_batch_size: Annotated[int | None, Between(1, 2**20)] = None
    """Batch size of each search (matched; 32, 64)."""
    candidates: tuple[str, ...] | None = None
    """Operations that every search and random cell chooses among, by name; by default each
    method's own."""
    operations: OperationsFile = None
    search_channels: Annotated[int | None, Between(1, 4096)] = None
    """Channels in the supernet's first cell (matched; 16)."""
    search_cells: Annotated[int | None, Between(1, 200)] = None
    """Cells of the supernet (matched; 3, 8)."""
    search_learning_rate: Annotated[float | None, Between(0, 1e38, above=True)] = None
    """Learning rate of the supernet's weights (matched; 0.05, 0.025)."""
    search_arch_learning_rate: Annotated[float | None, Between(0, 1e38)] = None
    """Learning rate of all alphas but EDAS' (matched; by default each method's)."""
    train_flags: str = ""
    """More flags for every retraining, in one string: --train-flags='--epochs 6 --channels 8'."""

    def check(self) -> None:
        """Check the flags before anything starts.

        Raises:
            InputError: naming the flag.
        """
        self._check_space()
        if self.runs:
            return
        check_bounds(self)
        self.check_execution()
        names = self.names()
        check_candidates(self.candidates, self.search_budget().channels, self.operations)
        if self.output is None:
            raise InputError("--output: name the folder for runs and report")
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
        if "pr_darts" in names and (self.search_epochs or 3) < 3:
            raise InputError(
                f"--search-epochs {self.search_epochs}: pr_darts searches in cycles and needs 3"
            )
        if self.train_flags:
            self._check_retraining()

    def _check_space(self) -> None:
        """Check the flags of the search space, and the table.

        Raises:
            InputError: they do not go together, or the table is not one.
        """
        if self.space == "darts":
            if self.table is not None:
                raise InputError(f"--table {self.table}: only for --space nasbench201")
            return
        if self.table is None:
            raise InputError("--space nasbench201: add --table, the accuracies of all cells")
        if self.train_flags:
            raise InputError(
                f"--train-flags {self.train_flags!r}: --space nasbench201 retrains nothing"
            )
        read_table(self.table)

    def _check_retraining(self) -> None:
        """Check now that evaluate/train.py accepts its flags; it starts only after the searches.

        Raises:
            InputError: it does not, or would not report test accuracies.
        """
        try:
            added = self.more_train_words()
            for name in ("--genotype", "--seed", "--output", "--threads", "--resume"):
                if given(added, name) is not None:
                    raise InputError(f"{name} is set for each run; leave it out")
            line = [*words(self.retraining_flags()), *added, "--genotype", "darts_v2"]
            if parse(chosen_preset(line), RETRAIN, line, "").held_out != "test":
                raise InputError("a comparison is of test accuracies; leave --held-out out")
        except ValueError as error:  # InputError is one; shlex has its own
            raise InputError(f"--train-flags {self.train_flags!r}: {error}") from None
        except SystemExit:
            raise InputError(
                f"--train-flags {self.train_flags!r}: evaluate/train.py refuses them, see above"
            ) from None

    def names(self) -> list[str]:
        """The methods, each once.

        Raises:
            InputError: an unknown method, or none.
        """
        names = known(self.methods)
        if self.space == "darts":
            return names
        unfit = [name for name in names if name in DARTS_ONLY]
        if unfit and self.methods != tuple(METHODS):  # the default
            raise InputError(
                f"--methods {unfit[0]}: cannot search --space {self.space}; leave it out"
            )
        return [name for name in names if name not in unfit]

    def given(self) -> dict[str, Any]:
        """The `--search-*` flags by field of `Budget`; None where not given."""
        names = "epochs", "batch_size", "channels", "cells", "learning_rate", "arch_learning_rate"
        return {name: getattr(self, f"search_{name}") for name in names}

    def search_budget(self) -> Budget:
        """The budget of every search."""
        given = self.given()
        if self.space != "darts" and given["cells"] is None:
            given["cells"] = OWN_CELLS[self.preset]
        return budget_of(self.preset, self.budget == "matched", given)

    def data_flags(self, search: bool) -> Flags:
        """The flags of the data set, the same for all runs; only searches limit its images."""
        root = self.data_root
        if root is None and self.preset != "digits":
            root = "data"
        flags = {
            "--dataset": self.dataset,
            "--data-root": root and Path(root).resolve(),  # runs start in another folder
            "--image-size": self.image_size,
            "--limit-images": self.limit_images if search else None,
        }
        return {flag: str(value) for flag, value in flags.items() if value is not None}

    def candidate_flags(self) -> Flags:
        """The flags of a search's candidates."""
        return {} if self.candidates is None else {"--candidates": self.candidates}

    def operation_words(self) -> list[str]:
        """The file of operations, for all starts of all runs."""
        return flag_words(self.operations and str(Path(self.operations).resolve()))
    def space_flags(self) -> Flags:
        """The flags of the search space."""
        if self.space == "darts":
            return {}
        return {"--space": self.space, "--table": str(Path(self.table).resolve())}

    def retraining_flags(self) -> Flags:
        """The flags of every retraining, without seed and cells."""
        return {"--preset": self.preset, **TRAIN[self.preset], **self.data_flags(False)}

    def more_train_words(self) -> list[str]:
        """The words of --train-flags."""
        return shlex.split(self.train_flags)

    def pinned(self) -> dict[str, Any]:
        """The flags that all starts of one comparison must share."""
        every = dataclasses.asdict(self)
        every |= recorded(self.operations)  # the file may move
        return {name: value for name, value in every.items() if name not in MAY_CHANGE}
