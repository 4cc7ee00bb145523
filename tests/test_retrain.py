"""Retraining: the recipe, its loop, and that it resumes."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import nn
from torch.nn import functional as F

from builders import (
    TINY_TRAINING,
    TRAIN,
    assert_same_run,
    last_checkpoint,
    make_retrainer,
    metrics_of,
)
from common.data.batches import Augmentation
from common.data.datasets import load_train
from common.data.split import Split
from common.draw import pictures as draw
from common.errors import InputError
from common.networks.genotype import load
from common.networks.network import Network
from common.run.cli import parse
from common.run.folder import Run
from retraining.config import PRESETS, chosen_preset
from retraining.loop import METHOD, retrain
from retraining.optimizer import optimizer_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a tiny retraining that nothing interrupts, and its drop-path probabilities."""
    AcceleratorState._reset_state()
    PartialState._reset_state()
    folder, seen = tmp_path_factory.mktemp("whole") / "run", []
    argv = [*TINY_TRAINING, "--output", str(folder)]
    original = Network.set_drop_path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "set_drop_path", lambda *own: (seen.append(own[1]), original(*own)))
        patch.setattr(draw, "run", lambda folder: None)
        retrain(parse(chosen_preset(argv), METHOD, argv, ""))
    return folder, seen


def test_the_default_is_section_4_2():
    config = PRESETS["cifar10"]
    paper = {
        "dataset": "cifar10", "cells": 20, "channels": 36, "epochs": 600, "batch_size": 128,
        "learning_rate": 0.025, "learning_rate_min": 0.0, "momentum": 0.9, "weight_decay": 3e-4,
        "grad_clip": 5.0, "drop_path": 0.3, "cutout": 16, "auxiliary_weight": 0.4,
        "ema_decay": 0.0, "crop_padding": 4, "flip": True, "limit_images": None,
    }  # fmt: skip
    assert {key: getattr(config, key) for key in paper} == paper


def test_a_run_and_what_it_leaves(tmp_path, command):
    status, out, err = command(TRAIN, *TINY_TRAINING, "--output", tmp_path / "run", pictures=True)
    assert status == 0, err
    folder = tmp_path / "run"
    result = json.loads((folder / "result.json").read_text())
    assert 0 <= result["test_top1"] <= 100 and f"{result['test_top1']:.2f} %" in out
    lines = metrics_of(folder)
    assert lines[-1]["test_top1"] == result["test_top1"] and lines[0]["valid_top1"] is None
    assert load(folder) == load("pc_darts_cifar10")
    assert (folder / "pictures" / "curves.png").exists()
    assert (folder / "pictures" / "normal.svg").exists()


@pytest.mark.parametrize(("share", "count"), [(None, 128), ("0.1", 26)])
def test_held_out_valid_opens_no_test_image(tmp_path, command, monkeypatch, share, count):
    """It trains on a search's half, or on all but another share."""
    monkeypatch.setattr("retraining.loop.test_images", lambda *_: pytest.fail("opened"))
    folder, flags = tmp_path / "run", [] if share is None else ["--held-out-share", share]
    flags += ["--epochs", 1, "--held-out", "valid"]
    status, out, err = command(TRAIN, *TINY_TRAINING, *flags, "--output", folder)
    assert status == 0, err
    result, last = json.loads((folder / "result.json").read_text()), metrics_of(folder)[-1]
    assert "test_top1" not in result and result["valid_top1"] == last["valid_top1"]
    assert last["test_top1"] is None and "validation images" in out
    images = load_train("digits", "").limited(256, 2)
    split = Split.halves(256, 2) if share is None else Split.holding_out(256, 0.1, 2)
    assert len(split.valid) == count and len(split.train) == 256 - count
    assert not {*split.train.tolist()} & {*split.valid.tolist()}
    assert json.loads((folder / "images.json").read_text()) == {
        "dataset": "digits", **images.described(),
        "train_sha256": images.subset(split.train).sha256(),
        "valid_sha256": images.subset(split.valid).sha256(),
    }


def steps_of(name):
    """A weight after each of three steps on the gradient 1 from 0: lr 0.1, momentum 0.5."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer, seen = optimizer_of(name, [weight], 0.1, 0.5, weight_decay=0.2), []
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        seen.append(weight.item())
    return seen


def test_the_papers_sgd_has_classical_momentum_and_others_are_timms():
    """g = 1 + 0.2 w; v = 0.5 v + g; w = w - 0.1 v, or Nesterov's w - 0.1 (g + 0.5 v)."""
    expected = {"sgd": [], "nesterov": []}
    for name, seen in expected.items():
        w = v = 0
        for _ in range(3):
            g = 1 + 0.2 * w
            v = 0.5 * v + g
            w -= 0.1 * (g + 0.5 * v if name == "nesterov" else v)
            seen.append(w)
    assert {name: pytest.approx(steps_of(name)) for name in expected} == expected
    assert steps_of("AdamW")[0] == pytest.approx(-0.1)  # Adam's first step is the rate
    for name, why in {"nothing": "not found", "adahessian": "second derivatives"}.items():
        with pytest.raises(InputError, match=f"--optimizer {name}: .*{why}.*use sgd, .*adamw"):
            replace(PRESETS["digits"], optimizer=name, genotype="gdas").check()


