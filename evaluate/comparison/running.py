"""Runs the jobs of a comparison, several at once, and leaves nothing half done behind."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil  # accelerate brings it
import torch

from common.errors import InputError
from comparison.jobs import Job, refuse_running, settle_clocks
from comparison.progress import View

FULL = "No space left on device"
LEAST = 2**20  # bytes that are free where a disk is not full
PAUSE = 0.2  # seconds between looks at what runs


class DiskFull(Exception):
    """No room is left for what runs write."""


def devices(jobs: int | None) -> list[str | None]:
    """Where to run: of each place its GPU, or None; by default one a GPU, else one."""
    count = torch.cuda.device_count()
    places = jobs or max(1, count)
    return [str(place % count) if count else None for place in range(places)]


def threads_each(asked: int | None, places: int) -> int:
    """CPU threads of a run: those asked for, or the usable cores shared out."""
    knows = hasattr(os, "sched_getaffinity")  # macOS does not say which cores may be used
    usable = len(os.sched_getaffinity(0)) if knows else os.cpu_count() or 1
    return asked or max(1, usable // places)


def run_all(
    jobs: Sequence[Job], places: Sequence[str | None], threads: int, view: View
) -> None:
    """All jobs, each after those that it needs; a failed one holds up only what needs it.

    Args:
        jobs: in the order in which to start them.
        places: see `devices`.
        threads: of each.
        view: says what happens.

    Raises:
        InputError: runs of an earlier start still go on, or the disk is full.
        KeyboardInterrupt: Ctrl-C or a termination signal; the runs have stopped by then.
    """
    refuse_running(jobs)
    settle_clocks(jobs)
    for job in jobs:
        job.state = "done" if job.finished() else "waiting"
    _reconsider(jobs)
    free = list(places)
    used: dict[str, str | None] = {}
    with _terminated_as_interrupted(), view:
        try:
            while any(job.state in ("waiting", "running") for job in jobs):
                _skip_what_cannot_run(jobs)
                while free and (job := _next(jobs)) is not None:
                    used[job.name] = free.pop(0)
                    _start(job, threads, used[job.name])
                    view.started(job)
                    if job.state == "failed":
                        free.append(used.pop(job.name))
                        view.ended(job)
                for job in jobs:
                    if job.state == "running" and job.poll():
                        free.append(used.pop(job.name))
                        view.ended(job)
                        if job.state == "failed" and _full(job):
                            raise DiskFull
                        _reconsider(jobs)
                view.show()
                time.sleep(PAUSE)
        except BaseException as reason:
            stop([job for job in jobs if job.state == "running"])
            if isinstance(reason, DiskFull) or getattr(reason, "errno", None) == errno.ENOSPC:
                raise disk_full(jobs[0].folder.parent) from None
            raise


def disk_full(folder: Path) -> InputError:
    """What to say of a disk without room."""
    return InputError(
        f"--output: the disk of {folder} is full. Finished runs are kept, and the others have "
        "their checkpoints; make room, then the same command goes on"
    )


def stop(jobs: Sequence[Job]) -> None:
    """Let runs end by themselves, as after Ctrl-C; kill those that do not."""
    def interrupt(process: subprocess.Popen | psutil.Process) -> None:
        process.send_signal(signal.SIGINT)

    def terminate(process: subprocess.Popen | psutil.Process) -> None:
        process.terminate()

    def kill(process: subprocess.Popen | psutil.Process) -> None:
        process.kill()

    tree = {job.name: _tree(job) for job in jobs}
    ways = ((20, interrupt), (5, terminate), (5, kill))
    for after, end in ways:
        for job in jobs:  # Ctrl-C on a terminal has reached them, too; twice does no harm
            if job.process is not None and job.process.poll() is None:
                end(job.process)
            for process in tree[job.name]:  # that a launcher has started
                with contextlib.suppress(psutil.Error):
                    end(process)
        until = time.time() + after
        while any(
            (job.process is not None and not job.poll()) or any(map(_lives, tree[job.name]))
            for job in jobs
        ):
            if time.time() > until:
                break
            time.sleep(0.05)
    for job in jobs:
        job.state = "done" if job.finished() else "waiting"


def _tree(job: Job) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        if job.process is not None:
            return psutil.Process(job.process.pid).children(recursive=True)
    return []


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _reconsider(jobs: Sequence[Job]) -> None:
    """Do again what is finished, but of cells that are not the chosen ones any more."""
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


def _start(job: Job, threads: int, device: str | None) -> None:
    try:
        job.start(threads, device)
    except InputError as reason:  # of cells that are not there
        job.state, job.why = "failed", str(reason)


def _next(jobs: Sequence[Job]) -> Job | None:
    done = {job.name for job in jobs if job.state == "done"}
    failed = {job.name for job in jobs if job.state == "failed"}

    def ready(job: Job) -> bool:
        return (done | failed if job.spares else done).issuperset(job.needs)

    return next((job for job in jobs if job.state == "waiting" and ready(job)), None)


def _skip_what_cannot_run(jobs: Sequence[Job]) -> None:
    failed = {job.name for job in jobs if job.state == "failed"}
    for job in jobs:
        lacking = failed.intersection(job.needs)
        enough = job.spares and len(lacking) < len(job.needs)
        if job.state == "waiting" and lacking and not enough:
            job.state, job.why = "failed", f"needs {', '.join(sorted(lacking))}, which failed"


def _full(job: Job) -> bool:
    """Whether it failed for want of room."""
    return FULL in job.why or shutil.disk_usage(job.folder.parent).free < LEAST


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A termination signal ends the comparison as Ctrl-C does, and so its runs."""
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before: Callable | int | None = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
