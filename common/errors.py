"""Errors that end a command with a message instead of a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

from common.preemption import REQUEUE, Preempted, launched, preemptible


class InputError(ValueError):
    """Bad input: the message names the flag or file, and the fix."""


class UnreadableFile(InputError):
    """A file that one process found unreadable during a run; any process prints the message."""


class NotFinite(RuntimeError):
    """A loss or weight was not finite; the message names the step."""


@contextlib.contextmanager
def errors_are_messages() -> Iterator[None]:
    """Turn errors that a user can fix into one message of the main process.

    Exit status: 2 after an `InputError`; 1 after a loss that is not finite, on a full disk or out
    of memory; 75 after SIGTERM or SIGUSR1 (see `preemption`); 130 after Ctrl-C; 141, without a
    message, on a closed pipe (`| head -1`). After a signal and on a full disk the exception's own
    text is how to continue (see `Run`).
    """
    with preemptible():
        try:
            with _errors_alone_are_messages():
                yield
        except Preempted as error:
            message = f"\nended by {error}"
            _repeat_below_launcher(message)
            _leave(message, REQUEUE)
        except KeyboardInterrupt as error:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # torchrun sends a second one
            try:
                message = "\n" + "; ".join(["interrupted", *map(str, error.args)])
                _repeat_below_launcher(message)
                _leave(message, 130)
            finally:
                signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _errors_alone_are_messages() -> Iterator[None]:
    """Without signals, which may come while an error is handled."""
    try:
        try:
            yield
        finally:
            _flush()  # here, where a closed pipe is handled
    except UnreadableFile as error:
        _leave(f"error: {error}", 2, aloud=True)
    except InputError as error:
        _leave(f"error: {error}", 2)
    except NotFinite as error:
        _leave(f"error: {error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        # Any process may be the one, while the others wait.
        _leave(f"error: out of memory: {NO_MEMORY} ({str(error)[:200]})", 1, True)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        _be_silent()
        raise SystemExit(128 + 13) from None  # the shell's status for SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _leave(f"error: {error.strerror}", 1)


NO_MEMORY = "a smaller batch or network needs less"


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, a GPU or PyTorch on a CPU (known by its text) is out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return "not enough memory" in text or "Storage size calculation overflowed" in text


def is_main_process() -> bool:
    """Whether this process prints; works before a process group exists."""
    return int(os.environ.get("RANK", 0)) == 0


def _flush() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _nobody_reads() -> bool:
    """Whether our own output is the closed pipe."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _be_silent() -> None:
    """Discard the output that Python still writes when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _repeat_below_launcher(message: str) -> None:
    """Print again after `accelerate launch` or `torchrun`, whose own traceback would hide it.

    Ctrl-C reaches the launcher too, and no exit status of ours silences it. torchrun ends after its
    processes, so a shell waits for that, at most a minute.
    """
    if not launched() or not is_main_process() or os.name != "posix":
        return
    wait = "for _ in $(seq 600); do kill -0 $0 2>/dev/null || break; sleep 0.1; done"
    subprocess.Popen(
        ["sh", "-c", f'{wait}; echo "$1" >&2', str(os.getppid()), message],
        start_new_session=True,
    )


def _leave(message: str, status: int, aloud: bool = False) -> None:
    if aloud or is_main_process():
        try:
            print(message, file=sys.stderr, flush=True)
        except BrokenPipeError:
            _be_silent()
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()
    raise SystemExit(status)
