"""What every loop does with its steps, epochs, checkpoints and processes."""

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
from common.data.images import Images
from common.errors import NotFinite
from common.run.folder import Run
from common.supernet.supernet import SuperNet
from common.training import bilevel
from common.training.bilevel import BilevelTrainer
from common.training.loop import peak_memory_mib
from pr_darts.trainer import CycleTrainer
from retraining import loop
from test_bilevel import CONFIG, make
from test_retrain import make_trainer

LAST = 10**6  # an epoch after every warm-up


@pytest.mark.parametrize("method", [edas, pr_darts], ids=["edas", "pr_darts"])
def test_weights_learn_from_training_batches_and_the_architecture_from_validation(
    tmp_path, monkeypatch, method
):
    """The other searches' own tests say the same of them."""
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


def scripted_steps(trainer, values):
    """An epoch's steps, each of which records a loss, and of so many images right or wrong ones."""
    for _, (loss, right, count) in zip(trainer.steps(), values, strict=True):
        logits = torch.tensor([[1.0, 0.0] if right else [0.0, 1.0]]).expand(count, 2)
        trainer.record(torch.tensor(loss), logits, torch.zeros(count, dtype=torch.long))


def test_an_epochs_figures_are_of_its_own_steps_and_a_resumed_run_is_at_the_next_one(
    tmp_path, accelerator, monkeypatch
):
    config = dataclasses.replace(CONFIG, checkpoint_steps=1)
    trainer, saved = make(tmp_path, accelerator, SuperNet, config=config), []
    monkeypatch.setattr(trainer, "held_out_metrics", dict)
    monkeypatch.setattr(trainer, "in_words", lambda *_: "")
    save = Run.save_checkpoint
    monkeypatch.setattr(
        Run, "save_checkpoint",
        lambda run, *state: saved.append(state[:2]) or save(run, *state),
    )
    steps = [[(1.0, True, 1), (2.0, True, 3)], [(5.0, False, 3), (7.0, True, 1)]]
    for epoch in trainer.epochs():
        scripted_steps(trainer, steps[epoch])
        trainer.validate()
    lines = trainer.run.lines("metrics.jsonl")
    assert [line["train_loss"] for line in lines] == [1.75, 5.5]
    assert [line["train_top1"] for line in lines] == [100, 25]
    assert saved == [(0, 1), (1, 0), (1, 1), (2, 0)]

    resumed = make(
        tmp_path, accelerator, SuperNet, config=dataclasses.replace(config, resume=str(tmp_path))
    )
    assert (resumed.epoch, resumed.step, resumed.seconds) == (2, 0, 0)
    assert all(meter.count == 0 for meter in resumed.meters.values())
    assert list(resumed.epochs()) == [] and resumed.run.lines("metrics.jsonl") == lines


def test_a_run_stopped_between_epochs_does_the_next_one_from_its_first_step(
    tmp_path, accelerator, monkeypatch
):
    trainer = make(tmp_path, accelerator, SuperNet)
    monkeypatch.setattr(BilevelTrainer, "held_out_metrics", lambda self: {})
    for _ in trainer.epochs(until=1):
        scripted_steps(trainer, [(1.0, True, 2), (2.0, True, 2)])
        trainer.validate()
    config = dataclasses.replace(CONFIG, resume=str(tmp_path))
    resumed = make(tmp_path, accelerator, SuperNet, config=config)
    assert (resumed.epoch, resumed.step) == (1, 0)
    for _ in resumed.epochs():
        scripted_steps(resumed, [(3.0, False, 2), (4.0, False, 2)])
        resumed.validate()
    assert [line["epoch"] for line in resumed.run.lines("metrics.jsonl")] == [0, 1]
    assert [line["train_loss"] for line in resumed.run.lines("metrics.jsonl")] == [1.5, 3.5]


class Killed(BaseException):
    """What a run does not outlive."""


def test_an_epoch_took_what_it_took_before_and_after_a_kill(
    tmp_path, accelerator, monkeypatch, capfd
):
    """Its seconds have the validation's among them, and its rate is the training's."""
    clock, logged = [100.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(
        accelerator, "log", lambda metrics, step: logged.append((metrics["epoch"], step))
    )

    class Timed(BilevelTrainer):
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

    config = dataclasses.replace(CONFIG, checkpoint_steps=1)
    trainer = make(tmp_path, accelerator, SuperNet, Timed, config=config)
    with pytest.raises(Killed):
        for _ in trainer.epochs():
            trainer.one_epoch(10, 3, killed=True)
    clock[0] += 500
    config = dataclasses.replace(config, resume=str(tmp_path))
    resumed = make(tmp_path, accelerator, SuperNet, Timed, config=config)
    resumed.peak_before = 2.0**40  # as a run reports whose GPU's peak was reset on the way
    for epoch in resumed.epochs():
        resumed.one_epoch(*((5,), (2, 2))[epoch])
    lines = resumed.run.lines("metrics.jsonl")
    assert [line["seconds"] for line in lines] == [1015, 1004]
    assert [line["images_per_second"] for line in lines] == [round(16 / 15, 1), 4]
    assert [line["peak_memory_mib"] for line in lines] == [2.0**40] * 2
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.05])
    assert logged == [(0, 0), (1, 1)]
    assert "32.0/32.0" in capfd.readouterr().err  # images of before the kill are done, too