@pytest.mark.parametrize("extra", [[], ["--ema-decay", "0.9", "--optimizer", "adamw"]])
def test_resumed_from_any_checkpoint_it_ends_in_the_same_bits(tmp_path, command, whole, extra):
    folder, resumed = whole[0], tmp_path / "resumed"
    if extra:
        folder = tmp_path / "whole"
        assert command(TRAIN, *TINY_TRAINING, *extra, "--output", folder)[0] == 0

    saves = []
    original = Run.save_checkpoint

    def interrupt(self, epoch, step, state):
        original(self, epoch, step, state)
        saves.append((epoch, step))
        if saves[-1] == (1, 2):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", interrupt)
        status, _, err = command(TRAIN, *TINY_TRAINING, *extra, "--output", resumed)
    assert status == 130 and "--resume" in err and saves[0] == (0, 2)
    status, out, _ = command(TRAIN, "--resume", resumed)
    assert status == 0 and "resuming at epoch 2, step 3" in out
    assert_same_run(folder, resumed)
    assert (last_checkpoint(folder)[1]["ema"] is not None) == bool(extra)


@pytest.mark.parametrize("left", [("config.json",), ("config.json", "images.json")])
def test_a_run_killed_before_its_first_checkpoint_starts_from_its_first_step(
    tmp_path, command, whole, left
):
    folder, killed = whole[0], tmp_path / "killed"
    killed.mkdir()
    for name in left:
        shutil.copy(folder / name, killed)
    assert command(TRAIN, "--resume", killed)[0] == 0
    assert metrics_of(folder) == metrics_of(killed) and load(folder) == load(killed)


def test_the_recipes_augmentation_reaches_the_batches(tmp_path, accelerator):
    trainer = make_retrainer(tmp_path, accelerator)
    assert trainer.train_batches.augmentation == Augmentation(4, True, 16)
    assert trainer.held_out_batches.augmentation == Augmentation()


def test_drop_path_grows_linearly_from_zero(whole):
    _, seen = whole
    assert seen == pytest.approx([0, 0.5 / 3, 1 / 3])


def test_the_auxiliary_loss_is_added_with_its_weight(tmp_path, accelerator):
    trainer = make_retrainer(tmp_path, accelerator)
    network = trainer.derived.train()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    x, y = trainer.train_batches.train(0)
    logits, auxiliary = network(x)
    loss = F.cross_entropy(logits, y) + 0.4 * F.cross_entropy(auxiliary, y)
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    trainer.weight_step((x, y))
    for name, gradient in zip(names, gradients, strict=True):
        moved = network.get_parameter(name)
        torch.testing.assert_close(moved, before[name] - 0.1 * gradient, rtol=1e-4, atol=1e-6)
    reported = F.cross_entropy(logits, y).item()  # comparable with the loss on test images
    assert float(trainer.meters["loss"].avg) == pytest.approx(reported)


def test_a_written_cell_may_leave_an_input_or_a_node_unused(tmp_path, command):
    edges = [{"from": 1, "to": 2, "op": "sep_conv_3x3"}, {"from": 1, "to": 3, "op": "skip_connect"}]
    cell = {"inputs": 2, "edges": edges, "output": [3]}
    mine = {"format": "nas-genotype", "version": 1, "name": "mine",
            "cells": {"normal": cell, "reduction": cell}}
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    status, _, err = command(
        TRAIN, *TINY_TRAINING, "--epochs", 1, "--genotype", tmp_path / "mine.json",
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert status == 0, err


@pytest.mark.parametrize("nodes", [5, 6, 7])
def test_cells_of_every_size_retrain(tmp_path, command, nodes):
    search, run = tmp_path / "search", tmp_path / "run"
    status, _, err = command(
        "pc_darts/search.py", "--preset", "digits", "--channels", 4, "--cells", 3, "--epochs", 1,
        "--limit-images", 128, "--warmup-epochs", 0, "--nodes", nodes, "--cut-accuracy", "off",
        "--output", search,
    )  # fmt: skip
    assert status == 0, err
    assert load(search).cells["normal"].nodes == nodes - 2
    flags = [*TINY_TRAINING, "--epochs", 1, "--genotype", search]
    status, _, err = command(TRAIN, *flags, "--output", run)
    assert status == 0, err


def test_two_digits_presets_end_to_end(tmp_path, command):
    """The README's two commands, smaller: a search, and what it found learns to 95 %."""
    small = "--channels 8 --cells 3 --limit-images 600 --cut-accuracy off".split()
    status, _, err = command(
        "pc_darts/search.py", "--preset", "digits", *small, "--epochs", 2, "--warmup-epochs", 1,
        "--output", tmp_path / "s",
    )  # fmt: skip
    assert status == 0, err
    lines = (tmp_path / "s" / "architecture.jsonl").read_text().splitlines()
    assert len(lines) == 2 and os.path.getsize(tmp_path / "s" / "genotype.json") > 0
    status, _, err = command(
        TRAIN, "--preset", "digits", "--cells", 3, "--epochs", 8, "--genotype", tmp_path / "s",
        "--output", tmp_path / "t",
    )  # fmt: skip
    assert status == 0, err
    assert json.loads((tmp_path / "t" / "result.json").read_text())["test_top1"] >= 95
