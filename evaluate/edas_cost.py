"""What a weight step of EDAS costs beside one of the network that it derives, with all its edges.

    python evaluate/edas_cost.py --batch-size 16 --rounds 3

Twenty cells of 16 channels; all take turns. Beside seconds stand MiB that a forward pass keeps.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarking.timing import in_turn, saved_mib, weight_step
from common.errors import errors_are_messages
from common.networks.genotype import CANDIDATES, Cell, Edge, Genotype, Op
from common.networks.macro import Place
from common.networks.network import Network
from common.run.start import set_threads
from common.supernet.equation_form import EquationSuperNet
from common.supernet.measures import best_operations
from common.supernet.sampled import Sample, SampledCell
from common.supernet.supernet import SuperNet
from edas.supernet import EDASSuperNet


@dataclass(frozen=True)
class Options:
    """What to time."""

    batch_size: int = 16
    """Images of a step."""
    rounds: int = 3
    """Timed steps of each network, after one that is not."""
    channels: int = 16
    """Of the first cell's nodes."""
    cells: int = 20
    """How many are stacked."""
    threads: int | None = None
    """CPU threads; by default the usable cores."""


class NoEdge(EDASSuperNet):
    """No edge relaxed; the same best operations whatever else the supernet holds."""

    def init_arch(self) -> None:
        """Equal alphas."""
        torch.manual_seed(2)
        super().init_arch()


class NormalEdge(NoEdge):
    """An edge of the normal cell relaxed, that is in most cells: node 2's to node 4."""

    edge = 7

    def mixes(self) -> list[Sample]:
        """With that edge relaxed."""
        return super().mixes(sampled=(self.edge,))


class ReductionEdge(NormalEdge):
    """The same edge of the reduction cell relaxed, in two cells."""

    edge = 14 + NormalEdge.edge


class OneMore(NoEdge):
    """No edge relaxed, and on each a candidate more, which is there, but idle."""

    def make_cell(self, place: Place) -> nn.Module:
        """Seven candidates and one more."""
        return SampledCell(place, self.nodes, (*self.candidates, "sep_conv_7x7"))


class DARTS7(SuperNet):
    """The dense supernet among EDAS' seven candidates."""

    candidates = tuple(name for name in CANDIDATES if name != "none")


class EquationDARTS7(EquationSuperNet):
    """The same, equation-shaped."""

    candidates = DARTS7.candidates


class AllEdges(Network):
    """The network derived from a fresh EDAS supernet, with all 14 edges of its cells."""

    def __init__(self, **shape):
        supernet = NoEdge(**shape)
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


NETWORKS = {
    "derived, 14 edges": AllEdges,
    "edas, no edge": NoEdge,
    "edas, no edge, idle op": OneMore,
    "edas, reduction edge": ReductionEdge,
    "edas, normal edge": NormalEdge,
    "darts, fast": DARTS7,
    "darts, equation": EquationDARTS7,
}


def main(options: Options) -> None:
    """Print each network's seconds and memory, and how many times the derived one's they are."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = set_threads(options.threads)
    images = torch.randn(options.batch_size, 3, 32, 32, device=device)
    batch = images, torch.randint(10, (options.batch_size,), device=device)
    steps, kept = {}, {}
    for name, kind in NETWORKS.items():
        network = kind(channels=options.channels, cells=options.cells).to(device)
        kept[name] = saved_mib(network, batch, network.arch_parameters())
        step = weight_step(network)
        steps[name] = lambda number, step=step: step(batch)
    seconds = in_turn(steps, options.rounds, device)
    print(f"torch {torch.__version__}, {device}, {threads} threads, batch {options.batch_size}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians))
    for name, values in seconds.items():
        print(
            f"{name:<23} {medians[name]:.3f} s ({min(values):.3f} to {max(values):.3f}, "
            f"n = {len(values)}), {medians[name] / medians[first]:.2f} times; "
            f"keeps {kept[name]:.0f} MiB, {kept[name] / kept[first]:.2f} times"
        )


if __name__ == "__main__":
    with errors_are_messages():
        main(tyro.cli(Options, description=__doc__))
