"""Times a full bilevel iteration of a method, its forms in turn.

    python evaluate/benchmark.py --batch-size 16 --rounds 7
    python evaluate/benchmark.py --method gdas --batch-size 16 --rounds 7
    python evaluate/benchmark.py --method edas --cells 20 --batch-size 16 --rounds 15
    python evaluate/benchmark.py --method edas --cells 20 --batch-size 16 --rounds 15 --step weight

An iteration is an arch step and a weight step with clipping and both optimisers, on random images
of 32 x 32. The equation-shaped form is one module an edge and candidate, one `loss.backward()` a
step that reaches alphas and weights alike, plain optimisers. GDAS' stands beside the dense DARTS in
this form, and beside itself with one candidate more; EDAS' has an edge of either cell relaxed, and
with `--step weight` stands beside the network derived from it with all 14 edges of a cell; ITNAS'
stands beside DARTS among its seven candidates. All take turns, so that a machine whose speed drifts
slows them alike; ratios are of the medians. Memory is what a weight step's forward pass keeps for
its backward pass, the same on every device.
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
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from common.command import set_threads
from common.distributed import set_gradients
from common.equation_form import EquationSuperNet
from common.genotype import CANDIDATES, Cell, Edge, Genotype, Op
from common.macro import Place
from common.measures import best_operations
from common.network import Network
from common.sampled import SampledCell
from common.supernet import SuperNet
from edas.supernet import EDASSuperNet
from gdas.supernet import GDASSuperNet
from itnas.equation_form import EquationITNAS
from itnas.supernet import ITNASSuperNet
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import PCDARTSSuperNet


@dataclass(frozen=True)
class Options:
    """What to time."""

    method: Literal["pc_darts", "darts", "gdas", "edas", "itnas"] = "pc_darts"
    """Whose supernet."""
    step: Literal["both", "weight"] = "both"
    """both: an arch step and a weight step, a full iteration; weight: the weight step alone."""
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


class TimedEDAS(EDASSuperNet):
    """EDAS whose edges have equal best operations, whatever else the supernet holds."""

    def init_arch(self) -> None:
        """Equal alphas."""
        torch.manual_seed(2)
        super().init_arch()


class EDASNormal(TimedEDAS):
    """With an edge of the normal cell relaxed, that is in most cells: node 2's to node 4."""

    edge = 7

    def __init__(self, **shape):
        super().__init__(**shape)
        self.sampled = self.edge


class EDASReduction(EDASNormal):
    """With the same edge of the reduction cell relaxed, in two cells."""

    edge = 14 + EDASNormal.edge


class EDASWithOneMore(TimedEDAS):
    """With no edge relaxed, and on each a candidate more, which is there, but idle."""

    def make_cell(self, place: Place) -> nn.Module:
        """Seven candidates and one more."""
        return SampledCell(place, self.nodes, (*self.candidates, "sep_conv_7x7"))


class DARTS7(SuperNet):
    """The dense supernet among the seven candidates of EDAS and ITNAS."""

    candidates = tuple(name for name in CANDIDATES if name != "none")


class EquationDARTS7(EquationSuperNet):
    """The same, equation-shaped."""

    candidates = DARTS7.candidates


