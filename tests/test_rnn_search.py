"""GDAS' recurrent search as it is run: its steps, the states they carry, files, resuming."""

import dataclasses
import json
import math
import random

import pytest
import torch
from accelerate import Accelerator

from common.distributed import generator_of
from common.errors import NotFinite
from common.language.model import Dropouts, chunk_loss
from common.language.text import Columns, load_corpus
from common.networks.genotype import load
from common.run.folder import Run
from gdas import rnn_trainer
from gdas.rnn_config import PRESETS
from gdas.rnn_search import search
from gdas.rnn_supernet import RecurrentSuperNet
from gdas.rnn_trainer import RecurrentSearchTrainer
from retraining.rnn import chosen_preset
from test_baselines import interrupt_after
from test_resume import figures, identical, last_checkpoint
from test_text import folder

SEARCH = "gdas/rnn_search.py"
TAU = 3.0
LETTERS = random.Random(0)
TEXT = {
    part: "".join(" ".join(LETTERS.choices("abcdefg", k=7)) + "\n" for _ in range(lines))
    for part, lines in (("train", 40), ("valid", 35), ("test", 20))
}
TINY = "--units 6 --nodes 3 --batch-size 4 --bptt 9 --epochs 2 --checkpoint-steps 3".split()
CONFIG = dataclasses.replace(
    PRESETS["text"], units=6, nodes=4, batch_size=4, bptt=9, epochs=2, threads=1,
    dropout_output=0, dropout_hidden=0, dropout_input=0, dropout_embedding=0,
)  # fmt: skip


def made(accelerator, path, texts, **changed):
    config = dataclasses.replace(CONFIG, **changed)
    torch.manual_seed(0)
    supernet = RecurrentSuperNet(
        len(texts.words), config.units, config.nodes - 1, config.dropouts, config.sample
    ).double()
    return RecurrentSearchTrainer(config, supernet, Run(path, "test", accelerator), texts)


@pytest.fixture
def texts(tmp_path):
    return load_corpus("folder", folder(tmp_path / "text", **TEXT))


def test_hidden_states_are_carried_and_detached(tmp_path, accelerator, texts):
    trainer = made(accelerator, tmp_path, texts)
    given, before = [], {"train": None, "valid": None}
    original = RecurrentSuperNet.forward

    def forward(self, words, hidden, draw):
        given.append(hidden)
        return original(self, words, hidden, draw)

    RecurrentSuperNet.forward = forward
    try:
        for _ in trainer.epochs(until=1):
            for step, (train, valid) in enumerate(trainer.batches()):
                for part, chunk in (("train", train), ("valid", valid)):
                    step_on = trainer.weight_step if part == "train" else trainer.arch_step
                    step_on(chunk, TAU)
                    start = given.pop()
                    assert not start.requires_grad  # no gradient into the chunk before
                    assert chunk.first == (start == 0).all()
                    if not chunk.first:
                        assert torch.equal(start, before[part])
                    name = "hidden" if part == "train" else "valid_hidden"
                    before[part] = getattr(trainer, name).clone()
                assert train.first == (step == 0)
                given.clear()
                assert not torch.equal(before["train"], before["valid"])
            assert step > 5
            trainer.validate(tau=TAU)
    finally:
        RecurrentSuperNet.forward = original


def test_all_that_a_step_reads_is_on_its_device(tmp_path, accelerator, texts, monkeypatch):
    monkeypatch.setattr(Accelerator, "device", torch.device("meta"))  # that every machine has
    trainer = made(accelerator, tmp_path, texts)
    chunk = trainer.valid_columns.chunk(0, 9)
    reads = [trainer.hidden, trainer.valid_hidden, chunk.words, chunk.targets, *trainer.weights]
    assert {tensor.device.type for tensor in (*reads, *trainer.arch)} == {"meta"}


