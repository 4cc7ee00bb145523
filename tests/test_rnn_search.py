"""GDAS' recurrent search: its steps, hidden states, files, resuming."""

import dataclasses
import json
import math

import pytest
import torch
from accelerate import Accelerator

from builders import (
    RANDOM_TEXT,
    assert_same_run,
    interrupt_after,
    last_checkpoint,
    make_corpus,
    make_recurrent_trainer,
    make_text_folder,
    metrics_of,
)
from common.distributed import generator_of
from common.errors import NotFinite
from common.language.model import Dropouts, chunk_loss, slowness
from common.language.text import Columns
from common.networks.genotype import load
from gdas import rnn_search
from gdas.rnn_config import PRESETS
from retraining.rnn import chosen_preset

SEARCH = "gdas/rnn_search.py"
TAU = 3.0
TINY = "--units 6 --nodes 3 --batch-size 4 --bptt 9 --epochs 2 --checkpoint-steps 3".split()


@pytest.fixture
def texts(tmp_path):
    return make_corpus(tmp_path / "text", **RANDOM_TEXT)


def far_from_flat(trainer):
    """Larger weights, so that gradients are not tiny."""
    with torch.no_grad():
        for weight in trainer.weights:
            weight.mul_(15)
    return trainer


def test_hidden_states_are_carried_without_their_gradient(tmp_path, accelerator, texts):
    trainer = make_recurrent_trainer(tmp_path, accelerator, texts)
    starts, carried = [], {}
    trainer.model.register_forward_pre_hook(lambda module, given: starts.append(given[1]))
    for _ in trainer.epochs(until=1):
        for step, (train, valid) in enumerate(trainer.batches()):
            trainer.weight_step(train, TAU)
            trainer.arch_step(valid, TAU)
            assert train.first == (step == 0)
            both = zip(("hidden", "valid_hidden"), (train, valid), starts, strict=True)
            for name, chunk, start in both:
                assert not start.requires_grad and chunk.first == (start == 0).all()
                assert chunk.first or torch.equal(start, carried[name])
                carried[name] = getattr(trainer, name).clone()
            starts.clear()
        assert step > 5 and not torch.equal(*carried.values())
        trainer.validate(tau=TAU)


def test_all_tensors_are_on_the_device(tmp_path, accelerator, texts, monkeypatch):
    monkeypatch.setattr(Accelerator, "device", torch.device("meta"))  # every machine has it
    trainer = make_recurrent_trainer(tmp_path, accelerator, texts)
    chunk = trainer.valid_columns.chunk(0, 9)
    reads = [trainer.hidden, trainer.valid_hidden, chunk.words, chunk.targets, *trainer.weights]
    assert {tensor.device.type for tensor in (*reads, *trainer.arch)} == {"meta"}


@pytest.mark.parametrize(("length", "clip"), [(9, 0.1), (3, 0.1), (9, 0)])
def test_weight_step_is_clipped_sgd(tmp_path, accelerator, texts, length, clip):
    """Its rate is proportional to the chunk; decay is not clipped; slowness is not recorded."""
    changed = {"weight_decay": 0.01, "learning_rate": 2, "grad_clip": clip, "slowness": 0.5}
    trainer, twin = (
        far_from_flat(make_recurrent_trainer(tmp_path, accelerator, texts, **changed))
        for _ in range(2)
    )
    alpha = trainer.arch[0].detach().clone()
    chunk = trainer.train_batches.chunk(0, length)
    trainer.weight_step(chunk, TAU)
    draw = twin.supernet.draw(generator_of(trainer.config.seed, "weight", 0), TAU)
    reading = twin.model.train()(chunk.words, twin.model.initial(4), draw)
    loss = chunk_loss(reading, chunk.targets)
    gradients = torch.autograd.grad(loss + 0.5 * slowness(reading.states), twin.weights)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert norm > 0.2
    scale = clip / norm if clip else 1
    for weight, old, gradient in zip(trainer.weights, twin.weights, gradients, strict=True):
        expected = old - 2 * length / 9 * (scale * gradient + 0.01 * old)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-8)
    assert torch.equal(trainer.arch[0], alpha)
    assert trainer.meters["loss"].avg == pytest.approx(loss.item(), rel=1e-6)
    assert trainer.optimizer.param_groups[0]["lr"] == 2