class AllEdges(Network):
    """The network derived from a fresh EDAS supernet, with all 14 edges of its cells."""

    def __init__(self, **shape):
        supernet = TimedEDAS(**shape)
        cells = {}
        for kind in supernet.kinds:
            best = best_operations(supernet.mix(kind).op, supernet.candidates)
            operations = [Op(supernet.candidates[k]) for k in best]
            pairs = zip(supernet.edges, operations, strict=True)
            edges = tuple(Edge(i, j, op) for (i, j), op in pairs)
            cells[kind] = Cell(2, edges, tuple(range(2, 2 + supernet.nodes)))
        super().__init__(Genotype("all_edges", cells, {}), classes=10, **shape)
        self.to(memory_format=torch.channels_last)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `SuperNet.loss`."""
        logits = self(images)
        return F.cross_entropy(logits, labels), logits

    def weight_parameters(self) -> list[nn.Parameter]:
        """All."""
        return list(self.parameters())

    def arch_parameters(self) -> list[nn.Parameter]:
        """None."""
        return []


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


def weight_step(supernet: SuperNet | Network) -> Callable[[Tensor, Tensor], None]:
    """The second half of `fast_iteration`."""
    weights = supernet.weight_parameters()
    sgd = torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=3e-4, fused=True)
    for weight in weights:
        sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    for parameter in supernet.arch_parameters():
        parameter.requires_grad_(False)

    def iteration(images: Tensor, labels: Tensor) -> None:
        loss, _ = supernet.loss(images, labels)
        set_gradients(weights, torch.autograd.grad(loss, weights, allow_unused=True))
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
    elif method == "gdas":
        return {
            "gdas, 9 candidates": (GDASWithOneMore, fast_iteration),
            "gdas, fixed reduction": (
                lambda **shape: GDASSuperNet("fixed", **shape), fast_iteration
            ),
            "darts, fast": (SuperNet, fast_iteration),
            "darts, equation": (EquationSuperNet, equation_iteration),
            "gdas": (GDASSuperNet, fast_iteration),
        }
    elif method == "itnas":
        return {
            "darts, fast": (DARTS7, fast_iteration),
            "itnas, equation": (EquationITNAS, equation_iteration),
            "itnas": (ITNASSuperNet, fast_iteration),
        }
    else:
        return {
            "edas, reduction edge": (EDASReduction, fast_iteration),
            "darts, fast": (DARTS7, fast_iteration),
            "darts, equation": (EquationDARTS7, equation_iteration),
            "edas, normal edge": (EDASNormal, fast_iteration),
        }
    return {"equation": (pair[1], equation_iteration), "fast": (pair[0], fast_iteration)}


def weight_forms(method: str) -> dict[str, tuple]:
    """The same forms in a weight step alone; EDAS' beside the derived network."""
    found = {name: (kind, weight_step) for name, (kind, _) in forms(method).items()}
    if method == "edas":
        found["edas, no edge"] = (TimedEDAS, weight_step)
        found["edas, no edge, idle op"] = (EDASWithOneMore, weight_step)
        found["derived, 14 edges"] = (AllEdges, weight_step)
    return found


def kept_mib(supernet: SuperNet | Network, images: Tensor, labels: Tensor) -> float:
    """MiB that a forward pass keeps for its backward pass, parameters apart."""
    arch, own = supernet.arch_parameters(), {p.data_ptr() for p in supernet.parameters()}
    states = [parameter.requires_grad for parameter in arch]
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    for parameter in arch:
        parameter.requires_grad_(False)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = supernet.loss(images, labels)  # alive until all is counted
    for parameter, state in zip(arch, states, strict=True):
        parameter.requires_grad_(state)
    del loss
    return sum(kept.values()) / 2**20


def main(options: Options) -> None:
    """Print each form's seconds and memory, and how many times the last one's they are."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = set_threads(options.threads)
    images = torch.randn(options.batch_size, 3, 32, 32, device=device)
    labels = torch.randint(10, (options.batch_size,), device=device)
    timed, memory = {}, {}
    chosen = forms if options.step == "both" else weight_forms
    for name, (kind, iteration) in chosen(options.method).items():
        supernet = kind(channels=options.channels, cells=options.cells).to(device)
        memory[name] = kept_mib(supernet, images, labels)
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
            f"{name:<23} {medians[name]:.3f} s ({min(seconds):.3f} to {max(seconds):.3f}, "
            f"n = {len(seconds)}), {medians[name] / medians[last]:.2f} times {last}; "
            f"keeps {memory[name]:.0f} MiB, {memory[name] / memory[last]:.2f} times"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
