"""Killed and resumed: the bits of a run that was not."""

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time

import psutil
import pytest

from builders import (
    ROOT,
    SEARCH,
    TINY_SEARCH,
    assert_refused,
    assert_same_run,
    last_checkpoint,
    launch,
    make_imagenet_folder,
    metrics_of,
    signal_in,
)
from common.errors import InputError, errors_are_messages
from common.run.config import saved
from common.run.folder import Run
from common.run.lock import Lock
from common.training import opening
from common.training.bilevel import BilevelTrainer
from pc_darts.config import METHOD, PCDARTSConfig


def assert_same_search(folder, other):
    assert_same_run(folder, other)
    for name in ("architecture.jsonl", "genotypes.jsonl", "split.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    state = last_checkpoint(folder)[1]
    parts = state["network"].keys()
    assert {"arch.alpha_normal", "arch.beta_reduction"} <= parts
    assert any("running_mean" in part for part in parts) and len(state["optimizers"]) == 2


def kill_at(process, folder, name):
    """SIGKILL, launcher and all, as soon as a checkpoint of this name or a later one is there."""
    deadline = time.time() + 120
    while process.poll() is None and time.time() < deadline:
        found = [p.name for p in (folder / "checkpoints").glob("*.pt")]
        if any(other >= name for other in found):
            break
        time.sleep(0.005)
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for one in [parent, *parent.children(recursive=True)]:
            one.kill()
    process.communicate()
    assert not (folder / "result.json").exists(), "it finished before it was killed"


def resume(folder, processes=None):
    process = launch(SEARCH, "--resume", folder, processes=processes)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_killed_twice_once_within_an_epoch(finished_search, tmp_path):
    folder = tmp_path / "run"
    process = launch(SEARCH, *TINY_SEARCH, "--threads", 1, "--output", folder)
    kill_at(process, folder, "epoch-00000-step-0000001.pt")
    process = launch(SEARCH, "--resume", folder)
    kill_at(process, folder, "epoch-00002-step-0000001.pt")
    assert "resuming at epoch" in resume(folder)
    assert saved(PCDARTSConfig, folder, METHOD).threads == 1
    assert_same_search(finished_search[0], folder)


def test_a_damaged_checkpoint_costs_no_more_than_the_steps_since_the_one_before(
    finished_search, tmp_path, command
):
    folder = tmp_path / "run"
    shutil.copytree(finished_search[0], folder)
    (folder / "result.json").unlink()
    files = sorted((folder / "checkpoints").glob("*.pt"))
    os.truncate(files[-1], files[-1].stat().st_size // 2)
    status, out, _ = command(SEARCH, "--resume", folder)
    assert status == 0
    assert f"{files[-1].name} is damaged; resuming from {files[0].name}" in out
    assert_same_search(finished_search[0], folder)


@pytest.mark.parametrize(
    "left", [pytest.param(("config.json",), marks=pytest.mark.slow), ("config.json", "split.json")]
)
def test_a_run_without_checkpoint_starts_from_its_first_step(
    finished_search, tmp_path, command, left
):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        shutil.copy(finished_search[0] / name, folder)
    status, out, _ = command(SEARCH, "--resume", folder)
    assert status == 0 and "resuming" not in out
    assert_same_search(finished_search[0], folder)


def test_a_finished_run_says_so(finished_search, command):
    before = {p: p.stat().st_mtime_ns for p in finished_search[0].rglob("*")}
    status, out, _ = command(SEARCH, "--resume", finished_search[0])
    assert status == 0 and "is finished" in out
    assert before == {p: p.stat().st_mtime_ns for p in finished_search[0].rglob("*")}


def test_output_continues_a_run_of_the_same_flags_and_no_other(finished_search, tmp_path, command):
    folder = shutil.copytree(finished_search[0], tmp_path / "run")
    same = [*TINY_SEARCH, "--output", folder]
    harmless = ["--threads", 2, "--workers", 0, "--data-root", "x", "--checkpoint-steps", 9]
    status, out, _ = command(SEARCH, *same, *harmless)
    assert status == 0 and f"{folder} is finished" in out
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    for more, message in [
        (["--epochs", 5, "--seed", 7], "holds a run of --seed 2, not 7; --epochs 4, not 5; repeat"),
        (["--hessian"], "--no-hessian, not True"),
        (["--batch-size", 32], "--batch-size 64, not 32"),
        (["--cutout", 3], "--cutout 0, not 3"),
    ]:
        assert_refused(command(SEARCH, *same, *more), f"--output {folder}: .*{message}")
    fewer = [word for word in TINY_SEARCH if word not in ("--channels", "8")]
    assert_refused(command(SEARCH, *fewer, "--output", folder), "--channels 8, not 16")
    assert_refused(
        command("gdas/search.py", "--preset", "digits", "--output", folder),
        "--output .*is a run of pc_darts, not of gdas",
    )  # fmt: skip
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    (folder / "result.json").unlink()
    left = {**Lock(folder).mine, "host": "node7", "pid": 1, "since": "noon"}
    (folder / "running.json").write_text(json.dumps(left))
    threading.Timer(2, os.utime, [folder / "running.json"]).start()  # node7 is alive
    assert_refused(command(SEARCH, *same), "in use by process 1 on node7, since noon")


@pytest.mark.slow
def test_python_and_accelerate_launch_give_the_same_bits(finished_search, tmp_path):
    runs = [tmp_path / name for name in ("python", "accelerate")]
    for folder, launcher in zip(runs, (None, "accelerate"), strict=True):
        process = launch(SEARCH, *TINY_SEARCH, "--output", folder, launcher=launcher)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        config = json.loads((folder / "config.json").read_text())
        assert config["threads"] == 1  # of digits, whatever the launcher sets
    assert_same_search(*runs)


def test_signals_at_every_kind_of_moment_lose_no_step(finished_search, tmp_path, command):
    """One command line for the first start and each later one; status 75 asks for the next."""
    folder = tmp_path / "run"
    words = [*TINY_SEARCH, "--checkpoint-steps", 50, "--threads", 1, "--output", folder]
    step, usr1 = (BilevelTrainer, "weight_step", signal.SIGTERM), signal.SIGUSR1
    ended = f"to continue: python {ROOT / SEARCH} --resume {folder}"
    moments = [  # where the signal comes, what is said then, and at the next start
        ((opening, "training_images"), "ended by SIGTERM\n", "run folder:"),
        ((opening, "pin_split", usr1), "ended by SIGUSR1\n", "unfinished; continuing"),
        ((BilevelTrainer, "__init__"), f"SIGTERM; {ended}", "unfinished; continuing"),
        (step, f"SIGTERM after epoch 1, step 1, all saved; {ended}", "at epoch 1, step 2"),
        (step, f"SIGTERM after epoch 1, step 2, all saved; {ended}", "at epoch 1, step 3"),
        ((BilevelTrainer, "held_out_metrics"), f"SIGTERM; {ended}", "at epoch 1, step 3"),
        ((Run, "save_checkpoint", usr1, 2), f"SIGUSR1; {ended}", "at epoch 2, step 3"),
        ((os, "replace", usr1, 3), f"SIGUSR1; {ended}", "at epoch 2, step 3"),
        ((os, "fsync", usr1, 12), "SIGUSR1", "resuming at epoch"),
        ((BilevelTrainer, "finish"), f"SIGTERM; {ended}", "at epoch 5, step 1"),
        ((BilevelTrainer, "_say_next"), "SIGTERM", "is finished"),
    ]
    expected = ""
    for moment, said, after in moments:
        with pytest.MonkeyPatch.context() as patch:
            signal_in(patch, *moment)
            status, out, err = command(SEARCH, *words)
        assert status == 75 and said in err, (moment, out + err)
        assert expected in out and "Traceback" not in err, (moment, out)
        assert not (folder / "running.json").exists() or "continue:" not in err
        expected = after
    status, out, _ = command(SEARCH, *words)
    assert status == 0 and expected in out
    assert_same_search(finished_search[0], folder)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [None, 2])
def test_twenty_signals_at_random_moments(tmp_path, processes):
    """Once it holds its folder, so that most come while it trains."""
    whole, folder, draw = tmp_path / "whole", tmp_path / "run", random.Random(0)
    words = [SEARCH, *TINY_SEARCH, "--epochs", 40, "--checkpoint-steps", 50, "--threads", 1]
    process = launch(*words, "--output", whole, processes=processes)
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output
    for number in 10 * [signal.SIGTERM, signal.SIGTERM if processes else signal.SIGUSR1]:
        process = launch(*words, "--output", folder, processes=processes)
        while process.poll() is None and not (folder / "running.json").exists():
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 1.5))
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == (1 if processes else 75), output  # torchrun's own
        assert not (folder / "running.json").exists()
        assert "to continue" in output or "ended by" in output  # before the run is known
    process = launch(*words, "--output", folder, processes=processes)
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output
    assert_same_search(whole, folder)


