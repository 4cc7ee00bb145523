"""A run folder: whose it is, which images it stands on, what its files tell."""

import dataclasses
import gc
import importlib.util
import json
import shutil
import subprocess
import sys
import time
import weakref
from datetime import datetime, timedelta, timezone

import pytest
import torch
from torch import nn

from builders import make_retrainer
from common.data.images import Images
from common.errors import InputError
from common.run import description
from common.run.config import RunConfig, SearchConfig
from common.run.folder import Run
from common.training import opening
from common.training.loop import prepare
from common.training.opening import open_search
from retraining import loop

BEGAN = {
    "classes": ["a", "b"], "shape": [3, 8, 8], "mean": [0.5], "std": [0.2], "train_sha256": "1"
}  # fmt: skip
OTHER_FILES = {**BEGAN, "mean": [0.4], "std": [0.3], "train_sha256": "2"}


# ------------------------------------------------------------------------------------------ images


def test_other_files_of_like_images_are_gone_on_with_where_they_are_accepted(tmp_path, accelerator):
    run = Run(tmp_path, "t", accelerator)
    run.pin_images("images.json", BEGAN)
    with pytest.raises(InputError, match=r"--resume .*images\.json"):
        run.pin_images("images.json", OTHER_FILES)
    assert run.read("images.json") == BEGAN
    run.pin_images("images.json", OTHER_FILES, accept=True)
    assert run.read("images.json") == OTHER_FILES
    run.pin_images("images.json", OTHER_FILES)  # which it now stands on


@pytest.mark.parametrize("other", [{"shape": [3, 9, 9]}, {"classes": ["a", "c"]}, {"train": [1]}])
def test_images_of_another_kind_or_number_are_never_accepted(tmp_path, accelerator, other):
    run = Run(tmp_path, "t", accelerator)
    run.pin_images("images.json", BEGAN)
    with pytest.raises(InputError, match="--resume"):
        run.pin_images("images.json", {**OTHER_FILES, **other}, accept=True)
    assert run.read("images.json") == BEGAN


def like_images(value):
    """Of two classes, in files that differ by a pixel."""
    pixels = torch.arange(40 * 64).remainder(256).to(torch.uint8).view(40, 1, 8, 8).clone()
    pixels[0, 0, 0, 0] = value
    return Images(pixels, torch.arange(40) % 2, ("a", "b"), (0.5,), (0.3,))


def test_a_search_of_changed_images_asks_for_the_flag(tmp_path, monkeypatch):
    config = SearchConfig(
        dataset="digits", batch_size=8, nodes=4, cells=3, channels=4, threads=1,
        output=str(tmp_path / "run"),
    )  # fmt: skip
    monkeypatch.setattr(opening, "training_images", lambda *_: like_images(0))
    _, _, _, split = open_search(config, "m")
    monkeypatch.setattr(opening, "training_images", lambda *_: like_images(1))
    resumed = dataclasses.replace(config, resume=config.output)
    with pytest.raises(InputError, match=r"split\.json"):
        open_search(resumed, "m")
    accepted = open_search(dataclasses.replace(resumed, accept_images=True), "m")
    assert torch.equal(accepted[3].train, split.train)


def test_a_retraining_of_changed_images_asks_for_the_flag(tmp_path, accelerator, monkeypatch):
    donor = make_retrainer(tmp_path / "donor", accelerator, crop_padding=1, cutout=0)

    class Begun(Exception):
        """Far enough."""

    def stop(*_):
        raise Begun

    monkeypatch.setattr(loop, "Retrainer", stop)
    folder = tmp_path / "run"
    folder.mkdir()

    def train(first, second, **changes):
        config = dataclasses.replace(donor.config, resume=str(folder), **changes)
        run = Run(folder, "retrain", accelerator)
        loop.train(config, run, donor.genotype, like_images(first), like_images(second))

    with pytest.raises(Begun):
        train(0, 1)
    for pair in ((2, 1), (0, 2)):
        with pytest.raises(InputError, match=r"images\.json"):
            train(*pair)
        shutil.copytree(folder, tmp_path / "before", dirs_exist_ok=True)
        with pytest.raises(Begun):
            train(*pair, accept_images=True)
        shutil.copytree(tmp_path / "before", folder, dirs_exist_ok=True)


def test_all_names_of_few_classes_are_told(tmp_path, accelerator):
    run = Run(tmp_path, "t", accelerator)
    run.pin_images("images.json", {"classes": ["ant", "bee", "cat"], "sha256": "1"})
    with pytest.raises(InputError, match=r"\(ant, bee, cat\)"):
        run.pin_images("images.json", {"classes": ["ant"], "sha256": "1"})


# -------------------------------------------------------------------------------- runs within a run


def test_a_run_within_another_is_of_the_same_commit_and_stands_on_its_own_config(
    tmp_path, accelerator
):
    """It frees what the one before it prepared."""
    outer, network = Run(tmp_path, "outer", accelerator), nn.Linear(1, 1)
    outer.commit, before = "of the code that began it", prepare(accelerator, network)
    before, network = weakref.ref(before), None
    inner = outer.inner("cells/000", RunConfig(), "inner")
    gc.collect()
    assert before() is None and network is None
    assert inner.commit == outer.commit and inner.method == "inner"
    inner.save_checkpoint(0, 1, {"epoch": 0})
    path = inner.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "learning_rate": 0.5}))
    with pytest.raises(InputError, match=r"--resume .*000: config\.json"):
        outer.inner("cells/000", RunConfig(), "inner")


