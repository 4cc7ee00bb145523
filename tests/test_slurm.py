"""--cluster slurm, on a Slurm that the tests start; without its programs they are skipped."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

import slurm_here
from builders import ROOT, assert_same_run
from common.errors import InputError
from comparison import slurm
from comparison.conduct import compare
from comparison.jobs import Job
from comparison.settings import CompareConfig
from comparison.slurm import SlurmExecutor


@pytest.fixture(scope="module")
def daemons():
    if absent := slurm_here.missing():
        pytest.skip(f"no {', '.join(absent)} here: apt-get install slurm-wlm munge")
    with slurm_here.running() as conf:
        yield conf


@pytest.fixture
def cluster(daemons, monkeypatch):
    """Slurm, asked often."""
    monkeypatch.setenv("SLURM_CONF", str(daemons))
    monkeypatch.setattr(slurm, "INTERVAL", 0.2)
    monkeypatch.setattr(slurm, "PATIENCE", 2)
    monkeypatch.setattr(sys, "argv", ["evaluate/compare.py"])


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
    subprocess.run(["scontrol", "requeue", number], check=True)
    again(number)


def again(number):
    """Slurm starts a requeued job after two minutes, this one at once."""
    state = ["squeue", "--noheader", "--format=%T", "--jobs", number]
    while slurm_here.ask(state) != "PENDING":
        time.sleep(0.1)
    subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True)


def fake_commands(folder, **scripts):
    """A folder of commands."""
    (folder / "commands").mkdir()
    for name, script in scripts.items():
        (folder / "commands" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "commands" / name).chmod(0o755)
    return folder / "commands"


def once(true, then):
    """Do something in another thread once something is true."""

    def act():
        while not true():
            time.sleep(0.05)
        then()

    threading.Thread(target=act, daemon=True).start()


def kill(folder):
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or []):
            process.kill()


@pytest.mark.slow
def test_a_comparison_survives_a_stop_a_requeue_and_a_kill(
    cluster, faked, tmp_path, monkeypatch, capsys
):
    here, there = tmp_path / "here", tmp_path / "there"
    compare(config(here, cluster=None, jobs=2))
    monkeypatch.setenv("FAKE", json.dumps({"slow": "-1"}))  # both searches of seed 1

    slow = [there / "runs" / name for name in ("pc_darts-1", "darts-1")]
    ended = [there / "runs" / f"{name}-0.train" / "result.json" for name in ("pc_darts", "darts")]

    def ready():
        return all(path.exists() for path in (*ended, *(at / "asked" for at in slow)))

    once(ready, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match="75"):
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


def test_what_slurm_refuses_is_said_before_anything_starts(cluster, faked, tmp_path):
    with pytest.raises(InputError, match="--sbatch '--partition no': .*[Ii]nvalid partition"):
        compare(config(tmp_path, sbatch="--partition no"))
    with pytest.raises(InputError, match="--sbatch: --array is set for each job; leave it out"):
        compare(config(tmp_path, sbatch="--array 1-3"))
    with pytest.raises(InputError, match="--job-setup .*no.sh: no such file"):
        compare(config(tmp_path, job_setup=tmp_path / "no.sh"))
    assert not list(tmp_path.glob("runs/*"))
    page = (ROOT / "evaluate" / "CLUSTER.md").read_text()
    small = ["--nodes=1", "--gpus-per-node=0", "--gpus=0", "--cpus-per-task=1"]  # as this one is
    for script in re.findall(r"```bash\n(.*?)```", page, re.S):
        (tmp_path / "job").write_text(script)
        words = ["sbatch", "--test-only", *small, str(tmp_path / "job")]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_jobs_that_slurm_ends_fail_with_its_words(cluster, tmp_path, monkeypatch):
    """One cancelled, one forgotten; a refusal and a silent controller are waited for."""
    sleep = Job("sleep", "x", 0, ("-c", "import time; time.sleep(60)"), (), tmp_path / "sleep")
    setup = tmp_path / "setup.sh"
    setup.write_text("echo $SLURM_JOB_NAME is set up\n")
    executor = SlurmExecutor(1, None, "--time 5:00", setup)
    executor.adopt([sleep])
    executor.options = "--time never"
    executor.submit(sleep)
    assert sleep.state == "waiting" and "Invalid --time" in executor.trouble
    assert not executor.has_room()
    executor.options, executor.refused = "--time 5:00", 0.0
    executor.submit(sleep)
    assert sleep.state == "queued" and executor.trouble == "" and not executor.has_room()
    while sleep.state != "running":
        executor.poll()
    assert 0 <= time.time() - sleep.started < 30
    (number,) = executor.jobs
    slurm_here.wait(lambda: sleep.log.exists() and "set up" in sleep.log.read_text(), tmp_path)
    subprocess.run(["scancel", number], check=True)
    while not (ended := executor.poll()):
        time.sleep(0.05)
    assert ended == [sleep] and sleep.state == "failed" and executor.has_room()
    assert "sleep is set up" in sleep.why
    assert sleep.why.endswith(f"Slurm job {number} ended as CANCELLED")
    assert executor.stop() == "stopped; give the same command again to continue"

    executor.jobs["999999"] = sleep  # one that ended while nobody asked
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(fake_commands(tmp_path, squeue="echo down >&2; exit 1")))
        executor.asked = 0.0
        assert executor.poll() == [] and executor.trouble == "down"
    while not (ended := executor.poll()):
        time.sleep(0.05)
    assert ended == [sleep]
    assert "Slurm no longer lists job 999999" in sleep.why.splitlines()[-1]


def begun(program, folder):
    """A job of a Python program that has printed `begun`, its executor and its number."""
    job = Job(folder.name, "x", 0, ("-c", program), (), folder)
    executor = SlurmExecutor(1, None, "", None)
    executor.submit(job)
    slurm_here.wait(lambda: job.log.exists() and "begun" in job.log.read_text(), folder.parent)
    (number,) = executor.jobs
    return job, executor, number


def ended(executor):
    """The job that ends first."""
    while not (jobs := executor.poll()):
        time.sleep(0.1)
    return jobs[0]


def test_a_job_that_takes_too_much_memory_fails_with_slurms_words(cluster, tmp_path):
    hungry = ("-c", "import time; taken = bytearray(300 * 2**20); time.sleep(60)")
    executor = SlurmExecutor(1, None, "--mem 100M", None)
    executor.submit(Job("hungry", "x", 0, hungry, (), tmp_path / "hungry"))
    job = ended(executor)
    assert job.state == "failed" and "Exceeded job memory limit" in job.why


def test_a_node_that_fails_costs_the_time_since_the_last_checkpoint(
    cluster, tmp_path, monkeypatch
):
    """Slurm starts the job again, and it is the same job."""
    monkeypatch.setattr(slurm, "PATIENCE", 30)  # it looks ended for a moment
    program = (
        "import pathlib, sys, time; sys.argv = sys.argv[-1:]; folder = pathlib.Path(sys.argv[0]);"
        "begun = folder.exists(); folder.mkdir(exist_ok=True); print('begun', flush=True);"
        "time.sleep(0 if begun else 60); (folder / 'result.json').write_text('{}')"
    )
    job, executor, number = begun(program, tmp_path / "node")
    node = slurm_here.ask(["sinfo", "--noheader", "--format=%N"]).strip()
    down = ["scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test"]
    subprocess.run(down, check=True)
    again(number)
    assert ended(executor) == job and job.state == "done", job.why
    assert "NODE FAILURE" in job.log.read_text() and "start 2" in job.log.read_text()


@pytest.mark.slow
def test_a_job_that_ignores_its_time_limit_fails_with_slurms_word(cluster, tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    executor = SlurmExecutor(1, None, "--time 1", None)
    executor.submit(Job("deaf", "x", 0, ("-c", deaf), (), tmp_path / "deaf"))
    job = ended(executor)
    assert job.state == "failed" and job.why.endswith("ended as TIMEOUT")
    assert "DUE TO TIME LIMIT" in job.why


def test_a_signal_to_the_batch_shell_alone_reaches_the_run(cluster, tmp_path):
    """As most clusters signal: only what Slurm itself has started."""
    program = (
        "import signal, sys, time; print('begun', flush=True)\n"
        "def save(*_):\n    print('saved', flush=True)\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\ntime.sleep(60)"
    )
    job, executor, number = begun(program, tmp_path / "alone")
    subprocess.run(["scancel", "--batch", "--signal=TERM", number], check=True)
    assert ended(executor).state == "failed" and "saved" in job.log.read_text()


def test_a_job_that_was_accepted_though_sbatch_failed_is_not_submitted_again(cluster, tmp_path):
    sleep = Job("twice", "x", 0, ("-c", "import time; time.sleep(60)"), (), tmp_path / "twice")
    executor = SlurmExecutor(1, None, "", None)
    executor.submit(sleep)
    (number,), executor.jobs, executor.refused = executor.jobs, {}, time.time()
    executor.submit(sleep)
    assert [*executor.jobs] == [number] and [*queue()].count("twice") == 1
    subprocess.run(["scancel", number], check=True)


def test_a_time_limit_before_the_first_checkpoint_ends_the_job(cluster, tmp_path):
    program = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); "
        "print('begun', flush=True); time.sleep(60)"
    )
    job, executor, number = begun(program, tmp_path / "short")
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)
    assert ended(executor).state == "failed" and "give --sbatch more --time" in job.why


def test_a_job_near_its_time_limit_requeues_itself(cluster, tmp_path):
    """USR1 as Slurm sends it, to the script; the program gets TERM. Not after an error."""
    program = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); "
        "os.makedirs(sys.argv[-1] + '/checkpoints/1'); print('begun', flush=True); time.sleep(60)"
    )
    job, executor, number = begun(program, tmp_path / "near")
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)
    state = ["squeue", "--noheader", "--format=%T", "--jobs", number]
    slurm_here.wait(lambda: slurm_here.ask(state) == "PENDING", tmp_path)
    executor.poll()
    assert job.state == "queued"
    assert len(job.clock.read_text().split()) == 1


def test_it_needs_slurms_commands(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(fake_commands(tmp_path, squeue="", scancel="")))
    with pytest.raises(InputError, match="--cluster slurm: no command sbatch, scontrol here"):
        compare(config(tmp_path / "o"))
    with pytest.raises(InputError, match="--sbatch --gpus 1: only with --cluster slurm"):
        compare(config(tmp_path / "o", cluster=None, sbatch="--gpus 1"))
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_real_runs_on_slurm_end_with_the_same_bits(cluster, tmp_path):
    """Four searches and their retrainings; one is requeued, one killed, and then repeated."""
    tiny = dict(
        methods=("gdas_frc", "darts"), threads=1, search_epochs=2, search_channels=4,
        search_batch_size=16, limit_images=128,
        train_flags="--epochs 3 --channels 4 --cells 3 --limit-images 128 --checkpoint-steps 1",
    )  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    compare(config(here, cluster=None, jobs=2, **tiny))
    runs = there / "runs"
    begun = [runs / name / "metrics.jsonl" for name in ("darts-0", "gdas_frc-1.train")]
    once(begun[0].exists, lambda: requeue(queue()["darts-0"]))
    once(begun[1].exists, lambda: kill(runs / "gdas_frc-1.train"))
    compare(config(there, jobs=2, **tiny))
    assert "start 2" in (runs / "darts-0.log").read_text()
    compare(config(there, jobs=2, **tiny))
    assert "resuming at epoch" in (runs / "gdas_frc-1.train.log").read_text()
    for run in (here / "runs").glob("*/"):
        assert_same_run(runs / run.name, run)
