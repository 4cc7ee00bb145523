"""SIGTERM and SIGUSR1 end a command so that the same command goes on.

During a training step the signal waits: the step ends, a checkpoint is written, then `Preempted` is
raised. Anywhere else it is raised at once, as everything is in a checkpoint there or has not begun,
and files are written atomically. `errors_are_messages` makes it exit status 75.

What launchers do (torch 2.14, accelerate 1.15):

* `python`: ends with 75. In the first seconds, while it imports, the signal kills it (143, 138).
* `srun python`, one task per process: Slurm signals every task; srun ends with 75.
* `torchrun`, and `accelerate launch` with several processes, which is the same: SIGTERM to the
  launcher is sent on to each process' group, its data workers too; after 30 seconds it kills
  (TORCH_ELASTIC_SHUTDOWN_TIMEOUT). SIGUSR1 kills the launcher alone, unless it is started under
  PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1. Its status is 1 whatever happened, so
  a job script notes by a `trap` that it was signalled. `--max-restarts` (default 0) would start the
  processes again at once.
* `accelerate launch` with one process forwards no signal and dies of it (143, 138).

A process whose launcher has died behaves as if signalled: nothing trains on unnoticed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

REQUEUE = 75  # exit status; EX_TEMPFAIL of sysexits.h
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")  # set by the launchers


class Preempted(BaseException):
    """A signal ended the command; the text says which, and how to continue."""


class _Received:
    """The process' state: signals come to the process, not to an object."""

    why: str | None = None  # the first signal
    waits = False  # for the end of a step
    parent = os.getppid()


@contextlib.contextmanager
def preemptible() -> Iterator[None]:
    """Inside, the first SIGTERM or SIGUSR1 raises `Preempted`; more of them change nothing."""
    main = threading.current_thread() is threading.main_thread()  # which alone gets signals
    if not main or signal.getsignal(SIGNALS[0]) is _receive:  # or already inside
        yield
        return
    before = {number: signal.signal(number, _receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _Received.why = None  # or what this process trains next would end at its first step


def _receive(number: int, _: object) -> None:
    first, _Received.why = _Received.why is None, signal.Signals(number).name
    if first and not _Received.waits:
        raise Preempted(_Received.why)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Inside, a signal waits until `asked` is asked, or until the end."""
    _Received.waits = True
    try:
        yield
    finally:
        _Received.waits = False
    if _Received.why is not None:
        raise Preempted(_Received.why)


def asked() -> str | None:
    """Why this process should end: a signal's name, or its launcher's death; else None."""
    if launched() and os.name == "posix" and os.getppid() != _Received.parent:
        return "its launcher's death"
    return _Received.why


def launched() -> bool:
    """Whether `accelerate launch` or `torchrun` started this process."""
    return any(name in os.environ for name in LAUNCHED)


def survive(worker: int = 0) -> None:
    """For a process that reads data: only its parent ends it, as the step needs its batches.

    Launchers and Slurm signal data workers, too.
    """
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS and Windows have none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=[os.getppid()], daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # as PyTorch's own handler
