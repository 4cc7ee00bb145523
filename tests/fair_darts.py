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
    """FairDARTS in DARTS' space."""

    preset: Literal["digits"] = "digits"
    """digits: a small supernet."""


PRESETS = {
    "digits": FairConfig(
        dataset="digits", epochs=6, channels=8, cells=4, crop_padding=1, flip=False,
        learning_rate=0.1, arch_learning_rate=0.1, arch_weight_decay=0.0, cut_accuracy="batch",
    ),
}  # fmt: skip


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
        cells = {}
        for kind in self.kinds:
            gate, column = self.mix(kind).op.cpu().max(-1)
            edges = []
            for node in range(2, 2 + self.nodes):
                rows = [row for row, (_, j) in enumerate(self.edges) if j == node]
                rows = sorted(rows, key=lambda row: -gate[row].item())[:2]
                edges += [
                    Edge(self.edges[row][0], node, Op(self.candidates[column[row]]))
                    for row in rows if gate[row] > self.threshold
                ]
            cells[kind] = Cell(2, tuple(edges), tuple(range(2, 2 + self.nodes)))
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
        search(parse(PRESETS, "fair_darts", sys.argv[1:], __doc__))
