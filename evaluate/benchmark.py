"""Times a full bilevel iteration of a method, fast form and equation-shaped form in turn.

    python evaluate/benchmark.py --batch-size 16 --rounds 7

An iteration is an arch step and a weight step with clipping and both optimisers, on random images
of 32 x 32. The equation-shaped form is one module an edge and candidate, one `loss.backward()` a
step that reaches alphas and weights alike, plain optimisers. The two take turns, so that a machine
whose speed drifts slows both; the ratio is of the medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor, nn

from common.command import set_threads
from common.supernet import SuperNet
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import PCDARTSSuperNet


@dataclass(frozen=True)
class Options:
    """What to time."""

    batch_size: int = 16
    """Images of a step."""
    rounds: int = 5
    """Timed iterations of either form, after one that is not."""
    channels: int = 16
    """Of the first cell's nodes."""
    cells: int = 8
    """How many are stacked."""
    threads: int | None = None
    """CPU threads; by default the usable cores."""


def fast_iteration(supernet: SuperNet) -> Callable[[Tensor, Tensor], None]:
    """As `common.bilevel` does it: each step computes its own gradients and no others."""
    weights, arch = supernet.weight_parameters(), supernet.arch_parameters()
    sgd, adam = optimizers(weights, arch, fused=True)

    def gradients(images: Tensor, labels: Tensor, of: list, frozen: list) -> None:
        for parameter in frozen:
            parameter.requires_grad_(False)
        loss, _ = supernet.loss(images, labels)
        for parameter, gradient in zip(of, torch.autograd.grad(loss, of), strict=True):
            parameter.grad = gradient
        for parameter in frozen:
            parameter.requires_grad_(True)

    def iteration(images: Tensor, labels: Tensor) -> None:
        gradients(images, labels, arch, weights)
        adam.step()
        gradients(images, labels, weights, arch)
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return iteration


def equation_iteration(supernet: SuperNet) -> Callable[[Tensor, Tensor], None]:
    """As the authors' code does it: everything gets a gradient in both steps."""
    weights, arch = supernet.weight_parameters(), supernet.arch_parameters()
    sgd, adam = optimizers(weights, arch, fused=False)

    def iteration(images: Tensor, labels: Tensor) -> None:
        adam.zero_grad()
        supernet.loss(images, labels)[0].backward()
        adam.step()
        sgd.zero_grad()
        supernet.loss(images, labels)[0].backward()
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return iteration


def optimizers(weights: list, arch: list, fused: bool) -> tuple:
    """PC-DARTS' (4.2)."""
    sgd = torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=3e-4, fused=fused)
    adam = torch.optim.Adam(arch, 6e-4, (0.5, 0.999), weight_decay=1e-3, fused=fused)
    return sgd, adam


def main(options: Options) -> None:
    """Print both forms' seconds an iteration and the ratio of their medians."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = set_threads(options.threads)
    images = torch.randn(options.batch_size, 3, 32, 32, device=device)
    labels = torch.randint(10, (options.batch_size,), device=device)
    forms = {}
    for name, kind, iteration in (
        ("fast", PCDARTSSuperNet, fast_iteration),
        ("equation", EquationPCDARTS, equation_iteration),
    ):
        supernet = kind(channels=options.channels, cells=options.cells).to(device)
        forms[name] = (iteration(supernet), [])
    for _ in range(options.rounds + 1):
        for iteration, seconds in forms.values():
            started = time.perf_counter()
            iteration(images, labels)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    medians = {}
    print(f"torch {torch.__version__}, {device}, {threads} threads, batch {options.batch_size}")
    for name, (_, seconds) in forms.items():
        timed = seconds[1:]
        medians[name] = statistics.median(timed)
        print(
            f"pc_darts {name:<9} {medians[name]:.3f} s an iteration "
            f"({min(timed):.3f} to {max(timed):.3f}, n = {len(timed)})"
        )
    print(f"ratio {medians['equation'] / medians['fast']:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