def test_each_epoch_ends_with_a_validation_of_its_own(tmp_path, accelerator, monkeypatch):
    trainer = make(tmp_path, accelerator, SuperNet)
    monkeypatch.setattr(trainer, "held_out_metrics", dict)
    with pytest.raises(RuntimeError, match="validate"):
        for epoch in trainer.epochs():
            scripted_steps(trainer, [(1.0, True, 1), (1.0, True, 1)])
            if epoch == 0:
                trainer.validate()
    assert trainer.epoch == 1


@pytest.mark.parametrize("which", [0, -1])
def test_one_weight_that_is_not_finite_is_enough(tmp_path, accelerator, monkeypatch, which):
    trainer = make(tmp_path, accelerator, SuperNet)
    monkeypatch.setattr(trainer, "held_out_metrics", dict)
    with pytest.raises(NotFinite):
        for _ in trainer.epochs():
            scripted_steps(trainer, [(1.0, True, 1), (1.0, True, 1)])
            trainer.weights[which].data.view(-1)[-1] = torch.inf
            trainer.validate()
    assert not list(tmp_path.rglob("*.pt")) and not trainer.run.lines("metrics.jsonl")


def test_memory_that_is_full_is_not_taken_for_a_checkpoint_of_other_flags(tmp_path, accelerator):
    class Full(BilevelTrainer):
        def load_state(self, state):
            raise torch.OutOfMemoryError

    Run(tmp_path, "test", accelerator).save_checkpoint(0, 0, {"epoch": 0})
    config = dataclasses.replace(CONFIG, resume=str(tmp_path))
    with pytest.raises(torch.OutOfMemoryError):
        make(tmp_path, accelerator, SuperNet, Full, config=config)


def test_the_peak_of_a_cpu_is_in_mib_of_what_is_resident():
    """It was once as high as now, and never higher than what the machine has."""
    now = psutil.Process().memory_info().rss / 2**20
    total = psutil.virtual_memory().total / 2**20
    assert 0.9 * now <= peak_memory_mib(torch.device("cpu")) <= total


# -------------------------------------------------------------------------------- several processes


def test_figures_are_the_average_over_processes_within_an_epoch_too(
    tmp_path, accelerator, monkeypatch
):
    """As if the others' losses were so large that the mean is three times this one's."""
    monkeypatch.setattr(
        "common.training.loop.average", lambda accelerator, tensors: [3 * t for t in tensors]
    )
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    config = dataclasses.replace(CONFIG, checkpoint_steps=1, epochs=1)
    trainer = make(tmp_path, accelerator, SuperNet, config=config)
    monkeypatch.setattr(trainer, "held_out_metrics", dict)
    for _ in trainer.epochs():
        scripted_steps(trainer, [(1.0, True, 1), (2.0, True, 3)])
        trainer.validate()
    # 1 became 3 where the first step was saved, and 3 + 6 became 27 at the end, of four images.
    assert trainer.run.lines("metrics.jsonl")[0]["train_loss"] == 27 / 4


@pytest.mark.parametrize("mine", [1, None])
def test_the_first_bad_step_of_all_processes_is_named(tmp_path, accelerator, monkeypatch, mine):
    trainer = make(tmp_path, accelerator, SuperNet)
    monkeypatch.setattr(
        accelerator, "gather", lambda first: torch.cat([first, torch.zeros_like(first)])
    )
    with pytest.raises(NotFinite, match=r"step 0 \(epoch 1, step 1 of it\)"):
        for _ in trainer.epochs():
            for step in trainer.steps():
                trainer.watch(torch.tensor(torch.nan if step == mine else 1.0))
            trainer.validate()


def norm_of(parameters):
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm().item()


