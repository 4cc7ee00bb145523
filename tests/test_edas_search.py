"""EDAS' command: run folders, resuming, notes, bad flags."""

import dataclasses
import json

import pytest
import torch

from builders import (
    EDAS_VARIANTS,
    EDGES,
    assert_same_run,
    interrupt_after,
)
from common.networks.genotype import load
from common.training.bilevel import BilevelTrainer
from edas.config import PRESETS
from edas.search import search

SEARCH = "edas/search.py"
TINY = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
TINY += "--batch-size 32 --checkpoint-steps 1 --epochs 2".split()


@pytest.mark.parametrize("flags", [
    ["--variant", "alpha-max"],
    ["--variant", "edas", "--candidates", "8"],
    ["--variant", "edas-inv", "--inversion-epochs", "1"],
], ids=EDAS_VARIANTS)  # fmt: skip
def test_a_search_resumed_within_an_epoch_ends_in_the_same_bits(tmp_path, command, flags):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    status, out, err = command(SEARCH, *TINY, *flags, "--output", straight)
    assert status == 0 and "normal cell" in out and "note:" not in out, err
    interrupt_after(3, lambda: command(SEARCH, *TINY, *flags, "--output", resumed))
    status, out, err = command(SEARCH, "--resume", resumed)
    assert status == 0 and "resuming at epoch 2, step 2" in out, err
    assert_same_run(straight, resumed)
    assert load(straight).provenance["variant"] == flags[1]
    last = json.loads((straight / "architecture.jsonl").read_text().splitlines()[-1])
    assert len(last["parameters"]) == 2 * EDGES
    alpha = torch.tensor(last["parameters"]["alpha_reduction_0-2"])
    assert len(alpha) == (8 if "8" in flags else 7)
    recorded = torch.tensor(last["weights"]["reduction"]["op"][0])
    torch.testing.assert_close(recorded, alpha.softmax(0))  # +alpha, also with inversion
    assert {path.stem for path in (straight / "pictures").iterdir()} == {"alphas"}  # EDAS' own


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
