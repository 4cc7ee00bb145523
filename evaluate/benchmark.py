"""Times a search iteration of every method, its fast and its equation-shaped form in turn.

    python evaluate/benchmark.py --output FILE
    python evaluate/benchmark.py --methods pc_darts gdas --batch-size 64
    python evaluate/benchmark.py --retraining          # derived networks, the authors' way and ours
    python evaluate/benchmark.py --retraining --genotypes darts_v2 gdas
    python evaluate/benchmark.py --recurrent 850 --batch-size 64   # a recurrent cell, compiled too

An iteration is an arch step and a weight step of the trainer that the searches use, with clipping
and both optimisers, on random 32 x 32 images, augmented as in a search. The equation-shaped form
(`common/training/equation_form.py`) has one module for each edge and candidate, one
`loss.backward()` in a step for alphas and weights alike and plain optimisers; in GDAS and EDAS it
runs the active candidates one by one and reads from the device once an edge. The table has medians
(minimum to maximum, number of rounds); the ratio is the median of the rounds' ratios.
`evaluate/SPEED.md` explains its columns and why the fast forms are fast.
"""

from __future__ import annotations

import common  # noqa: F401  before torch: sets how threads wait

# isort: split
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

from benchmarking.recurrent import recurrent_passes
from benchmarking.timing import in_turn, saved_mib, spread, synchronise
from common.data import loader
from common.data.batches import Augmentation, Batch
from common.data.images import Images
from common.data.split import Split
from common.distributed import generator_of
from common.errors import InputError, errors_are_messages
from common.networks.genotype import load
from common.networks.network import DerivedEdge, Network, check_genotype
from common.run.cli import read_flags
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

RETRAINED = 36, 20  # channels and cells of the network on CIFAR, in every paper
Method = Literal["pc_darts", "darts", "pr_darts", "gdas", "gdas_frc", "edas", "itnas"]


@dataclass(frozen=True)
class Options:
    """What to time."""

    methods: tuple[Method, ...] = get_args(Method)
    """Methods to time."""
    batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Images in a step."""
    output: Path | None = None
    """Also write the table there, as a list of rows."""
    rounds: Annotated[int, Between(1, 10**6)] = 7
    """Timed iterations of each form, after one that does not count."""
    channels: Annotated[int, Between(1, 4096)] = 16
    """Channels in the first cell."""
    cells: Annotated[int, Between(1, 200)] = 8
    """Number of cells."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads; by default the usable cores."""
    retraining: bool = False
    """Instead of the table, time a training step of derived networks, as the authors' and ours."""
    genotypes: tuple[str, ...] = ("pc_darts_cifar10", "gdas_frc")
    """With --retraining: the cells to time, as names, files or run folders."""
    recurrent: Annotated[int | None, Between(1, 65_536)] = None
    """Instead of the table: a recurrent cell of this many units over 35 words, eager, compiled."""

    def check(self) -> None:
        """Refuse what cannot be timed or written.

        Raises:
            InputError: naming the flag.
        """
        check_bounds(self)
        if not self.methods:
            raise InputError("--methods: name one or more")
        if not self.genotypes:
            raise InputError("--genotypes: name one or more")
        if not self.retraining and self.genotypes != Options.genotypes:
            raise InputError("--genotypes: give --retraining, too; the table is of searches")
        for genotype in self.genotypes if self.retraining else ():
            check_genotype(load(genotype), RETRAINED[0])
        if self.channels % 4:
            raise InputError(
                f"--channels {self.channels}: must be a multiple of 4; PC-DARTS samples a quarter"
            )
        if self.output is not None:
            try:
                self.output.open("a").close()
            except OSError as error:
                reason = error.strerror
                raise InputError(f"--output {self.output}: cannot be written ({reason})") from None


