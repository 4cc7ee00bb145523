"""Files of a run: written whole or not at all, read line by line."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from common.errors import InputError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    Raises:
        InputError: there is a folder of that name.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, and a file is to be written there; move it away")
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one a line, without half a line that a kill left at its end.

    Raises:
        InputError: it cannot be read, or another line is not a JSON object.
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
    """The object in a JSON file; None where there is none, or no file."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def first_lines(path: Path, count: int | None = None) -> bytes | None:
    """The first lines of a file, by default all but half a line at its end.

    None where it has fewer, or cannot be read; a file that is not there has no lines.
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
    """The SHA-256 of bytes, or of what can be written as JSON."""
    if not isinstance(content, bytes):
        content = json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()
