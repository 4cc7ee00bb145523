"""Epochs, checkpoints, metrics and results of every training loop."""

import dataclasses
import json
import time

import psutil
import pytest
import torch
from torch import nn

import edas.config
import edas.search
import pr_darts.config
import pr_darts.search
from builders import SEARCH_CONFIG, make_retrainer, make_search_trainer
from common.errors import NotFinite
from common.run.folder import Run
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from common.training.duration import in_words
from common.training.loop import peak_memory_mib
from pr_darts.trainer import CycleTrainer

LAST = 10**6  # an epoch after every warm-up


@pytest.mark.parametrize("method", [edas, pr_darts], ids=["edas", "pr_darts"])
def test_weights_train_on_training_batches_and_the_architecture_on_validation(
    tmp_path, monkeypatch, method
):
    done = []
    for verb in ("arch", "weight"):
        monkeypatch.setattr(
            BilevelTrainer, f"{verb}_step",
            lambda self, batch, verb=verb, **how: done.append((verb, batch)),
        )
    monkeypatch.setattr(BilevelTrainer, "validate", lambda self, **given: None)
    for kind in (BilevelTrainer, CycleTrainer):
        monkeypatch.setattr(kind, "batches", lambda self, valid=True: iter([("train", "valid")]))
    monkeypatch.setattr(BilevelTrainer, "epochs", lambda self, until=None: iter([LAST]))
    monkeypatch.setattr(BilevelTrainer, "finish", lambda self, own_pictures, **found: None)
    monkeypatch.setattr(CycleTrainer, "cycles", lambda self: iter(self.table[-1:]))
    config = dataclasses.replace(
        method.config.PRESETS["digits"], channels=4, cells=3, nodes=4,
        output=str(tmp_path / "run"),
    )
    method.search.search(config.resolved())
    assert done == [("arch", "valid"), ("weight", "train")]


# ------------------------------------------------------------------------------ epochs, checkpoints


class Scripted(BilevelTrainer):
    """Trains nothing: each step records a given loss for so many images, classified right or not.

    The validation measures nothing.
    """

    def held_out_metrics(self):
        return {}

    def scripted(self, *steps):
        for _, (loss, right, count) in zip(self.steps(), steps, strict=True):
            logits = torch.tensor([[1.0, 0.0] if right else [0.0, 1.0]]).expand(count, 2)
            self.record(torch.tensor(loss), logits, torch.zeros(count, dtype=torch.long))


@pytest.fixture
def scripted(tmp_path, accelerator):
    """Makes trainers of one run folder."""
    def made(kind=Scripted, **changes):
        config = dataclasses.replace(SEARCH_CONFIG, **changes)
        return make_search_trainer(tmp_path, accelerator, SuperNet, kind, config=config)

    return made


STEPS = [[(1.0, True, 1), (2.0, True, 3)], [(5.0, False, 3), (7.0, True, 1)]]


