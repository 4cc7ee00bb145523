"""GDAS as it is run: its commands, their files, resuming."""

import dataclasses

import pytest

from common.networks.genotype import FixedCell, load
from common.training.bilevel import BilevelTrainer
from gdas.config import PRESETS
from gdas.search import search
from test_baselines import interrupt_after
from test_resume import figures, identical, last_checkpoint

SEARCH = "gdas/search.py"
TINY = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
TINY += "--batch-size 32 --checkpoint-steps 1 --epochs 2".split()


@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_a_search_resumed_within_an_epoch_ends_in_the_same_bits(tmp_path, command, reduction):
    flags = [*TINY, "--reduction", reduction]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, out, err = command(SEARCH, *flags, "--output", whole, pictures=reduction == "fixed")
    assert status == 0 and "normal cell" in out, err
    interrupt_after(3, lambda: command(SEARCH, *flags, "--output", resumed))
    status, out, err = command(SEARCH, "--resume", resumed)
    assert status == 0 and "resuming at epoch 2, step 2" in out, err
    assert figures(whole) == figures(resumed) and load(whole) == load(resumed)
    (name, state), (other_name, other) = last_checkpoint(whole), last_checkpoint(resumed)
    assert name == other_name and identical(state, other)
    assert [line["tau"] for line in figures(whole)] == [10, pytest.approx(0.1)]
    assert (load(whole).cells["reduction"] == FixedCell("gdas_frc")) == (reduction == "fixed")
    assert ("entropy_reduction" in figures(whole)[0]) == (reduction == "searched")
    assert load(whole).provenance["reduction"] == reduction
    if reduction == "fixed":
        pictures = {path.stem for path in (whole / "pictures").iterdir()}
        assert {"reduction", "measures", "architecture_normal", "evolution_normal"} <= pictures
        assert not {"architecture_reduction", "evolution_reduction"} & pictures
    status, _, err = command(
        "evaluate/train.py", "--preset", "digits", "--genotype", whole, "--channels", 4, "--cells",
        3, "--epochs", 1, "--limit-images", 128, "--output", tmp_path / "trained",
    )  # fmt: skip
    assert status == 0, err


@pytest.mark.parametrize(("flags", "named"), [
    (["--reduction", "none"], "--reduction"),
    (["--draw", "edge"], "--draw"),
    (["--tau-min", "0"], "--tau-min 0"),
    (["--tau-max", "-1"], "--tau-max -1"),
    (["--tau-max", "nan"], "--tau-max nan"),
    (["--reduction", "fixed", "--channels", "6"], "--channels must be a multiple of 4"),
])  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *TINY, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_algorithm_1(tmp_path, monkeypatch):
    """W by the training half, then A by the validation half; tau falls epoch by epoch."""
    done = []
    monkeypatch.setattr(
        BilevelTrainer, "weight_step",
        lambda self, half, move_idle, tau: done.append(("weight", half, move_idle, tau)),
    )
    monkeypatch.setattr(
        BilevelTrainer, "arch_step", lambda self, half, tau: done.append(("arch", half, tau))
    )
    monkeypatch.setattr(
        BilevelTrainer, "validate", lambda self, tau: done.append(("validate", tau))
    )
    monkeypatch.setattr(BilevelTrainer, "epochs", lambda self: iter([0, 13]))
    monkeypatch.setattr(BilevelTrainer, "batches", lambda self: iter([("train", "valid")]))
    monkeypatch.setattr(BilevelTrainer, "finish", lambda self: drew.append(self.supernet.draw))
    drew = []
    config = dataclasses.replace(PRESETS["digits"], move_idle=True, draw="kind")
    search(dataclasses.replace(config, output=str(tmp_path / "run")))
    assert drew == ["kind"]
    last = pytest.approx(0.1)
    assert done == [
        ("weight", "train", True, 10), ("arch", "valid", 10), ("validate", 10),
        ("weight", "train", True, last), ("arch", "valid", last), ("validate", last),
    ]  # fmt: skip


def test_a_search_that_diverges_says_so(tmp_path, command):
    flags = [*TINY, "--learning-rate", "1e20", "--grad-clip", 0]
    status, _, err = command(SEARCH, *flags, "--output", tmp_path / "run")
    assert status == 1 and "was not finite" in err
