"""Retraining a recurrent cell: NT-ASGD, commands, files, resuming."""

import dataclasses
import itertools
import json

import pytest
import torch

from builders import (
    RANDOM_TEXT,
    assert_same_run,
    interrupt_after,
    last_checkpoint,
    make_language_trainer,
    make_text_folder,
)
from common.language.cell import RecurrentCell
from common.language.loop import with_perplexity
from common.language.model import Dropouts, chunk_loss, exact_loss
from common.language.text import Columns
from common.networks.complexity import LanguageModel as Size
from common.networks.complexity import recurrent_parameters
from common.networks.genotype import Cell, Edge, Genotype, Op, load, save
from retraining import rnn
from retraining.rnn import PRESETS, chosen_preset, triggered

TRAIN = "evaluate/train_rnn.py"
TINY = "--units 6 --batch-size 4 --bptt 9 --epochs 3 --checkpoint-steps 3".split()


@pytest.mark.parametrize(("losses", "loss", "patience", "expected"), [
    ([], 9.0, 0, False),
    ([3.0], 3.1, 0, True),
    ([3.0], 2.9, 0, False),
    ([3.0], 3.0, 0, False),
    ([5, 4, 3, 2, 1], 9, 5, False),  # all are recent
    ([5, 4, 3, 2, 1, 0], 4.9, 5, False),
    ([5, 4, 3, 2, 1, 0], 5.1, 5, True),
])  # fmt: skip
def test_trigger(losses, loss, patience, expected):
    assert triggered(loss, losses, patience) == expected


def test_average_of_all_weights_since_the_trigger(tmp_path, accelerator, monkeypatch):
    trainer = make_language_trainer(tmp_path, accelerator, trigger=0)
    seen, reported = [], iter([3.0, 2.0, 3.5, 2.0, 1.0, 1.0, 0.0, 0.0])  # valid, test
    monkeypatch.setattr(trainer, "exact", lambda model, text: next(reported))
    for epoch in trainer.epochs():
        for chunk in trainer.batches():
            trainer.weight_step(chunk)
            if epoch >= 2:
                seen.append([weight.detach().clone() for weight in trainer.weights])
        trainer.validate()
    assert [line["averaged"] for line in trainer.run.lines("metrics.jsonl")] == [
        False, False, True, True,
    ]  # fmt: skip
    for average, *since in zip(trainer.average.module.parameters(), *seen, strict=True):
        torch.testing.assert_close(average, torch.stack(since).mean(0))


def test_recent_losses_do_not_trigger(tmp_path, accelerator, monkeypatch):
    """With patience 1: 3.5 is above 3.0, one epoch before it; 3.2 is above 3.0, two before it."""
    trainer = make_language_trainer(tmp_path, accelerator, trigger=1)
    reported = iter([3.0, 0.0, 3.5, 0.0, 3.2, 0.0, 3.0, 0.0])  # valid, test
    monkeypatch.setattr(trainer, "exact", lambda model, text: next(reported))
    averaged = [trainer.held_out_metrics()["averaged"] for _ in range(4)]
    assert averaged == [False, False, False, True]


def test_metrics_are_exact_and_of_the_average(tmp_path, accelerator):
    trainer = make_language_trainer(tmp_path, accelerator, trigger=0)
    trainer.valid_losses = [-1.0]  # so that the first epoch triggers
    for _ in trainer.epochs(until=2):
        for chunk in trainer.batches():
            trainer.weight_step(chunk)
        trainer.validate()
    first, second = trainer.run.lines("metrics.jsonl")
    assert (first["averaged"], second["averaged"]) == (False, True)
    average = trainer.average.module.eval()
    for part, text in (("valid", trainer.corpus.valid), ("test", trainer.corpus.test)):
        found = second[f"{part}_loss"]
        assert found == pytest.approx(exact_loss(accelerator, average, text, 1, 50), rel=1e-5)
        assert found != pytest.approx(
            exact_loss(accelerator, trainer.model.eval(), text, 1, 50), rel=1e-5
        )
        assert second[f"{part}_perplexity"] == pytest.approx(torch.tensor(found).exp().item())