def forms(method: str, **shape: int) -> tuple[SuperNet, SuperNet]:
    """The fast and the equation-shaped supernet of a method at the start of its search.

    Their parameters are equal: other alphas would sample other operations.
    """
    first = PRDARTSConfig().first()
    fast, slow = {
        "pc_darts": lambda: (PCDARTSSuperNet(**shape), EquationPCDARTS(**shape)),
        "darts": lambda: (SuperNet(**shape), EquationSuperNet(**shape)),
        "pr_darts": lambda: (PRDARTSSuperNet(first, **shape), EquationPRDARTS(first, **shape)),
        "gdas": lambda: (GDASSuperNet(**shape), EquationGDAS(**shape)),
        "gdas_frc": lambda: (GDASSuperNet("fixed", **shape), EquationGDAS("fixed", **shape)),
        "edas": lambda: (EDASSuperNet(**shape), EquationEDAS(**shape)),
        "itnas": lambda: (ITNASSuperNet(**shape), EquationITNAS(**shape)),
    }[method]()
    slow.load_state_dict(fast.state_dict())
    return fast, slow


# --------------------------------------------------------------------------------- the table


def table(options: Options, device: torch.device) -> list[dict[str, Any]]:
    """Time the methods one after another; print each row when it is known; return the rows."""
    print(
        "| method | ms an iteration | equation-shaped form | ratio | images/s | MiB kept | of the "
        "equation's | GPU peak MiB | waits for data |"
    )
    print("|" + "---|" * 9)
    return [timed_row(method, options, device) for method in options.methods]


def timed_row(method: str, options: Options, device: torch.device) -> dict[str, Any]:
    """Time both forms of a method in turn; print and return its row."""
    torch.manual_seed(0)
    fast, slow = forms(method, channels=options.channels, cells=options.cells)
    fast = Timed(fast, BilevelTrainer, options.batch_size)
    slow = Timed(slow, EquationTrainer, options.batch_size)
    seconds = in_turn({"fast": fast, "slow": slow}, options.rounds, device)
    median = statistics.median(seconds["fast"])
    # Of each round: a machine that is slow for a while slows both.
    ratios = [b / a for a, b in zip(seconds["fast"], seconds["slow"], strict=True)]
    row = {
        "method": method,
        "milliseconds_per_iteration": round(1e3 * median, 1),
        "images_per_second": round(options.batch_size / median, 1),
        "ratio_to_equation_form": round(statistics.median(ratios), 2),
        "peak_memory_mib": round(max(fast.peaks), 1) if fast.peaks else None,
        "saved_for_backward_mib": round(fast.saved_mib(steps=True), 1),
        "data_wait_share": round(statistics.median(fast.waits[1:]) / median, 4),
    }
    peak = "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}"
    print(
        f"| {method} | {spread(seconds['fast'])} | {spread(seconds['slow'])} | "
        f"{row['ratio_to_equation_form']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
        f"{row['images_per_second']:.1f} | "
        f"{row['saved_for_backward_mib']:.0f} | {slow.saved_mib(steps=False):.0f} | "
        f"{peak} | {row['data_wait_share']:.2%} |",
        flush=True,
    )
    return row


def random_images(count: int) -> Images:
    """Images of CIFAR-10's size and number of classes."""
    return Images(
        torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 10,
        tuple("0123456789"), (0.5,) * 3, (0.25,) * 3,
    )  # fmt: skip


