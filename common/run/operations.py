"""A user's own image operations, and the file of `--operations` that registers them.

Such a file is Python, run as the user's own code: only if `--operations` or `load_file` names it,
never because a run folder or a genotype does. Those record its name and its SHA-256.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import digest
from common.run.config import described

OWN_OPS: dict[str, Callable] = {}  # name -> builder; `common.networks.ops.register` adds them
_RUN: dict[str, tuple[str, Mapping[str, Callable]]] = {}  # SHA-256 -> a file's path, its OWN_OPS
_RECORDS: dict[str, dict[str, str]] = {}  # path -> the record of what was run last


def load_file(path: str | Path) -> dict[str, str]:
    """Run a file that registers operations; a second call for the same content does nothing.

    The file must be complete: its record covers none of the files that it imports.

    Returns:
        Its record: `file`, the name without folders, and `sha256`.

    Raises:
        InputError: it cannot be read, raises an error, or registers nothing, or a name that is
            taken.
    """
    record, content = _read(path)
    if record["sha256"] in _RUN and _RUN[record["sha256"]][1].items() <= OWN_OPS.items():
        _RECORDS[str(path)] = record
        return record
    before = dict(OWN_OPS)
    module = types.ModuleType(f"operations_{record['sha256'][:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # as an import does; dataclasses and pickle look there
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except InputError as error:
        raise InputError(f"--operations {path}: {error}") from None
    except (Exception, SystemExit) as error:
        line = f", line {_line(error, str(path))}"
        raise InputError(
            f"--operations {path}{line}: {type(error).__name__}: {error}; correct the file"
        ) from error
    registered = {k: v for k, v in OWN_OPS.items() if before.get(k) is not v}
    if not registered:
        raise InputError(
            f"--operations {path}: registers no operation; it must call "
            "common.networks.ops.register(NAME, BUILDER)"
        )
    _RUN[record["sha256"]] = str(path), registered
    _RECORDS[str(path)] = record
    return record


def file_of(name: str) -> str | None:
    """The path of the file that registered an operation; None: no file did."""
    for path, registered in _RUN.values():
        if name in registered and registered[name] is OWN_OPS.get(name):
            return path
    return None


def recorded(path: str | None) -> dict[str, Any]:
    """The entry of config.json and of a provenance for `--operations`; empty without the flag.

    It is of the content that was run, even if the file has been edited since.
    """
    return {} if path is None else {"operations": _RECORDS.get(path) or load_file(path)}


def flag_words(path: str | None) -> list[str]:
    """`--operations` for a command line that is to run the file again; empty without it."""
    return [] if path is None else ["--operations", path]


def check_recorded(folder: Path, path: str | None) -> None:
    """Check that `--operations` names the file with which a run began; does not run it.

    Raises:
        InputError: it is missing or another, or the run has none.
    """
    was = described(folder).get("operations")
    if was is None and path is not None:
        raise InputError(f"--operations {path}: {folder} began without one; leave the flag out")
    if was is not None and path is None:
        raise InputError(
            f"{folder}: it has operations of {in_words(was)}; add --operations FILE with that "
            "file (code runs only where you name it)"
        )
    if was is not None and digest_of(was) != (now := _read(path)[0]["sha256"]):
        raise InputError(
            f"--operations {path}: its SHA-256 is {now[:12]}..., but {folder} began with "
            f"{in_words(was)}; give that file, or start a new run"
        )


def digest_of(record: Any) -> str | None:
    """The SHA-256 in a record of `load_file`; None: it has none."""
    return record.get("sha256") if isinstance(record, dict) else None


def in_words(record: Any) -> str:
    """A record of `load_file` for a message."""
    name = record.get("file") if isinstance(record, dict) else None
    return f"{name or 'a file'} (SHA-256 {str(digest_of(record))[:12]}...)"


def _read(path: str | Path) -> tuple[dict[str, str], bytes]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"--operations {path}: cannot be read ({error.strerror}); name a Python file that "
            "registers operations"
        ) from None
    return {"file": Path(path).name, "sha256": digest(content)}, content


def _line(error: BaseException, path: str) -> int:
    """The last line of a file that an error passed through, or of its syntax error."""
    line, step = getattr(error, "lineno", None) or 0, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            line = step.tb_lineno
        step = step.tb_next
    return line
