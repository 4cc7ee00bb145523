"""Options of a retraining: accumulation, compilation, moving average; and refusals."""

import dataclasses
import json
import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from builders import (
    TINY_TRAINING,
    TRAIN,
    assert_refused,
    identical,
    last_checkpoint,
    make_retrainer,
    metrics_of,
    of_an_older_version,
)
from common.data.images import Images
from common.errors import InputError, NotFinite
from common.networks.genotype import load, save
from common.run.folder import Run
from retraining.config import PRESETS
from retraining.loop import Retrainer, retrain, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three epochs, whose folder tests copy."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def unfinished(finished, tmp_path, command):
    """A run that was killed in its second epoch."""
    if not finished.exists():
        assert command(TRAIN, *TINY_TRAINING, "--output", finished)[0] == 0
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return tmp_path / "run"


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_batch(tmp_path, accelerator, parts):
    """With running statistics; batch statistics differ."""
    whole = make_retrainer(tmp_path, accelerator, batch_size=8)
    split = make_retrainer(tmp_path, accelerator, batch_size=8, accumulate=parts)
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
    trainer = make_retrainer(tmp_path, accelerator, label_smoothing=0.1)
    x, y = trainer.train_batches.train(0)
    outputs = trainer.derived.train()(x)
    targets = 0.9 * F.one_hot(y, 2) + 0.1 / 2
    main, auxiliary = (-(targets * logits.log_softmax(1)).sum(1).mean() for logits in outputs)
    assert trainer.loss(x, y).item() == pytest.approx((main + 0.4 * auxiliary).item(), rel=1e-5)


def test_the_recipes_schedule_is_the_runs(tmp_path, accelerator):
    changes = {"schedule": "linear", "learning_rate_warmup": 2, "epochs": 10}
    trainer, rates = make_retrainer(tmp_path, accelerator, **changes), []
    for epoch in range(10):
        trainer.schedule.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    expected = [0.05, 0.1, 0.06, 0.04, 0.02, 0.02, 0.016, 0.012, 0.008, 0.004]
    assert rates == pytest.approx(expected)


def test_a_compiled_run_is_the_same_and_compiles_once(tmp_path, command, monkeypatch):
    """With a backend that runs the traced network unchanged."""
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
    flags = [*TINY_TRAINING, "--genotype", tmp_path / "mine.json", "--epochs", 5]
    flags += ["--limit-images", 64, "--ema-decay", 0.9]
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    assert command(TRAIN, *flags, "--output", plain)[0] == 0
    assert counter.frame_count == 0
    torch._dynamo.reset()
    status, _, err = command(TRAIN, *flags, "--compile", "--output", compiled)
    assert status == 0, err
    counts = counts[5:]
    assert 0 < counts[1] < counts[2] == counts[3] == counts[4] == counter.frame_count
    assert metrics_of(plain) == metrics_of(compiled)
    (_, state), (_, other) = last_checkpoint(plain), last_checkpoint(compiled)
    for part in ("network", "ema"):
        assert identical(state[part], other[part])


def test_top_5_counts_the_five_largest(tmp_path, accelerator):
    trainer = make_retrainer(tmp_path, accelerator)
    logits = torch.arange(8.0).flip(0).expand(8, 8)  # class 0 first, class 7 last
    trainer.held_out_batches.labels = torch.arange(8)
    evaluated = trainer.evaluate(lambda x: logits[: len(x)], trainer.held_out_batches)
    assert evaluated[1:] == (100 / 8, 500 / 8)
    two = trainer.evaluate(lambda x: logits[: len(x), :8], trainer.held_out_batches)
    assert two[2] == 500 / 8


# ------------------------------------------------------------------------------ the moving average


def test_the_moving_average_follows_each_step_and_is_validated(tmp_path, accelerator):
    """With its own running statistics, which validation does not change."""
    trainer = make_retrainer(tmp_path, accelerator, ema_decay=0.75)
    before = [p.detach().clone() for p in trainer.weights]
    trainer.network.train()
    trainer.ema.module.train()
    trainer.weight_step(trainer.train_batches.train(0))
    means = trainer.ema.module.parameters()
    for mean, was, now in zip(means, before, trainer.weights, strict=True):
        torch.testing.assert_close(mean, 0.75 * was + 0.25 * now.detach())
    buffers = [buffer.clone() for buffer in trainer.ema.module.buffers()]
    found = trainer.held_out_metrics()
    assert all(map(torch.equal, trainer.ema.module.buffers(), buffers))
    wanted = trainer.evaluate(trainer.ema.module.eval(), trainer.held_out_batches)
    assert (found["test_loss"], found["test_top1"], found["test_top5"]) == wanted
    assert wanted[0] != trainer.evaluate(trainer.network.eval(), trainer.held_out_batches)[0]


def test_the_averages_statistics_are_averaged_over_processes(
    tmp_path, accelerator, monkeypatch
):
    trainer, equal = make_retrainer(tmp_path, accelerator, ema_decay=0.5), []
    monkeypatch.setattr(
        "common.training.loop.average_statistics", lambda accelerator, one: equal.append(one)
    )
    for _ in trainer.epochs():
        for batch in trainer.batches():
            trainer.weight_step(batch)
        trainer.validate()
    assert {id(one) for one in equal} == {id(trainer.network), id(trainer.ema.module)}