def test_arch_step_is_adam_without_clipping(tmp_path, accelerator, texts):
    """By the validation chunk's gradient alone; the weight step before it leaves none."""
    changed = {"arch_beta1": 0.3, "arch_weight_decay": 0.2, "grad_clip": 1e-12}
    trainer, twin = (
        far_from_flat(make_recurrent_trainer(tmp_path, accelerator, texts, **changed))
        for _ in range(2)
    )
    trainer.weight_step(trainer.train_batches.chunk(0, 9), TAU)
    twin.supernet.load_state_dict(trainer.supernet.state_dict())
    before = [weight.detach().clone() for weight in trainer.weights]
    optimizer = torch.optim.Adam(twin.arch, 2e-2, (0.3, 0.999), weight_decay=0.2)
    for step in range(2):
        chunk, hidden = trainer.valid_columns.chunk(9 * step, 9), trainer.valid_hidden.clone()
        trainer.arch_step(chunk, TAU)
        draw = twin.supernet.draw(generator_of(trainer.config.seed, "arch", 0), TAU)
        loss = chunk_loss(twin.supernet(chunk.words, hidden, draw), chunk.targets)
        (twin.arch[0].grad,) = torch.autograd.grad(loss, twin.arch)
        optimizer.step()
        torch.testing.assert_close(trainer.arch[0], twin.arch[0], rtol=1e-9, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(trainer.weights, before, strict=True))


def test_every_step_of_every_seed_has_its_own_draw(tmp_path, accelerator, texts):
    draws = []
    for seed in (2, 3):
        changed = {"seed": seed, "arch_learning_rate": 0}
        trainer = make_recurrent_trainer(tmp_path, accelerator, texts, **changed)
        trainer.model.register_forward_pre_hook(
            lambda module, given: draws.append(given[2].weight[0][1].item())
        )
        for trainer.global_step in range(4):
            trainer.weight_step(trainer.train_batches.chunk(0, 9), TAU)
            trainer.arch_step(trainer.valid_columns.chunk(0, 9), TAU)
    assert len(set(draws)) == len(draws) == 16


def test_algorithm_1(tmp_path, monkeypatch):
    """Weights on the training text, then alpha on the validation text; tau falls."""
    done = []

    class Recorder:
        def __init__(self, config, supernet, run, texts):
            self.last = config.epochs - 1
            done.append((supernet.sample, supernet.derive_none))

        def epochs(self):
            return iter([0, self.last])

        def batches(self):
            return iter([("train", "valid")])

        def weight_step(self, chunk, tau):
            done.append(("weight", chunk, tau))

        def arch_step(self, chunk, tau):
            done.append(("arch", chunk, tau))

        def validate(self, tau):
            done.append(tau)

        def finish(self):
            done.append("finish")

    monkeypatch.setattr(rnn_search, "RecurrentSearchTrainer", Recorder)
    asked = {"sample": "hard", "derive_none": True, "output": str(tmp_path / "run")}
    rnn_search.search(dataclasses.replace(PRESETS["text"], **asked))
    last = pytest.approx(0.1)
    assert done == [
        ("hard", True), ("weight", "train", 10), ("arch", "valid", 10), 10,
        ("weight", "train", last), ("arch", "valid", last), last, "finish",
    ]  # fmt: skip