def test_a_weight_step_is_clipped_and_in_proportion_to_the_chunk(tmp_path, accelerator, texts):
    for length in (9, 3):
        trainer = made(accelerator, tmp_path, texts, weight_decay=0, learning_rate=2, grad_clip=0.1)
        alpha = trainer.arch[0].detach().clone()
        weights = [weight.detach().clone() for weight in trainer.weights]
        trainer.weight_step(trainer.train_batches.chunk(0, length), TAU)
        pairs = zip(trainer.weights, weights, strict=True)
        moved = torch.cat([(now - before).flatten() for now, before in pairs])
        assert moved.norm().item() == pytest.approx(2 * 0.1 * length / 9, rel=1e-4)
        assert torch.equal(trainer.arch[0], alpha)
        assert trainer.optimizer.param_groups[0]["lr"] == 2


def test_an_arch_step_is_one_step_of_adam_by_this_gradient_alone(tmp_path, accelerator, texts):
    trainer = made(accelerator, tmp_path, texts)
    twin = made(accelerator, tmp_path, texts)
    trainer.weight_step(trainer.train_batches.chunk(0, 9), TAU)  # leaves nothing behind for alpha
    with torch.no_grad():
        for a, b in zip(twin.weights, trainer.weights, strict=True):
            a.copy_(b)
    before = [weight.detach().clone() for weight in trainer.weights]
    optimizer = torch.optim.Adam(twin.arch, 2e-2, (0.9, 0.999), weight_decay=1e-3)
    for step in range(2):
        chunk = trainer.valid_columns.chunk(9 * step, 9)
        hidden = trainer.valid_hidden.clone()
        trainer.arch_step(chunk, TAU)
        twin.supernet.train()
        twin.global_step = trainer.global_step
        loss = chunk_loss(
            twin.supernet(chunk.words, hidden, twin._draw("arch", TAU)), chunk.targets
        )
        (twin.arch[0].grad,) = torch.autograd.grad(loss, twin.arch)
        optimizer.step()
        torch.testing.assert_close(trainer.arch[0], twin.arch[0], rtol=1e-9, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(trainer.weights, before, strict=True))


def test_algorithm_1(tmp_path, monkeypatch):
    """Weights by the training text, then alpha by the validation text; tau falls."""
    done = []
    monkeypatch.setattr(
        RecurrentSearchTrainer, "weight_step",
        lambda self, chunk, tau: done.append(("weight", chunk, tau)),
    )
    monkeypatch.setattr(
        RecurrentSearchTrainer, "arch_step",
        lambda self, chunk, tau: done.append(("arch", chunk, tau)),
    )
    monkeypatch.setattr(RecurrentSearchTrainer, "validate", lambda self, tau: done.append(tau))
    monkeypatch.setattr(
        RecurrentSearchTrainer, "epochs", lambda self: iter([0, PRESETS["text"].epochs - 1])
    )
    monkeypatch.setattr(RecurrentSearchTrainer, "batches", lambda self: iter([("train", "valid")]))
    monkeypatch.setattr(
        RecurrentSearchTrainer, "finish",
        lambda self: done.append((self.supernet.sample, self.supernet.derive_none)),
    )
    asked = {"sample": "hard", "derive_none": True, "output": str(tmp_path / "run")}
    search(dataclasses.replace(PRESETS["text"], **asked))
    last = pytest.approx(0.1)
    assert done == [
        ("weight", "train", 10), ("arch", "valid", 10), 10,
        ("weight", "train", last), ("arch", "valid", last), last, ("hard", True),
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
def test_a_search_resumed_within_an_epoch_ends_in_the_same_bits(tmp_path, command, sample):
    root = folder(tmp_path / "text", **TEXT)
    flags = [*TINY, "--sample", sample, "--data-root", root, "--threads", 1]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, out, err = command(SEARCH, *flags, "--output", whole, pictures=sample == "hard")
    assert status == 0 and "recurrent cell" in out, err
    assert f"next: python evaluate/train_rnn.py --genotype {whole}\n" in out
    assert chosen_preset(["--genotype", str(whole)])["ptb"].data_root == str(root)
    interrupt_after(6, lambda: command(SEARCH, *flags, "--output", resumed))
    status, out, err = command(SEARCH, "--resume", resumed)
    assert status == 0 and "resuming at epoch 2" in out, err
    assert figures(whole) == figures(resumed) and load(whole) == load(resumed)
    (name, state), (other_name, other) = last_checkpoint(whole), last_checkpoint(resumed)
    assert name == other_name and identical(state, other)
    assert state["hidden"].shape == state["valid_hidden"].shape == (1, 4, 6)
    assert [line["tau"] for line in figures(whole)] == [10, pytest.approx(0.1)]
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
    (["--preset", "text", "--units", "0"], "--units 0: must be 1"),
    (["--preset", "text", "--bptt", "0"], "--bptt 0: must be 1"),
    (["--preset", "text", "--dropout-word", "1"], "--dropout-word 1.0: must be below 1"),
    (["--preset", "text", "--tau-min", "0"], "--tau-min 0"),
    (["--preset", "text", "--sample", "some"], "--sample"),
])  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_another_vocabulary_on_resume(tmp_path, command):
    root = folder(tmp_path / "text", **TEXT)
    flags = [*TINY, "--data-root", root, "--output", tmp_path / "run"]
    interrupt_after(5, lambda: command(SEARCH, *flags))
    folder(root, **{**TEXT, "train": TEXT["train"].replace("b", "x")})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    status, _, err = command(SEARCH, "--resume", tmp_path / "run")
    assert status == 2 and "or its vocabulary, is not the one that the run began with" in err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


