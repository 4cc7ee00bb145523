"""Schedules the jobs of a comparison: several at once, each after those that it needs."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from common.errors import InputError
from comparison.executor import LocalExecutor
from comparison.jobs import Job
from comparison.progress import View

FULL = "No space left on device"
LEAST = 2**20  # a disk with fewer free bytes is full
PAUSE = 0.05  # seconds between polls


def devices(jobs: int | None) -> list[str | None]:
    """One place per run at a time: its GPU, or None on a CPU. By default one place per GPU.

    A GPU has the name that `CUDA_VISIBLE_DEVICES` gives it, as this process may use no other.
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


def run_all(
    jobs: Sequence[Job], places: Sequence[str | None], threads: int, view: View
) -> None:
    """Run all jobs that are not finished. A failed job holds up only those that need it.

    Args:
        jobs: in the order in which to start them.
        places: see `devices`.
        threads: CPU threads of each run.
        view: shows the progress.

    Raises:
        InputError: runs of an earlier start are still running.
        KeyboardInterrupt: Ctrl-C or a termination signal.
        OSError: the disk is full. All runs have stopped by then, as after Ctrl-C.
    """
    executor = LocalExecutor(places, threads)
    _refuse_running(jobs)
    for job in jobs:
        job.settle_clock()
        job.state = "done" if job.finished() else "waiting"
    _repeat_stale(jobs)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with view:
            while any(job.state in ("waiting", "running") for job in jobs):
                _step(jobs, executor, view)
                view.show()
                time.sleep(PAUSE)
    except BaseException:
        executor.cancel()
        for job in jobs:
            job.state = "done" if job.finished() else "waiting"
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _step(jobs: Sequence[Job], executor: LocalExecutor, view: View) -> None:
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


def disk_full(folder: Path) -> InputError:
    """The error for a full disk."""
    return InputError(
        f"--output: the disk of {folder} is full. Finished runs and checkpoints are kept; free "
        "some space, then give the same command again to continue"
    )


def _refuse_running(jobs: Sequence[Job]) -> None:
    """Raise InputError where a run of an earlier start still writes to a job's folder."""
    folders = {str(job.folder) for job in jobs}
    for process in psutil.process_iter(["pid", "cmdline"]):  # finds a launcher's workers too
        words = process.info["cmdline"] or []
        for flag, folder in zip(words, words[1:], strict=False):
            if flag in ("--output", "--resume") and folder in folders:
                raise InputError(
                    f"{folder} is still written by process {process.info['pid']}, of an earlier "
                    "start; wait for it or stop it, then give the same command again"
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