# ------------------------------------------------------------------------------------- new folders


def test_runs_that_begin_in_one_second_have_folders_of_their_own(
    tmp_path, accelerator, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    folders = [Run.open(RunConfig(), "m", accelerator).folder for _ in range(3)]
    assert len(set(folders)) == 3 == len(list((tmp_path / "runs").iterdir()))
    for folder in folders:
        assert json.loads((folder / "config.json").read_text())["output"] == str(folder)
        assert {path.name for path in folder.iterdir()} == {"config.json", "running.json"}


def test_a_config_tells_the_whole_command_and_when_it_was_given(tmp_path, accelerator, monkeypatch):
    words = ["search.py", "--seed", "3", "--data-root", "my images"]
    monkeypatch.setattr(sys, "argv", words)
    run = Run.open(RunConfig(output=str(tmp_path / "run")), "m", accelerator)
    config = run.read("config.json")
    assert config["command"].endswith("search.py --seed 3 --data-root 'my images'")
    since = datetime.now(timezone.utc) - datetime.fromisoformat(config["started"])
    assert timedelta(0) <= since < timedelta(minutes=1)


@pytest.mark.parametrize(("threads", "words"), [(3, ""), (5, " --threads 5")])
def test_the_command_that_continues_keeps_changed_threads(
    tmp_path, accelerator, monkeypatch, threads, words
):
    """Else the next resume would go back to the first number."""
    monkeypatch.setattr(sys, "argv", ["search.py"])
    config = RunConfig(output=str(tmp_path), threads=3)
    Run.open(config, "m", accelerator)
    resumed = dataclasses.replace(config, resume=str(tmp_path), threads=threads)
    command = Run.open(resumed, "m", accelerator).continuation()
    assert command == f"python search.py --resume {tmp_path}{words}"


def test_a_commit_is_of_the_code_and_says_where_files_differ_from_it(tmp_path, monkeypatch):
    """Of a copy of the code in a repository of its own, whatever folder one is in."""
    code, elsewhere = tmp_path / "code", tmp_path / "elsewhere"
    code.mkdir()
    elsewhere.mkdir()
    shutil.copy(description.__file__, code / "description.py")
    spec = importlib.util.spec_from_file_location("copied_description", code / "description.py")
    copied = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "copied_description", copied)
    spec.loader.exec_module(copied)
    monkeypatch.chdir(elsewhere)

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *who, *words], cwd=code, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    if shutil.which("git") is None:
        assert copied.commit() is None
        return
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert copied.commit() is None
    git("init")
    git("add", "description.py")
    git("commit", "-m", "code")
    (code / "notes.txt").touch()  # no code of the run's
    head = git("rev-parse", "HEAD")
    assert copied.commit() == head
    with open(code / "description.py", "a") as file:
        file.write("# changed\n")
    assert copied.commit() == f"{head}+"


# ------------------------------------------------------------------------------- what is written


def test_what_is_not_a_number_is_no_line_of_a_run(tmp_path, accelerator):
    """JSON has no NaN: other programs could not read the file."""
    run = Run(tmp_path, "t", accelerator)
    with pytest.raises(ValueError):
        run.append("metrics.jsonl", {"epoch": 0, "train_loss": float("nan")})
    assert run.lines("metrics.jsonl") == []


def test_every_checkpoint_that_is_passed_over_is_named(tmp_path, accelerator, capfd):
    run = Run(tmp_path, "t", accelerator)
    run.save_checkpoint(1, 0, {"epoch": 1})
    checkpoints = tmp_path / "checkpoints"
    damaged = [checkpoints / f"epoch-{epoch:05d}-step-0000000.pt" for epoch in (2, 3)]
    for path in damaged:
        path.touch()
    assert run.load_checkpoint()["epoch"] == 1
    said = capfd.readouterr().out
    assert all(path.name in said for path in damaged)


@pytest.mark.parametrize("left", ["a run", "no run"])
def test_a_rewound_run_keeps_only_checkpoints_that_it_goes_on_from(tmp_path, accelerator, left):
    """Whatever is newer is written anew, and what a kill left half-written goes."""
    run = Run(tmp_path, "t", accelerator)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    if left == "a run":
        run.save_checkpoint(0, 1, {"epoch": 0})
        (checkpoints / "epoch-00001-step-0000000.pt").touch()
    (checkpoints / "epoch-00002-step-0000000.pt.tmp").touch()
    run.load_checkpoint()
    run.rewind(0)
    names = {path.name for path in checkpoints.iterdir()}
    kept = "epoch-00000-step-0000001.pt"
    assert names == ({kept, f"{kept}.sha256"} if left == "a run" else set())


def test_a_run_of_a_version_that_counted_epochs_from_0_is_refused(tmp_path, accelerator):
    run = Run(tmp_path, "t", accelerator)
    run.append("metrics.jsonl", {"epoch": 0})
    run.save_checkpoint(1, 0, {"epoch": 1})
    again = Run(tmp_path, "t", accelerator)
    again.load_checkpoint()
    with pytest.raises(InputError, match="--resume .*older version.*commit"):
        again.rewind(1)
