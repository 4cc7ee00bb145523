"""Budgets: command lines that the searches accept, and the papers' results as published."""

import dataclasses

import pytest

from common.baselines import darts
from common.networks.genotype import load, save
from common.run.cli import parse
from comparison import published
from comparison.budget import NINE, budget_of, changed, search_flags, shared_out, words
from comparison.methods import METHODS, known, name_of
from comparison.planned import jobs_of
from comparison.settings import CompareConfig
from edas import config as edas
from gdas import config as gdas
from itnas import config as itnas
from pc_darts import config as pc_darts
from pr_darts import config as pr_darts
from retraining import random_cells
from retraining.config import RetrainConfig, chosen_preset

MODULES = {"pc_darts": pc_darts, "gdas": gdas, "gdas_frc": gdas, "edas": edas, "itnas": itnas,
           "pr_darts": pr_darts, "darts": darts, "darts2": darts, "random": random_cells}


def parsed(method, flags):
    module = MODULES[method]
    return parse(module.PRESETS, module.METHOD, words(flags), "")


@pytest.mark.parametrize("preset", ["digits", "cifar10"])
def test_matched_searches_have_one_budget(preset):
    given = {"epochs": 12, "channels": 8, "arch_learning_rate": 6e-3}
    budget = budget_of(preset, True, given)
    for name in METHODS:
        config = parsed(name, search_flags(name, budget, METHODS[name].flags))
        size = config.channels, config.cells, config.learning_rate, config.dataset
        assert size == (8, budget.cells, budget.learning_rate, preset)
        if name == "random":  # it trains on one half of the images, a search on both
            assert (config.samples, config.epochs) == (6, 4)
        else:
            assert config.epochs == 12
            own = {"edas": 0.025}
            assert config.arch_learning_rate == own.get(name, 6e-3)
            assert config.cut_accuracy == "off"
        assert config.batch_size == budget.batch_size
        assert name != "pr_darts" or config.batch_max == budget.batch_size
    assert parsed("pc_darts", search_flags("pc_darts", budget, {})).warmup_epochs == 3
    grace = parsed("pr_darts", search_flags("pr_darts", budget, {})).grace_epochs
    assert len(grace) == 9 and sum(grace) == 0


def test_a_matched_budget_names_what_it_changes_in_a_method():
    """Flags besides the shared ones."""
    budget = budget_of("cifar10", True, {"epochs": 20, "arch_learning_rate": 6e-3})
    assert changed("pc_darts", budget).startswith("pc_darts gets --warmup-epochs 6: ")
    assert "--cycle-epochs 3 3 2 2 2 2 2 2 2 " in changed("pr_darts", budget)
    assert changed("random", budget).startswith("random gets --epochs 5 --samples 8: ")
    assert changed("edas", budget) == "edas keeps its own --arch-learning-rate"
    assert not changed("gdas", budget) and not changed("darts", budget)
    for name in METHODS:
        assert not changed(name, budget_of("cifar10", False, {}))


def test_budget_paper_keeps_each_methods_own_settings():
    budget = budget_of("cifar10", False, {})
    for name in METHODS:
        config = parsed(name, search_flags(name, budget, METHODS[name].flags))
        default = parse(MODULES[name].PRESETS, MODULES[name].METHOD, words(METHODS[name].flags), "")
        assert config == default
    assert parsed("gdas", search_flags("gdas", budget, {})).epochs == 240


@pytest.mark.parametrize("total", [3, 5, 8, 9, 10, 27, 100])
def test_epochs_are_split_among_cycles(total):
    shares = NINE[0] if total >= 9 else (15, 10, 10)
    counts = shared_out(total, shares)
    assert sum(counts) == total and min(counts) >= 1 and counts[0] == max(counts)
    assert total != 100 or counts == list(shares)  # the paper's own
    budget = budget_of("digits", True, {"epochs": total})
    config = parsed("pr_darts", search_flags("pr_darts", budget, {}))
    assert config.epochs == total


def test_hessian_is_set_for_all_searches_but_random():
    budget = budget_of("digits", True, {})
    for name in METHODS:
        config = parsed(name, search_flags(name, budget, METHODS[name].flags, hessian=True))
        assert name == "random" or config.hessian


