"""What a folder of runs was begun for, so that nothing else is mixed into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import write_whole
from common.run.flags import flag


def pin(folder: Path, asked: Mapping[str, Any]) -> None:
    """Write down what was asked for, or see that it is the same as before.

    Args:
        folder: that is there.
        asked: what two starts must have in common, by the names of flags.

    Raises:
        InputError: it is not the same; its runs would be mixed with these.
    """
    file, now = folder / "asked.json", json.loads(json.dumps(asked))
    if not file.exists():
        write_whole(file, (json.dumps(now, indent=2) + "\n").encode())
        return
    try:
        before = json.loads(file.read_text())
        if not isinstance(before, dict):
            raise ValueError(before)
    except ValueError:
        raise InputError(
            f"{file}: damaged, so nobody can tell what {folder} was begun with; name another "
            "--output, or remove this file if you know that it was the same"
        ) from None
    if set(before) != set(now):
        raise InputError(
            f"--output {folder}: was begun by another command or version; name another folder"
        )
    for name, value in now.items():
        if before[name] != value:
            raise InputError(
                f"{flag(name)} {value}: {folder} was begun with {before[name]}; name another "
                "--output, or go on with it as it was"
            )
