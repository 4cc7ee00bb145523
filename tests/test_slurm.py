"""--cluster slurm, on a Slurm that the tests start; without its programs they are skipped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import fake_run
import slurm_here
from comparison import methods, planned, slurm
from comparison.conduct import compare
from comparison.methods import METHODS
from comparison.settings import CompareConfig

FAKE = (str(Path(fake_run.__file__)),)


@pytest.fixture(scope="module")
def daemons():
    if absent := slurm_here.missing():
        pytest.skip(f"no {', '.join(absent)} here: apt-get install slurm-wlm munge")
    with slurm_here.running() as conf:
        yield conf


@pytest.fixture
def cluster(daemons, monkeypatch):
    """Slurm, asked often, and searches and retrainings that train nothing."""
    monkeypatch.setenv("SLURM_CONF", str(daemons))
    monkeypatch.setattr(slurm, "INTERVAL", 0.2)
    monkeypatch.setattr(slurm, "PATIENCE", 0.5)
    monkeypatch.setattr(sys, "argv", ["evaluate/compare.py"])
    for name, method in METHODS.items():
        fake = methods.Method(FAKE, method.method, method.flags, method.printed)
        monkeypatch.setitem(METHODS, name, fake)
    monkeypatch.setattr(planned, "TRAIN", FAKE)


def config(folder, **changes):
    given = {"methods": ("pc_darts", "darts"), "preset": "digits", "seeds": 2, "jobs": 8,
             "random_cells": 0, "output": str(folder), "cluster": "slurm"}
    return CompareConfig(**{**given, **changes})


def starts(folder):
    return sorted((folder / "runs" / "starts").read_text().splitlines())


def queue():
    """Number of each job by its name."""
    lines = slurm_here.ask(["squeue", "--noheader", "--format=%A %j"]).splitlines()
    return {name: number for number, name in map(str.split, lines)}


def requeue(number):
    """Slurm starts a requeued job after two minutes, this one at once."""
    subprocess.run(["scontrol", "requeue", number], check=True)
    state = ["squeue", "--noheader", "--format=%T", "--jobs", number]
    while slurm_here.ask(state) != "PENDING":
        time.sleep(0.1)
    subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True)


def once(true, then):
    """Do something in another thread once something is true."""

    def act():
        until = time.time() + 60
        while not true() and time.time() < until:
            time.sleep(0.05)
        then()

    threading.Thread(target=act, daemon=True).start()


def kill(folder):
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or []):
            process.kill()


def test_a_comparison_survives_a_stop_a_requeue_and_a_kill(cluster, tmp_path, monkeypatch, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    compare(config(here, cluster=None, jobs=2))
    monkeypatch.setenv("FAKE", json.dumps({"slow": "-1"}))  # both searches of seed 1

    slow = [there / "runs" / name for name in ("pc_darts-1", "darts-1")]
    ended = [there / "runs" / f"{name}-0.train" / "result.json" for name in ("pc_darts", "darts")]

    def ready():
        return all(path.exists() for path in (*ended, *(at / "asked" for at in slow)))

    once(ready, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match="130"):
        compare(config(there))
    left = queue()
    assert set(left) == {"pc_darts-1", "darts-1"}
    assert "2 jobs stay in Slurm's queue; give the same command again" in capsys.readouterr().out

    def disturb():
        kill(slow[1])
        requeue(left["pc_darts-1"])

    once(lambda: True, disturb)
    compare(config(there))
    out = capsys.readouterr().out
    assert "8 runs, 4 done already" in out and "queued darts-1\n" not in out
    assert "FAILED darts-1:" in out and "Killed" in out
    assert queue() == {}
    assert starts(there).count("pc_darts-1 resumed") == 1
    compare(config(there))
    told = starts(there)
    assert told.count("darts-1 resumed") == 1
    assert [line for line in told if "new" in line] == starts(here)
    for run in (here / "runs").glob("*/"):
        same = there / "runs" / run.name
        for file in ("result.json", "genotype.json", "metrics.jsonl"):
            assert (same / file).read_bytes() == (run / file).read_bytes()
        assert len(same.with_name(f"{run.name}.time").read_text().split()) >= 1
    log = (there / "runs" / "pc_darts-1.log").read_text()
    assert f"Slurm job {left['pc_darts-1']} on" in log and "start 2" in log