@pytest.mark.parametrize("checkpoint_steps", [1, 50])
@pytest.mark.parametrize("stop", [1, 2])
def test_metrics_are_of_an_epochs_own_images_and_resuming_starts_at_the_next_epoch(
    tmp_path, scripted, checkpoint_steps, stop
):
    """Whether the run ended after its first epoch or after its last."""
    trainer = scripted(checkpoint_steps=checkpoint_steps)
    for epoch in trainer.epochs(until=stop):
        trainer.scripted(*STEPS[epoch])
        trainer.validate()
    resumed = scripted(checkpoint_steps=checkpoint_steps, resume=str(tmp_path))
    assert (resumed.epoch, resumed.step, resumed.seconds) == (stop, 0, 0)
    assert all(meter.count == 0 for meter in resumed.meters.values())
    for epoch in resumed.epochs():
        resumed.scripted(*STEPS[epoch])
        resumed.validate()
    lines = resumed.run.lines("metrics.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["train_loss"] for line in lines] == [1.75, 5.5]
    assert [line["train_top1"] for line in lines] == [100, 25]


class Killed(BaseException):
    """Ends a run."""


def test_time_and_rate_of_an_epoch_count_both_sides_of_a_kill(
    tmp_path, scripted, monkeypatch, capfd
):
    """The seconds include the validation; the rate is that of training."""
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    class Timed(Scripted):
        def held_out_metrics(self):
            clock[0] += 1000
            return {}

        def one_epoch(self, *seconds, killed=False):
            for _, taken in zip(self.steps(), seconds, strict=True):
                clock[0] += taken
                self.record(torch.tensor(1.0), torch.zeros(8, 2), torch.zeros(8, dtype=torch.long))
                if killed and self.step == 1:
                    raise Killed
            self.validate()

    trainer = scripted(Timed, checkpoint_steps=1)
    with pytest.raises(Killed):
        for _ in trainer.epochs():
            trainer.one_epoch(10, 3, killed=True)
    clock[0] += 500
    resumed = scripted(Timed, checkpoint_steps=1, resume=str(tmp_path))
    resumed.peak_before = 2.0**40  # as if a GPU's peak had been reset
    for epoch in resumed.epochs():
        resumed.one_epoch(*((5,), (2, 2))[epoch])
    lines = resumed.run.lines("metrics.jsonl")
    assert [line["seconds"] for line in lines] == [1015, 1004]
    assert [line["images_per_second"] for line in lines] == [round(16 / 15, 1), 4]
    assert [line["peak_memory_mib"] for line in lines] == [2.0**40] * 2
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.05])
    assert "32.0/32.0" in capfd.readouterr().err  # the progress bar counts images before the kill


def test_an_epoch_without_validation_is_an_error(scripted):
    trainer = scripted()
    with pytest.raises(RuntimeError, match="validate"):
        for epoch in trainer.epochs():
            trainer.scripted(*STEPS[epoch])
            if epoch == 0:
                trainer.validate()
    assert trainer.epoch == 1


@pytest.mark.parametrize("which", [0, -1])
def test_a_weight_that_is_not_finite_ends_the_run(tmp_path, scripted, which):
    trainer = scripted()
    with pytest.raises(NotFinite):
        for epoch in trainer.epochs():
            trainer.weights[which].data.view(-1)[-1] = torch.inf
            trainer.scripted(*STEPS[epoch])
            trainer.validate()
    assert not list(tmp_path.rglob("*.pt")) and not trainer.run.lines("metrics.jsonl")


def test_lack_of_memory_is_not_reported_as_a_foreign_checkpoint(tmp_path, accelerator, scripted):
    class Full(Scripted):
        def load_state(self, state):
            raise torch.OutOfMemoryError

    Run(tmp_path, "test", accelerator).save_checkpoint(0, 0, {"epoch": 0})
    with pytest.raises(torch.OutOfMemoryError):
        scripted(Full, resume=str(tmp_path))


def test_peak_memory_of_a_cpu_is_resident_mib():
    now = psutil.Process().memory_info().rss / 2**20
    total = psutil.virtual_memory().total / 2**20
    assert 0.9 * now <= peak_memory_mib(torch.device("cpu")) <= total


# -------------------------------------------------------------------------------- several processes


def test_metrics_are_averaged_over_processes_at_the_end_of_an_epoch(
    accelerator, scripted, monkeypatch
):
    """As if the other processes' losses made each mean three times this one's."""
    monkeypatch.setattr(
        "common.training.loop.average", lambda accelerator, tensors: [3 * t for t in tensors]
    )
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    trainer = scripted(checkpoint_steps=1, epochs=1)
    for epoch in trainer.epochs():
        trainer.scripted(*STEPS[epoch])
        trainer.validate()
    # 1 + 6, of 4 images, became 21; the checkpoint after the first step changed nothing.
    assert trainer.run.lines("metrics.jsonl")[0]["train_loss"] == 21 / 4


@pytest.mark.parametrize("mine", [1, None])
def test_the_first_bad_step_of_all_processes_is_named(accelerator, scripted, monkeypatch, mine):
    monkeypatch.setattr(
        accelerator, "gather", lambda first: torch.cat([first, torch.zeros_like(first)])
    )
    trainer = scripted()
    with pytest.raises(NotFinite, match=r"step 0 \(epoch 1, step 1 of it\)"):
        for _ in trainer.epochs():
            for step in trainer.steps():
                trainer.watch(torch.tensor(torch.nan if step == mine else 1.0))
            trainer.validate()


