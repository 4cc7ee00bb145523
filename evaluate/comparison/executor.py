"""Runs command lines as child processes of this one, several at a time.

`running.run_all` needs these verbs of an executor (`Executor`): adopt what an earlier start left,
submit a job whose command line is known, poll for those that have ended, stop. Dependencies stay
with `run_all`: most command lines are known only when the runs they depend on have ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Protocol

import psutil
import torch

from common.errors import InputError
from comparison.jobs import Job
from comparison.methods import ROOT

# Seconds after each. On SIGTERM a run saves a checkpoint first.
PATIENCE = ((signal.SIGTERM, 25), (signal.SIGKILL, 5))


class Executor(Protocol):
    """Runs jobs somewhere.

    Attributes:
        places: runs at a time.
        trouble: why it waits; empty where nothing is wrong.
    """

    places: int
    trouble: str

    def adopt(self, jobs: Sequence[Job]) -> None:
        """Take over what an earlier start left; an adopted job's state is no longer `waiting`."""

    def has_room(self) -> bool:
        """Whether one more job can be submitted now."""

    def submit(self, job: Job) -> None:
        """Start a job, or resume it from its run folder."""

    def poll(self) -> list[Job]:
        """The jobs that ended since the last call; their state is done or failed."""

    def stop(self) -> str:
        """Stop before all jobs have ended; returns what the user can do next."""


def devices(jobs: int | None) -> list[str | None]:
    """One place per run at a time: its GPU, or None on a CPU. By default one place per GPU.

    A GPU has its name of `CUDA_VISIBLE_DEVICES`: this process may use no other.
    """
    count = torch.cuda.device_count()
    numbers = ",".join(map(str, range(count)))
    names = (os.environ.get("CUDA_VISIBLE_DEVICES") or numbers).split(",")
    places = jobs or max(1, count)
    return [names[place % count].strip() if count else None for place in range(places)]


def threads_each(asked: int | None, places: int) -> int:
    """CPU threads per run: as asked, or the usable cores divided by the places."""
    has_affinity = hasattr(os, "sched_getaffinity")  # macOS has not
    usable = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return asked or max(1, usable // places)


class LocalExecutor:
    """Runs jobs on this machine, each in a free place.

    Args:
        places: one per run at a time: its GPU, or None on a CPU.
        threads: CPU threads of each run.
    """

    trouble = ""

    def __init__(self, places: Sequence[str | None], threads: int):
        self.places, self.free, self.threads = len(places), list(places), threads
        self.running: list[tuple[Job, subprocess.Popen, str | None]] = []

    def adopt(self, jobs: Sequence[Job]) -> None:
        """Count the time of runs that were killed with an earlier start.

        Raises:
            InputError: one of them still writes to a job's folder.
        """
        folders = {str(job.folder) for job in jobs}
        for process in psutil.process_iter(["pid", "cmdline"]):  # finds a launcher's workers too
            words = process.info["cmdline"] or []
            for flag, folder in zip(words, words[1:], strict=False):
                if flag in ("--output", "--resume") and folder in folders:
                    raise InputError(
                        f"{folder} is still written by process {process.info['pid']}, of an "
                        "earlier start; wait for it or stop it, then give the same command again"
                    )
        for job in jobs:
            job.settle_clock()

    def has_room(self) -> bool:
        """Whether one more job can start now."""
        return bool(self.free)

    def submit(self, job: Job) -> None:
        """Start a job, or resume it from its run folder.

        Raises:
            InputError: the cells that it trains are missing or damaged.
        """
        job.prepare()
        line = job.resume_line() if job.has_begun() else job.begin_line(self.threads)
        place = self.free[0]
        environment = dict(os.environ)
        paths = [str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if place is not None:
            environment["CUDA_VISIBLE_DEVICES"] = place
        with open(job.log, "ab") as log:
            process = subprocess.Popen(
                line, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.running.append((job, process, self.free.pop(0)))
        job.start_clock(process.pid)
        job.state = "running"

    def poll(self) -> list[Job]:
        """The jobs that ended since the last call; their state is done or failed."""
        ended = [entry for entry in self.running if entry[1].poll() is not None]
        for job, process, place in ended:
            self.running.remove((job, process, place))
            self.free.append(place)
            job.stop_clock()
            status = process.returncode
            job.end(status == 0, _how(status), cut_short=status < 0)
        return [job for job, *_ in ended]

    def stop(self) -> str:
        """Stop everything that runs, with all child processes: first ask, then kill."""
        tree = []
        for _, process, _ in self.running:
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(process.pid)
                tree += [root, *root.children(recursive=True)]  # a launcher's workers too
        for number, seconds in PATIENCE:
            for process in tree:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            until = time.time() + seconds
            while (tree := [p for p in tree if _is_alive(p)]) and time.time() < until:
                time.sleep(0.05)
        self.poll()
        return "stopped; give the same command again to continue"


def _how(status: int) -> str:
    """How a process ended."""
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
