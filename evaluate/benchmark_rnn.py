"""Times a derived recurrent cell over one chunk, its plain loop and its fused ones in turn.

    python evaluate/benchmark_rnn.py --units 300 --batch-size 10 --rounds 15
    python evaluate/benchmark_rnn.py --units 850 --batch-size 64 --rounds 3

A pass is what a training step does with the cell: forwards, and backwards to words and weights.
All take turns, so that a machine whose speed drifts slows them alike; on a CPU it is the process'
own seconds, so that others on the same core do not count. `compiled` is `train_rnn.py --compile`;
`products` are the matrix products of the fused loop alone, in its shapes and order: no loop of this
kind can be faster than they are.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from torch import Tensor

from common.errors import errors_are_messages
from common.language.cell import RecurrentCell, recurrent_cell
from common.networks.genotype import load
from common.run.flags import Between
from common.run.start import set_threads


@dataclass(frozen=True)
class Options:
    """What to time."""

    genotype: str = "gdas_rnn"
    """A published name, a genotype file or the folder of a search."""
    units: Annotated[int, Between(1, 65_536)] = 300
    """Of word vectors and states."""
    batch_size: Annotated[int, Between(1, 2**20)] = 10
    """Columns."""
    bptt: Annotated[int, Between(1, 10_000)] = 35
    """Words of the chunk."""
    rounds: Annotated[int, Between(1, 10**6)] = 7
    """Timed passes of each, after one that is not."""
    compile: bool = True
    """Time the compiled step, too; compiling takes up to a minute."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads; by default the usable cores."""


def loop_pass(loop: Callable, inputs: tuple[Tensor, ...], wanted: list[Tensor]) -> None:
    """Forwards and backwards through a loop."""
    states, _ = loop(*inputs)
    torch.autograd.grad(states, wanted, torch.ones_like(states))


def products_pass(cell: RecurrentCell, columns: int, steps: int) -> Callable[[], None]:
    """Forwards, backwards to the sources, and the gradients of the weights: products alone."""
    d, like = cell.units, cell.W0.detach()
    widths = [2 * d] + [2 * d * len(group.nodes) for group in cell.steps.plan.groups]
    weights = [torch.randn(d, width).to(like) for width in widths]
    sources = [torch.randn(steps, columns, d).to(like) for _ in widths]
    gradients = [torch.randn(steps, columns, width).to(like) for width in widths]

    def run() -> None:
        sources[0].flatten(0, 1) @ weights[0]  # of the words, all time steps at once
        for t in range(steps):
            for source, weight in zip(sources, weights, strict=True):
                source[t] @ weight
        for t in reversed(range(steps)):
            for gradient, weight in zip(gradients, weights, strict=True):
                gradient[t] @ weight.t()
        for source, gradient in zip(sources, gradients, strict=True):
            source.flatten(0, 1).t() @ gradient.flatten(0, 1)
        sources[0].flatten(0, 1).t() @ gradients[0].flatten(0, 1)  # of the words again
        gradients[0].flatten(0, 1) @ weights[0].t()

    return run


@torch.enable_grad()
def main(options: Options) -> None:
    """Print each pass' time, and how many times as long the plain loop takes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = set_threads(options.threads)
    cell = RecurrentCell(recurrent_cell(load(options.genotype)), options.units).to(device)
    x = torch.randn(options.bptt, options.batch_size, options.units, device=device)
    inputs = (
        x.requires_grad_(), x.new_zeros(1, options.batch_size, options.units),
        *cell.masks(options.batch_size, 0.75, 0.25),
    )  # fmt: skip
    wanted = [x, *cell.parameters()]
    passes = {
        "plain": lambda: loop_pass(cell.plain_loop, inputs, wanted),
        "fused": lambda: loop_pass(cell.eval(), inputs, wanted),
        "compiled": lambda: loop_pass(cell.train(), inputs, wanted),
        "products": products_pass(cell, options.batch_size, options.bptt),
    }
    if options.compile:
        cell.compile_steps()
    else:
        del passes["compiled"]
    clock = time.process_time if device == "cpu" and threads == 1 else time.perf_counter
    timed: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(options.rounds + 1):
        for name, run in passes.items():
            started = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            timed[name].append(clock() - started)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in timed.items()}
    print(
        f"{options.genotype}, {options.units} units, batch {options.batch_size}, "
        f"{options.bptt} words; torch {torch.__version__}, {device}, {threads} threads"
    )
    for name, (_, *seconds) in timed.items():
        print(
            f"{name:<9} {1e3 * medians[name]:8.1f} ms ({1e3 * min(seconds):.1f} to "
            f"{1e3 * max(seconds):.1f}, n = {len(seconds)}), "
            f"plain is {medians['plain'] / medians[name]:.2f} times as long"
        )


if __name__ == "__main__":
    with errors_are_messages():
        main(tyro.cli(Options, description=__doc__))
