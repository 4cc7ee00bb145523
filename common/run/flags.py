"""Names and bounds of flags, and flags that many commands share."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from common.errors import InputError

CellName = Annotated[str | None, tyro.conf.arg(
    help="The cells: a published name, a run folder, a genotype file, FILE.py:NAME, or a "
    "genotype's text, also DARTS' and other programs' (common/README.md, Cells)."
)]  # fmt: skip
OperationsFile = Annotated[str | None, tyro.conf.arg(
    help="Run this Python file, which registers operations of your own (common/README.md, Your "
    "own operation)."
)]  # fmt: skip


@dataclass(frozen=True)
class Between:
    """Bounds of a number, in its annotation: `cells: Annotated[int, Between(1, 200)]`.

    The largest values are far beyond what papers use: they catch typing errors early.
    `common/run/memory.py` checks what fits in memory. A subclass that redeclares a flag keeps its
    bounds.

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
        """What is wrong with a value (NaN included); None: nothing."""
        if not (value > self.least if self.above else value >= self.least):
            return f"must be above {self.least}" if self.above else f"must be {self.least} or more"
        if not (value < self.most if self.below else value <= self.most):
            return f"must be below {self.most}" if self.below else f"must be {self.most} or less"
        return None


def check_bounds(config: Any) -> None:
    """Check all numbers against their bounds; None passes.

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
    """Bounds of a dataclass' fields; a class overrides its bases."""
    found: dict[str, Between] = {}
    for base in kind.__mro__:
        own = typing.get_type_hints(base, include_extras=True) if base is not object else {}
        for name in vars(base).get("__annotations__", {}):
            for extra in getattr(own[name], "__metadata__", ()):
                if isinstance(extra, Between):
                    found.setdefault(name, extra)
    return found


class PresetInt(int):
    """A preset's number, which gives way to small images or few of them.

    A number that a user types is a plain int and is never changed.
    """

    def __hash__(self) -> int:
        """Differs from the plain int's, so that tyro's caches keep them apart."""
        return hash((PresetInt, int(self)))


def flag(field: str) -> str:
    """A field's flag: `batch_size` gives `--batch-size`."""
    return "--" + field.replace("_", "-")


def shortened(value: Any) -> str:
    """A value for a message; long ones are cut."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
