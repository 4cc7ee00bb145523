"""Times a search iteration of every method, its fast and its equation-shaped form in turn.

    python evaluate/benchmark.py --json FILE
    python evaluate/benchmark.py --methods pc_darts gdas --batch-size 64
    python evaluate/benchmark.py --retraining               # the derived network, plain and fast
    python evaluate/benchmark.py --recurrent 850 --batch-size 64   # a recurrent cell, compiled too

An iteration is an arch step and a weight step of the trainer that the searches use, with clipping
and both optimisers, on a training and a validation batch of random 32 x 32 images, augmented as in
a search. The equation-shaped form (`common/training/equation_form.py`) is one module an edge and
candidate, one `loss.backward()` a step that reaches alphas and weights alike, plain optimisers;
GDAS' and EDAS' run what is active one by one, with a read from the device an edge. Both forms of a
method take turns, so that a machine whose speed drifts slows them alike;
what is printed are medians, with the least and the most.

`evaluate/SPEED.md` says what each column is and why the fast forms are fast.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
import tyro
from accelerate import Accelerator

from benchmarking.recurrent import recurrent_passes
from benchmarking.timing import in_turn, retraining_step, saved_mib, synchronise
from common.data import loader
from common.data.batches import Augmentation, Batch
from common.data.images import Images
from common.data.split import Split
from common.distributed import generator_of
from common.errors import InputError, errors_are_messages
from common.networks.genotype import load
from common.networks.network import Network
from common.run.config import SearchConfig
from common.run.flags import Between, check_bounds
from common.run.folder import Run
from common.run.start import set_threads
from common.supernet.equation_form import EquationSuperNet
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from common.training.equation_form import EquationTrainer
from edas.equation_form import EquationEDAS
from edas.supernet import EDASSuperNet
from gdas.equation_form import EquationGDAS
from gdas.supernet import GDASSuperNet
from itnas.equation_form import EquationITNAS
from itnas.supernet import ITNASSuperNet
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import PCDARTSSuperNet
from pr_darts.config import PRDARTSConfig
from pr_darts.equation_form import EquationPRDARTS
from pr_darts.supernet import PRDARTSSuperNet

Method = Literal["pc_darts", "darts", "pr_darts", "gdas", "gdas_frc", "edas", "itnas"]


@dataclass(frozen=True)
class Options:
    """What to time."""

    methods: tuple[Method, ...] = get_args(Method)
    """Whose iterations."""
    batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Images of a step."""
    json: Path | None = None
    """Write the table there, too: a list of rows."""
    rounds: Annotated[int, Between(1, 10**6)] = 7
    """Timed iterations of each form, after one that is not."""
    channels: Annotated[int, Between(1, 4096)] = 16
    """Of the first cell's nodes."""
    cells: Annotated[int, Between(1, 200)] = 8
    """How many are stacked."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads; by default the usable cores."""
    retraining: bool = False
    """Instead of the table: a training step of a derived network, fp32 and as fast as it goes."""
    recurrent: Annotated[int | None, Between(1, 65_536)] = None
    """Instead of the table: a recurrent cell of this many units over 35 words, eager, compiled."""

    def check(self) -> None:
        """Refuse what could not be timed, or not be written.

        Raises:
            InputError: naming the flag.
        """
        check_bounds(self)
        if not self.methods:
            raise InputError("--methods: name one or more")
        if self.channels < 4 or self.channels % 4:
            raise InputError(
                f"--channels {self.channels}: must be 4 or a multiple of it, the share that "
                "PC-DARTS samples"
            )
        if self.json is not None:
            folder = self.json.parent
            if not folder.is_dir():
                raise InputError(f"--json {self.json}: there is no folder {folder}")
            there = self.json if self.json.exists() else folder
            if not os.access(there, os.W_OK) or self.json.is_dir():
                raise InputError(f"--json {self.json}: is no file that can be written")


def forms(method: str, **shape: int) -> tuple[SuperNet, SuperNet]:
    """The fast and the equation-shaped supernet of a method, as its search begins."""
    first = PRDARTSConfig().first()
    if method == "pc_darts":
        return PCDARTSSuperNet(**shape), EquationPCDARTS(**shape)
    if method == "darts":
        return SuperNet(**shape), EquationSuperNet(**shape)
    if method == "pr_darts":
        return PRDARTSSuperNet(first, **shape), EquationPRDARTS(first, **shape)
    if method == "gdas":
        return GDASSuperNet(**shape), EquationGDAS(**shape)
    if method == "gdas_frc":
        return GDASSuperNet("fixed", **shape), EquationGDAS("fixed", **shape)
    if method == "edas":
        return EDASSuperNet(**shape), EquationEDAS(**shape)
    return ITNASSuperNet(**shape), EquationITNAS(**shape)


# --------------------------------------------------------------------------------- the table


def table(options: Options, device: torch.device) -> list[dict[str, Any]]:
    """Time the methods one after another; print their table, a row as it is known; its rows."""
    print(
        "| method | ms an iteration | equation-shaped form | ratio | images/s | MiB kept | of the "
        "equation's | GPU peak MiB | waits for data |"
    )
    print("|" + "---|" * 9)
    return [timed_row(method, options, device) for method in options.methods]


