"""EDAS' supernet with one edge relaxed or none, and what it is measured against."""

import torch
from torch.nn import functional as F

from common.networks.genotype import CANDIDATES, Cell, Edge, Genotype, Op
from common.networks.network import Network
from common.supernet.measures import best_operations
from common.supernet.sampled import SampledCell
from common.supernet.supernet import SuperNet
from edas.supernet import EDASSuperNet


class NoEdge(EDASSuperNet):
    """No edge relaxed; the same best operations whatever else the supernet holds."""

    def init_arch(self):
        """Equal alphas."""
        torch.manual_seed(2)
        super().init_arch()


class NormalEdge(NoEdge):
    """An edge of the normal cell relaxed, that is in most cells: node 2's to node 4."""

    edge = 7

    def mixes(self):
        """With that edge relaxed."""
        return super().mixes(sampled=(self.edge,))


class ReductionEdge(NormalEdge):
    """The same edge of the reduction cell relaxed, in two cells."""

    edge = 14 + NormalEdge.edge


class OneMore(NoEdge):
    """No edge relaxed, and on each a candidate more, which is there, but idle."""

    def make_cell(self, place):
        """Seven candidates and one more."""
        return SampledCell(place, self.nodes, (*self.candidates, "sep_conv_7x7"))


class DARTS7(SuperNet):
    """The dense supernet among EDAS' seven candidates."""

    candidates = tuple(name for name in CANDIDATES if name != "none")


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

    def loss(self, images, labels):
        """As `SuperNet.loss`."""
        logits = self(images)
        return F.cross_entropy(logits, labels), logits

    def weight_parameters(self):
        """All."""
        return list(self.parameters())

    def arch_parameters(self):
        """None."""
        return []


NETWORKS = {
    "derived, 14 edges": AllEdges,
    "edas, no edge": NoEdge,
    "edas, no edge, idle op": OneMore,
    "edas, reduction edge": ReductionEdge,
    "edas, normal edge": NormalEdge,
    "darts, fast": DARTS7,
}
