"""How the papers come to the figures that they print, each as one command.

    python evaluate/protocol.py pc_darts --output FOLDER
        five searches; each one's cells are trained on 90 % of the training images and ranked by the
        other 10 %; the best are trained on all of them and tested (Table 1)
    python evaluate/protocol.py gdas --output FOLDER
        four searches, the best by validation (evaluate/best_of.py), trained and tested (4.2)
    python evaluate/protocol.py pr_darts --output FOLDER --genotype pr_darts_dl2
        trained with three seeds; the mean of each one's last five epochs, averaged (IV-C)

Searches and trainings are the repository's commands, started one after another; their run folders
lie in FOLDER. Stopped, the same command goes on within the run that it was in. In a minute or two:

    python evaluate/protocol.py pc_darts --output FOLDER --preset digits --searches 2 --epochs 2
        --rank-epochs 2 --search-flags="--epochs 2 --warmup-epochs 1"
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from common.errors import InputError, errors_are_messages
from common.files import write_whole
from common.networks.genotype import load
from common.run.cli import at_home, parse
from common.run.flags import Between, check_bounds, flag
from retraining.config import chosen_preset
from retraining.launch import result
from retraining.loop import METHOD

FREE = ("data_root", "threads", "launcher")  # what may differ when a protocol goes on


@dataclass(frozen=True)
class Protocol:
    """What every protocol asks for."""

    recipe: ClassVar[str]
    transfers: ClassVar[bool] = False  # searched on CIFAR-10, whatever CIFAR it is trained on
    output: str
    """The folder for all its runs and its result; one that is there is gone on with."""
    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's own settings throughout; digits: minutes on two CPU cores."""
    dataset: str | None = None
    """The images, as of the commands themselves; by default the preset's. For cifar100, GDAS and
    PR-DARTS search on CIFAR-10, as in their papers (--search-flags="--dataset cifar100": there)."""
    data_root: str = "data"
    """Where they lie."""
    limit_images: Annotated[int | None, Between(1, 10**9)] = None
    """Use only this many training images."""
    seed: Annotated[int, Between(0, 2**63 - 1)] = 2
    """Of the first search and the first training; others count on from it."""
    epochs: Annotated[int | None, Between(1, 10**6)] = None
    """Of the final trainings; by default the recipe's."""
    cutout: Annotated[int | None, Between(0, 4096)] = None
    """Side of the square cut out in every training; 0: none; by default the recipe's."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads of each process."""
    search_flags: str = ""
    """More flags for the searches, in one word: --search-flags="--epochs 10"."""
    train_flags: str = ""
    """More flags for all trainings, in one word."""
    launcher: str = ""
    """What starts the commands, e.g. "accelerate launch --mixed_precision bf16"; by default this
    Python."""

    def images(self, dataset: str | None) -> list[str]:
        """The flags that searches and trainings share, for these images."""
        words = ["--data-root", self.data_root]
        shared = {"limit_images": self.limit_images, "threads": self.threads}
        for name, value in {"dataset": dataset, **shared}.items():
            if value is not None:
                words += [flag(name), str(value)]
        return words

    def searched(self) -> str | None:
        """The images that searches see."""
        return "cifar10" if self.transfers and self.dataset == "cifar100" else self.dataset

    def search(self, name: str, script: str, *words: str) -> str:
        """A search in the folder of this name, whose path is returned."""
        folder = Path(self.output) / name
        images = self.images(self.searched())
        flags = ["--preset", self.preset, *images, *words, *shlex.split(self.search_flags)]
        result(folder, script, flags, self.launcher)
        return str(folder)

    def flags(self, genotype: str, *words: str) -> list[str]:
        """Of a training."""
        settings = ["--preset", "digits"] if self.preset == "digits" else ["--recipe", self.recipe]
        flags = [*settings, *self.images(self.dataset), *words]
        if self.cutout is not None:
            flags += ["--cutout", str(self.cutout)]
        return [*flags, *shlex.split(self.train_flags), "--genotype", genotype]

    def train(self, name: str, genotype: str, *words: str) -> dict[str, Any]:
        """The result of a training in the folder of this name."""
        folder = Path(self.output) / name
        return result(folder, "evaluate/train.py", self.flags(genotype, *words), self.launcher)

    def final(self, name: str, genotype: str, seed: int) -> dict[str, Any]:
        """The result of a training on all training images, with its test figures."""
        epochs = [] if self.epochs is None else ["--epochs", str(self.epochs)]
        return self.train(name, genotype, "--seed", str(seed), *epochs)

    def cells(self) -> Sequence[str]:
        """Those that are there already."""
        return ()

    def check(self) -> None:
        """Refuse what a training would refuse, before the searches.

        Raises:
            InputError: naming the flag and what it takes.
        """
        self.check_quoted()
        for genotype in self.cells() or ("darts_v1",):
            flags = self.flags(genotype)
            parse(chosen_preset(flags), METHOD, flags, "The flags of the trainings.")


    def check_quoted(self) -> None:
        """Refuse flags in one word that a shell would not take apart, and an unknown launcher.

        Raises:
            InputError: naming the flag.
        """
        for name in ("search_flags", "train_flags", "launcher"):
            try:
                words = shlex.split(getattr(self, name))
            except ValueError as error:  # an open quote
                text = f"{flag(name)} {getattr(self, name)!r}: {error}"
                raise InputError(f"{text}; close what is opened") from None
            if name == "launcher" and words and shutil.which(words[0]) is None:
                raise InputError(f"--launcher {words[0]}: there is no such program")


