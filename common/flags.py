"""Flags by their names on the command line, and the least that they take."""

from __future__ import annotations

import math
from typing import Any

from common.errors import InputError


def flag(field: str) -> str:
    """The command line's name of a field."""
    return "--" + field.replace("_", "-")


def at_least(config: Any, least: float, *fields: str) -> None:
    """Refuse values below `least`, infinite ones and NaN; None passes.

    Raises:
        InputError: naming the flag.
    """
    for field in fields:
        value = getattr(config, field)
        if value is not None and not least <= value < math.inf:
            raise InputError(f"{flag(field)} {value}: must be {least} or more")
