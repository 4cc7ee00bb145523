"""DARTS and random search: settings, commands, files."""

import dataclasses
import json
import statistics
import time
from collections import Counter
from itertools import combinations

import pytest
import torch

from builders import (
    calls_of,
    interrupt_after,
    launch,
)
from common.baselines import darts
from common.data.datasets import load_train
from common.data.split import Split
from common.errors import NotFinite
from common.networks.genotype import load
from retraining import loop, random_cells
from retraining.random_cells import OPERATIONS, random_genotype

DARTS, RANDOM = "common/baselines/darts.py", "evaluate/random_search.py"
SMALL = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
SMALL += "--batch-size 32 --checkpoint-steps 1 --epochs 2".split()


def test_the_default_is_the_search_of_darts():
    paper = {
        "dataset": "cifar10", "cells": 8, "channels": 16, "nodes": 6, "epochs": 50,
        "batch_size": 64, "learning_rate": 0.025, "learning_rate_min": 0.001, "momentum": 0.9,
        "weight_decay": 3e-4, "grad_clip": 5.0, "arch_learning_rate": 3e-4, "arch_beta1": 0.5,
        "arch_beta2": 0.999, "arch_weight_decay": 1e-3, "crop_padding": 4, "flip": True,
        "cutout": 0, "order": 1, "limit_images": None,
    }  # fmt: skip
    assert {key: getattr(darts.PRESETS["cifar10"], key) for key in paper} == paper


def test_the_digits_presets_search_the_whole_space_for_60_arch_steps():
    config = darts.PRESETS["digits"]
    assert config.nodes == 6 and (1438 // 2 // config.batch_size) * config.epochs >= 60
    assert random_cells.PRESETS["digits"].samples == 8
    assert random_cells.PRESETS["digits"].nodes == 6


@pytest.mark.parametrize("order", [1, 2])
def test_alpha_on_validation_then_weights_on_training(tmp_path, monkeypatch, order):
    preset = darts.PRESETS["digits"]
    config = dataclasses.replace(preset, order=order, output=str(tmp_path / "run"))
    alpha, weights, *_ = calls_of(darts.search, config, monkeypatch)
    assert alpha == [("arch_step", "valid"), ("unrolled_arch_step", "train", "valid")][order - 1]
    assert weights == ("weight_step", "train")
    if order == 2:
        assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("order", ["0", "3", "two"])
def test_other_orders_are_refused(tmp_path, command, order):
    status, _, err = command(DARTS, *SMALL, "--order", order, "--output", tmp_path / "run")
    assert status == 2 and "--order" in err and not (tmp_path / "run").exists()


def test_second_order_refuses_bf16(tmp_path, command, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    status, _, err = command(DARTS, *SMALL, "--order", 2, "--output", tmp_path / "run")
    assert status == 2 and "--order 2" in err and "--mixed_precision no" in err
    assert not (tmp_path / "run").exists()
    assert command(DARTS, *SMALL, "--epochs", 1, "--output", tmp_path / "run")[0] == 0


# ----------------------------------------------------------------------------------- random search


def test_random_cells_are_uniform_over_edges_and_operations():
    count, operations, inputs = 2000, Counter(), Counter()
    for number in range(count):
        for cell in random_genotype(4, 0, number).cells.values():
            operations.update(edge.op.name for edge in cell.edges)
            for node in range(2, 6):
                inputs[node, tuple(edge.source for edge in cell.into(node))] += 1
    expected = {name: 1 / 7 for name in OPERATIONS}
    assert_close_to(operations, expected, count * 16)
    for node in range(2, 6):
        pairs = list(combinations(range(node), 2))
        found = Counter({pair: inputs[node, pair] for pair in pairs})
        assert sum(found.values()) == 2 * count  # two different inputs, always
        assert_close_to(found, {pair: 1 / len(pairs) for pair in pairs}, 2 * count)


def test_the_draws_of_a_cell_are_independent():
    """Pairs of operations of a node are uniform; the kinds of cell differ."""
    count, pairs, alike = 1500, Counter(), 0
    for number in range(count):
        cells = random_genotype(4, 0, number).cells
        alike += cells["normal"] == cells["reduction"]
        pairs.update(tuple(edge.op.name for edge in cells["normal"].into(node)) for node in (2, 5))
    uniform = {(one, other): 1 / 49 for one in OPERATIONS for other in OPERATIONS}
    assert_close_to(pairs, uniform, 2 * count)
    assert alike == 0


def assert_close_to(found, shares, total):
    """Within five standard deviations of a binomial."""
    assert set(found) == set(shares)
    for key, share in shares.items():
        deviation = (total * share * (1 - share)) ** 0.5
        assert abs(found[key] - total * share) <= 5 * deviation, key


def test_random_cells_follow_from_seed_and_number():
    assert random_genotype(4, 1, 3).cells == random_genotype(4, 1, 3).cells
    others = [random_genotype(4, 1, 4), random_genotype(4, 2, 3), random_genotype(3, 1, 3)]
    assert all(random_genotype(4, 1, 3).cells != other.cells for other in others)


def test_a_random_search_keeps_all_cells_and_resumes(tmp_path, command):
    flags = [*SMALL, "--samples", 3, "--epochs", 1, "--learning-rate", 0.07, "--cutout", 1]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, out, err = command(RANDOM, *flags, "--output", whole)
    assert status == 0 and "of 3 cells" in out, err
    interrupt_after(4, lambda: command(RANDOM, *flags, "--output", resumed))  # in the second cell
    first = (resumed / "cells/000/result.json").stat().st_mtime_ns
    status, out, err = command(RANDOM, "--resume", resumed)
    assert status == 0, err
    assert (resumed / "cells/000/result.json").stat().st_mtime_ns == first  # not trained again
    recipe = json.loads((whole / "cells/000/config.json").read_text())
    assert (recipe["learning_rate"], recipe["cutout"], recipe["channels"]) == (0.07, 1, 4)
    images, halves = load_train("digits", "").limited(128, 2), Split.halves(128, 2)
    assert json.loads((whole / "cells/000/images.json").read_text()) == {
        "dataset": "digits", **images.described(),
        "train_sha256": images.subset(halves.train).sha256(),
        "valid_sha256": images.subset(halves.valid).sha256(),
    }
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, resumed)]
    for key in ("valid_top1", "valid_loss"):
        first, second = ([cell[key] for cell in result["cells"]] for result in results)
        assert first == second and len(first) == 3
    for result in results:
        top1 = [cell["valid_top1"] for cell in result["cells"]]
        assert result["valid_top1"] == max(top1)
        assert result["valid_top1_mean"] == pytest.approx(statistics.mean(top1))
        assert result["valid_top1_std"] == pytest.approx(statistics.stdev(top1))
    assert load(whole) == load(resumed)
    best = min(results[0]["cells"], key=lambda cell: (-cell["valid_top1"], cell["valid_loss"]))
    assert load(whole).cells == random_genotype(2, 2, best["number"]).cells
    assert load(whole / "cells" / "001").cells == random_genotype(2, 2, 1).cells
    status, out, _ = command(RANDOM, "--resume", resumed)
    assert status == 0 and "is finished" in out


