"""What every command begins with: threads, precision, the run to resume, images."""

import dataclasses
import json
import os
from types import SimpleNamespace

import psutil
import pytest
import torch

from common.data import datasets
from common.distributed import seed_of
from common.errors import InputError
from common.run import start as run_start
from common.run.config import RunConfig
from common.run.start import (
    busy_cores,
    set_threads,
    share_of_cores,
    start,
    test_images,
    training_images,
    workers,
)

test_images.__test__ = False  # a function of ours, no test

CONFIG = RunConfig(dataset="digits", seed=5)


@pytest.mark.parametrize(("cores", "processes", "share"), [(8, 1, 8), (8, 3, 2), (2, 4, 1)])
def test_a_process_has_its_share_of_the_usable_cores(monkeypatch, cores, processes, share):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert share_of_cores() == share and set_threads(None) == share == torch.get_num_threads()
    assert set_threads(3) == 3 == torch.get_num_threads()
    assert [workers(RunConfig(workers=given)) for given in (None, 0, 40)] == [share, 0, 40]


def test_no_more_than_16_workers_by_default(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert workers(RunConfig()) == 16


def test_a_start_settles_threads_and_the_seed_of_weights():
    config, accelerator = start(RunConfig(dataset="digits", seed=5, threads=3))
    drawn = torch.rand(3)
    torch.manual_seed(seed_of(5, "weights"))
    assert torch.equal(drawn, torch.rand(3)) and config.threads == 3 == torch.get_num_threads()
    assert accelerator.mixed_precision == "no"
    assert start(RunConfig(threads=None))[0].threads == torch.get_num_threads()


def test_threads_where_nobody_says_how_many(monkeypatch, capsys):
    """All cores; one for digits; and the free ones beside other programs."""
    monkeypatch.setattr(run_start, "usable_cores", lambda: set(range(4)))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for busy, dataset, threads, said in (
        (0.2, "digits", 1, ""), (3.1, "digits", 1, ""), (0.4, "cifar10", 4, ""),
        (1.2, "cifar10", 3, "use 1.2 of 4 cores"), (4.0, "cifar10", 1, "use 4.0 of 4 cores"),
    ):  # fmt: skip
        monkeypatch.setattr(run_start, "busy_cores", lambda busy=busy: busy)
        assert start(RunConfig(dataset=dataset))[0].threads == threads
        out = capsys.readouterr().out
        assert said in out and bool(said) == (f"takes --threads {threads}" in out)
    assert start(RunConfig(dataset="cifar10", threads=2))[0].threads == 2
    assert not capsys.readouterr().out


def test_busy_cores_are_the_usable_ones(monkeypatch):
    spent = iter([
        [SimpleNamespace(_fields=("user", "nice", "idle"), user=u, nice=n, idle=9) for u, n in core]
        for core in ([(1, 0), (0, 0), (4, 2)], [(1.1, 0.1), (0.2, 0), (4.2, 2)])
    ])  # fmt: skip
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(spent))
    monkeypatch.setattr(run_start, "usable_cores", lambda: {0, 2})
    assert busy_cores(0.2) == pytest.approx((0.1 + 0.2) / 0.2)


def test_a_batch_that_cannot_be_shared_out():
    with pytest.raises(InputError, match="--batch-size 1"):
        start(RunConfig(batch_size=1))


def begun(folder, precision, result=None):
    description = {"method": "m", "mixed_precision": precision, "processes": 1}
    (folder / "config.json").write_text(json.dumps(description))
    if result is not None:
        (folder / "result.json").write_text(result)
    return RunConfig(resume=str(folder))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_resumed_run_has_its_own_precision(tmp_path, precision):
    assert start(begun(tmp_path, precision))[1].mixed_precision == precision


@pytest.mark.parametrize("precision", ["fp16", "fp99", 5, None])
def test_a_precision_that_no_run_has(tmp_path, precision):
    with pytest.raises(InputError, match=f"--mixed_precision {precision}"):
        start(begun(tmp_path, precision))


def test_fp16_of_a_launch_is_refused(monkeypatch):
    monkeypatch.setattr("common.run.start.Accelerator", lambda **_: Fp16())
    with pytest.raises(InputError, match="--mixed_precision fp16"):
        start(CONFIG)


class Fp16:
    """A launch's accelerator."""

    mixed_precision, num_processes = "fp16", 1


def test_a_finished_run_is_left_alone(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        start(begun(tmp_path, "no", '{"epochs": 3}'))
    assert exit.value.code == 0 and f"{tmp_path} is finished" in capsys.readouterr().out


def test_a_damaged_result_is_said_and_written_again(tmp_path, capsys):
    start(begun(tmp_path, "no", ""))
    assert f"{tmp_path}: result.json is damaged" in capsys.readouterr().out
    (tmp_path / "result.json").unlink()
    start(begun(tmp_path, "no"))
    assert capsys.readouterr().out == ""
    (tmp_path / "result.json").mkdir()
    with pytest.raises(InputError, match="result.json is a folder"):
        start(begun(tmp_path, "no"))


def test_images_and_their_errors(accelerator, monkeypatch):
    images = training_images(RunConfig(dataset="digits", limit_images=32, seed=5), accelerator)
    whole = datasets.load_train("digits", "")
    assert len(images) == 32 and torch.equal(images.labels, whole.limited(32, 5).labels)
    assert len(training_images(CONFIG, accelerator)) == len(whole)
    expected = datasets.load_test("digits", "", whole)
    assert len(test_images(CONFIG, accelerator, whole)) == len(expected)

    def fail(*_, **__):
        raise InputError("no images there")

    monkeypatch.setattr(datasets, "load_train", fail)
    with pytest.raises(InputError, match="no images there"):
        training_images(CONFIG, accelerator)


def test_another_number_of_threads_resumes_and_is_said(tmp_path, capsys):
    config = begun(tmp_path, "no")
    description = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**description, "threads": 1}))
    assert start(dataclasses.replace(config, threads=2))[0].threads == 2
    assert "--threads 2: the run began with 1" in capsys.readouterr().out