# ----------------------------------------------------------------------------- batches and the loss


def test_each_process_has_its_share_of_all_images(tmp_path, accelerator, monkeypatch):
    monkeypatch.setattr(type(accelerator), "process_index", 1)
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    trainer = make_retrainer(tmp_path, accelerator)
    for part in (trainer.train_batches, trainer.held_out_batches):
        assert (part.rank, part.processes) == (1, 2)


def test_each_epoch_augments_anew(tmp_path, accelerator):
    trainer, taken = make_retrainer(tmp_path, accelerator, epochs=2), []
    for _ in trainer.epochs():
        taken += [images for images, _ in trainer.batches()]
        trainer.validated = True
    stream = make_retrainer(tmp_path, accelerator).train_batches
    assert len(taken) == 4 and all(torch.equal(x, stream.train(k)[0]) for k, x in enumerate(taken))


def test_an_auxiliary_loss_that_is_not_finite_is_named_by_its_step(tmp_path, accelerator):
    trainer = make_retrainer(tmp_path, accelerator)
    for parameter in trainer.derived.auxiliary.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(NotFinite, match="at step 0 "):
        for _ in trainer.epochs():
            for batch in trainer.batches():
                trainer.loss(*batch)
            trainer.validate()


# ------------------------------------------------------------------------ refusals


def test_cells_are_compared_and_not_their_names(tmp_path, accelerator):
    trainer = make_retrainer(tmp_path, accelerator)
    state = trainer.state()
    other = {**load("darts_v2").to_json(), "name": trainer.genotype.name}
    with pytest.raises(InputError, match=r"--resume .*genotype\.json"):
        trainer.load_state({**state, "genotype": json.dumps(other)})
    renamed = {**trainer.genotype.to_json(), "name": "mine"}
    trainer.load_state({**state, "genotype": json.dumps(renamed)})


class Built(Exception):
    """Carries the network that a training has built."""


@pytest.fixture
def begin(tmp_path, accelerator, monkeypatch):
    """Starts a training of eight images, and returns its network instead of training it."""
    pixels = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    images = Images(pixels, torch.arange(8) % 2, ("a", "b"), (0.5,) * 3, (0.3,) * 3)
    donor = make_retrainer(tmp_path / "donor", accelerator)

    def stop(config, genotype, network, *rest):
        raise Built(network)

    def built(**changes):
        config = dataclasses.replace(donor.config, **changes)
        monkeypatch.setattr("retraining.loop.Retrainer", stop)
        with pytest.raises(Built) as done:
            train(config, Run(tmp_path, "t", accelerator), donor.genotype, images, images)
        return done.value.args[0]

    return built


def test_the_batch_is_at_most_all_images(begin):
    begin(batch_size=8)
    with pytest.raises(InputError, match="--batch-size 9"):
        begin(batch_size=9)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_the_auxiliary_head_needs_a_weight(begin, weight):
    assert (begin(auxiliary_weight=weight).auxiliary is not None) == (weight > 0)


def test_initial_weights_depend_on_the_seed_alone(begin):
    networks = []
    for seed, state in ((2, 0), (2, 1), (3, 1)):
        torch.manual_seed(state)
        network = begin(seed=seed)
        networks.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(networks[0], networks[1]) and not torch.equal(networks[1], networks[2])


def test_a_share_that_holds_out_no_image_is_refused(tmp_path):
    config = dataclasses.replace(
        PRESETS["digits"], genotype="gdas", held_out="valid", held_out_share=0.001,
        limit_images=64, threads=1, output=str(tmp_path / "run"),
    )  # fmt: skip
    with pytest.raises(InputError, match="--held-out-share"):
        retrain(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flag", "value"), [("--genotype", "darts_v1"), ("--recipe", "gdas")])
def test_resume_with_another_genotype_or_recipe(unfinished, command, flag, value):
    result = command(TRAIN, "--resume", unfinished, flag, value, "--dataset", "digits")
    assert_refused(result, f"{flag} {value}: the run .* has")


def test_a_checkpoint_of_another_genotype(unfinished, command):
    """Its network has the same parameters."""
    own, before = unfinished / "genotype.json", (unfinished / "metrics.jsonl").read_bytes()
    checkpoints = sorted((unfinished / "checkpoints").iterdir())
    data = json.loads(own.read_text())
    pools = [e for e in data["cells"]["reduction"]["edges"] if e["op"] == "max_pool_3x3"]
    pools[0]["op"] = "avg_pool_3x3"
    own.write_text(json.dumps({**data, "name": "mine"}))
    assert_refused(
        command(TRAIN, "--resume", unfinished),
        "--resume .*run: the checkpoints are of another genotype than mine; restore",
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
        r"the run has 4 classes \(cat, cow, dog, ...\), .* 10 classes \(0, 1, 2, ...\)",
    )


def test_resume_with_other_images_of_the_same_classes(unfinished, command):
    images = json.loads((of_an_older_version(unfinished) / "images.json").read_text())
    (unfinished / "images.json").write_text(json.dumps({**images, "train_sha256": "0"}))
    assert_refused(command(TRAIN, "--resume", unfinished), "are not those of the run")