@dataclass(frozen=True)
class PCDARTS(Protocol):
    """PC-DARTS, Table 1: the best of five searches on 45,000/5,000, trained on 50,000, tested."""

    recipe = "pc_darts"
    seed: int = 0
    """Of the first search and of all trainings; the searches' are 0 to 4 in the paper (4.4.3)."""
    genotypes: tuple[str, ...] = ()
    """Cells to rank instead of searching: run folders, genotype files or names."""
    searches: Annotated[int, Between(1, 1000)] = 5
    """How many, with the seeds from --seed on."""
    rank_epochs: Annotated[int | None, Between(1, 10**6)] = None
    """Of the trainings by which the cells are ranked; by default the recipe's, too."""

    def cells(self) -> Sequence[str]:
        """See `Protocol.cells`."""
        return self.genotypes

    def check(self) -> None:
        """See `Protocol.check`."""
        super().check()

    def run(self) -> dict[str, Any]:
        """Search, rank by validation, train the best one's cells, test them."""
        found = self.genotypes or [
            self.search(f"searches/{k}", "pc_darts/search.py", "--seed", str(self.seed + k))
            for k in range(self.searches)
        ]
        words = ["--held-out", "valid", "--held-out-share", "0.1", "--seed", str(self.seed)]
        if self.rank_epochs is not None:
            words += ["--epochs", str(self.rank_epochs)]
        ranked = [self.train(f"ranked/{k}", what, *words) for k, what in enumerate(found)]
        order = [(-one["valid_top1"], one["valid_loss"]) for one in ranked]
        best = order.index(min(order))
        final = self.final("final", found[best], self.seed)
        return {
            "cells": list(found),
            "valid_top1": [one["valid_top1"] for one in ranked],
            "winner": found[best],
            "test_top1": final["test_top1"],
        }


@dataclass(frozen=True)
class GDAS(Protocol):
    """GDAS, 4.2: the best of four searches by validation, trained and tested."""

    recipe, transfers = "gdas", True
    searches: Annotated[int, Between(1, 1000)] = 4
    """How many, with the seeds from --seed on."""

    def check(self) -> None:
        """See `Protocol.check`."""
        super().check()

    def run(self) -> dict[str, Any]:
        """Search and choose, train the best one's cells, test them."""
        words = ("--seed", str(self.seed), "--searches", str(self.searches))
        found = self.search("best_of", "evaluate/best_of.py", *words)
        ranked = json.loads((Path(found) / "result.json").read_text())["cells"]
        number = load(found).provenance["number"]
        final = self.final("final", found, self.seed)
        return {
            "cells": [f"{found}/searches/{one['number']:03d}" for one in ranked],
            "valid_top1": [one.get("valid_top1") for one in ranked],
            "winner": f"{found}/searches/{number:03d}",
            "test_top1": final["test_top1"],
        }


@dataclass(frozen=True)
class PRDARTS(Protocol):
    """PR-DARTS, IV-C: the mean of the last five epochs over three trainings."""

    recipe, transfers = "pr_darts", True
    genotype: str | None = None
    """Cells to train instead of searching: a run folder, a genotype file or a name."""
    trainings: Annotated[int, Between(1, 1000)] = 3
    """How many, with the seeds from --seed on."""

    def cells(self) -> Sequence[str]:
        """See `Protocol.cells`."""
        return () if self.genotype is None else (self.genotype,)

    def check(self) -> None:
        """See `Protocol.check`."""
        super().check()

    def run(self) -> dict[str, Any]:
        """Search, if there are no cells yet; train them with three seeds; average."""
        found = self.genotype or self.search(
            "search", "pr_darts/search.py", "--seed", str(self.seed)
        )
        seeds = list(range(self.seed, self.seed + self.trainings))
        trained = [self.final(f"final/{seed}", found, seed) for seed in seeds]
        means = [one["test_top1_last_five"] for one in trained]
        return {
            "genotype": found,
            "seeds": seeds,
            "test_top1_last_five": means,
            "test_top1": statistics.mean(means),
            "test_top1_std": statistics.stdev(means) if len(means) > 1 else None,
        }


PROTOCOLS = {"pc_darts": PCDARTS, "gdas": GDAS, "pr_darts": PRDARTS}


def main(argv: list[str]) -> None:
    """Run a protocol to its result, or go on with one."""
    config = tyro.extras.subcommand_cli_from_dict(PROTOCOLS, args=argv, description=__doc__)
    config = at_home(config)
    check_bounds(config)
    config.check()
    folder = Path(config.output)
    begin(folder, {"protocol": config.recipe, **dataclasses.asdict(config)})
    try:
        figures = config.run()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    write_whole(folder / "result.json", (json.dumps(figures, indent=2) + "\n").encode())
    print()
    for name, value in figures.items():
        print(f"{name:>20}  {value}")
    print(f"{config.recipe}: test error {100 - figures['test_top1']:.2f} % ({folder}/result.json)")


def begin(folder: Path, asked: dict[str, Any]) -> None:
    """Make the folder with what was asked for, or see that it was the same before.

    Raises:
        InputError: it was not, or the folder is in use.
    """
    asked = json.loads(json.dumps(asked))
    file = folder / "protocol.json"
    if file.exists():
        before = json.loads(file.read_text())
        for name in {**asked, **before}:
            if name not in FREE and asked.get(name) != before.get(name):
                raise InputError(
                    f"--output {folder}: was begun with {name} {before.get(name)}, not "
                    f"{asked.get(name)}; repeat the command as it was, or name another folder"
                )
        return
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"--output {folder}: exists and is not empty; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, (json.dumps(asked, indent=2) + "\n").encode())
    except OSError as error:
        raise InputError(
            f"--output {folder}: cannot be written ({error.strerror}); name another folder"
        ) from None


if __name__ == "__main__":
    with errors_are_messages():
        main(sys.argv[1:])
