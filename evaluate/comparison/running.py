"""Schedules the jobs of a comparison: several at once, each after those that it needs."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError
from common.preemption import REQUEUE, Preempted, preemptible
from comparison.executor import Executor
from comparison.jobs import Job
from comparison.progress import View

FULL = "No space left on device"
LEAST = 2**20  # a disk with fewer free bytes is full
PAUSE = 0.05  # seconds between polls


class Stopped(Exception):
    """Ctrl-C or a termination signal ended the runs before all had finished.

    Attributes:
        told: what the user can do next.
        status: of the command: 130, or the one that asks a cluster to start it again.
    """

    def __init__(self, told: str, status: int):
        super().__init__(told)
        self.told, self.status = told, status


def run_all(jobs: Sequence[Job], executor: Executor, view: View) -> None:
    """Run all jobs that are not finished. A failed job holds up only those that need it.

    Args:
        jobs: in the order in which to start them.
        executor: runs them.
        view: shows the progress.

    Raises:
        InputError: runs of an earlier start are still running, or a cluster refuses all jobs.
        Stopped: by Ctrl-C or a signal; the executor has stopped.
        OSError: the disk is full; the executor has stopped, as after Ctrl-C.
    """
    for job in jobs:
        job.state = "done" if job.finished() else "waiting"
    executor.adopt(jobs)
    _repeat_stale(jobs)
    try:
        with preemptible(), view:
            while any(job.state in ("waiting", "queued", "running") for job in jobs):
                _step(jobs, executor, view)
                view.show()
                time.sleep(PAUSE)
    except BaseException as error:
        told = executor.stop()
        for job in jobs:
            job.state = "done" if job.finished() else "waiting"
        if isinstance(error, KeyboardInterrupt | Preempted):
            raise Stopped(told, REQUEUE if isinstance(error, Preempted) else 130) from None
        raise


def _step(jobs: Sequence[Job], executor: Executor, view: View) -> None:
    """Start what can start, then see what ended."""
    while executor.has_room() and (job := _next(jobs)) is not None:
        try:
            executor.submit(job)
            view.started(job)
        except InputError as reason:  # its cells are missing
            job.state, job.why = "failed", str(reason)
            view.ended(job)
    for job in executor.poll():
        view.ended(job)
        full = FULL in job.why or shutil.disk_usage(job.folder.parent).free < LEAST
        if job.state == "failed" and full:
            raise OSError(errno.ENOSPC, FULL)
        _repeat_stale(jobs)
    view.trouble(executor.trouble)


def disk_full(folder: Path) -> InputError:
    """The error for a full disk."""
    return InputError(
        f"--output: the disk of {folder} is full. Finished runs and checkpoints are kept; free "
        "some space, then give the same command again to continue"
    )


def _repeat_stale(jobs: Sequence[Job]) -> None:
    """Repeat finished jobs whose cells are no longer the chosen ones, and those that need them."""
    state = {job.name: job.state for job in jobs}
    again: set[str] = set()
    for job in jobs:
        if job.state != "done":
            continue
        ended = all(state[need] in ("done", "failed") for need in job.needs)
        if again.intersection(job.needs) or (ended and job.stale()):
            job.set_aside()
            job.state = "waiting"
            again.add(job.name)


def _next(jobs: Sequence[Job]) -> Job | None:
    """The first job that can start; those whose needs failed, fail on the way."""
    state = {job.name: job.state for job in jobs}
    for job in (job for job in jobs if job.state == "waiting"):
        needs = [state[need] for need in job.needs]
        failed = [need for need in job.needs if state[need] == "failed"]
        if failed and not (job.spares and len(failed) < len(needs)):
            job.state, job.why = "failed", f"needs {', '.join(sorted(failed))}, which failed"
            state[job.name] = "failed"
        elif all(of in ("done", "failed") for of in needs):
            return job
    return None
