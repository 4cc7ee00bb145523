"""FairDARTS (Chu et al., ECCV 2020), a method outside of this code: one sigmoid per candidate."""

import sys
from dataclasses import dataclass
from typing import Literal

from common.errors import errors_are_messages
from common.networks.genotype import CANDIDATES, Cell, Edge, Op
from common.run.cli import parse
from common.run.config import SearchConfig
from common.supernet.cell import Mix
from common.supernet.supernet import SuperNet, shape
from common.training.bilevel import BilevelTrainer
from common.training.opening import open_search

import torch  # isort: skip


@dataclass(frozen=True)
class FairConfig(SearchConfig):
    preset: Literal["digits"] = "digits"
    """digits: a small supernet."""


DIGITS = FairConfig(
    dataset="digits", channels=8, cells=4, crop_padding=1, flip=False, arch_learning_rate=0.1
)


class FairSuperNet(SuperNet):
    """Candidates that do not compete: each has a gate sigmoid(alpha); none needs no gate."""

    candidates = [name for name in CANDIDATES if name != "none"]
    w01, threshold = 10.0, 0.85

    def mix(self, kind):
        return Mix(self.arch[f"alpha_{kind}"].sigmoid())

    def arch_loss(self, images, labels, mixes=None):
        """L_val + w01 L_01, where L_01 = -1/N sum (sigmoid(alpha) - 0.5)^2."""
        loss, logits = self.loss(images, labels, mixes)
        gates = torch.cat([self.mix(kind).op.flatten() for kind in self.kinds])
        return loss - self.w01 * (gates - 0.5).square().mean(), logits

    @torch.no_grad()
    def derive(self):
        """Gates above the threshold, at most two edges a node; of an edge its largest gate."""
        cells, nodes = {}, tuple(range(2, 2 + self.nodes))
        for kind in self.kinds:
            gates, columns = self.mix(kind).op.cpu().max(-1)
            every = sorted(zip(gates.tolist(), columns.tolist(), self.edges, strict=True))[::-1]
            edges = [
                Edge(edge[0], node, Op(self.candidates[column])) for node in nodes
                for gate, column, edge in [one for one in every if one[2][1] == node][:2]
                if gate > self.threshold
            ]
            cells[kind] = Cell(2, tuple(edges), nodes)
        return cells


def search(config):
    config, run, images, split = open_search(config, "fair_darts")
    with run:
        net = FairSuperNet(candidates=config.candidates, **shape(config, images))
        trainer = BilevelTrainer(config, net, run, images, split)
        for _ in trainer.epochs():
            for train, valid in trainer.batches():
                trainer.arch_step(valid)
                trainer.weight_step(train)
            trainer.validate()
        trainer.finish()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse({"digits": DIGITS}, "fair_darts", sys.argv[1:], __doc__))
