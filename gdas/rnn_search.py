"""GDAS for recurrent cells: samples the activation of each edge once per chunk of text (4.3).

Searches the cell of a language model (Dong and Yang, CVPR 2019). Without flags this is section 4.3
on PTB, from a folder with train.txt, valid.txt and test.txt; --preset text takes a minute on a
laptop and needs no download.
"""

from __future__ import annotations

import common  # noqa: F401  before torch: sets how threads wait

# isort: split
import sys

import torch

from common.distributed import seed_of
from common.errors import errors_are_messages
from common.language.loop import corpus
from common.language.text import Columns, Corpus
from common.run.cli import parse
from common.run.folder import Run
from common.run.start import start
from common.supernet.gumbel import linear
from gdas.rnn_config import METHOD, PRESETS, GDASRNNConfig
from gdas.rnn_supernet import RecurrentSuperNet
from gdas.rnn_trainer import RecurrentSearchTrainer


def search(config: GDASRNNConfig) -> None:
    """Run one search in its own run folder."""
    config, accelerator = start(config)
    texts = corpus(config, accelerator)
    for named, text in (("training", texts.train), ("validation", texts.valid)):
        Columns(text, config.batch_size, named)  # checks the batch size
    config.check_memory(len(texts.words), config.nodes - 1)
    with Run.open(config, METHOD, accelerator) as run:
        run.pin_text(texts.digests())
        algorithm_1(config, run, texts)


def algorithm_1(config: GDASRNNConfig, run: Run, texts: Corpus) -> None:
    """Algorithm 1: update W on the training text, then A on the validation text."""
    torch.manual_seed(seed_of(config.seed, "weights"))  # the same on every process
    supernet = RecurrentSuperNet(
        len(texts.words), config.units, config.nodes - 1, config.dropouts, config.sample,
        config.derive_none,
    )
    trainer = RecurrentSearchTrainer(config, supernet, run, texts)
    for epoch in trainer.epochs():
        tau = linear(config.tau_max, config.tau_min, epoch, config.epochs)
        for train, valid in trainer.batches():
            trainer.weight_step(train, tau)  # W - grad_W L_T; by SGD, see the README
            trainer.arch_step(valid, tau)  # A - grad_A L_V
        trainer.validate(tau=tau)
    trainer.finish()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
