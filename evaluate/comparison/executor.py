"""Runs command lines as child processes of this one, several at a time.

`running.run_all` needs three verbs of an executor: submit a job whose command line is known, poll
for those that have ended, cancel those that run. Dependencies stay with `run_all`: most command
lines are known only when the runs they depend on have ended. A cluster's executor needs the same
verbs and no others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence

import psutil

from comparison.jobs import Job
from comparison.methods import ROOT

PATIENCE = ((signal.SIGINT, 20), (signal.SIGTERM, 5), (signal.SIGKILL, 5))  # seconds after each


class LocalExecutor:
    """Runs jobs on this machine, each in a free place.

    Args:
        places: one per run at a time: its GPU, or None on a CPU.
        threads: CPU threads of each run.
    """

    def __init__(self, places: Sequence[str | None], threads: int):
        self.free, self.threads = list(places), threads
        self.running: list[tuple[Job, subprocess.Popen, str | None]] = []

    def has_room(self) -> bool:
        """Whether one more job can start now."""
        return bool(self.free)

    def submit(self, job: Job) -> None:
        """Start a job, or resume it from its run folder.

        Raises:
            InputError: the cells that it trains are missing or damaged.
        """
        line, place = job.command(self.threads), self.free[0]
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
        job.begin(process.pid)

    def poll(self) -> list[Job]:
        """The jobs that ended since the last call; their state is done or failed."""
        ended = [entry for entry in self.running if entry[1].poll() is not None]
        for job, process, place in ended:
            self.running.remove((job, process, place))
            self.free.append(place)
            job.end(process.returncode)
        return [job for job, *_ in ended]

    def cancel(self) -> None:
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


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
