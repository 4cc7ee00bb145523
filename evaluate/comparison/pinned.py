"""Pins the flags with which a folder of runs was started, so that later starts cannot mix runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import json_object, write_whole
from common.run.flags import flag


def pin(folder: Path, asked: Mapping[str, Any]) -> None:
    """Write the flags to asked.json at the first start; later check that they are the same.

    Args:
        folder: an existing folder.
        asked: flags that all starts must share, by field name.

    Raises:
        InputError: a flag differs, or asked.json is damaged.
    """
    file, now = folder / "asked.json", json.loads(json.dumps(asked))
    if not file.exists():
        write_whole(file, (json.dumps(now, indent=2) + "\n").encode())
        return
    before = json_object(file)
    if before is None:
        raise InputError(
            f"{file}: damaged, so the flags of the first start are unknown; name another --output, "
            "or remove this file if you know that they were the same"
        )
    for name, value in now.items():
        if before.get(name) != value:  # None: a flag newer than the folder
            raise InputError(
                f"{flag(name)} {value}: {folder} was begun with {before.get(name)}; name another "
                "--output, or continue with the same flag"
            )
