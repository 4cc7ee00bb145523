"""EDAS' command: run folders, resuming, notes, bad flags."""

import dataclasses

import pytest

from common.training.bilevel import BilevelTrainer
from edas.config import PRESETS
from edas.search import search

SEARCH = "edas/search.py"
TINY = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
TINY += "--batch-size 32 --checkpoint-steps 1 --epochs 2".split()


@pytest.mark.parametrize("inverted", [2, 3])
def test_a_search_that_inverts_to_its_end_prints_a_note(tmp_path, monkeypatch, capfd, inverted):
    monkeypatch.setattr(BilevelTrainer, "epochs", lambda trainer: iter(()))
    monkeypatch.setattr(BilevelTrainer, "finish", lambda trainer, own_pictures: None)
    search(dataclasses.replace(
        PRESETS["digits"], variant="edas-inv", epochs=2, inversion_epochs=inverted,
        output=str(tmp_path / "run"),
    ).resolved())  # fmt: skip
    out = capfd.readouterr().out
    assert f"note: --inversion-epochs {inverted}:" in out and "all 2 epochs" in out


@pytest.mark.parametrize(("flags", "named"), [
    (["--variant", "edas-max"], "--variant"),
    (["--candidates", "9"], "--candidates"),
    (["--variant", "edas-inv", "--inversion-epochs", "-1"], "--inversion-epochs -1: must be 0"),
    (["--inversion-epochs", "3"], "--inversion-epochs 3: --variant edas has none; use edas-inv"),
    (["--arch-weight-decay", "0.1"], "--arch-weight-decay 0.1: --variant edas has none"),
    (["--variant", "edas-inv", "--arch-weight-decay", "nan"], "--arch-weight-decay nan"),
    (["--decayed", "adam"], "--decayed adam: nothing decays; use --variant edas-inv"),
    (["--variant", "edas-inv", "--arch-weight-decay", "0", "--decayed", "adam"], "nothing decays"),
    (["--decayed", "none"], "--decayed"),
    (["--preset", "imagenet"], "--preset"),
    (["--cells", "2"], "--cells 2: use 3 or more"),
])  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *TINY, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()