def test_weight_step_is_clipped_sgd(tmp_path, accelerator):
    """On NLL plus slowness; an epoch starts with zero states, the next chunk with these ones."""
    changed = {"slowness": 0.5, "weight_decay": 0.01, "learning_rate": 2, "grad_clip": 0.1}
    trainer, twin = (make_language_trainer(tmp_path, accelerator, **changed) for _ in range(2))
    for each in (trainer, twin):
        each.model.double().eval()
        with torch.no_grad():
            for weight in each.weights:
                weight.mul_(15)  # so that gradients are not tiny
    trainer.hidden = torch.full_like(trainer.hidden, 5.0).double()  # of the epoch before
    chunk = trainer.train_batches.chunk(0, 6)
    trainer.weight_step(chunk)
    reading = twin.model(chunk.words, twin.model.initial(4))
    moves = (reading.states[1:] - reading.states[:-1]).square().mean()
    loss = chunk_loss(reading, chunk.targets)
    gradients = torch.autograd.grad(loss + 0.5 * moves, twin.weights)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert norm > 0.15
    for weight, old, gradient in zip(trainer.weights, twin.weights, gradients, strict=True):
        expected = old - 2 * 6 / 9 * (0.1 / norm * gradient + 0.01 * old)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(trainer.hidden, reading.hidden)
    assert not trainer.hidden.requires_grad
    assert trainer.meters["loss"].avg == pytest.approx(loss.item())


def test_a_cell_with_none_can_be_trained(tmp_path, accelerator):
    """The matrix of such a node has no gradient; only its decay moves it."""
    mine = tmp_path / "mine.json"
    ops = (Edge(0, 1, Op("none")), Edge(0, 2, Op("tanh")))
    save(Genotype("mine", {"recurrent": Cell(1, ops, (1, 2))}), mine)
    trainer = make_language_trainer(tmp_path, accelerator, genotype=mine, weight_decay=0.01)
    before = trainer.model.cell.W[0].detach().clone()
    trainer.weight_step(trainer.train_batches.chunk(0, 9))
    rate = trainer.config.learning_rate
    torch.testing.assert_close(trainer.model.cell.W[0], (1 - rate * 0.01) * before)


@pytest.mark.parametrize("genotype", ["gdas_rnn", None])
def test_columns_and_earlier_words_are_independent(tmp_path, accelerator, genotype):
    """A changed word changes only later logits of its column."""
    trainer = make_language_trainer(tmp_path, accelerator, genotype=genotype)
    model = trainer.model.eval()
    hidden = torch.randn(model.cell.hidden_states, 4, 6)
    words = trainer.train_batches.chunk(9, 8).words
    other = words.clone()
    other[3, 1] = (other[3, 1] + 1) % model.bias.numel()
    changed = model(words, hidden).logits != model(other, hidden).logits
    expected = torch.zeros(8, 4, dtype=torch.bool)
    expected[3:, 1] = True
    assert torch.equal(changed.any(-1), expected)
    moved = hidden.clone()
    moved[0, 2] += 1
    changed = (model(words, hidden).logits != model(words, moved).logits).any(-1)
    assert changed.any(0).tolist() == [False, False, True, False]


def test_states_are_carried_within_an_epoch_only(tmp_path, accelerator):
    """After each epoch they equal those of reading the columns in one pass."""
    changes = {"learning_rate": 1e-30, "bptt": 2, "bptt_deviation": 0}
    trainer = make_language_trainer(tmp_path, accelerator, **changes)
    trainer.model.dropouts = Dropouts()
    whole = Columns(trainer.corpus.train, 4, "training")
    for _ in trainer.epochs(until=2):
        for chunk in trainer.batches():
            trainer.weight_step(chunk)
        words = whole.chunk(0, len(whole)).words
        expected = trainer.model(words, trainer.model.initial(4)).hidden
        torch.testing.assert_close(trainer.hidden, expected, rtol=1e-4, atol=1e-8)
        trainer.validate()


def test_step_numbers_are_unique_and_steps_count_their_words(tmp_path, accelerator):
    """Step numbers seed the dropout; words move the progress bar."""
    trainer = make_language_trainer(tmp_path, accelerator)
    numbers = []
    for _ in trainer.epochs(until=3):
        for chunk in trainer.batches():
            numbers.append(trainer.global_step)
            assert trainer.next_items() == chunk.words.numel()
            trainer.record(torch.ones(()), chunk)
        assert trainer.next_items() == 0
        trainer.validated = True
    assert numbers == sorted(set(numbers)) and len(numbers) > 20


