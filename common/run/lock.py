"""running.json: the process that writes a run folder, so that no second one does.

Network file systems lock unreliably, so this is a file like any other: created exclusively, with
the name of its process, touched once a minute, removed at the end. One that was left is taken over

* at once if it is of this host and its process has ended;
* at once if it is of this Slurm job before it was requeued;
* if it is of another host, `STALE` seconds after its last touch. A start that finds one waits for
  that, or for the next touch.

Times are those of the file system, as clocks of hosts differ.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from common.errors import InputError
from common.files import json_object

NAME = "running.json"
BEAT, STALE = 60, 240  # seconds between touches; without one, after which a lock is left
PAUSE = 1.0  # seconds between looks at another host's lock
UNWRITTEN = 10  # seconds after which a lock without contents is left


class Lock:
    """The right to write a run folder, from `take` to `release`."""

    def __init__(self, folder: Path):
        self.path, self.mine, self.released = folder / NAME, _myself(), threading.Event()
        self.waits = False

    def take(self) -> None:
        """Create the file.

        Raises:
            InputError: another process has the folder; names it.
            OSError: the folder cannot be written.
        """
        atexit.register(self.release)
        while True:
            left = self._wait_until_left()
            if left is not None:
                self._put_aside(left)
            with contextlib.suppress(FileExistsError), open(self.path, "x") as file:
                json.dump(self.mine, file)
                file.flush()
                os.fsync(file.fileno())
                break
        threading.Thread(target=self._beat, daemon=True).start()

    def _wait_until_left(self) -> bytes | None:
        """The contents of a lock that was left; None: there is none.

        Raises:
            InputError: its process lives.
        """
        first = None
        while True:
            try:
                content, touched = self.path.read_bytes(), self.path.stat().st_mtime
            except FileNotFoundError:
                return None
            if (why := in_use(self.path.parent)) is None:
                return content
            other = json_object(self.path) or self.mine
            if other.get("host") == self.mine["host"] or touched != (first := first or touched):
                raise InputError(why)
            if not self.waits:
                print(f"{why}\nwaiting up to {STALE} seconds for a sign of life", flush=True)
                self.waits = True
            time.sleep(PAUSE)

    def _put_aside(self, left: bytes) -> None:
        """Remove a lock that was left, unless another process has taken it over meanwhile."""
        aside = self.path.with_name(f"{NAME}.{self.mine['host']}-{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if aside.read_bytes() != left:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def check(self) -> None:
        """Check that no other process has taken the folder over, as after a long suspension.

        Raises:
            InputError: one has; names it.
        """
        now = json_object(self.path)
        if now not in (None, self.mine):
            raise InputError(f"{self.path.parent}: {_named(now)} has taken this run over")

    def release(self) -> None:
        """Remove the file, if it is still this process'."""
        self.released.set()
        if json_object(self.path) == self.mine:
            self.path.unlink(missing_ok=True)
        atexit.unregister(self.release)

    def _beat(self) -> None:
        while not self.released.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def in_use(folder: Path) -> str | None:
    """Which other process writes a run folder, as a message; None if none does."""
    path = folder / NAME
    if not os.path.lexists(path):
        return None
    other, me = json_object(path) or {}, _myself()
    left = "if it is dead, "
    if other.get("host") == me["host"]:
        if not _is_alive(other):
            return None
    elif None is not other.get("job") == me["job"] and other["restart"] < me["restart"]:
        return None
    else:
        age, limit = _age(path), STALE if other else UNWRITTEN
        if age > limit:
            return None
        left += f"start again {limit - age:.0f} seconds from now, or "
    return (
        f"{folder}: in use by {_named(other)}; wait for it or stop it; {left}remove {path}"
    )


def _myself() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": platform.node(),
        "pid": process.pid,
        "started": process.create_time(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "job": os.environ.get("SLURM_JOB_ID"),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
    }


def _named(other: dict[str, Any]) -> str:
    if not other:
        return "a process that is starting"
    job = f", Slurm job {other['job']}" if other.get("job") else ""
    return f"process {other.get('pid')} on {other.get('host')}{job}, since {other.get('since')}"


def _is_alive(other: dict[str, Any]) -> bool:
    """Whether a process of this host runs; this one, which left a lock earlier, does not count."""
    with contextlib.suppress(psutil.Error, KeyError, TypeError):
        process = psutil.Process(other["pid"])
        same = abs(process.create_time() - other["started"]) < 2  # else the number was given again
        ended = process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid()
        return same and not ended
    return False


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    probe = path.with_name(f".{NAME}.{platform.node()}-{os.getpid()}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:  # released
        return float("inf")