@pytest.mark.parametrize(("preset", "budget"), [("digits", "matched"), ("cifar10", "paper")])
def test_searches_and_retrainings_accept_their_command_lines(preset, budget, tmp_path):
    given = CompareConfig(
        preset=preset, budget=budget, seeds=2, random_cells=1, output=str(tmp_path),
        data_root=str(tmp_path),
    )  # fmt: skip
    given.check()
    jobs = jobs_of(given, tmp_path)
    by_name = {job.name: n for n, job in enumerate(jobs)}
    assert len(by_name) == len(jobs)
    for n, job in enumerate(jobs):
        assert all(by_name[need] < n for need in job.needs)
        if job.is_search:
            module = next(m for key, m in MODULES.items() if METHODS[key].script == job.script)
            parse(module.PRESETS, module.METHOD, list(job.flags), "")
        else:
            flags = [*job.flags, *(["--genotype", "darts_v2"] if job.cells else [])]
            assert isinstance(parse(chosen_preset(flags), "retrain", flags, ""), RetrainConfig)
    found = {job.name: job.cells() for job in jobs if job.cells}
    assert found["gdas-1.train"] == tmp_path / "runs" / "gdas-1"  # each its own search's


def test_published_results():
    """A best result has its mean beside it, where a paper prints both."""
    printed = {name: METHODS[name].printed for name in METHODS}
    assert (printed["pc_darts"][0].mean, printed["pc_darts"][0].best) == (2.67, 2.57)
    five = {"darts": (2.89, 3.15, 2.99, 3.07, 3.27), "darts2": (3.11, 2.68, 2.77, 3.14, 3.06),
            "pc_darts": (2.72, 2.67, 2.57, 2.75, 2.64)}
    for name, runs in five.items():
        figure = printed[name][0]
        assert figure.mean == pytest.approx(sum(runs) / 5, abs=0.006) and figure.best == min(runs)
    assert published.GDAS.mean_text() == "not printed"
    assert not printed["darts2"][0].params  # Table 4 prints none


def test_methods_are_recognised_by_config_json():
    assert name_of({"method": "gdas", "reduction": "fixed"}) == "gdas_frc"
    assert name_of({"method": "darts", "order": 2}) == "darts2"
    assert name_of({"method": "mine"}) == "mine"
    assert known(["darts", "gdas", "darts"]) == ["darts", "gdas"]


@pytest.mark.parametrize("preset", ["digits", "cifar10"])
def test_the_retraining_does_not_depend_on_the_cells_paper(preset, tmp_path):
    """By default evaluate/train.py gives PC-DARTS' cells batches of 128, EDAS' of 64."""
    given = CompareConfig(preset=preset, output=str(tmp_path), data_root=str(tmp_path))
    found = set()
    for method in METHODS.values():
        cells = dataclasses.replace(load("darts_v2"), provenance={"method": method.method})
        save(cells, tmp_path / "cells.json")
        flags = [*words(given.retraining_flags()), "--genotype", str(tmp_path / "cells.json")]
        found.add(parse(chosen_preset(flags), "retrain", flags, ""))
    (one,) = found
    assert one.recipe == {"digits": None, "cifar10": "darts"}[preset]


def test_all_retrainings_have_the_same_flags(tmp_path):
    given = CompareConfig(
        methods=("gdas", "random"), preset="cifar10", output=str(tmp_path), data_root=str(tmp_path),
        dataset="folder", limit_images=40, train_flags="--epochs 2 --cutout 0", random_cells=1,
    )  # fmt: skip
    trainings = [job for job in jobs_of(given, tmp_path) if not job.is_search]
    flags = {tuple(f for f in job.flags if not f.endswith(".json")) for job in trainings}
    assert {f for f in flags if "--genotype" not in f} == {(
        "--preset", "cifar10", "--recipe", "darts", "--dataset", "folder",
        "--data-root", str(tmp_path), "--epochs", "2", "--cutout", "0",
    )}  # fmt: skip
    assert len(flags) == 2  # random cells are named in the flags, and nothing else differs
    searches = [job for job in jobs_of(given, tmp_path) if job.is_search]
    assert all("--limit-images" in job.flags for job in searches)
