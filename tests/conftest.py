import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

# Tests run side by side, each worker on a core of its own: before torch counts its threads.
worker = os.environ.get("PYTEST_XDIST_WORKER")
if worker is not None and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from common.draw import pictures as draw
from common.run import checkpoint
from retraining.config import PRESETS
from retraining.loop import retrain

ROOT = Path(__file__).parent.parent
SEARCH = "pc_darts/search.py"
# Ten seconds of a search with everything in it: warm-up, arch steps, checkpoints within epochs.
TINY = "--preset digits --channels 8 --limit-images 256 --epochs 4 --warmup-epochs 2".split()
TINY += ["--checkpoint-steps", "1"]


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


def launch(*words, processes=None, launcher=None, **kwargs):
    """Start a script of ours as a user does, in processes of its own."""
    start = [sys.executable]
    if launcher == "accelerate":
        start += ["-m", "accelerate.commands.launch"]
    elif processes is not None:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'evaluate'}"}
    environment.pop("OMP_NUM_THREADS", None)
    return subprocess.Popen(
        [*start, *map(str, words)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs,
    )


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory):
    """A tiny search on digits, run once as a user would."""
    folder = tmp_path_factory.mktemp("search") / "run"
    process = launch(SEARCH, *TINY, "--threads", 1, "--output", folder)
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


def of_an_older_version(folder, *lacking):
    """The folder as a version left it that did not know these flags, nor digests."""
    description = json.loads((folder / "config.json").read_text())
    for name in lacking:
        del description[name]
    (folder / "config.json").write_text(json.dumps(description))
    for path in (folder / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        del state["stands_on"]
        checkpoint.save(path.parent, path.stem, state)
    return folder
