"""Times a full bilevel iteration of a method, its forms in turn.

    python evaluate/benchmark.py --batch-size 16 --rounds 7
    python evaluate/benchmark.py --method gdas --batch-size 16 --rounds 7

An iteration is an arch step and a weight step with clipping and both optimisers, on random images
of 32 x 32. The equation-shaped form is one module an edge and candidate, one `loss.backward()` a
step that reaches alphas and weights alike, plain optimisers. GDAS' stands beside the dense DARTS in
this form, and beside itself with one candidate more. All take turns, so that a machine whose speed
drifts slows them alike; ratios are of the medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from torch import Tensor, nn

from common.command import set_threads
from common.distributed import set_gradients
from common.equation_form import EquationSuperNet
from common.genotype import CANDIDATES
from common.supernet import SuperNet
from gdas.supernet import GDASSuperNet
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import PCDARTSSuperNet


@dataclass(frozen=True)
class Options:
    """What to time."""

    method: Literal["pc_darts", "darts", "gdas"] = "pc_darts"
    """Whose supernet."""
    batch_size: int = 16
    """Images of a step."""
    rounds: int = 5
    """Timed iterations of each form, after one that is not."""
    channels: int = 16
    """Of the first cell's nodes."""
    cells: int = 8
    """How many are stacked."""
    threads: int | None = None
    """CPU threads; by default the usable cores."""


class GDASWithOneMore(GDASSuperNet):
    """GDAS among nine candidates, of which the ninth is never drawn: what is there, but idle."""

    candidates = (*CANDIDATES, "sep_conv_7x7")

    def init_arch(self) -> None:
        """The ninth candidate's probability is as good as 0."""
        super().init_arch()
        for alpha in self.arch.values():
            alpha.data[:, -1] = -1e3


def fast_iteration(supernet: SuperNet) -> Callable[[Tensor, Tensor], None]:
    """As `common.bilevel` does it: each step computes its own gradients and no others."""
    weights, arch = supernet.weight_parameters(), supernet.arch_parameters()
    sgd, adam = optimizers(weights, arch, fused=True)

    for weight in weights:  # as common.bilevel does
        sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    def gradients(images: Tensor, labels: Tensor, of: list, frozen: list) -> None:
        for parameter in frozen:
            parameter.requires_grad_(False)
        loss, _ = supernet.loss(images, labels)
        set_gradients(of, torch.autograd.grad(loss, of, allow_unused=True))
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


def forms(method: str) -> dict[str, tuple]:
    """The forms that are timed, the one that others are compared with last."""
    if method == "pc_darts":
        pair = (PCDARTSSuperNet, EquationPCDARTS)
    elif method == "darts":
        pair = (SuperNet, EquationSuperNet)
    else:
        return {
            "gdas, 9 candidates": (GDASWithOneMore, fast_iteration),
            "gdas, fixed reduction": (
                lambda **shape: GDASSuperNet("fixed", **shape), fast_iteration
            ),
            "darts, fast": (SuperNet, fast_iteration),
            "darts, equation": (EquationSuperNet, equation_iteration),
            "gdas": (GDASSuperNet, fast_iteration),
        }
    return {"equation": (pair[1], equation_iteration), "fast": (pair[0], fast_iteration)}


def main(options: Options) -> None:
    """Print each form's seconds an iteration and how many times the last one's that is."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = set_threads(options.threads)
    images = torch.randn(options.batch_size, 3, 32, 32, device=device)
    labels = torch.randint(10, (options.batch_size,), device=device)
    timed = {}
    for name, (kind, iteration) in forms(options.method).items():
        supernet = kind(channels=options.channels, cells=options.cells).to(device)
        timed[name] = (iteration(supernet), [])
    for _ in range(options.rounds + 1):
        for iteration, seconds in timed.values():
            started = time.perf_counter()
            iteration(images, labels)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    print(f"torch {torch.__version__}, {device}, {threads} threads, batch {options.batch_size}")
    medians = {name: statistics.median(seconds[1:]) for name, (_, seconds) in timed.items()}
    last = list(medians)[-1]
    for name, (_, (_, *seconds)) in timed.items():
        print(
            f"{name:<22} {medians[name]:.3f} s an iteration ({min(seconds):.3f} "
            f"to {max(seconds):.3f}, n = {len(seconds)}), {medians[name] / medians[last]:.2f} "
            f"times {last}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
