"""Files of a run: written whole or not at all, read line by line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one a line, without half a line that a kill left at its end."""
    return [json.loads(line) for line in path.read_text().splitlines(True) if line[-1] == "\n"]
