"""What a comparison runs: searches, and the rows whose cells come of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comparison.methods import known
from comparison.published import Printed


@dataclass(frozen=True)
class Search:
    """One command line but for its seed.

    Attributes:
        name: within the comparison.
        method: a key of METHODS.
        flags: beside the budget's.
        times: as many epochs as the budget's.
    """

    name: str
    method: str
    flags: Mapping[str, str] = field(default_factory=dict)
    times: float = 1


@dataclass(frozen=True)
class Row:
    """Cells that are retrained, once a seed.

    Attributes:
        label: in tables.
        search: whose cells they are.
        reduction: the search whose reduction cell is taken; None: the same.
        share: how far into the search they were derived; 1: at its end.
        printed: what papers print of it.
    """

    label: str
    search: str
    reduction: str | None = None
    share: float = 1
    printed: Sequence[Printed] = ()


@dataclass(frozen=True)
class Plan:
    """All of it.

    Attributes:
        title: of the report.
        searches: by name.
        rows: of the table.
        note: what a reader of it must know.
    """

    title: str
    searches: Sequence[Search]
    rows: Sequence[Row]
    note: str = ""


def plan_of(methods: Sequence[str]) -> Plan:
    """A search and a row each.

    Raises:
        InputError: an unknown method.
    """
    names = list(dict.fromkeys(methods))
    searches = [Search(name, name, known(name).flags) for name in names]
    rows = [Row(name, name, printed=known(name).printed) for name in names]
    return Plan("Methods side by side", searches, rows)
