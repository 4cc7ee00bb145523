import os
import runpy
import sys
from dataclasses import replace

# Tests run side by side, each worker on a core of its own: before torch counts its threads.
worker = os.environ.get("PYTEST_XDIST_WORKER")
if worker is not None and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import pytest

pytest.register_assert_rewrite("builders")  # before anything imports it

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

import fake_run
from builders import ROOT, SEARCH, TINY_SEARCH, launch
from common.draw import pictures as draw
from comparison import planned
from comparison.methods import METHODS
from retraining.config import PRESETS
from retraining.loop import retrain


@pytest.fixture(autouse=True)
def fresh_processes():
    """Accelerate's state is global; no test hands its own to the next."""
    AcceleratorState._reset_state()
    PartialState._reset_state()
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture
def faked(monkeypatch):
    """A comparison whose searches and retrainings train nothing."""
    fake = (fake_run.__file__,)
    for name, method in METHODS.items():
        monkeypatch.setitem(METHODS, name, replace(method, script=fake))
    monkeypatch.setattr(planned, "TRAIN", fake)
    monkeypatch.setattr(sys, "argv", ["evaluate/compare.py"])


@pytest.fixture
def command(monkeypatch, capfd):
    """Run a script of ours in this process: its exit status and what it printed.

    Pictures, which take as long as a tiny search, are drawn where they are asked for.
    """
    draw_run = draw.run

    def run(script, *arguments, pictures=False):
        monkeypatch.setattr(draw, "run", draw_run if pictures else lambda folder: None)
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        capfd.readouterr()
        status = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as exit:
            status = exit.code or 0
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory):
    """A tiny search on digits, run once as a user would."""
    folder = tmp_path_factory.mktemp("search") / "run"
    process = launch(SEARCH, *TINY_SEARCH, "--threads", 1, "--output", folder)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return folder, output


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The folder of a tiny finished retraining on digits that reports its moving average."""
    AcceleratorState._reset_state()
    PartialState._reset_state()
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = replace(
        PRESETS["digits"], genotype="gdas_frc", channels=4, cells=3, epochs=3, ema_decay=0.5,
        threads=1, output=str(folder),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "run", lambda folder: None)
        retrain(config)
    return folder
