"""What a user types, sees and mistypes."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from builders import ROOT, SEARCH, TINY_SEARCH, TRAIN, assert_refused, make_imagenet_folder
from common.data.batches import Augmentation
from common.errors import errors_are_messages
from common.run.config import described
from common.run.folder import Run
from common.supernet.cell import SearchCell
from common.training.bilevel import BilevelTrainer


def genotype_file(folder, change):
    data = json.loads((ROOT / "common/networks/genotypes/darts_v1.json").read_text())
    text = change(data) or json.dumps(data)
    path = folder / "mine.json"
    path.write_text(text)
    return path


def set_op(data):
    data["cells"]["normal"]["edges"][0]["op"] = "sep_conv_4x4"


def set_edge(data):
    data["cells"]["normal"]["edges"][0]["from"] = 4


def set_version(data):
    data["version"] = 2


def small(root):
    """An image folder of pictures that two reductions would leave nothing of."""
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (root / name).mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (5, 3)).save(root / name / f"{k}.png")
    return root


def image_folder(root, classes):
    for name in classes:
        (root / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / "train" / name / "0.png")
    (root / "train").mkdir(parents=True, exist_ok=True)
    return root


def unreadable(root):
    (image_folder(root, ["cat", "dog"]) / "train" / "dog" / "0.png").write_bytes(b"no image")
    return root


# arguments (made from a fresh folder), and what the message must name
BAD_SEARCHES = {
    "data missing": (lambda d: ["--dataset", "folder", "--data-root", d / "no"], "--data-root"),
    "no class": (
        lambda d: ["--dataset", "folder", "--data-root", image_folder(d, [])],
        "--data-root .* holds 0 class folders",
    ),
    "one class": (
        lambda d: ["--dataset", "folder", "--data-root", image_folder(d, ["cat"])],
        "--data-root .* holds 1 class folders",
    ),
    "K": (lambda d: ["--preset", "digits", "--K", 3], r"--K 3: must divide --channels 16"),
    "K 0": (lambda d: ["--preset", "digits", "--K", 0], "--K 0: must be 1"),
    "no channels": (lambda d: ["--preset", "digits", "--channels", 0], "--channels 0: must be 1"),
    "warm-up": (lambda d: ["--warmup-epochs", -1], "--warmup-epochs -1: must be 0"),
    "batch 0": (lambda d: ["--preset", "digits", "--batch-size", 0], "--batch-size 0: must be 1"),
    "epochs -1": (lambda d: ["--preset", "digits", "--epochs", -1], "--epochs -1: must be 1"),
    "not a number": (lambda d: ["--epochs", "many"], "--epochs"),
    "nan": (lambda d: ["--preset", "digits", "--weight-decay", "nan"], "--weight-decay nan"),
    "infinite": (lambda d: ["--preset", "digits", "--grad-clip", "inf"], "--grad-clip inf"),
    "learning rate": (lambda d: ["--preset", "digits", "--learning-rate", 0], "--learning-rate 0"),
    "cells": (lambda d: ["--preset", "digits", "--cells", 2], "--cells 2: use 3 or more"),
    "nodes": (lambda d: ["--preset", "digits", "--nodes", 2], "--nodes 2: must be 3"),
    "threads": (lambda d: ["--preset", "digits", "--threads", 0], "--threads 0: must be 1"),
    "seed": (lambda d: ["--preset", "digits", "--seed", -1], "--seed -1: must be 0"),
    "many threads": (lambda d: ["--preset", "digits", "--threads", 10**12], "--threads 1000000000"),
    "batch 1": (lambda d: ["--preset", "digits", "--batch-size", 1], "--batch-size 1: .*least 2"),
    "long name": (lambda d: ["--resume", "x" * 300], "--resume x.*cannot be read"),
    "batch too large": (lambda d: ["--preset", "digits", "--batch-size", 800], "--batch-size 800"),
    "limit": (lambda d: ["--preset", "digits", "--limit-images", 9999], "--limit-images 9999"),
    "image size": (lambda d: ["--preset", "digits", "--image-size", 16], "--image-size"),
    "image size 3": (
        lambda d: ["--dataset", "folder", "--image-size", 3], "--image-size 3: must be 4 or more"
    ),
    "workers": (lambda d: ["--workers", -1], "--workers -1: must be 0"),
    "shared shares": (
        lambda d: ["--split", "shared", "--train-share", 0.5, "--valid-share", 0.5],
        "--split shared: .* there is a --train-share",
    ),
    "one share": (lambda d: ["--train-share", 0.1], "--train-share, --valid-share: give both"),
    "shares": (
        lambda d: ["--train-share", 0.6, "--valid-share", 0.5],
        "--train-share 0.6, --valid-share 0.5",
    ),
    "a share of nothing": (
        lambda d: ["--preset", "digits", "--train-share", 0.5, "--valid-share", 0.001],
        "--valid-share 0.001: gives no image of class 0",
    ),
    "a small share": (
        lambda d: ["--preset", "digits", "--train-share", 0.5, "--valid-share", 0.02,
                   "--batch-size", 64],
        "--batch-size 64: the smaller part of the 1438 training images has only 20",
    ),
    "ImageNet missing": (
        lambda d: ["--preset", "imagenet", "--data-root", d / "no"], "no folder train/.*ImageNet"
    ),
    "an unreadable file": (
        lambda d: ["--dataset", "folder", "--image-size", 128, "--data-root", unreadable(d)],
        "dog/0.png is no readable image",
    ),
    "unknown flag": (lambda d: ["--no-such-flag"], "--no-such-flag"),
    "unknown preset": (lambda d: ["--preset", "mnist"], "--preset"),
    "unknown mask": (lambda d: ["--mask", "last"], "--mask"),
    "resume nothing": (lambda d: ["--resume", d / "no"], "--resume .*no run there"),
    "small images": (
        lambda d: ["--dataset", "folder", "--data-root", small(d), "--batch-size", 2],
        "images of 3x5 pixels are too small",
    ),
}
BAD_TRAININGS = {
    "no genotype": (lambda d: ["--preset", "digits"], "--genotype.*\n?.*pc_darts_cifar10"),
    "unknown name": (
        lambda d: ["--genotype", "pc_dart"],
        "(?s)--genotype pc_dart: .*pc_darts_cifar10 or pc_darts_imagenet",
    ),
    "unknown operation": (
        lambda d: ["--genotype", genotype_file(d, set_op)], '"sep_conv_4x4"; known: .*sep_conv_3x3',
    ),
    "later node": (lambda d: ["--genotype", genotype_file(d, set_edge)], "comes from a later node"),
    "version": (lambda d: ["--genotype", genotype_file(d, set_version)], "reads version 1"),
    "broken": (lambda d: ["--genotype", genotype_file(d, lambda _: "{")], "not valid JSON"),
    "empty folder": (lambda d: ["--genotype", d], "holds no genotype.json"),
    "small images": (
        lambda d: ["--genotype", "darts_v1", "--dataset", "folder", "--data-root", small(d)],
        "images of 3x5 pixels are too small: .*; --image-size 4",
    ),
    "drop path": (
        lambda d: ["--preset", "digits", "--genotype", "darts_v1", "--drop-path", 1], "--drop-path"
    ),
    "data missing": (
        lambda d: ["--genotype", "darts_v1", "--dataset", "folder", "--data-root", d / "no"],
        "--data-root",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SEARCHES)
def test_a_search_refuses(case, tmp_path, command):
    arguments, message = BAD_SEARCHES[case]
    (tmp_path / "in").mkdir()
    words = arguments(tmp_path / "in")
    output = tmp_path / "out"
    assert_refused(command(SEARCH, *words, "--output", output), message, output)


def test_a_large_image_that_cannot_be_read_in_the_middle_of_a_search(tmp_path, command):
    files = make_imagenet_folder(tmp_path / "images", splits=("train",))
    (files / "train" / "n02" / "3.JPEG").write_bytes(b"no image")
    output = tmp_path / "run"
    result = command(
        SEARCH, "--dataset", "imagenet", "--data-root", files, "--image-size", 8, "--epochs", 1,
        "--channels", 4, "--cells", 3, "--batch-size", 2, "--workers", 1, "--output", output,
    )  # fmt: skip
    assert_refused(result, r"n02/3.JPEG is no readable image \(.*--resume goes on; else replace")
    assert (output / "split.json").exists() and not (output / "result.json").exists()


@pytest.mark.parametrize("case", BAD_TRAININGS)
def test_a_retraining_refuses(case, tmp_path, command):
    arguments, message = BAD_TRAININGS[case]
    (tmp_path / "in").mkdir()
    words = arguments(tmp_path / "in")
    output = tmp_path / "out"
    assert_refused(command(TRAIN, *words, "--output", output), message, output)


def test_an_output_folder_in_use_is_left_alone(tmp_path, command):
    (tmp_path / "notes.txt").write_text("mine")
    result = command(SEARCH, *TINY_SEARCH, "--output", tmp_path)
    assert_refused(result, "--output .* not empty, and holds no run")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_output_that_cannot_be_written(tmp_path, command):
    (tmp_path / "file").write_text("")
    result = command(SEARCH, *TINY_SEARCH, "--output", tmp_path / "file" / "run")
    assert_refused(result, "--output .* cannot be written")


def test_resume_of_another_method(finished_search, command):
    assert_refused(
        command(TRAIN, "--resume", finished_search[0]), "is a run of pc_darts, not of retrain"
    )


@pytest.mark.parametrize(
    ("flag", "value"), [("--seed", 5), ("--K", 2), ("--output", "elsewhere")]
)
def test_resume_with_a_flag_that_contradicts(finished_search, command, flag, value):
    result = command(SEARCH, "--resume", finished_search[0], flag, value)
    assert_refused(result, f"{flag} {value}: the run .* has")


def test_resume_with_a_damaged_config(tmp_path, command):
    (tmp_path / "config.json").write_text('{"method": "pc_d')
    assert_refused(command(SEARCH, "--resume", tmp_path), "config.json is damaged")


def test_resume_with_a_damaged_split(finished_search, tmp_path, command):
    shutil.copytree(finished_search[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # which know what it was
    (tmp_path / "run" / "split.json").write_text("{")
    assert_refused(command(SEARCH, "--resume", tmp_path / "run"), "split.json is damaged")


def test_a_long_output_name(command):
    result = command(SEARCH, *TINY_SEARCH, "--output", "x" * 300)
    assert_refused(result, "--output .*cannot be written")


def test_weights_that_are_not_finite_leave_no_results(tmp_path, command):
    """The loss of the only step is finite; that of the validation, after a checkpoint, is not."""
    status, out, err = command(
        SEARCH, "--preset", "digits", "--epochs", 1, "--limit-images", 140, "--learning-rate", 1e38,
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert status == 1 and "not finite" in err and "Traceback" not in err
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert left <= {"config.json", "split.json", "checkpoints"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], {"K": 4, "edge_normalization": True, "mask": "first"}),
        (["--K", 2, "--no-edge-normalization"], {"K": 2, "edge_normalization": False}),
        (["--k", "1", "--mask", "random"], {"K": 1, "mask": "random"}),
    ],
)
def test_flags_reach_the_supernet_and_the_steps_the_halves(
    tmp_path, command, monkeypatch, flags, expected
):
    """Also the order of the verbs, and on which half of the images each works."""
    calls, trainers = [], []

    def spy(verb):
        original = getattr(BilevelTrainer, verb)

        def recorded(self, batch):
            trainers.append(self)
            calls.append((self.epoch, verb, batch))
            return original(self, batch)

        return recorded

    for verb in ("arch_step", "weight_step"):
        monkeypatch.setattr(BilevelTrainer, verb, spy(verb))
    status, _, err = command(
        SEARCH, *TINY_SEARCH, *flags, "--epochs", 2, "--warmup-epochs", 1, "--cutout", 2, "--flip",
        "--channels", 4, "--cells", 3, "--cut-accuracy", "off", "--output", tmp_path / "run",
    )  # fmt: skip
    assert status == 0, err
    steps = len(trainers[0].train_batches)
    verbs = [(epoch, verb) for epoch, verb, _ in calls]
    assert verbs == [(0, "weight_step")] * steps + [(1, "arch_step"), (1, "weight_step")] * steps
    trainer = trainers[0]
    assert {key: getattr(trainer.supernet, key) for key in expected} == expected
    numbers = [*range(steps), *(steps + k // 2 for k in range(2 * steps))]
    for step, (_, verb, (images, labels)) in zip(numbers, calls, strict=True):
        batches = trainer.valid_batches if verb == "arch_step" else trainer.train_batches
        assert torch.equal(images, batches.train(step)[0])
        assert torch.equal(labels, batches.train(step)[1])
    for batches in (trainer.train_batches, trainer.valid_batches):
        assert batches.augmentation == Augmentation(crop_padding=1, flip=True, cutout=2)
    halves = json.loads((tmp_path / "run" / "split.json").read_text())
    assert trainer.train_batches.indices.tolist() == halves["train"]
    assert trainer.valid_batches.indices.tolist() == halves["valid"]


def test_resume_with_other_images(finished_search, tmp_path, command):
    shutil.copytree(finished_search[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    split["images_sha256"] = "0" * 64
    (tmp_path / "run" / "split.json").write_text(json.dumps(split))
    assert_refused(command(SEARCH, "--resume", tmp_path / "run"), "are not those")


def test_as_a_user_runs_it(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / SEARCH, "--preset", "digits", "--K", "3"], cwd=tmp_path, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'evaluate'}"},
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--K 3: must divide" in done.stderr and list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- what goes right


def test_a_search_says_what_it_found_and_what_to_do_next(finished_search):
    folder, output = finished_search
    for word in ("normal cell", "reduction cell", "x5 = ", f"run folder: {folder}"):
        assert word in output
    command = f"python evaluate/train.py --genotype {folder}"
    scale = described(folder)
    size = f"--channels {scale['channels']} --cells {scale['cells']} --epochs 10"
    assert f"next: {command} {size}\n      (about " in output
    assert f"by the paper's recipe: {command} --preset cifar10\n" in output
    for word in ("loss", "top-1", "img/s", "epoch 4/4", "100%"):
        assert word in output


def test_the_run_folder_is_complete(finished_search):
    folder, _ = finished_search
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.json", "split.json", "metrics.jsonl", "architecture.jsonl", "genotypes.jsonl",
        "genotype.json", "result.json", "checkpoints", "pictures",
    }
    pictures = {p.name for p in (folder / "pictures").iterdir()}
    stems = "normal reduction curves measures architecture_normal architecture_reduction".split()
    stems += ["evolution_normal", "evolution_reduction"]
    assert pictures == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    config = json.loads((folder / "config.json").read_text())
    assert config["method"] == "pc_darts" and config["K"] == 4 and config["threads"] == 1
    assert config["batch_size"] == 64 and config["versions"]["torch"] and "command" in config
    split = json.loads((folder / "split.json").read_text())
    assert len(split["sha256"]) == len(split["images_sha256"]) == 64
    assert not set(split["train"]) & set(split["valid"])
    genotypes = (folder / "genotypes.jsonl").read_text().splitlines()
    last = json.loads(genotypes[-1])["genotype"]
    assert last == json.loads((folder / "genotype.json").read_text())
    assert len(genotypes) == 4


def test_architecture_rests_during_warm_up(finished_search):
    lines = (finished_search[0] / "architecture.jsonl").read_text().splitlines()
    first, second, third, fourth = (json.loads(line)["parameters"] for line in lines)
    assert first == second  # two epochs of warm-up
    for name in first:
        assert second[name] != third[name] != fourth[name]


def test_help_names_every_flag_that_others_rely_on(command):
    status, out, _ = command(SEARCH, "--help")
    assert status == 0
    for flag in ("--preset", "--dataset", "--data-root", "--output", "--resume", "--seed",
                 "--epochs", "--batch-size", "--limit-images", "--threads"):
        assert flag in out


def test_fp16_is_refused_before_anything_is_written(tmp_path, command, monkeypatch):
    monkeypatch.setattr(
        "accelerate.Accelerator.mixed_precision", property(lambda self: "fp16"), raising=True
    )
    result = command(SEARCH, *TINY_SEARCH, "--output", tmp_path / "run")
    assert_refused(result, "--mixed_precision fp16.*use bf16", tmp_path / "run")


def test_all_warm_up_is_said(tmp_path, command):
    small = "--epochs 1 --channels 4 --cells 3 --cut-accuracy off".split()
    status, out, _ = command(SEARCH, *TINY_SEARCH, *small, "--output", tmp_path / "run")
    assert status == 0 and "alpha and beta will not move" in out


def test_bf16_by_accelerates_own_flag(tmp_path, command, monkeypatch):
    """Inside a cell activations are bf16; parameters, statistics and loss stay in 32 bits."""
    seen = set()
    forward = SearchCell.forward

    def spy(self, s0, s1, mix):
        out = forward(self, s0, s1, mix)
        seen.add((self.inputs(s0, s1)[0].dtype, out.dtype, mix.op.dtype))
        return out

    monkeypatch.setattr(SearchCell, "forward", spy)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # what --mixed_precision bf16 sets
    small = "--epochs 2 --warmup-epochs 1 --channels 4 --cells 3 --cut-accuracy off".split()
    status, _, err = command(SEARCH, *TINY_SEARCH, *small, "--output", tmp_path / "run")
    assert status == 0, err
    assert seen == {(torch.bfloat16, torch.bfloat16, torch.float32)}
    state = torch.load(max((tmp_path / "run/checkpoints").glob("*.pt")), weights_only=True)
    assert {v.dtype for v in state["network"].values()} == {torch.float32, torch.int64}
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["mixed_precision"] == "bf16"


def test_a_full_disk_is_a_message_and_other_errors_are_not(tmp_path, accelerator, capsys):
    """During a run, the message has the command that continues it."""
    full = OSError(28, "No space left on device")
    with pytest.raises(SystemExit, match="1"), errors_are_messages():
        raise full
    assert capsys.readouterr().err == "error: No space left on device\n"
    run = Run(tmp_path / "the run", "t", accelerator)
    with pytest.raises(SystemExit, match="1"), errors_are_messages(), run:
        raise full
    err = capsys.readouterr().err
    assert "No space left on device" in err and f"--resume '{tmp_path / 'the run'}'" in err
    with pytest.raises(OSError, match="Input/output"), errors_are_messages():
        raise OSError(5, "Input/output error")
