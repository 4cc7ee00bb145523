"""Loading the network of a finished retraining, and refusals of other folders."""

import hashlib
import json
import os
import shutil

import pytest
import torch

from builders import ROOT, TRAIN, assert_refused
from common.data.datasets import load_test, load_train
from common.errors import InputError
from common.networks.drop_path import DropPath
from common.networks.genotype import load
from common.networks.network import Network
from common.networks.trained import load_trained
from common.run import checkpoint

GENOTYPES = ROOT / "common/networks/genotypes"


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(trained_run, tmp_path / "run")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def last_state(folder):
    return next(checkpoint.newest(folder / "checkpoints"))[1]


def accuracy(trained, images):
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (trained.mean, trained.std))
    logits = trained.network((images.pixels / 255 - mean) / std)
    return 100 * (logits.argmax(1) == images.labels).float().mean().item()


def test_the_network_has_the_runs_accuracy(trained_run):
    trained = load_trained(trained_run)
    train = load_train("digits", "")
    assert (trained.classes, trained.shape) == (train.classes, train.shape)
    assert (trained.mean, trained.std) == (train.mean, train.std)
    assert trained.genotype == load("gdas_frc") and trained.config["channels"] == 4
    assert not trained.network.training
    result = json.loads((trained_run / "result.json").read_text())
    test = load_test("digits", "", train)
    assert accuracy(trained, test) == pytest.approx(result["test_top1"], abs=1e-4)
    weights = last_state(trained_run)["ema"]
    assert all(torch.equal(v, weights[k]) for k, v in trained.network.state_dict().items())
    raw = last_state(trained_run)["network"]["classifier.weight"]
    assert not torch.equal(trained.network.classifier.weight, raw)


def test_drop_path_is_reset(trained_run, monkeypatch):
    to_empty = Network.to_empty

    def to_garbage(network, **where):
        for buffer in (network := to_empty(network, **where)).buffers():
            buffer.fill_(7)
        return network

    monkeypatch.setattr(Network, "to_empty", to_garbage)
    paths = [m for m in load_trained(trained_run).network.modules() if isinstance(m, DropPath)]
    assert paths and all(path.probability == 0 for path in paths)


def test_without_a_moving_average_and_without_the_auxiliary_head(tmp_path, command):
    for part in ("train", "test"):
        for k in range(2):
            write_images(tmp_path / "images" / part / f"class {k}", 2 + 2 * (part == "train"), k)
    status, _, err = command(
        TRAIN, "--dataset", "folder", "--data-root", tmp_path / "images", "--genotype", "darts_v1",
        "--channels", 4, "--cells", 3, "--epochs", 1, "--batch-size", 4, "--output",
        tmp_path / "run",
    )  # fmt: skip
    assert status == 0, err
    trained, state = load_trained(tmp_path / "run"), last_state(tmp_path / "run")
    assert state["ema"] is None and any(key.startswith("auxiliary") for key in state["network"])
    assert trained.network.auxiliary is None and trained.config["auxiliary_weight"] == 0.4
    assert trained.shape == (3, 32, 32) and trained.classes == ("class 0", "class 1")
    for key, value in trained.network.state_dict().items():
        assert torch.equal(value, state["network"][key])


def write_images(folder, count, seed):
    from PIL import Image

    folder.mkdir(parents=True)
    pixels = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(seed))
    for k, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(folder / f"{k}.png")


# the damage to a finished run, and what the message names
DAMAGES = {
    "no run": (shutil.rmtree, "no run there"),
    "config": (lambda run: (run / "config.json").write_text("{"), "config.json is damaged"),
    "a search": (
        lambda run: edit(run / "config.json", method="gdas"),
        "is a search .gdas.*\n.*evaluate/train.py --preset digits --genotype .*run$",
    ),
    "a search on CIFAR": (
        lambda run: edit(run / "config.json", method="gdas", dataset="cifar10"),
        "--dataset cifar10 --genotype",
    ),
    "a detector": (
        lambda run: edit(run / "config.json", method="detect", dataset="coco"),
        "is a run of detect, not of evaluate/train.py$",
    ),
    "a language model": (
        lambda run: edit(run / "config.json", method="retrain_rnn", dataset="ptb"),
        "is a run of retrain_rnn, not",
    ),
    "unfinished": (
        lambda run: (run / "result.json").unlink(),
        "is unfinished.*\n.*evaluate/train.py --resume .*run$",
    ),
    "result": (lambda run: (run / "result.json").write_text(""), "result.json is damaged"),
    "no images.json": (lambda run: (run / "images.json").unlink(), "images.json cannot be read"),
    "images.json": (
        lambda run: (run / "images.json").write_text("{}"), "images.json lacks"
    ),
    "a pipe": (  # reading it would wait
        lambda run: [(run / "images.json").unlink(), os.mkfifo(run / "images.json")],
        "images.json is no file",
    ),
    "genotype": (lambda run: (run / "genotype.json").write_text("{"), "genotype.json: not valid"),
    "other cells": (
        lambda run: shutil.copy(GENOTYPES / "darts_v1.json", run / "genotype.json"),
        r"does not belong to its genotype.json \(darts_v1\)",
    ),
    "cells of the same weights": (
        lambda run: swap(run / "genotype.json"), r"does not belong to its genotype.json \(other\)"
    ),
    "other channels": (
        lambda run: edit(run / "config.json", channels=8), "config.json was changed since"
    ),
    "other classes": (
        lambda run: edit(run / "images.json", classes=["a", "b"]), "images.json was changed since"
    ),
    "no checkpoint": (lambda run: shutil.rmtree(run / "checkpoints"), "checkpoint is missing"),
    "checkpoint": (
        lambda run: os.truncate(newest_file(run), 1000),
        "checkpoint is damaged; delete its result.json.*\n.*--resume .*run\n",
    ),
    "an earlier checkpoint": (lambda run: newest_file(run).unlink(), "checkpoint is damaged"),
}  # fmt: skip


def newest_file(run):
    return max((run / "checkpoints").glob("*.pt"))


def swap(path):
    """Cells that differ in nothing that has weights."""
    text = path.read_text()
    assert '"skip_connect"' in text
    path.write_text(text.replace('"skip_connect"', '"none"').replace('"gdas_frc"', '"other"', 1))


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_or_other_runs_are_refused(run, case):
    damage, message = DAMAGES[case]
    damage(run)
    with pytest.raises(InputError, match=message) as refusal:
        load_trained(run)
    assert str(run) in str(refusal.value) and "--resume " + str(run) + ":" not in str(refusal.value)


def test_the_fix_of_a_damaged_checkpoint_works(run, command):
    before = load_trained(run).network.state_dict()
    os.truncate(newest_file(run), 1000)
    (run / "result.json").unlink()
    assert command(TRAIN, "--resume", run)[0] == 0
    after = load_trained(run).network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


class Stranger:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("entered",)


def test_a_strangers_pickle_is_not_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = newest_file(run)
    torch.save({"network": Stranger()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
    with pytest.raises(InputError, match="more than tensors"):
        load_trained(run)
    assert not (tmp_path / "entered").exists()


@pytest.mark.parametrize("script", ["evaluate/test.py", "evaluate/export.py"])
def test_commands_refuse_an_unfinished_run(run, command, script):
    (run / "result.json").unlink()
    before = {path.name for path in run.iterdir()}
    words = ["--formats", "pt2"] if "export" in script else []
    assert_refused(command(script, run, *words), "is unfinished.*\n.*--resume")
    assert {path.name for path in run.iterdir()} == before
