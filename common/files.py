"""Atomic writes, and reading JSON files that may be damaged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from common.errors import InputError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: readers, and a crash, see the old content or the new.

    Raises:
        InputError: the path is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, but must be a file; move it away")
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line; ignores an incomplete last line, as after a kill.

    Raises:
        InputError: the file cannot be read, or a line is not a JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            found.append(None)
        if not isinstance(found[-1], dict):
            raise InputError(f"{path}: damaged (line {number} is not a JSON object)")
    return found


def json_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file is missing or holds anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def first_lines(path: Path, count: int | None = None) -> bytes | None:
    """The first lines of a file, by default all but an incomplete last one.

    None if it has fewer or cannot be read. A missing file has no lines.
    """
    try:
        data = path.read_bytes() if os.path.lexists(path) else b""
    except OSError:
        return None
    lines = data.split(b"\n")[:-1]
    if count is not None and len(lines) < count:
        return None
    return b"".join(line + b"\n" for line in lines[:count])


def digest(content: Any) -> str:
    """SHA-256 of bytes, or of a value as JSON."""
    if not isinstance(content, bytes):
        content = json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()