@pytest.mark.slow
def test_two_processes_killed_within_an_epoch(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = launch(SEARCH, *TINY_SEARCH, "--output", whole, processes=2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert len(metrics_of(whole)) == 4  # one process writes, one speaks
    assert output.count("run folder:") == 2 and output.count("normal cell\n") == 1
    process = launch(SEARCH, *TINY_SEARCH, "--output", killed, processes=2)
    kill_at(process, killed, "epoch-00002-step-0000001.pt")
    resume(killed, processes=2)
    assert_same_search(whole, killed)
    assert json.loads((whole / "config.json").read_text())["processes"] == 2


def test_a_search_on_imagenets_layout(tmp_path, command, monkeypatch):
    """From within its last epoch, where a worker had read ahead; resumed without workers."""
    save = Run.save_checkpoint

    def keep(run, epoch, step, state):
        save(run, epoch, step, state)
        if (epoch, step) == (1, 2):
            shutil.copytree(run.folder / "checkpoints", tmp_path / "kept")

    monkeypatch.setattr(Run, "save_checkpoint", keep)
    make_imagenet_folder(tmp_path / "images", splits=("train",), count=24, size=(140, 130))
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, _, err = command(
        SEARCH, "--preset", "imagenet", "--data-root", tmp_path / "images", "--image-size", 128,
        "--channels", 4, "--cells", 3, "--nodes", 4, "--epochs", 2, "--warmup-epochs", 1,
        "--batch-size", 6, "--train-share", 0.5, "--valid-share", 0.25, "--learning-rate", 0.05,
        "--checkpoint-steps", 2, "--workers", 1, "--threads", 1, "--output", whole,
    )  # fmt: skip
    assert status == 0, err
    shutil.copytree(whole, resumed)
    (resumed / "result.json").unlink()
    shutil.rmtree(resumed / "checkpoints")
    shutil.copytree(tmp_path / "kept", resumed / "checkpoints")
    status, out, err = command(SEARCH, "--resume", resumed, "--workers", 0)
    assert status == 0 and "resuming at epoch 2, step 3" in out, err
    assert_same_search(whole, resumed)
    split = json.loads((whole / "split.json").read_text())
    assert len(split["train"]) == 24 and len(split["valid"]) == 12
    assert split["classes"] == ["n01", "n02"]
    last = last_checkpoint(whole)[1]["network"]  # the stem is three times as wide as a cell's nodes
    assert last["stem.eighth.1.weight"].shape == (12, 12, 3, 3)
    assert last["arch.alpha_normal"].abs().max() > 6e-3  # moved, by Adam at 6e-3


@pytest.mark.parametrize("launcher", [None, pytest.param("accelerate", marks=pytest.mark.slow)])
def test_ctrl_c_prints_how_to_continue(tmp_path, launcher):
    """No traceback of ours; below that of accelerate's launcher, the command stands again."""
    folder = tmp_path / "run"
    flags = [*TINY_SEARCH, "--epochs", 10**6, "--cells", 3, "--channels", 4, "--threads", 1]
    process = launch(
        SEARCH, *flags, "--output", folder, launcher=launcher, start_new_session=True
    )
    deadline = time.time() + 120
    while process.poll() is None and not (folder / "checkpoints").exists():
        assert time.time() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    status = process.wait(timeout=60)
    lines = process.stdout.read().splitlines()
    command = f"interrupted; to continue: python {SEARCH} --resume {folder}"
    assert lines[-1] == command
    assert not any(f'{SEARCH}", line' in line for line in lines)  # of a traceback
    if launcher is None:
        assert status == 130 and lines.count(command) == 1
    else:
        assert lines.count(command) == 2


def test_ctrl_c_before_there_is_a_run(capsys):
    with pytest.raises(SystemExit, match="130"), errors_are_messages():
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize("line", ['{"epoch": 1, "tra', '{"epoch": 7}\n'])
def test_half_a_line_and_later_epochs_are_forgotten(finished_search, tmp_path, accelerator, line):
    shutil.copy(finished_search[0] / "metrics.jsonl", tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(line)
    run = Run(tmp_path, "test", accelerator)
    run.rewind(2)
    assert [entry["epoch"] for entry in run.lines("metrics.jsonl")] == [1, 2]


def test_other_classes_than_the_run_began_with(tmp_path, accelerator):
    run = Run(tmp_path, "test", accelerator)
    began = {"classes": ["ant", "bee", "cat", "dog"], "train_sha256": "a"}
    for _ in range(2):
        run.pin_images("images.json", began)
    with pytest.raises(InputError, match=r"the run has 4 classes \(ant, bee, cat, ...\), but the "
                                         r"images at --data-root have 2 classes \(ant, bee\)"):
        run.pin_images("images.json", {**began, "classes": ["ant", "bee"]})
    with pytest.raises(InputError, match="are not those of the run"):
        run.pin_images("images.json", {**began, "train_sha256": "b"})


def test_another_number_of_processes_is_refused(finished_search, tmp_path, command):
    shutil.copytree(finished_search[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "processes": 2}))
    status, _, err = command(SEARCH, "--resume", tmp_path / "run")
    assert status == 2 and "a run of 2 processes, not 1" in err


def test_mixed_precision_is_resumed_with_the_run(finished_search, tmp_path, command, monkeypatch):
    shutil.copytree(finished_search[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # this launch's; the run's is none
    assert command(SEARCH, "--resume", tmp_path / "run")[0] == 0
    assert_same_search(finished_search[0], tmp_path / "run")
