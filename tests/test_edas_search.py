"""EDAS as it is run: its commands, their files, resuming."""

import dataclasses
import json

import pytest
import torch

from common.networks.genotype import load
from common.training.bilevel import BilevelTrainer
from edas.config import PRESETS
from edas.search import search
from test_baselines import interrupt_after
from test_edas import EDGES, VARIANTS
from test_resume import figures, identical, last_checkpoint

SEARCH = "edas/search.py"
TINY = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
TINY += "--batch-size 32 --checkpoint-steps 1 --epochs 2".split()


@pytest.mark.parametrize("flags", [
    ["--variant", "alpha-max"],
    ["--variant", "edas", "--candidates", "8"],
    ["--variant", "edas-inv", "--inversion-epochs", "1"],
], ids=VARIANTS)  # fmt: skip
def test_a_search_resumed_within_an_epoch_ends_in_the_same_bits(tmp_path, command, flags):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, out, err = command(SEARCH, *TINY, *flags, "--output", whole)
    assert status == 0 and "normal cell" in out and "note:" not in out, err
    interrupt_after(3, lambda: command(SEARCH, *TINY, *flags, "--output", resumed))
    status, out, err = command(SEARCH, "--resume", resumed)
    assert status == 0 and "resuming at epoch 2, step 2" in out, err
    assert figures(whole) == figures(resumed) and load(whole) == load(resumed)
    (name, state), (other_name, other) = last_checkpoint(whole), last_checkpoint(resumed)
    assert name == other_name and identical(state, other)
    assert load(whole).provenance["variant"] == flags[1]
    last = json.loads((whole / "architecture.jsonl").read_text().splitlines()[-1])
    assert len(last["parameters"]) == 2 * EDGES
    alpha = torch.tensor(last["parameters"]["alpha_reduction_0-2"])  # recorded from +alpha
    recorded = torch.tensor(last["weights"]["reduction"]["op"][0])
    torch.testing.assert_close(recorded, alpha.softmax(0))
    assert {path.stem for path in (whole / "pictures").iterdir()} == {"alphas"}  # its own
    assert len(alpha) == (8 if "8" in flags else 7)


def test_a_found_cell_is_retrained(tmp_path, command):
    assert command(SEARCH, *TINY, "--output", tmp_path / "run")[0] == 0
    status, _, err = command(
        "evaluate/train.py", "--preset", "digits", "--genotype", tmp_path / "run", "--channels", 4,
        "--cells", 3, "--epochs", 1, "--limit-images", 128, "--output", tmp_path / "trained",
    )  # fmt: skip
    assert status == 0, err


@pytest.mark.parametrize("epochs", [2, 3])
def test_an_inversion_as_long_as_the_search_is_said(tmp_path, monkeypatch, capfd, epochs):
    told = []
    monkeypatch.setattr(BilevelTrainer, "epochs", lambda self: iter([0, 1]))
    monkeypatch.setattr(BilevelTrainer, "batches", lambda self: iter([("train", "valid")]))
    monkeypatch.setattr(BilevelTrainer, "finish", lambda self, own_pictures: None)
    monkeypatch.setattr(BilevelTrainer, "validate", lambda self, **given: told.append(given))
    monkeypatch.setattr("edas.search.iteration", lambda config, trainer, train, valid: (5,))
    config = dataclasses.replace(
        PRESETS["digits"], variant="edas-inv", epochs=2, inversion_epochs=epochs,
        output=str(tmp_path / "run"),
    ).resolved()
    search(config)
    assert told == [{"sampled": (5,)}] * 2  # read from +alpha
    note = f"--inversion-epochs {epochs}: alpha's sign alternates in all 2 epochs"
    assert note in capfd.readouterr().out


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
    (["--cells", "2"], "--cells 2: 3 or more"),
])  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *TINY, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()
