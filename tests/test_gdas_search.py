"""GDAS' command: Algorithm 1, run folders, resuming, bad flags."""

import dataclasses

import pytest

from common.training.bilevel import BilevelTrainer
from gdas.config import PRESETS
from gdas.search import search

SEARCH = "gdas/search.py"
TINY = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
TINY += "--batch-size 32 --checkpoint-steps 1 --epochs 2".split()


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

    def record(verb):
        return lambda trainer, *batch, **given: done.append((verb, *batch, given))

    for verb in ("weight_step", "arch_step", "validate"):
        monkeypatch.setattr(BilevelTrainer, verb, record(verb))
    monkeypatch.setattr(BilevelTrainer, "epochs", lambda trainer: iter([0, 13]))
    monkeypatch.setattr(BilevelTrainer, "batches", lambda trainer: iter([("train", "valid")]))
    monkeypatch.setattr(BilevelTrainer, "finish", lambda trainer: done.append(trainer.supernet))
    config = dataclasses.replace(PRESETS["digits"], move_idle=True, draw="kind")
    search(dataclasses.replace(config, output=str(tmp_path / "run")))
    *steps, supernet = done
    assert supernet.draw == "kind"
    assert steps == [
        step for tau in (10, pytest.approx(0.1)) for step in [
            ("weight_step", "train", {"move_idle": True, "tau": tau}),
            ("arch_step", "valid", {"tau": tau}),
            ("validate", {"tau": tau}),
        ]
    ]  # fmt: skip


def test_a_search_that_diverges_says_so(tmp_path, command):
    flags = [*TINY, "--learning-rate", "1e20", "--grad-clip", 0]
    status, _, err = command(SEARCH, *flags, "--output", tmp_path / "run")
    assert status == 1 and "was not finite" in err
