"""evaluate/compare.py: what it starts, resumes, refuses and reports."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

import fake_run
from common.errors import InputError
from comparison import conduct, executor, planned, running
from comparison.conduct import compare
from comparison.executor import LocalExecutor
from comparison.jobs import Job
from comparison.progress import View
from comparison.settings import CompareConfig

COMPARE = "evaluate/compare.py"


def config(folder, **changes):
    given = {"methods": ("pc_darts", "darts"), "preset": "digits", "seeds": 2, "jobs": 2,
             "random_cells": 1, "output": str(folder)}
    return CompareConfig(**{**given, **changes})


def starts(folder):
    file = folder / "runs" / "starts"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return sorted(lines)


def report(folder):
    return json.loads((folder / "comparison.json").read_text())


def test_a_comparison_runs_everything_once(faked, tmp_path, capsys):
    compare(config(tmp_path))
    searches = [f"{name}-{seed}" for name in ("pc_darts", "darts") for seed in (0, 1)]
    names = [name + end for name in searches for end in ("", ".train")]
    names += [f"random-cell-{seed}-0.train" for seed in (0, 1)]
    assert starts(tmp_path) == sorted(f"{name} new" for name in names)
    found = report(tmp_path)
    pc_darts, darts, cells = found["rows"]
    assert pc_darts["label"] == "pc_darts" and darts["label"] == "darts"
    assert cells["label"] == "average random cell" and cells["accuracy"]["mean"] == 70
    assert pc_darts["accuracy"]["mean"] == 90.5
    assert pc_darts["accuracy"]["sd"] == pytest.approx(0.5**0.5)
    assert pc_darts["accuracy"]["values"] == {"0": 90, "1": 91}
    assert pc_darts["gain"]["values"] == {"0": 20, "1": 21}  # each over its seed's random cell
    assert pc_darts["memory_mib"]["mean"] == 100.5 and pc_darts["search_seconds"]["mean"] == 6
    assert pc_darts["wall_seconds"]["mean"] < 6  # of the commands, which took no time
    assert found["pairs"][0]["difference"] == 10 and not found["pairs"][0]["separated"]
    text = (tmp_path / "comparison.md").read_text()
    assert "| pc_darts | 90.50 \u00b1 0.71 (2) | +20.50 \u00b1 0.71 (2) | 6 s |" in text
    assert "pc_darts vs darts: no significant difference" in text
    assert "10 of 10 runs done" in capsys.readouterr().out
    said = "pc_darts gets --warmup-epochs 2: its warm-up is 30 % of the epochs, rounded down"
    assert found["budget_changes"][0].startswith(said) and said in text
    assert said in (tmp_path / "report.html").read_text()

    compare(config(tmp_path, seeds=3))  # one more seed
    assert len(starts(tmp_path)) == 5
    assert report(tmp_path)["rows"][0]["accuracy"]["values"] == {"0": 90, "1": 91, "2": 92}


def test_after_a_stop_finished_runs_are_kept_and_others_resumed(faked, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE", json.dumps({"slow": "s-0.train"}))

    def terminate():  # when one run is done, the one beside it runs, and the next two have begun
        while len(list(tmp_path.glob("runs/*/asked"))) < 4:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    with pytest.raises(SystemExit, match="75"):
        compare(config(tmp_path))
    first = starts(tmp_path)
    done = {path.parent.name for path in tmp_path.glob("runs/*/result.json")}
    assert 0 < len(done) < len(first) and not list(tmp_path.glob("runs/*.pid"))
    monkeypatch.setenv("FAKE", "{}")
    (tmp_path / "runs" / "darts-1").mkdir(exist_ok=True)  # killed before it wrote its config
    (tmp_path / "runs" / "darts-1" / "config.json.tmp").write_text("{")
    compare(config(tmp_path))
    second = starts(tmp_path)
    begun = {line.split()[0] for line in first}
    resumed = {line for line in second if "resumed" in line}
    assert resumed == {f"{name} resumed" for name in begun - done}
    assert not done & {line.split()[0] for line in second} and len(done) + len(second) == 10
    assert not any(row["failures"] for row in report(tmp_path)["rows"])


def test_a_failed_run_is_reported_and_the_others_continue(faked, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE", json.dumps({"fail": "darts-1"}))
    compare(config(tmp_path))
    found = report(tmp_path)
    assert "FAILED darts-1: error: the loss was not finite at step 7" in capsys.readouterr().out
    darts = found["rows"][1]
    assert darts["accuracy"]["values"] == {"0": 80}
    assert "first line\nerror: the loss was not finite at step 7" in darts["failures"]["1"]
    assert found["rows"][0]["accuracy"]["values"] == {"0": 90, "1": 91}
    assert "darts has no result for seed 1;" in " ".join(found["notes"])
    assert "darts-1.train new" not in starts(tmp_path)
    monkeypatch.setenv("FAKE", "{}")
    compare(config(tmp_path))
    assert starts(tmp_path) == ["darts-1 resumed", "darts-1.train new"]
    assert not report(tmp_path)["rows"][1]["failures"]


def test_a_full_disk_stops_everything_and_loses_nothing(faked, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE", json.dumps({"full": "pc_darts-0.train"}))
    with pytest.raises(InputError, match="--output: the disk of .* is full.*free some space"):
        compare(config(tmp_path, jobs=1))
    assert starts(tmp_path) == ["pc_darts-0 new", "pc_darts-0.train new"]
    monkeypatch.setenv("FAKE", "{}")
    compare(config(tmp_path, jobs=1))
    again = starts(tmp_path)
    assert "pc_darts-0.train resumed" in again and len(again) == 9


def test_a_full_disk_is_named_while_the_report_is_written(faked, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conduct, "write", full)
    with pytest.raises(InputError, match="is full"):
        compare(config(tmp_path, seeds=1, random_cells=0))


def test_a_run_that_is_still_running_is_refused(faked, tmp_path):
    folder = tmp_path / "runs" / "darts-0"
    folder.parent.mkdir(parents=True)
    words = [sys.executable, "-c", "input()", "--resume", str(folder)]
    still = subprocess.Popen(words, stdin=subprocess.PIPE)
    try:
        with pytest.raises(InputError, match=f"darts-0 is still written by process {still.pid}"):
            compare(config(tmp_path))
    finally:
        still.communicate()
    assert not starts(tmp_path)


def test_a_start_that_was_killed_counts_in_the_wall_time(faked, tmp_path):
    """kill -9 of the comparison: its runs continued for a while, or finished."""
    runs = tmp_path / "runs"
    for name in ("darts-0", "darts-0.train"):
        runs.mkdir(exist_ok=True)
        (runs / f"{name}.pid").write_text("99999999")
        (runs / f"{name}.log").write_text("epoch 1\n")
        os.utime(runs / f"{name}.pid", (1000, 1000))
        os.utime(runs / f"{name}.log", (1600, 1600))
    fake_run.search(runs / "darts-0")  # this one ended
    compare(config(tmp_path, methods=("darts",), seeds=1, random_cells=0))
    assert starts(tmp_path) == ["darts-0.train new"]
    (row,) = report(tmp_path)["rows"]
    assert 1200 <= row["wall_seconds"]["mean"] < 1210 and not list(runs.glob("*.pid"))


def test_a_failed_random_cell_is_reported(faked, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE", json.dumps({"fail": "random-cell-1-0.train"}))
    compare(config(tmp_path, methods=("darts",)))
    found = report(tmp_path)
    assert list(found["rows"][0]["gain"]["values"]) == ["0"]
    (left,) = found["left_out"]
    assert left["what"] == "random-cell-1-0.train"
    assert left["why"].startswith("failed, so gains are over fewer random cells\n")
    assert "error: the loss was not finite at step 7" in left["why"]


def test_missing_cells_fail_a_job_and_those_that_need_it_and_free_its_place(tmp_path):
    def missing():
        raise InputError("no cells")

    write = "import sys; open(sys.argv[-1] + '/result.json', 'w').write('{}')"
    write = f"import os, sys; os.mkdir(sys.argv[-1]); {write}"
    jobs = [
        Job("first", "x", 0, ("-c", write), (), tmp_path / "first", cells=missing),
        Job("second", "x", 0, ("-c", write), (), tmp_path / "second", needs=("first",)),
        Job("third", "x", 0, ("-c", write), (), tmp_path / "third"),
    ]
    running.run_all(jobs, LocalExecutor([None], 1), View(jobs, 1))
    assert [job.state for job in jobs] == ["failed", "failed", "done"]
    assert [job.why for job in jobs[:2]] == ["no cells", "needs first, which failed"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["--methods", "pc_darts", "nas"], "--methods nas: unknown; known: pc_darts, gdas,"),
    (["--seeds", "0"], "--seeds 0: must be 1 or more"),
    (["--seeds", "17"], "--seeds 17: must be 16 or less"),
    (["--methods", "pr_darts", "--search-epochs", "2"], "pr_darts searches in cycles and needs 3"),
    (["--budget", "paper", "--search-cells", "4"], "--search-cells 4: --budget paper leaves"),
    (["--runs", "no/such"], "--runs no/such: no such folder"),
    (["--search-channels", "0"], "--search-channels 0: must be 1 or more"),
    (["--train-flags=--epoks 6"], "--train-flags '--epoks 6': evaluate/train.py refuses"),
    (["--train-flags=--epochs -6"], "--train-flags '--epochs -6': --epochs -6: must be"),
    (["--train-flags=--cutout '1"], "No closing quotation"),
    (["--train-flags=--seed 1"], "--seed is set for each run; leave it out"),
    (["--train-flags=--held-out valid"], "a comparison is of test accuracies"),
])  # fmt: skip
def test_bad_flags(command, tmp_path, arguments, said):
    status, _, err = command(COMPARE, *arguments, "--output", tmp_path / "o")
    assert status == 2 and said in err and not (tmp_path / "o").exists()


def test_output_is_needed(command):
    status, _, err = command(COMPARE)
    assert status == 2 and "--output" in err


def test_another_budget_in_the_same_folder_is_refused(faked, tmp_path):
    compare(config(tmp_path, seeds=1, random_cells=0))
    with pytest.raises(InputError, match="--search-epochs 4: .* was begun with None"):
        compare(config(tmp_path, seeds=1, search_epochs=4))
    compare(config(tmp_path, methods=("pc_darts",), seeds=1, jobs=1))  # this may change
    (tmp_path / "asked.json").write_text("{")
    with pytest.raises(InputError, match="asked.json: damaged, .* name another --output"):
        compare(config(tmp_path, seeds=1))


def test_places_take_turns_on_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(executor.torch.cuda, "device_count", lambda: 2)
    assert executor.devices(None) == ["0", "1"] and executor.devices(3) == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-a1")  # a cluster's: no other may be used
    assert executor.devices(3) == ["5", "GPU-a1", "5"]
    monkeypatch.setattr(executor.torch.cuda, "device_count", lambda: 0)
    assert executor.devices(None) == [None] and executor.devices(2) == [None, None]


def test_a_run_gets_its_gpu_and_threads(tmp_path):
    script = tmp_path / "say.py"
    script.write_text("import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], sys.argv[1:])")
    job = Job("x", "x", 4, (str(script),), ("--K", "2"), tmp_path / "runs" / "x")
    local = LocalExecutor(["1"], threads=3)
    local.submit(job)
    assert not local.has_room()
    while not local.poll():
        time.sleep(0.01)
    assert local.has_room() and job.state == "failed"  # it writes no result
    said = job.log.read_text()
    assert said.startswith("1 ['--K', '2', '--seed', '4', '--threads', '3', '--output'")


def test_a_stop_ends_the_workers_of_a_launcher(tmp_path):
    sleep = "import time; time.sleep(60)"
    launch = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); {sleep}"
    local = LocalExecutor([None], 1)
    local.submit(Job("x", "x", 0, ("-c", launch), (), tmp_path / "runs" / "x"))
    me, tree = psutil.Process(), []
    while len(tree) < 2:
        tree = me.children(recursive=True)
        time.sleep(0.05)
    local.stop()
    assert local.has_room()
    left = [process for process in tree if process.is_running()]  # nobody waited for a zombie
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in left)


# ----------------------------------------------------------------------------------- the progress


def some_jobs(tmp_path):
    every = [
        Job(f"{label}-0{end}", label, 0, (), (), tmp_path / f"{label}-0{end}", what=what)
        for label in ("a", "b") for end, what in (("", "search"), (".train", "train"))
    ]  # fmt: skip
    every[0].state, every[1].state = "done", "running"
    every[0].clock.write_text("80\n20\n")  # two starts
    fake_run.begin(every[1].folder, "retrain", 0, epochs=4)
    fake_run.epoch(every[1].folder, 0)
    every[1].started = time.time() - 10
    return every


def test_time_left_is_estimated_from_similar_runs(tmp_path):
    view = View(some_jobs(tmp_path), places=1)
    # A search took 100 s; a training is a quarter done after 10 s. One of each is to come.
    # b's are not known: the mean of both, 70 s, each.
    assert view.seconds_left() == pytest.approx(30 + 70 + 70, abs=1)
    assert view.summary().startswith("1 of 4 runs done, 1 running, about 3 min left")
    assert View([], 1).seconds_left() is None


def test_live_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    every = some_jobs(tmp_path)
    view = View(every, 1)
    assert view.live
    view.show()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["seed", "0"] and shown[1].split() == ["a", "train", "25", "%"]
    assert shown[2].split() == ["b", "waits"] and "1 of 4 runs done" in shown[3]
    view.show(force=True)
    assert capsys.readouterr().out.startswith("\x1b[4F\x1b[J")
    every[1].state, every[1].why = "failed", "why"
    view.ended(every[1])
    assert "FAILED a-0.train: why" in capsys.readouterr().out


# ------------------------------------------------------------------------------------ a real run


def test_a_real_search_and_its_retraining(tmp_path, command, monkeypatch):
    """The shortest possible, in this process: the real commands accept what the fakes accept."""
    monkeypatch.setattr(sys, "argv", [COMPARE])
    given = config(
        tmp_path, methods=("gdas_frc",), seeds=1, random_cells=0, search_epochs=1,
        search_channels=4, search_batch_size=16, limit_images=64,
        train_flags="--epochs 1 --channels 4 --cells 3 --limit-images 64",
    )
    for job in planned.jobs_of(given, tmp_path):
        own = [] if job.cells is None else ["--genotype", job.cells()]
        more = ["--seed", job.seed, "--threads", 1, "--output", job.folder]
        status, _, err = command(*job.script, *job.flags, *own, *more)
        assert status == 0, err
    compare(given)
    (row,) = report(tmp_path)["rows"]
    assert 0 <= row["accuracy"]["values"]["0"] <= 100 and row["params"]["mean"] > 1000
    assert row["multiply_adds"]["mean"] > 1000 and row["search_seconds"]["mean"] > 0
    split = json.loads((tmp_path / "runs" / "gdas_frc-0" / "split.json").read_text())
    assert len(split["train"]) == 32