def test_the_papers_setting():
    config = PRESETS["ptb"]
    assert (config.units, config.nodes, config.batch_size, config.bptt) == (300, 9, 128, 35)
    assert (config.epochs, config.learning_rate, config.weight_decay) == (200, 20, 5e-7)
    assert (config.arch_learning_rate, config.arch_weight_decay) == (3e-3, 1e-3)
    assert config.dropouts == Dropouts(0.75, 0.25, 0.75, 0.2, 0)
    assert (config.tau_max, config.tau_min, config.sample) == (10, 0.1, "soft")
    assert (config.grad_clip, config.bptt_deviation, config.slowness) == (0.25, 0, 1e-3)


@pytest.mark.parametrize("sample", ["hard", "soft"])
def test_resuming_within_an_epoch_gives_the_same_bits(tmp_path, command, sample):
    root = make_text_folder(tmp_path / "text", **RANDOM_TEXT)
    flags = [*TINY, "--sample", sample, "--data-root", root, "--threads", 1]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, out, err = command(SEARCH, *flags, "--output", whole, pictures=sample == "hard")
    assert status == 0 and "recurrent cell" in out, err
    assert f"next: python evaluate/train_rnn.py --genotype {whole}\n" in out
    assert chosen_preset(["--genotype", str(whole)])["ptb"].data_root == str(root)
    interrupt_after(7, lambda: command(SEARCH, *flags, "--output", resumed))
    status, out, err = command(SEARCH, "--resume", resumed)
    assert status == 0 and "resuming at epoch 2" in out, err
    assert_same_run(whole, resumed)
    state = last_checkpoint(whole)[1]
    assert state["hidden"].shape == state["valid_hidden"].shape == (1, 4, 6)
    assert [line["tau"] for line in metrics_of(whole)] == [10, pytest.approx(0.1)]
    assert load(whole).provenance["sample"] == sample
    assert {"words_per_second", "valid_perplexity", "entropy_recurrent"} <= json.loads(
        (whole / "metrics.jsonl").read_text().splitlines()[-1]
    ).keys()
    if sample == "hard":
        pictures = {path.name for path in (whole / "pictures").iterdir()}
        assert {"recurrent.svg", "curves.svg", "architecture_recurrent.svg"} <= pictures


@pytest.mark.parametrize(("flags", "named"), [
    (["--data-root", "no/such"], "no/such: no train text there"),
    (["--preset", "text", "--batch-size", "4000"], "--batch-size 4000: the validation text has"),
    (["--preset", "text", "--batch-size", "40000"], "--batch-size 40000: the training text has"),
    (["--preset", "text", "--nodes", "1"], "--nodes 1: must be 2"),
    (["--preset", "text", "--dropout-word", "1"], "--dropout-word 1.0: must be below 1"),
    (["--preset", "text", "--tau-min", "0"], "--tau-min 0"),
])  # fmt: skip
def test_bad_flags_are_named_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_vocabulary_changes_nothing(tmp_path, command):
    root = make_text_folder(tmp_path / "text", **RANDOM_TEXT)
    flags = [*TINY, "--threads", 1, "--data-root", root, "--output", tmp_path / "run"]
    interrupt_after(5, lambda: command(SEARCH, *flags))
    make_text_folder(root, **{**RANDOM_TEXT, "train": RANDOM_TEXT["train"].replace("b", "x")})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    status, _, err = command(SEARCH, "--resume", tmp_path / "run")
    assert status == 2 and "--data-root" in err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


