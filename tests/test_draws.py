"""What a search draws: anew in each step of the run, and known by seed, step and process alone."""

import dataclasses
import functools
import inspect
import itertools

import pytest
import torch
from accelerate.utils import tqdm

from common.networks.genotype import CANDIDATES
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from edas.config import PRESETS
from edas.search import search
from edas.supernet import EDASSuperNet
from gdas.supernet import GDASSuperNet
from itnas.supernet import ITNASSuperNet
from test_bilevel import CONFIG, make
from test_pr_darts import make as make_cycles


def seeds_of_steps(trainer, monkeypatch):
    """The seeds that arch and weight steps draw from, one pair a step of two epochs."""
    seeds = []
    monkeypatch.setattr(
        trainer.supernet, "loss",
        lambda images, labels, mixes: (
            seeds.append(trainer.generator.initial_seed()) or torch.zeros(()),
            torch.zeros(len(labels), 3),
        ),
    )
    trainer.bar = tqdm(disable=True)
    trainer.started = 0
    monkeypatch.setattr(trainer, "_save", lambda: None)
    for _ in range(2):
        for train, valid in trainer.batches():
            trainer.arch_step(valid)
            trainer._gradients(train, trainer.weights, "weight", {})
        trainer.seen = 0
    return seeds


@pytest.mark.parametrize("made", [functools.partial(make, kind=GDASSuperNet), make_cycles])
def test_every_step_of_the_run_draws_anew(tmp_path, accelerator, monkeypatch, made):
    """By its number since the run's first: no epoch repeats the draws of the one before."""
    trainer = made(tmp_path, accelerator)
    seeds = seeds_of_steps(trainer, monkeypatch)
    assert len(seeds) >= 8 and len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("made", [functools.partial(make, kind=SuperNet), make_cycles])
def test_what_a_process_draws_for_itself_is_its_own_and_of_the_step(
    tmp_path, accelerator, monkeypatch, made
):
    trainer, seeds = made(tmp_path, accelerator), {0: [], 1: []}
    trainer.bar, trainer.started = tqdm(disable=True), 0
    monkeypatch.setattr(trainer, "_save", lambda: None)
    for rank in seeds:
        monkeypatch.setattr(type(accelerator), "process_index", rank)
        for _ in range(2):
            for _ in trainer.batches():
                seeds[rank].append(torch.initial_seed())
            trainer.seen = 0
        trainer.global_step = 0
    drawn = seeds[0] + seeds[1]
    assert len(seeds[0]) >= 4 and len(set(drawn)) == len(drawn)


def test_an_epochs_validations_share_their_draws_and_other_epochs_have_others(
    tmp_path, accelerator, monkeypatch
):
    config = dataclasses.replace(CONFIG, cut_accuracy="batch")
    trainer = make(tmp_path, accelerator, GDASSuperNet, config=config)
    seeds, original = [], BilevelTrainer.evaluate
    monkeypatch.setattr(
        BilevelTrainer, "evaluate",
        lambda self, *rest: seeds.append(self.generator.initial_seed())
        or original(self, *rest),
    )
    for trainer.epoch in range(2):
        trainer.generator.manual_seed(trainer.epoch)
        trainer.held_out_metrics(tau=1.0)
    assert len(seeds) == 8 and len(set(seeds[:4])) == len(set(seeds[4:])) == 1
    assert seeds[0] != seeds[4]


def test_edas_is_validated_with_the_sign_as_it_is(tmp_path, monkeypatch):
    """Each epoch, also where its last iteration was of -alpha."""
    told = []
    monkeypatch.setattr(BilevelTrainer, "epochs", lambda self: iter(range(3)))
    monkeypatch.setattr(BilevelTrainer, "batches", lambda self: iter([("train", "valid")]))
    monkeypatch.setattr(BilevelTrainer, "validate", lambda self, **given: told.append(given))
    monkeypatch.setattr(BilevelTrainer, "finish", lambda self, own_pictures: None)
    monkeypatch.setattr("edas.search.iteration", lambda config, trainer, train, valid: (4,))
    search(dataclasses.replace(
        PRESETS["digits"], variant="edas-inv", output=str(tmp_path / "run")
    ).resolved())  # fmt: skip
    assert told == [{"sampled": (4,)}] * 3  # so sigma is what `mixes` begins with
    assert inspect.signature(EDASSuperNet.mixes).parameters["sigma"].default == 1


@pytest.mark.parametrize("kind", [GDASSuperNet, EDASSuperNet, ITNASSuperNet])
def test_the_hessian_is_of_the_relaxed_network_whatever_was_drawn(
    tmp_path, accelerator, monkeypatch, kind
):
    trainer = make(tmp_path, accelerator, kind)
    given = []
    original = trainer.network.forward
    monkeypatch.setattr(
        trainer.network, "forward", lambda images, mixes=None: given.append(mixes)
        or original(images, mixes),
    )
    monkeypatch.setattr("common.training.bilevel.dominant_eigenvalue", lambda loss, *_: loss.item())
    losses = set()
    for seed in range(3):
        trainer.generator.manual_seed(seed)
        losses.add(trainer._eigenvalue())
    assert len(losses) == 1
    count = len(trainer.supernet.candidates)
    for mix in itertools.chain(*given):
        rows = mix.op if kind is ITNASSuperNet else mix.active
        assert {len(row) for row in rows} == {count} and count >= len(CANDIDATES) - 1
