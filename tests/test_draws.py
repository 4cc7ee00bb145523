"""Random numbers of a search: new in each step, and a function of seed, step and process."""

import dataclasses
import functools
import inspect

import pytest
import torch

from builders import drnas, make_cycle_trainer, make_search_trainer
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from edas.config import PRESETS
from edas.search import search
from edas.supernet import EDASSuperNet

MAKERS = [functools.partial(make_search_trainer, kind=SuperNet), make_cycle_trainer]


@pytest.mark.parametrize("made", MAKERS)
def test_every_step_of_the_run_samples_anew(tmp_path, accelerator, monkeypatch, made):
    """By its number since the run's start: no epoch repeats the samples of the one before."""
    trainer, seeds = made(tmp_path, accelerator), []
    mixes = trainer.supernet.mixes

    def recorded(generator, **given):
        seeds.append(generator.initial_seed())
        return mixes(generator, **given)

    monkeypatch.setattr(trainer.supernet, "mixes", recorded)
    for _ in trainer.epochs(until=2):
        for train, valid in trainer.batches():
            trainer.arch_step(valid)
            trainer.weight_step(train)
        trainer.validated = True
    assert len(seeds) >= 8 and len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("made", MAKERS)
def test_each_process_and_step_has_its_own_seed(tmp_path, accelerator, monkeypatch, made):
    """Of torch's own generator, which drop-path uses."""
    seeds = []
    for rank in range(2):
        monkeypatch.setattr(type(accelerator), "process_index", rank)
        (tmp_path / str(rank)).mkdir()
        trainer = made(tmp_path / str(rank), accelerator)
        for _ in trainer.epochs(until=2):
            for _ in trainer.batches():
                seeds.append(torch.initial_seed())
            trainer.validated = True
    assert len(seeds) >= 8 and len(set(seeds)) == len(seeds)


def test_edas_validates_with_positive_sign(tmp_path, monkeypatch):
    """Even if the last iteration of the epoch used -alpha."""
    told = []
    monkeypatch.setattr(BilevelTrainer, "epochs", lambda self: iter(range(3)))
    monkeypatch.setattr(BilevelTrainer, "batches", lambda self: iter([("train", "valid")]))
    monkeypatch.setattr(BilevelTrainer, "validate", lambda self, **given: told.append(given))
    monkeypatch.setattr(BilevelTrainer, "finish", lambda self, own_pictures: None)
    monkeypatch.setattr("edas.search.iteration", lambda config, trainer, train, valid: (4,))
    search(dataclasses.replace(
        PRESETS["digits"], variant="edas-inv", output=str(tmp_path / "run")
    ).resolved())  # fmt: skip
    assert told == [{"sampled": (4,)}] * 3  # so sigma has its default
    assert inspect.signature(EDASSuperNet.mixes).parameters["sigma"].default == 1


def test_draws_without_a_generator_follow_the_step_too(tmp_path, accelerator, monkeypatch):
    """Those of torch.distributions; whatever else is drawn does not move."""
    trainer, drawn = make_search_trainer(tmp_path, accelerator, drnas()[1].DrNASSuperNet), []
    mixes = trainer.supernet.mixes

    def recorded(*given):
        drawn.append(mixes(*given))
        return drawn[-1]

    monkeypatch.setattr(trainer.supernet, "mixes", recorded)
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        with torch.no_grad():  # as in a validation, of two batches
            losses = [trainer.held_out_metrics()["valid_loss"] for _ in range(2)]
        assert losses[0] == losses[1]
        assert torch.equal(torch.get_rng_state(), state)
    draws = [of_pass[0].op[0] for of_pass in drawn]
    assert len(draws) == 8 and all(torch.equal(draws[n], draws[n % 2]) for n in range(8))
    for trainer.global_step in range(2):
        trainer.arch_step(trainer.valid_batches.train(0))
        trainer.weight_step(trainer.train_batches.train(0))
    assert len({tuple(of_pass[0].op[0].tolist()) for of_pass in drawn}) == 2 + 4