def test_low_precision_is_refused(tmp_path, command, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    status, _, err = command(SEARCH, "--preset", "text", "--output", tmp_path / "run")
    assert status == 2 and "--mixed_precision bf16" in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("bias", [math.nan, -math.inf])
def test_a_validation_loss_that_is_not_finite_ends_the_search(tmp_path, accelerator, texts, bias):
    trainer = make_recurrent_trainer(tmp_path, accelerator, texts)
    with torch.no_grad():
        trainer.model.bias[3] = bias  # -inf: this word has probability 0, its loss is infinite
    with pytest.raises(NotFinite, match="after epoch 1"):
        trainer.held_out_metrics(TAU)


def test_validation_loss_is_the_mean_over_words(tmp_path, accelerator, texts):
    """Without dropout, with carried states; the short last chunk counts by its words."""
    changed = {"bptt": 20, "dropout_output": 0.5}
    trainer = far_from_flat(make_recurrent_trainer(tmp_path, accelerator, texts, **changed))
    found = []
    for trainer.epoch in range(2):
        trainer.model.train()
        trainer.valid_hidden = torch.ones_like(trainer.valid_hidden)  # arch steps do not change it
        found.append(trainer.valid_loss(TAU))
        generator = generator_of(trainer.config.seed, "validate", trainer.epoch)
        trainer.model.eval()
        total, hidden = 0.0, trainer.model.initial(4).double()
        rows = Columns(texts.valid, 4, "validation").rows
        for words, targets in zip(rows[:-1].split(20), rows[1:].split(20), strict=True):
            with torch.no_grad():
                reading = trainer.model(words, hidden, trainer.model.draw(generator, TAU))
            hidden, loss = reading.hidden, chunk_loss(reading, targets)
            total += loss.item() * targets.numel()
        assert len(targets) < 10  # a short one
        assert found[-1] == pytest.approx(total / rows[1:].numel(), rel=1e-9)
    assert found[0] != found[1]  # each epoch has its own draws


def test_validation_chunks_start_again_at_the_end_and_in_each_epoch(tmp_path, accelerator, texts):
    trainer = make_recurrent_trainer(tmp_path, accelerator, texts, bptt=25)
    once = [(True, 25), (False, 25), (False, len(trainer.valid_columns) - 50)]
    for _ in trainer.epochs(until=2):
        starts = []
        for _train, valid in trainer.batches():
            starts.append((valid.first, len(valid.words)))
            trainer.record(torch.ones(()), valid)
        trainer.validate(tau=TAU)
        assert len(starts) > 3 and len(starts) % 3 and starts == (once * 9)[: len(starts)]


def test_entropy_and_changed_edges(tmp_path, accelerator, texts):
    """`none` is never an edge's best activation, whatever its probability."""
    trainer = make_recurrent_trainer(tmp_path, accelerator, texts)
    none, tanh, relu, *_ = range(5)
    edges = len(trainer.supernet.edges)
    changed, entropies = [], []
    for two, size in ((tanh, 100), (relu, 100), (relu, 100), (none, 100), (tanh, 0)):
        with torch.no_grad():
            trainer.arch[0].zero_()
            trainer.arch[0][range(edges), [two] * 2 + [tanh] * (edges - 2)] = size
        metrics = trainer.held_out_metrics(TAU)
        changed.append(metrics["changed_edges_recurrent"])
        entropies.append(metrics["entropy_recurrent"])
    assert changed[1:] == [2, 0, 2, 0]  # without `none` the first of equals is tanh
    assert entropies == pytest.approx([0, 0, 0, 0, math.log(5)], abs=1e-6)


def test_result_reports_the_last_epoch(tmp_path, accelerator, texts, monkeypatch):
    trainer = make_recurrent_trainer(tmp_path, accelerator, texts)
    for n, (loss, memory) in enumerate([(3.0, 7), (1.0, 9), (2.0, 8)]):
        trainer.run.append("metrics.jsonl", {
            "valid_loss": loss, "valid_perplexity": 10 * loss, "seconds": n + 1.0,
            "peak_memory_mib": memory,
        })  # fmt: skip
    monkeypatch.setattr("common.draw.pictures.run", lambda folder: None)
    trainer.finish()
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "genotype": trainer.genotype().name, "epochs": 3, "valid_loss": 2, "valid_perplexity": 20,
        "search_seconds": 6, "peak_memory_mib": 9,
    }
    found = load(tmp_path)
    assert found.cells["recurrent"] == trainer.supernet.derive()
    assert found.provenance["words"] == len(texts.train)
