"""Errors that end a command with a message instead of a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """Bad input: the message names the flag or the file, and the mend."""


class UnreadableFile(InputError):
    """A file that one process alone came upon, in the middle of a run; it says so itself."""


class NotFinite(RuntimeError):
    """A loss or a weight was not finite: the message names the step."""


@contextlib.contextmanager
def errors_are_messages() -> Iterator[None]:
    """What a user can mend is said once, by the main process (or by the only one that knows).

    Exit status 2 after an `InputError`, 1 after a loss that is not finite, on a full disk or out of
    memory, 130 after Ctrl-C; 141, without a word, where nobody reads on (`| head -1`).
    """
    try:
        try:
            yield
        finally:
            _flush()  # what is left, here where a closed pipe has its answer
    except UnreadableFile as error:
        _leave(f"error: {error}", 2, aloud=True)
    except InputError as error:
        _leave(f"error: {error}", 2)
    except NotFinite as error:
        _leave(f"error: {error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        # Any process may be the one, and others wait for it: it says so itself.
        _leave(f"error: out of memory: {NO_MEMORY} ({str(error)[:200]})", 1, True)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        _be_silent()
        raise SystemExit(128 + 13) from None  # as a shell says of SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _leave(
            f"error: {error.strerror}: make room; --resume RUN_FOLDER goes on from the last "
            "checkpoint", 1,
        )  # fmt: skip
    except KeyboardInterrupt:
        _leave("\ninterrupted; --resume RUN_FOLDER goes on from the last checkpoint", 130)


NO_MEMORY = "a smaller batch or network needs less"


def _out_of_memory(error: Exception) -> bool:
    """Whether memory is short: Python's, a GPU's or, known by its text, PyTorch's of a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return "not enough memory" in text or "Storage size calculation overflowed" in text


def is_main_process() -> bool:
    """Whether this process speaks for all; works before any process group exists."""
    return int(os.environ.get("RANK", 0)) == 0


def _flush() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _nobody_reads() -> bool:
    """Whether what reads our output has ended, as `head` does; another broken pipe is an error."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _be_silent() -> None:
    """Send what Python still writes at its end to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


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
