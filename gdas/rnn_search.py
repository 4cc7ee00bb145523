"""GDAS for recurrent cells: one activation an edge, drawn for each chunk of text (4.3).

Searches the cell of a language model (Dong and Yang, CVPR 2019). Without flags this is section 4.3
on PTB, from a folder of train.txt, valid.txt and test.txt; --preset text is a minute on a laptop,
with nothing to download.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal

import torch

from common.distributed import seed_of
from common.errors import InputError, errors_are_messages
from common.language.loop import TextConfig
from common.language.text import Columns, Corpus
from common.run.cli import parse
from common.run.flags import at_least, flag
from common.run.folder import Run
from common.run.start import corpus, start
from common.supernet.gumbel import linear
from gdas.rnn_supernet import RecurrentSuperNet
from gdas.rnn_trainer import RecurrentSearchTrainer

METHOD = "gdas_rnn"


@dataclass(frozen=True)
class GDASRNNConfig(TextConfig):
    """Section 4.3: PTB, 300 units, B = 9, 200 epochs."""

    preset: Literal["ptb", "text"] = "ptb"
    """ptb: the paper's search (4.3); text: a minute on two CPU cores, no download."""
    sample: Literal["hard", "soft"] = "soft"
    """Mix all activations of an edge by their relaxed draw (authors' code), or run the drawn one
    (3.2), by which edge (0, 1) learns nothing."""
    derive_none: bool = False
    """Let `none` be derived, too (authors' code; the paper's Omega): such a node's state is 0."""
    nodes: int = 9
    """B, the state made of word and hidden state counted: 9 are 8 searched nodes and 36 edges."""
    tau_max: float = 10.0
    """Temperature of the first epoch."""
    tau_min: float = 0.1
    """Temperature of the last epoch; between them it is linear."""
    arch_learning_rate: float = 3e-3
    """Of the architecture parameters' Adam."""
    arch_beta1: float = 0.9
    """Adam's decay of the first moment."""
    arch_beta2: float = 0.999
    """Adam's decay of the second moment."""
    arch_weight_decay: float = 1e-3
    """Of the architecture parameters (added to the gradient, as Adam does)."""
    epochs: int = 200
    """Passes over the training text."""
    batch_size: int = 128
    """Columns that each text is read in, over all processes together."""
    weight_decay: float = 5e-7
    """Of the weights."""

    def check(self) -> None:
        """See `TextConfig.check`."""
        super().check()
        at_least(self, 2, "nodes")
        at_least(self, 0, "arch_learning_rate", "arch_weight_decay", "arch_beta1", "arch_beta2")
        for name in ("arch_beta1", "arch_beta2"):
            if getattr(self, name) >= 1:
                raise InputError(f"{flag(name)} {getattr(self, name)}: must be below 1")
        for name in ("tau_max", "tau_min"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{flag(name)} {getattr(self, name)}: must be above 0 and finite")


PRESETS = {
    "ptb": GDASRNNConfig(),
    "text": GDASRNNConfig(
        preset="text", dataset="small", units=48, batch_size=32, epochs=6, learning_rate=10,
        dropout_output=0.2, dropout_hidden=0.1, dropout_input=0.2, dropout_embedding=0.1,
        arch_learning_rate=2e-2,
    ),
}


def search(config: GDASRNNConfig) -> None:
    """One search in a run folder of its own."""
    config, accelerator = start(config)
    texts = corpus(config, accelerator)
    for named, text in (("training", texts.train), ("validation", texts.valid)):
        Columns(text, config.batch_size, named)  # or it says what does not fit
    config.check_memory(len(texts.words), config.nodes - 1)
    run = Run.open(config, METHOD, accelerator)
    run.pin_text(texts.digests())
    algorithm_1(config, run, texts)
    run.close()


def algorithm_1(config: GDASRNNConfig, run: Run, texts: Corpus) -> None:
    """Algorithm 1: W by a sub-graph's training loss, then A by another one's validation loss."""
    torch.manual_seed(seed_of(config.seed, "weights"))  # alike on every process
    supernet = RecurrentSuperNet(
        len(texts.words), config.units, config.nodes - 1, config.dropouts, config.sample,
        config.derive_none,
    )
    trainer = RecurrentSearchTrainer(config, supernet, run, texts)
    for epoch in trainer.epochs():
        supernet.tau = linear(config.tau_max, config.tau_min, epoch, config.epochs)
        for train, valid in trainer.batches():
            trainer.weight_step(train)  # W - grad_W L_T; by SGD, see the README
            trainer.arch_step(valid)  # A - grad_A L_V
    trainer.finish()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