def test_low_precision_is_refused(tmp_path, command, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    status, _, err = command(SEARCH, "--preset", "text", "--output", tmp_path / "run")
    assert status == 2 and "--mixed_precision bf16" in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_search_that_diverges_says_so(tmp_path, accelerator, texts, monkeypatch, loss):
    trainer = made(accelerator, tmp_path, texts)
    monkeypatch.setattr(trainer, "valid_loss", lambda tau: float(loss))
    with pytest.raises(NotFinite, match="after epoch 1"):
        for _ in trainer.epochs():
            for train, _valid in trainer.batches():
                trainer.weight_step(train, TAU)
            trainer.validate(tau=TAU)


def by_default(accelerator, path, texts, **changed):
    """A trainer as the config alone has it, its weights far from where all is flat."""
    trainer = made(accelerator, path, texts, **changed)
    with torch.no_grad():
        for weight in trainer.weights:
            weight.mul_(15)
    return trainer


def test_alpha_of_the_first_edge_learns_by_default(tmp_path, accelerator, texts):
    trainer = by_default(accelerator, tmp_path, texts)
    trainer.arch_step(trainer.valid_columns.chunk(0, 9), TAU)
    assert trainer.arch[0].grad[0].abs().max() > 1e-5


def test_alphas_gradient_is_not_clipped(tmp_path, accelerator, texts):
    gradients = []
    for limit in (1e-12, 0):
        trainer = by_default(accelerator, tmp_path, texts, grad_clip=limit)
        trainer.arch_step(trainer.valid_columns.chunk(0, 9), TAU)
        gradients.append(trainer.arch[0].grad)
    assert torch.equal(*gradients) and gradients[0].norm() > 1e-4


def test_both_steps_draw_anew_and_each_iteration_does(tmp_path, accelerator, texts, monkeypatch):
    trainer = made(accelerator, tmp_path, texts)
    draws, draw = set(), trainer.supernet.draw

    def noted(*given):
        drawn = draw(*given)
        draws.add(drawn.weight[0][1].item())
        return drawn

    monkeypatch.setattr(trainer.supernet, "draw", noted)
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)  # so that only draws differ
    monkeypatch.setattr(trainer.arch_optimizer, "step", lambda: None)
    for trainer.global_step in range(4):
        trainer.weight_step(trainer.train_batches.chunk(0, 9), TAU)
        trainer.arch_step(trainer.valid_columns.chunk(0, 9), TAU)
    assert len(draws) == 8


def test_each_seed_has_its_own_draws(tmp_path, accelerator, texts, monkeypatch):
    losses = []
    for seed in (2, 3):
        trainer = by_default(accelerator, tmp_path, texts, seed=seed)
        monkeypatch.setattr(trainer, "record", lambda loss, chunk: losses.append(loss.item()))
        trainer.weight_step(trainer.train_batches.chunk(0, 9), TAU)
    assert losses[0] != losses[1]


