"""What a retraining can do beside its recipe: parts of batches, compiling, figures, refusals."""

import json
import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from common.networks.genotype import load, save
from conftest import of_an_older_version
from retraining.loop import Retrainer
from test_commands import assert_refused
from test_resume import figures, identical, last_checkpoint
from test_retrain import TINY, TRAIN, make_trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three epochs, whose folder tests copy."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def unfinished(finished, tmp_path, command):
    """A run that was killed in its second epoch."""
    if not finished.exists():
        assert command(TRAIN, *TINY, "--output", finished)[0] == 0
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return tmp_path / "run"


@pytest.mark.parametrize("parts", [2, 4])
def test_gradients_added_over_parts_are_those_of_the_batch(tmp_path, accelerator, parts):
    """All but the normalisation, which here goes by running statistics."""
    whole = make_trainer(tmp_path, accelerator, batch_size=8)
    split = make_trainer(tmp_path, accelerator, batch_size=8, accumulate=parts)
    batch, found = whole.train_batches.train(0), []
    for trainer in (whole, split):
        for module in trainer.derived.modules():
            module.train(not isinstance(module, nn.BatchNorm2d))
        found.append(trainer.gradients(batch))
    for gradient, expected in zip(*found, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert float(split.meters["loss"].avg) == pytest.approx(
        float(whole.meters["loss"].avg), rel=1e-5
    )
    assert split.meters["loss"].count == 8


def test_labels_are_smoothed_in_both_losses(tmp_path, accelerator):
    trainer = make_trainer(tmp_path, accelerator, label_smoothing=0.1)
    x, y = trainer.train_batches.train(0)
    outputs = trainer.derived.train()(x)
    targets = 0.9 * F.one_hot(y, 2) + 0.1 / 2
    main, auxiliary = (-(targets * logits.log_softmax(1)).sum(1).mean() for logits in outputs)
    assert trainer.loss(x, y).item() == pytest.approx((main + 0.4 * auxiliary).item(), rel=1e-5)


def test_the_recipes_schedule_is_the_runs(tmp_path, accelerator):
    changes = {"schedule": "linear", "learning_rate_warmup": 2, "epochs": 10}
    trainer, rates = make_trainer(tmp_path, accelerator, **changes), []
    for epoch in range(10):
        trainer.schedule.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    expected = [0.05, 0.1, 0.06, 0.04, 0.02, 0.02, 0.016, 0.012, 0.008, 0.004]
    assert rates == pytest.approx(expected)


def test_compiled_it_is_the_same_run_and_is_not_compiled_anew(tmp_path, command, monkeypatch):
    """Here by a backend that runs the traced network as it stands."""
    counter = CompileCounter()
    compile_in_place, batches, counts = nn.Module.compile, Retrainer.batches, []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_in_place(self, backend=counter))

    def counted(self):
        counts.append(counter.frame_count)
        return batches(self)

    monkeypatch.setattr(Retrainer, "batches", counted)
    edges = [
        {"from": 0, "to": 2, "op": "dil_conv_3x3"}, {"from": 1, "to": 2, "op": "skip_connect"}
    ]  # fmt: skip
    cell = {"inputs": 2, "edges": edges, "output": [2]}
    mine = {"format": "nas-genotype", "version": 1, "name": "mine",
            "cells": {"normal": cell, "reduction": cell}}
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    flags = [*TINY, "--genotype", tmp_path / "mine.json", "--epochs", 5, "--limit-images", 64]
    flags += ["--ema-decay", 0.9]
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    assert command(TRAIN, *flags, "--output", plain)[0] == 0
    assert counter.frame_count == 0
    torch._dynamo.reset()
    status, _, err = command(TRAIN, *flags, "--compile", "--output", compiled)
    assert status == 0, err
    counts = counts[5:]
    assert 0 < counts[1] < counts[2] == counts[3] == counts[4] == counter.frame_count
    assert figures(plain) == figures(compiled)
    (_, state), (_, other) = last_checkpoint(plain), last_checkpoint(compiled)
    for part in ("network", "ema"):
        assert identical(state[part], other[part])


def test_top_5_and_the_mean_of_the_last_five_epochs(tmp_path, command, monkeypatch):
    scripted = iter([(2.0, 10.0 * k, 50.0 + k) for k in range(1, 8)])
    monkeypatch.setattr(Retrainer, "held_out", lambda *_: next(scripted))
    status, _, err = command(
        TRAIN, *TINY, "--epochs", 7, "--limit-images", 64, "--output", tmp_path / "run"
    )
    assert status == 0, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["test_top1"], result["test_top5"]) == (70, 57)
    assert result["test_top1_last_five"] == 50
    line = figures(tmp_path / "run")[0]
    assert (line["test_top5"], line["valid_top5"]) == (51, None)


def test_top_5_counts_the_five_largest(tmp_path, accelerator):
    trainer = make_trainer(tmp_path, accelerator)
    logits = torch.arange(8.0).flip(0).expand(8, 8)  # class 0 first, class 7 last
    trainer.held_out_batches.labels = torch.arange(8)
    evaluated = trainer.evaluate(lambda x: logits[: len(x)], trainer.held_out_batches)
    assert evaluated[1:] == (100 / 8, 500 / 8)
    two = trainer.evaluate(lambda x: logits[: len(x), :8], trainer.held_out_batches)
    assert two[2] == 500 / 8


# ------------------------------------------------------------------------- what does not fit a run


@pytest.mark.parametrize(("flag", "value"), [("--genotype", "darts_v1"), ("--recipe", "gdas")])
def test_resume_with_another_genotype_or_recipe(unfinished, command, flag, value):
    result = command(TRAIN, "--resume", unfinished, flag, value, "--dataset", "digits")
    assert_refused(result, f"{flag} {value} contradicts the run")


def test_a_checkpoint_of_another_genotype(unfinished, command):
    """Even of one whose network has the same parameters."""
    own, before = unfinished / "genotype.json", (unfinished / "metrics.jsonl").read_bytes()
    checkpoints = sorted((unfinished / "checkpoints").iterdir())
    data = json.loads(own.read_text())
    pools = [e for e in data["cells"]["reduction"]["edges"] if e["op"] == "max_pool_3x3"]
    pools[0]["op"] = "avg_pool_3x3"
    own.write_text(json.dumps({**data, "name": "mine"}))
    assert_refused(
        command(TRAIN, "--resume", unfinished),
        "--resume .*run: its checkpoints are of another genotype than mine; put back the",
    )
    assert (unfinished / "metrics.jsonl").read_bytes() == before
    assert sorted((unfinished / "checkpoints").iterdir()) == checkpoints
    save(load("pc_darts_cifar10"), own)
    assert command(TRAIN, "--resume", unfinished)[0] == 0


def test_resume_with_another_number_of_classes(unfinished, command):
    images = json.loads((of_an_older_version(unfinished) / "images.json").read_text())
    images["classes"] = ["cat", "cow", "dog", "hen"]
    (unfinished / "images.json").write_text(json.dumps(images))
    assert_refused(
        command(TRAIN, "--resume", unfinished),
        r"began with 4 classes \(cat, cow, dog, ...\), .* 10 classes \(0, 1, 2, ...\)",
    )


def test_resume_with_other_images_of_the_same_classes(unfinished, command):
    images = json.loads((of_an_older_version(unfinished) / "images.json").read_text())
    (unfinished / "images.json").write_text(json.dumps({**images, "train_sha256": "0"}))
    assert_refused(command(TRAIN, "--resume", unfinished), "are not those that the run began with")