# ----------------------------------------------------------------------------------- the optimizers


def test_normalisations_and_biases_decay_too(tmp_path, accelerator):
    """A step with zero gradients leaves w (1 - lr decay), as in the papers' code."""
    rates = {"learning_rate": 0.5, "weight_decay": 0.1}
    config = dataclasses.replace(SEARCH_CONFIG, arch_weight_decay=0.1, **rates)
    searching = make_search_trainer(tmp_path / "s", accelerator, SuperNet, config=config)
    training = make_retrainer(tmp_path / "t", accelerator, **rates)
    for trainer in (searching, training):
        with torch.no_grad():
            for weight in trainer.weights:
                weight.add_(1)
        before = [weight.detach().clone() for weight in trainer.weights]
        for weight in trainer.weights:
            weight.grad = torch.zeros_like(weight)
        trainer.optimizer.step()
        assert {id(w) for w in trainer.weights} >= {
            id(p) for m in trainer.network.modules() if isinstance(m, (nn.BatchNorm2d, nn.Linear))
            for p in m.parameters()
        }
        for weight, was in zip(trainer.weights, before, strict=True):
            torch.testing.assert_close(weight.detach(), was * (1 - 0.5 * 0.1))


# ------------------------------------------------------------------------ a training's result


def scripted_epochs(folder):
    """Seven epochs of which the last is not the best, nor the first, nor the middle one."""
    top1 = [90.0, 60.0, 80.0, 20.0, 70.0, 30.0, 10.0]
    for epoch, value in enumerate(top1):
        line = {"epoch": epoch, "train_loss": 1.0, "seconds": 2.0 + epoch}
        for part in ("test", "valid"):
            line |= {f"{part}_loss": epoch / 8, f"{part}_top1": value, f"{part}_top5": value + 5}
        line["peak_memory_mib"] = [5.0, 6, 9, 8, 7, 6, 5][epoch]
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.mark.parametrize("part", ["test", "valid"])
def test_result_of_a_retraining_is_of_its_last_epoch(tmp_path, accelerator, monkeypatch, part):
    trainer = make_retrainer(tmp_path, accelerator, held_out=part)
    monkeypatch.setattr("common.draw.pictures.run", lambda folder: None)
    scripted_epochs(tmp_path)
    trainer.finish()
    result = json.loads((tmp_path / "result.json").read_text())
    main = [p for n, p in trainer.derived.named_parameters() if not n.startswith("auxiliary")]
    assert result == {
        "genotype": "darts_v1", "params": sum(p.numel() for p in main), "epochs": 7,
        f"{part}_loss": 0.75, f"{part}_top1": 10, f"{part}_top5": 15,
        f"{part}_top1_last_five": 42, "train_seconds": 35, "peak_memory_mib": 9,
    }  # fmt: skip


def test_result_of_a_search_is_of_its_last_epoch(tmp_path, accelerator, monkeypatch):
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet)
    monkeypatch.setattr("common.draw.pictures.run", lambda folder: None)
    scripted_epochs(tmp_path)
    trainer.finish(more=1)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {
        "genotype": "test-digits-seed2", "epochs": 7, "valid_loss": 0.75, "valid_top1": 10,
        "more": 1, "search_seconds": 35, "peak_memory_mib": 9,
    }


@pytest.mark.parametrize(("long", "said"), [(0, True), (3600, False)])
def test_a_long_run_says_how_long_with_its_first_steps(scripted, capsys, monkeypatch, long, said):
    monkeypatch.setattr("common.training.loop.ESTIMATE_AFTER", 0)
    monkeypatch.setattr("common.training.loop.LONG", long)
    trainer = scripted()
    for _ in trainer.epochs(until=1):
        trainer.scripted(*STEPS[0])
        trainer.validate()
    assert ("to go at this speed" in capsys.readouterr().out) == said


def test_durations_in_words():
    assert [in_words(s) for s in (20, 100, 4000, 9000, 90_000, 9 * 86_400, 30 * 86_400)] == [
        "20 s", "2 min", "67 min", "2.5 hours", "25 hours", "9.0 days", "30 days",
    ]  # fmt: skip