def test_validation_is_the_mean_over_words_of_one_reading(tmp_path, accelerator, texts):
    """Without dropout, its state carried, its last chunk of a word weighing as one word."""
    trainer = by_default(accelerator, tmp_path, texts, bptt=20, dropout_output=0.5)
    found = []
    for trainer.epoch in range(2):
        trainer.model.train()
        trainer.valid_hidden = torch.ones_like(trainer.valid_hidden)  # where arch steps ended
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
    assert found[0] != found[1]  # every epoch draws its own


def test_the_validation_text_begins_anew_where_it_ends(tmp_path, accelerator, texts):
    trainer = made(accelerator, tmp_path, texts, bptt=25)
    once = [(True, 25), (False, 25), (False, len(trainer.valid_columns) - 50)]
    for _ in trainer.epochs(until=2):  # and with each epoch, wherever the last one ended
        starts = []
        for _train, valid in trainer.batches():
            starts.append((valid.first, len(valid.words)))
            trainer.record(torch.ones(()), valid)
        trainer.validate(tau=TAU)
        assert len(starts) > 3 and len(starts) % 3 and starts == (once * 9)[: len(starts)]


def test_the_recorded_loss_is_without_regularisers(tmp_path, accelerator, texts, monkeypatch):
    recorded = []
    for slowness in (0.0, 50.0):
        trainer = by_default(accelerator, tmp_path, texts, slowness=slowness)
        monkeypatch.setattr(trainer, "record", lambda loss, chunk: recorded.append(loss.item()))
        trainer.weight_step(trainer.train_batches.chunk(0, 9), TAU)
    assert recorded[0] == recorded[1]


def test_adam_takes_the_betas_and_decay_of_the_config(tmp_path, accelerator, texts):
    trainer = made(accelerator, tmp_path, texts, arch_beta1=0.3, arch_weight_decay=0.2)
    (group,) = trainer.arch_optimizer.param_groups
    assert (group["betas"], group["weight_decay"], group["lr"]) == ((0.3, 0.999), 0.2, 2e-2)


def test_weights_decay(tmp_path, accelerator, texts):
    """And by nothing but decay where there is no other gradient: the clip has no part in it."""
    moved = []
    for decay in (0, 0.01):
        trainer = made(accelerator, tmp_path, texts, weight_decay=decay, learning_rate=2)
        before = [weight.detach().clone() for weight in trainer.weights]
        trainer.weight_step(trainer.train_batches.chunk(0, 9), TAU)
        moved.append([now.detach() - old for now, old in zip(trainer.weights, before, strict=True)])
    for plain, decayed, old in zip(*moved, before, strict=True):
        torch.testing.assert_close(decayed - plain, -2 * 0.01 * old, rtol=1e-6, atol=1e-9)


def test_an_epoch_says_how_sure_alpha_is_and_how_many_edges_changed_their_best(
    tmp_path, accelerator, texts, monkeypatch
):
    """Of the edges' activations; `none` is never one's best, whatever its probability."""
    trainer = made(accelerator, tmp_path, texts)
    none, tanh, relu, *_ = range(5)
    edges = len(trainer.supernet.edges)
    monkeypatch.setattr(trainer, "valid_loss", lambda tau: 1.0)
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


def test_the_result_is_of_the_last_epoch(tmp_path, accelerator, texts, monkeypatch):
    trainer = made(accelerator, tmp_path, texts)
    lines = [
        {"valid_loss": loss, "valid_perplexity": 10 * loss, "seconds": n + 1.0,
         "peak_memory_mib": [7, 9, 8][n]}
        for n, loss in enumerate([3.0, 1.0, 2.0])
    ]  # fmt: skip
    monkeypatch.setattr(rnn_trainer.pictures, "run", lambda folder: None)
    monkeypatch.setattr(trainer.run, "lines", lambda name: lines)
    trainer.finish()
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "genotype": trainer.genotype().name, "epochs": 3, "valid_loss": 2, "valid_perplexity": 20,
        "search_seconds": 6, "peak_memory_mib": 9,
    }
    found = load(tmp_path)
    assert found.cells["recurrent"] == trainer.supernet.derive()
    assert found.provenance["words"] == len(texts.train)