def test_perplexity_does_not_overflow():
    assert 1e300 < with_perplexity({"valid_loss": 1e4})["valid_perplexity"] < float("inf")


@pytest.mark.parametrize("root", ["data/ptb", "data/ptb/", "ptb"])
def test_a_text_is_named_by_its_folder(root):
    assert dataclasses.replace(PRESETS["ptb"], data_root=root).source == "ptb"


@pytest.mark.parametrize("wanted", [True, False])
def test_compile_flag_compiles_the_cell(tmp_path, accelerator, monkeypatch, wanted):
    compiled = []
    monkeypatch.setattr(RecurrentCell, "compile_step", lambda cell: compiled.append(cell))
    trainer = make_language_trainer(tmp_path, accelerator, compile=wanted)
    assert compiled == [trainer.model.cell] * wanted


def test_the_papers_recipes():
    ptb, wikitext = PRESETS["ptb"], PRESETS["wikitext2"]
    assert (ptb.units, ptb.batch_size, ptb.epochs, ptb.weight_decay) == (850, 64, 2000, 8e-7)
    assert ptb.dropouts == Dropouts(0.75, 0.25, 0.75, 0.2, 0.1)
    assert (wikitext.units, wikitext.epochs, wikitext.weight_decay) == (700, 3000, 5e-7)
    assert wikitext.dropouts == Dropouts(0.75, 0.25, 0.75, 0.2, 0.1)
    for config in (ptb, wikitext):
        assert (config.learning_rate, config.grad_clip, config.slowness) == (20, 0.25, 1e-3)
        assert (config.bptt, config.bptt_deviation, config.trigger) == (35, 5, 5)


@pytest.mark.parametrize("genotype", ["darts_v2_rnn", "lstm"])
def test_resuming_within_an_epoch_gives_the_same_bits(
    tmp_path, command, monkeypatch, genotype
):
    monkeypatch.setattr(rnn, "triggered", lambda loss, before, patience: len(before) == 1)
    root = make_text_folder(tmp_path / "text", **RANDOM_TEXT)
    flags = [*TINY, "--genotype", genotype, "--data-root", root, "--threads", 1]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, out, err = command(TRAIN, *flags, "--output", whole, pictures=genotype == "lstm")
    assert status == 0 and f"{genotype}: test perplexity" in out, err
    result = json.loads((whole / "result.json").read_text())
    assert result["genotype"] == genotype and result["averaged_epochs"] == 1
    interrupt_after(10, lambda: command(TRAIN, *flags, "--output", resumed))
    status, out, err = command(TRAIN, "--resume", resumed)
    assert status == 0 and "resuming at epoch 3" in out, err
    assert_same_run(whole, resumed)
    state = last_checkpoint(resumed)[1]
    assert state["average"] is not None
    assert state["hidden"].shape == (2 if genotype == "lstm" else 1, 4, 6)


def test_a_search_on_the_small_language_is_retrained_on_it(tmp_path, command):
    run = tmp_path / "run"
    small = ["--preset", "text", "--units", 4, "--nodes", 2, "--checkpoint-steps", 1]
    interrupt_after(1, lambda: command("gdas/rnn_search.py", *small, "--output", run))
    assert chosen_preset(["--genotype", str(run)]) == {"text": PRESETS["text"]}
    assert chosen_preset(["--genotype", str(run), "--preset", "ptb"]) == PRESETS


def test_resuming_needs_the_same_text_and_its_own_genotype_only(tmp_path, command):
    """The file that --genotype named may be gone."""
    root, mine = make_text_folder(tmp_path / "text", **RANDOM_TEXT), tmp_path / "mine.json"
    save(load("darts_v1_rnn"), mine)
    run = tmp_path / "run"
    flags = [*TINY, "--threads", 1, "--genotype", mine, "--data-root", root]
    interrupt_after(4, lambda: command(TRAIN, *flags, "--output", run))
    mine.unlink()
    make_text_folder(root, **{**RANDOM_TEXT, "train": RANDOM_TEXT["train"].replace("b", "x")})
    status, _, err = command(TRAIN, "--resume", run)
    assert status == 2 and "--data-root" in err
    make_text_folder(root, **RANDOM_TEXT)
    own = (run / "genotype.json").read_bytes()
    save(load("darts_v2_rnn"), run / "genotype.json")
    status, _, err = command(TRAIN, "--resume", run)
    assert status == 2 and "genotype.json" in err
    (run / "genotype.json").write_bytes(own)
    status, out, err = command(TRAIN, "--resume", run)
    assert status == 0 and "darts_v1_rnn: test perplexity" in out, err