def test_cells_are_ranked_by_accuracy_and_ties_by_loss(tmp_path, command, monkeypatch):
    figures = [(80.0, 0.5), (90.0, 0.9), (90.0, 0.7), (85.0, 0.6)]

    def train(recipe, inner, genotype, train, valid):
        top1, loss = figures[int(inner.folder.name)]
        inner.write("result.json", {
            "valid_top1": top1, "valid_loss": loss, "train_seconds": 1.0, "params": 9,
            "peak_memory_mib": 1.0,
        })

    monkeypatch.setattr(loop, "train", train)
    folder = tmp_path / "run"
    status, _, err = command(RANDOM, *SMALL, "--samples", len(figures), "--output", folder)
    assert status == 0, err
    assert load(folder).provenance["number"] == 2
    assert load(folder).cells == random_genotype(2, 2, 2).cells
    result = json.loads((folder / "result.json").read_text())
    assert result["valid_top1"] == 90 and result["valid_top1_mean"] == 86.25


def test_a_random_search_killed_before_its_result_still_finishes(tmp_path, command):
    """The result is the last file, which marks a run as finished."""
    flags, folder = [*SMALL, "--samples", 2, "--epochs", 1], tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "common.draw.pictures.spread", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert command(RANDOM, *flags, "--output", folder, pictures=True)[0] == 130
    assert not (folder / "result.json").exists()
    assert command(RANDOM, "--resume", folder, pictures=True)[0] == 0
    assert (folder / "genotype.json").exists() and (folder / "pictures/spread.png").exists()


def test_a_diverging_cell_is_counted_and_the_search_goes_on(
    tmp_path, command, monkeypatch
):
    original = loop.Retrainer.held_out

    def held_out(self, *of):
        if self.genotype.name.endswith("001"):
            raise NotFinite("too much")
        return original(self, *of)

    monkeypatch.setattr(loop.Retrainer, "held_out", held_out)
    flags, folder = [*SMALL, "--samples", 3, "--epochs", 1], tmp_path / "run"
    status, _, err = command(RANDOM, *flags, "--output", folder)
    assert status == 0, err
    result = json.loads((folder / "result.json").read_text())
    assert result["failed"] == 1 and result["cells"][1]["failed"] == "too much"


@pytest.mark.parametrize("flags", [("--log-with", "tensorboard"), ("--samples", 0)])
def test_a_random_search_refuses(tmp_path, command, flags):
    status, _, err = command(RANDOM, *SMALL, *flags, "--output", tmp_path / "run")
    assert status == 2 and flags[0] in err and not (tmp_path / "run").exists()


def test_config_json_records_the_command_of_a_module(tmp_path):
    process = launch("-m", "common.baselines.darts", *SMALL, "--output", tmp_path / "run")
    while not (file := tmp_path / "run" / "config.json").exists() and process.poll() is None:
        time.sleep(0.1)
    process.kill()
    config = json.loads(file.read_text())
    assert config["command"].startswith("python -m common.baselines.darts --preset digits")