class Timed:
    """One form of a method with its trainer; calling it runs an iteration.

    Args:
        supernet: on the CPU.
        kind: class of its trainer.
        batch_size: images in a step.

    Attributes:
        waits: seconds of each iteration until both batches are there.
        peaks: MiB of GPU memory that each iteration adds at most.
    """

    def __init__(self, supernet: SuperNet, kind: type[BilevelTrainer], batch_size: int):
        config = SearchConfig(batch_size=batch_size, learning_rate=0.1)  # PC-DARTS 4.2
        images = random_images(8 * batch_size)
        run = Run(Path("benchmark"), "benchmark", Accelerator(cpu=not torch.cuda.is_available()))
        self.trainer = kind(config, supernet, run, images, Split.halves(len(images), 0))
        self.device, self.waits, self.peaks = run.accelerator.device, [], []

    def __call__(self, number: int) -> None:
        """Iteration `number` of a search."""
        trainer, cuda = self.trainer, self.device.type == "cuda"
        if cuda:
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        started = time.perf_counter()
        train, valid = trainer.train_batches.train(number), trainer.valid_batches.train(number)
        synchronise(self.device)
        self.waits.append(time.perf_counter() - started)
        trainer.global_step = number  # sampling depends on it alone
        trainer.arch_step(valid, **self.given(number))
        trainer.weight_step(train, **self.given(number))
        if cuda:
            peak = torch.cuda.max_memory_allocated(self.device)
            self.peaks.append((peak - before) / 2**20)

    def given(self, number: int) -> dict[str, Any]:
        """What EDAS' supernet must be told in this step: the sampled edge."""
        supernet = self.trainer.supernet
        if not isinstance(supernet, EDASSuperNet):
            return {}
        return {"sampled": supernet.sample(generator_of("edge", number))}

    def saved_mib(self, steps: bool) -> float:
        """MiB that a forward pass keeps: for the larger step, or (not `steps`) for both at once."""
        trainer, batch = self.trainer, self.trainer.train_batches.train(0)
        return max(
            saved_mib(
                trainer.supernet, batch, rest, generator=generator_of("saved"), **self.given(0)
            )
            for rest in ((trainer.arch, trainer.weights) if steps else ((),))
        )


# ----------------------------------------------------------------------------------- retraining


def retraining_step(network: Network, ours: bool, compiled: bool) -> Callable[[Batch], None]:
    """A training step of a derived network with drop-path and its auxiliary head.

    Args:
        network: on its device.
        ours: channels last with a fused optimiser, as `train.py` runs it. Otherwise as the authors'
            code: contiguous maps, a ReLU in each operation, a plain optimiser.
        compiled: also in bf16 and compiled.
    """
    weights = list(network.parameters())
    sgd = torch.optim.SGD(
        weights, 0.025, momentum=0.9, weight_decay=3e-4, fused=ours, foreach=False
    )
    network.set_drop_path(0.2)
    if ours:
        network.to(memory_format=torch.channels_last)
    else:
        for edge in network.modules():
            if isinstance(edge, DerivedEdge):
                edge.begins_with_relu = False  # it computes its own
    if compiled:
        network.compile()

    def step(batch: Batch) -> None:
        images, labels = batch
        with torch.autocast(images.device.type, torch.bfloat16, enabled=compiled):
            logits, auxiliary = network(images.contiguous())
            loss = F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(auxiliary, labels)
        sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return step


def retraining(options: Options, device: torch.device) -> None:
    """Time a training step of the 20-cell network in its forms; compiled on a GPU alone."""
    data = loader.batches(
        random_images(4 * options.batch_size), device, None, options.batch_size,
        Augmentation(4, True, 0), seed=0, stream="train",
    )
    forms = {"as the authors' code": (False, False), "as train.py": (True, False)}
    if device.type == "cuda":
        forms["as train.py, in bf16 and compiled"] = (True, True)
    for genotype in options.genotypes:
        print(genotype, flush=True)
        timed = {}
        for name, form in forms.items():
            network = Network(load(genotype), *RETRAINED, 10, auxiliary=True).to(device)
            step = retraining_step(network, *form)
            timed[name] = lambda number, step=step: step(data.train(number))
        print_ratios(timed, options, device)


def print_ratios(
    timed: dict[str, Callable[[int], None]], options: Options, device: torch.device
) -> None:
    """Time steps in turn; print each one's speed relative to the first, the median of rounds."""
    seconds = in_turn(timed, options.rounds, device)
    plain = next(iter(seconds.values()))
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(plain, values, strict=True))
        print(f"{name}: {spread(values)} ms a step, {ratio:.2f} times as fast")


def main(options: Options) -> None:
    """Run the benchmark that the options ask for."""
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
        if options.output is not None:
            options.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    with errors_are_messages():
        main(read_flags(Options, sys.argv[1:], __doc__))