@pytest.mark.parametrize(("flags", "named"), [
    ([], "one of darts_v1_rnn, darts_v2_rnn, enas_rnn, gdas_rnn, lstm"),
    (["--genotype", "gdas"], "genotype gdas: a language model needs a recurrent cell"),
    (["--genotype", "nothing"], "--genotype nothing"),
    (["--genotype", "lstm", "--compile"], "--compile: "),
    (["--genotype", "lstm", "--data-root", "mine"], "--data-root mine: --dataset small (of"),
    (["--genotype", "lstm", "--batch-size", "40000"], "--batch-size 40000: the training text"),
])  # fmt: skip
def test_bad_flags_are_named_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(TRAIN, "--preset", "text", *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.split())
    assert not (tmp_path / "run").exists()


def test_an_image_network_needs_image_cells(tmp_path, command):
    status, _, err = command(
        "evaluate/train.py", "--preset", "digits", "--genotype", "gdas_rnn",
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert status == 2 and "gdas_rnn: an image network needs a normal and a reduction cell" in err


def test_each_epoch_and_seed_has_its_own_chunks(tmp_path, accelerator):
    trainer = make_language_trainer(tmp_path, accelerator)
    cuts = []
    for trainer.epoch in range(3):
        cuts.append(trainer.starts)
    assert len(set(cuts)) == 3
    trainer.config = dataclasses.replace(trainer.config, seed=9)
    assert trainer.starts not in cuts


def test_train_loss_is_the_mean_over_words(tmp_path, accelerator):
    trainer = make_language_trainer(tmp_path, accelerator, slowness=50.0, learning_rate=1e-30)
    trainer.model.dropouts = Dropouts()
    with torch.no_grad():
        for weight in trainer.weights:
            weight.mul_(15)  # chunks get different losses
    for _ in trainer.epochs(until=1):
        for chunk in trainer.batches():
            trainer.weight_step(chunk)
        trainer.validate()
    whole = Columns(trainer.corpus.train, 4, "training")
    chunk = whole.chunk(0, len(whole))
    loss = chunk_loss(trainer.model.eval()(chunk.words, trainer.model.initial(4)), chunk.targets)
    (line,) = trainer.run.lines("metrics.jsonl")
    assert line["train_loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert line["train_perplexity"] == pytest.approx(loss.exp().item(), rel=1e-6)
    lengths = {b - a for a, b in itertools.pairwise(trainer.starts)}
    assert len(lengths) > 1


def test_result_reports_the_last_and_the_best_epoch(
    tmp_path, accelerator, monkeypatch
):
    """The second of three epochs is best by validation, the first by the test text."""
    trainer = make_language_trainer(tmp_path, accelerator)
    for n, (valid, test) in enumerate([(3.0, 5.0), (1.0, 7.0), (2.0, 6.0)]):
        trainer.run.append("metrics.jsonl", {
            "epoch": n + 1, "valid_loss": valid, "valid_perplexity": 10 * valid,
            "test_perplexity": test, "averaged": n > 0, "seconds": n + 1, "peak_memory_mib": 9 - n,
        })  # fmt: skip
    monkeypatch.setattr("common.draw.pictures.run", lambda folder: None)
    trainer.finish()
    result = json.loads((tmp_path / "result.json").read_text())
    words = len(trainer.corpus.words)
    assert result == {
        "genotype": "gdas_rnn", "words": words,
        "params": recurrent_parameters(trainer.model.cell.cell, Size(words, 6)),
        "epochs": 3, "valid_perplexity": 20,
        "test_perplexity": 6, "chosen_epoch": 2, "chosen_valid_perplexity": 10,
        "chosen_test_perplexity": 7, "averaged_epochs": 2, "train_seconds": 6,
        "peak_memory_mib": 9,
    }  # fmt: skip
