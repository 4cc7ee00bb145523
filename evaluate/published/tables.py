"""The papers' tables as printed, a CSV file each: `pc_darts/table1.csv` is PC-DARTS' Table 1.

A file has the paper's columns and rows, its figures digit by digit. `[..]` in a row's label cites
the paper whose result this is. All other files read these figures from here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
PAPERS = {
    "pc_darts": "PC-DARTS", "gdas": "GDAS", "edas": "EDAS", "itnas": "ITNAS",
    "pr_darts": "PR-DARTS",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A printed table.

    Attributes:
        head: of the column of labels.
        columns: the other heads.
        rows: cells by label and column.
    """

    head: str = ""
    columns: tuple[str, ...] = ()
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def transposed(self) -> Table:
        """The same with its columns as rows."""
        rows = {name: {label: self.rows[label][name] for label in self.rows}
                for name in self.columns}  # fmt: skip
        return Table(self.head, tuple(self.rows), rows)


@cache
def table(paper: str, name: str) -> Table:
    """A paper's table or figure, by its file's name."""
    with open(FOLDER / paper / f"{name}.csv", newline="", encoding="utf-8") as file:
        (head, *columns), *rows = csv.reader(file)
    cells = {label: dict(zip(columns, row, strict=True)) for label, *row in rows}
    return Table(head, tuple(columns), cells)


def where(paper: str, name: str) -> str:
    """A table as it is cited: "GDAS, Table 1"."""
    number = name.removeprefix("table")
    roman = "I" * int(number)  # PR-DARTS has three tables
    return f"{PAPERS[paper]}, Table {roman if paper == 'pr_darts' else number}"
