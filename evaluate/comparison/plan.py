"""What a comparison runs: a search of each method, and the retraining of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comparison.methods import known
from comparison.published import Printed


@dataclass(frozen=True)
class Row:
    """A method's searches, once a seed, and the retrainings of their cells.

    Attributes:
        label: in tables.
        method: a key of METHODS.
        flags: that make it this method.
        printed: what papers print of it.
    """

    label: str
    method: str
    flags: Mapping[str, str] = field(default_factory=dict)
    printed: Sequence[Printed] = ()


def rows_of(methods: Sequence[str]) -> list[Row]:
    """A row each.

    Raises:
        InputError: an unknown method.
    """
    names = dict.fromkeys(methods)
    return [Row(name, name, known(name).flags, known(name).printed) for name in names]