def test_what_is_clipped_is_the_average_over_processes(tmp_path, accelerator, monkeypatch):
    """A search's weights and architecture, and a retraining's: as one process would clip them."""
    averaged = []

    def more(accelerator, tensors):
        """As if the other processes' gradients were a hundred times as large."""
        averaged.append([None if tensor is None else tensor.clone() for tensor in tensors])
        return [None if tensor is None else 100 * tensor for tensor in tensors]

    for module in (bilevel, loop):
        monkeypatch.setattr(module, "average", more)
    for limit in (0, 1e-3):
        config = dataclasses.replace(CONFIG, grad_clip=limit, arch_grad_clip=limit)
        searching = [make(tmp_path / "s", accelerator, SuperNet, config=config) for _ in range(2)]
        training = make_trainer(tmp_path / "t", accelerator, grad_clip=limit)
        searching[0].weight_step(searching[0].train_batches.train(0))
        searching[1].arch_step(searching[1].valid_batches.train(0))
        training.weight_step(training.train_batches.train(0))
        clipped = searching[0].weights, searching[1].arch, training.weights
        if limit > 0:
            assert [norm_of(of) for of in clipped] == pytest.approx([limit] * 3, rel=1e-2)
    for unlimited, limited in zip(averaged[:3], averaged[3:], strict=True):
        for gradient, same in zip(unlimited, limited, strict=True):
            torch.testing.assert_close(gradient, same)


# ----------------------------------------------------------------------------------- the optimizers


def test_every_weight_decays_normalisations_and_biases_too(tmp_path, accelerator, monkeypatch):
    """With gradients of zero a step leaves w (1 - lr decay), as in the papers' code."""
    config = dataclasses.replace(CONFIG, learning_rate=0.5, weight_decay=0.1, arch_weight_decay=0.1)
    searching = make(tmp_path / "s", accelerator, SuperNet, config=config)
    training = make_trainer(tmp_path / "t", accelerator, learning_rate=0.5, weight_decay=0.1)
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


@pytest.mark.parametrize("betas", [(0.5, 0.999), (0.9, 0.99)])
def test_the_architectures_adam_has_its_betas_over_several_steps(tmp_path, accelerator, betas):
    """Its first step is the same whatever they are."""
    config = dataclasses.replace(CONFIG, arch_beta1=betas[0], arch_beta2=betas[1])
    trainer = make(tmp_path, accelerator, SuperNet, config=config)
    expected = [p.detach().clone().requires_grad_() for p in trainer.arch]
    adam = torch.optim.Adam(expected, lr=0.01, betas=betas, weight_decay=1e-3)
    for step in range(3):
        trainer.arch_step(trainer.valid_batches.train(step))
        for wanted, moved in zip(expected, trainer.arch, strict=True):
            wanted.grad = moved.grad.clone()
        adam.step()
    for wanted, moved in zip(expected, trainer.arch, strict=True):
        torch.testing.assert_close(moved.detach(), wanted.detach())


# ---------------------------------------------------------------------------- a retraining's result


def test_initial_weights_are_the_seeds_whatever_was_drawn_before(
    tmp_path, accelerator, monkeypatch
):
    networks = []

    class Built(Exception):
        """Far enough."""

    def stop(config, genotype, network, *rest):
        networks.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
        raise Built

    donor = make_trainer(tmp_path / "donor", accelerator)
    images = small_images()
    monkeypatch.setattr(loop, "Retrainer", stop)
    for number, (seed, state) in enumerate([(2, 0), (2, 1), (3, 1)]):
        config = dataclasses.replace(donor.config, seed=seed)
        torch.manual_seed(state)
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(Built):
            loop.train(config, Run(folder, "t", accelerator), donor.genotype, images, images)
    assert torch.equal(networks[0], networks[1]) and not torch.equal(networks[1], networks[2])


def small_images():
    pixels = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    return Images(pixels, torch.arange(8) % 2, ("a", "b"), (0.5,) * 3, (0.3,) * 3)


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
def test_a_retrainings_result_is_the_last_epochs(tmp_path, accelerator, monkeypatch, part):
    trainer = make_trainer(tmp_path, accelerator, held_out=part)
    monkeypatch.setattr(loop.pictures, "run", lambda folder: None)
    scripted_epochs(tmp_path)
    trainer.finish()
    result = json.loads((tmp_path / "result.json").read_text())
    main = [p for n, p in trainer.derived.named_parameters() if not n.startswith("auxiliary")]
    assert result == {
        "genotype": "darts_v1", "params": sum(p.numel() for p in main), "epochs": 7,
        f"{part}_loss": 0.75, f"{part}_top1": 10, f"{part}_top5": 15,
        f"{part}_top1_last_five": 42, "train_seconds": 35, "peak_memory_mib": 9,
    }  # fmt: skip


def test_a_searchs_result_is_the_last_epochs(tmp_path, accelerator, monkeypatch):
    trainer = make(tmp_path, accelerator, SuperNet)
    monkeypatch.setattr(bilevel.pictures, "run", lambda folder: None)
    scripted_epochs(tmp_path)
    trainer.finish(more=1)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {
        "genotype": "test-digits-seed2", "epochs": 7, "valid_loss": 0.75, "valid_top1": 10,
        "more": 1, "search_seconds": 35, "peak_memory_mib": 9,
    }
