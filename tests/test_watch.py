"""evaluate/watch.py: one line for each run, whatever its files look like."""

import json
import os
import time

import fake_run

WATCH = "evaluate/watch.py"


def logged(folder, text):
    folder.with_name(f"{folder.name}.log").write_text(text)
    return folder


def test_each_run_has_its_state(command, tmp_path):
    runs = tmp_path / "one" / "runs"
    fake_run.search(runs / "finished", seed=3)
    fake_run.search(runs / "finished" / "cells" / "0")  # a run within a run is not shown
    fake_run.begin(runs / "running", "retrain", 0, epochs=4)
    lines = [{"epoch": n + 1, "test_top1": 70 + n, "seconds": 100} for n in range(2)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (runs / "running" / "metrics.jsonl").write_text(text + '{"epoch": 3, "te')  # being written
    (runs / "running" / "running.json").write_text("{}")
    silent = runs / "silent"  # its machine has died
    fake_run.begin(silent, "darts", 0)
    (silent / "running.json").write_text("{}")
    os.utime(silent / "running.json", (time.time() - 700,) * 2)
    fake_run.begin(logged(runs / "failed", "epoch 1\nerror: out of memory: a smaller"), "darts", 1)
    fake_run.begin(logged(runs / "killed", "job: line 13:  1411 Killed    python"), "darts", 1)
    requeued = "slurmstepd: error: *** JOB 4 ON n0 CANCELLED DUE TO JOB REQUEUE ***"
    fake_run.begin(logged(runs / "requeued", requeued), "darts", 1)
    fake_run.begin(runs / "text", "gdas_rnn", 1, epochs=300)
    (runs / "queued.sbatch").write_text("#!/bin/bash\n")
    logged(runs / "refused", "error: --channels 1: must be 2 or more")
    (runs / "refused.time").write_text("2.0")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    fake_run.search(tmp_path / "lines")
    (tmp_path / "lines" / "metrics.jsonl").write_text("{\n{}\n")
    fake_run.begin(tmp_path / "keys", "darts", 1)
    (tmp_path / "keys" / "config.json").write_text('{"method": "darts"}')

    status, out, err = command(WATCH, tmp_path)
    assert status == 0, err
    shown = [" ".join(line.split()) for line in out.splitlines()]
    assert shown == [
        "run state method seed epoch top-1 % left",
        f"damaged damaged {tmp_path}/damaged: its config.json is damaged",
        "keys damaged 'epochs'",
        f"lines damaged {tmp_path}/lines/metrics.jsonl: damaged (line 1 is not a JSON object)",
        "one/runs/queued queued",
        "one/runs/refused failed error: --channels 1: must be 2 or more",
        "one/runs/failed failed darts 1 0/3 error: out of memory: a smaller",
        "one/runs/finished finished darts 3 3/3 52.00",
        "one/runs/killed failed darts 1 0/3 job: line 13: 1411 Killed python",
        f"one/runs/requeued queued darts 1 0/3 {requeued}",
        "one/runs/running running retrain 0 2/4 71.00 3 min",
        "one/runs/silent stopped darts 0 0/3",
        "one/runs/text stopped gdas_rnn 1 0/300",
        "1 running, 2 queued, 3 failed, 2 stopped, 3 damaged, 1 finished",
    ]
    status, out, _ = command(WATCH, tmp_path, "--json")
    assert status == 0
    (running,) = (row for row in json.loads(out) if row["state"] == "running")
    assert running["seconds_left"] == 200 and running["run"] == "one/runs/running"


def test_it_names_a_folder_without_runs(command, tmp_path):
    status, _, err = command(WATCH, tmp_path)
    assert status == 2 and f"{tmp_path}: no run in it" in err
    assert "no such folder" in command(WATCH, tmp_path / "no")[2]
