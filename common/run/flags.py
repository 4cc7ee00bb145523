"""Flags by their names on the command line, and what their numbers may be."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Any

from common.errors import InputError


@dataclass(frozen=True)
class Between:
    """Bounds of a flag's number, in its annotation: `cells: Annotated[int, Between(1, 200)]`.

    The largest values are far beyond what papers and machines do, so that a slip is answered at
    once, and not by hours of waiting, an overflow or a killed process. What they allow and a
    machine has no memory for, `common/run/memory.py` refuses. A subclass that restates a flag's
    type and default keeps its bounds.

    Attributes:
        least: the smallest value.
        most: the largest value.
        above: `least` itself is refused.
        below: `most` itself is refused.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def refusal(self, value: float) -> str | None:
        """What is wrong with a value, NaN included; None: nothing."""
        if not (value > self.least if self.above else value >= self.least):
            return f"must be above {self.least}" if self.above else f"must be {self.least} or more"
        if not (value < self.most if self.below else value <= self.most):
            return f"must be below {self.most}" if self.below else f"must be {self.most} or less"
        return None


def check_bounds(config: Any) -> None:
    """Refuse numbers outside of their flags' bounds; None passes.

    Raises:
        InputError: naming the flag and the bound.
    """
    for name, bounds in bounds_of(type(config)).items():
        found = getattr(config, name)
        for value in found if isinstance(found, tuple) else (found,):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and (wrong := bounds.refusal(value)):
                raise InputError(f"{flag(name)} {shortened(value)}: {wrong}")


def bounds_of(kind: type) -> dict[str, Between]:
    """The bounds of a dataclass' fields, its own first, those that its bases state after them."""
    found: dict[str, Between] = {}
    for base in kind.__mro__:
        own = typing.get_type_hints(base, include_extras=True) if base is not object else {}
        for name in vars(base).get("__annotations__", {}):
            for extra in getattr(own[name], "__metadata__", ()):
                if isinstance(extra, Between):
                    found.setdefault(name, extra)
    return found


class Of32(int):
    """Pixels that a paper's recipe means for images of 32 (see `common/networks/small_images.py`).

    A number that a user types is a plain one, and stays.
    """

    def __hash__(self) -> int:
        """Not that of the plain number, for which tyro's caches would take it."""
        return hash((Of32, int(self)))


def flag(field: str) -> str:
    """The command line's name of a field."""
    return "--" + field.replace("_", "-")


def shortened(value: Any) -> str:
    """A value as a message shows it: one of thousands of digits by its first ones."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