def timed_row(method: str, options: Options, device: torch.device) -> dict[str, Any]:
    """Time both forms of a method in turn; print its row of the table; the row."""
    shape = {"channels": options.channels, "cells": options.cells}
    torch.manual_seed(0)
    fast, slow = forms(method, **shape)
    slow.load_state_dict(fast.state_dict())  # equal alphas draw the same operations
    fast = Timed(fast, BilevelTrainer, options.batch_size)
    slow = Timed(slow, EquationTrainer, options.batch_size)
    seconds = in_turn({"fast": fast, "slow": slow}, options.rounds, device)
    median = statistics.median(seconds["fast"])
    row = {
        "method": method,
        "milliseconds_per_iteration": round(1e3 * median, 1),
        "images_per_second": round(options.batch_size / median, 1),
        "ratio_to_equation_form": round(statistics.median(seconds["slow"]) / median, 2),
        "peak_memory_mib": round(max(fast.peaks), 1) if fast.peaks else None,
        "saved_for_backward_mib": round(fast.saved_mib(steps=True), 1),
        "data_wait_share": round(statistics.median(fast.waits[1:]) / median, 4),
    }
    peak = "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}"
    print(
        f"| {method} | {spread(seconds['fast'])} | {spread(seconds['slow'])} | "
        f"{row['ratio_to_equation_form']:.2f} | {row['images_per_second']:.1f} | "
        f"{row['saved_for_backward_mib']:.0f} | {slow.saved_mib(steps=False):.0f} | "
        f"{peak} | {row['data_wait_share']:.2%} |",
        flush=True,
    )
    return row


def spread(seconds: Sequence[float]) -> str:
    """Median, range and number, in milliseconds."""
    values = [1e3 * value for value in seconds]
    least, most = min(values), max(values)
    return f"{statistics.median(values):.0f} ({least:.0f} to {most:.0f}, {len(values)})"


def random_images(count: int) -> Images:
    """Of CIFAR-10's size and number of classes."""
    return Images(
        torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 10,
        tuple("0123456789"), (0.5,) * 3, (0.25,) * 3,
    )  # fmt: skip


class Timed:
    """A form of a method and the trainer that searches use; draws depend on the step alone.

    Args:
        supernet: of the form, on the CPU.
        kind: of its trainer.
        batch_size: images of a step.

    Attributes:
        waits: seconds of each iteration that passed until its two batches were there.
        peaks: of each, MiB of a GPU's memory in use, at most, beyond what was before.
    """

    def __init__(self, supernet: SuperNet, kind: type[BilevelTrainer], batch_size: int):
        config = SearchConfig(batch_size=batch_size, learning_rate=0.1)  # PC-DARTS 4.2
        images = random_images(8 * batch_size)
        run = Run(Path("benchmark"), "benchmark", Accelerator(cpu=not torch.cuda.is_available()))
        self.trainer = kind(config, supernet, run, images, Split.halves(len(images), 0))
        self.device, self.waits, self.peaks = run.accelerator.device, [], []

    def __call__(self, number: int) -> None:
        """One iteration, its batches with it."""
        cuda = self.device.type == "cuda"
        if cuda:
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        started = time.perf_counter()
        train, valid = self.batches(number)
        synchronise(self.device)
        self.waits.append(time.perf_counter() - started)
        self.iteration(number, train, valid)
        if cuda:
            peak = torch.cuda.max_memory_allocated(self.device)
            self.peaks.append((peak - before) / 2**20)

    def batches(self, number: int) -> tuple[Batch, Batch]:
        """Of a training and a validation half, augmented as CIFAR-10's."""
        halves = self.trainer.train_batches, self.trainer.valid_batches
        return tuple(half.train(number) for half in halves)

    def iteration(self, number: int, train: Batch, valid: Batch) -> None:
        """An arch step and a weight step, as step `number` of a search."""
        self.trainer.global_step = number
        self.trainer.arch_step(valid, **self.given(number))
        self.trainer.weight_step(train, **self.given(number))

    def given(self, number: int) -> dict[str, Any]:
        """What this step's `mixes` must be told."""
        supernet = self.trainer.supernet
        if not isinstance(supernet, EDASSuperNet):
            return {}
        return {"sampled": supernet.sample(generator_of("edge", number))}

    def saved_mib(self, steps: bool) -> float:
        """MiB that a forward pass keeps: of the step that keeps more, or of a pass for both."""
        trainer = self.trainer
        kept = []
        for rest in (trainer.arch, trainer.weights) if steps else ((),):
            given = {"generator": generator_of("saved"), **self.given(0)}
            kept.append(saved_mib(trainer.supernet, self.batches(0)[0], rest, **given))
        return max(kept)


# ----------------------------------------------------------------------------------- retraining


def retraining(options: Options, device: torch.device) -> None:
    """A training step of the 20-cell network, as plain as can be and as `evaluate/train.py` can."""
    data = loader.batches(
        random_images(4 * options.batch_size), device, None, options.batch_size,
        Augmentation(4, True, 0), seed=0, stream="train",
    )
    timed = {}
    for name, fast in (("fp32, eager", False), ("bf16, channels last, compiled", True)):
        network = Network(load("pc_darts_cifar10"), 36, 20, 10, auxiliary=True).to(device)
        step = retraining_step(network, fast)
        timed[name] = lambda number, step=step: step(data.train(number))
    print_ratios(timed, options, device)


def print_ratios(
    timed: dict[str, Callable[[int], None]], options: Options, device: torch.device
) -> None:
    """Time steps in turn; print each one's speed relative to the first."""
    seconds = in_turn(timed, options.rounds, device)
    plain = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        ratio = plain / statistics.median(values)
        print(f"{name}: {spread(values)} ms a step, {ratio:.2f} times as fast")


def main(options: Options) -> None:
    """Do what the options ask for."""
    options.check()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = set_threads(options.threads)
    print(f"torch {torch.__version__}, {device}, {threads} threads, batch {options.batch_size}")
    if options.retraining:
        retraining(options, device)
    elif options.recurrent is not None:
        print_ratios(
            recurrent_passes(options.recurrent, options.batch_size, device), options, device
        )
    else:
        rows = table(options, device)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    with errors_are_messages():
        main(tyro.cli(Options, description=__doc__))
