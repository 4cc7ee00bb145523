"""What every cell of NAS-Bench-201's space reaches, from a CSV file.

    architecture,cifar10_test_top1,cifar100_test_top1,imagenet16_120_test_top1
    |nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|avg_pool_3x3~2|,91.5,65.2,38.1

Accuracies are in percent. Isomorphic cells have entries of their own, as in the benchmark.
"""

from __future__ import annotations

import csv
import itertools
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.errors import InputError
from common.networks.formats import topology_text
from common.networks.genotype import Genotype
from common.networks.nasbench201 import NASBENCH201

DATASETS = ("cifar10", "cifar100", "imagenet16_120")
HEADER = ["architecture", *(f"{name}_test_top1" for name in DATASETS)]
EDGES = 6


@dataclass(frozen=True)
class Table:
    """The accuracies of all cells.

    Attributes:
        top1: percent by cell, in the benchmark's words, in the order of `DATASETS`.
    """

    top1: Mapping[str, tuple[float, ...]]

    @cached_property
    def sorted(self) -> dict[str, list[float]]:
        """All accuracies on each data set, ascending: their exact distribution."""
        columns = zip(*self.top1.values(), strict=True)
        return {name: sorted(column) for name, column in zip(DATASETS, columns, strict=True)}

    def of(self, genotype: Genotype) -> dict[str, float]:
        """`true_<data set>`, percent, and `rank_<data set>`, 1 the best, of a genotype's cell.

        Raises:
            InputError: it is none of the table's.
        """
        found, cell = {}, topology_text(genotype.to_json()["cells"])
        if cell not in self.top1:
            raise InputError(f"--table: has no cell {cell}")
        top1 = self.top1[cell]
        for name, value in zip(DATASETS, top1, strict=True):
            better = len(self.top1) - bisect_right(self.sorted[name], value)
            found |= {f"true_{name}": value, f"rank_{name}": better + 1}
        return found


def read_table(path: str) -> Table:
    """Read `--table`.

    Raises:
        InputError: it cannot be read, has another header, lacks a cell, or an accuracy is not in
            percent.
    """
    where, first = f"--table {path}", f"its first line must be {','.join(HEADER)}"
    try:
        header, *rows = csv.reader(Path(path).read_text(encoding="utf-8-sig").splitlines())
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error):  # UnicodeDecodeError is a ValueError; an empty file
        raise InputError(f"{where}: not a CSV file; {first}") from None
    if header != HEADER:
        raise InputError(f"{where}: {first}")
    top1 = {}
    for number, row in enumerate(rows, 2):
        try:
            cell, *values = row
            top1[cell] = tuple(float(value) for value in values)
            percent = len(values) == len(DATASETS) and all(0 <= v <= 100 for v in top1[cell])
        except ValueError:
            percent = False
        if not percent:
            raise InputError(
                f"{where}: line {number} must be a cell and {len(DATASETS)} accuracies in percent, "
                f"not {','.join(row)[:100]}"
            )
    _check(where, top1)
    return Table(top1)


def _check(where: str, top1: Mapping[str, tuple[float, ...]]) -> None:
    """Every cell is there, and the best accuracy on CIFAR-10 is no share of 1.

    Raises:
        InputError: naming the first cell that is missing.
    """
    for ops in itertools.product(NASBENCH201.candidates, repeat=EDGES):
        a, b, c, d, e, f = ops
        cell = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        if cell not in top1:
            raise InputError(f"{where}: lacks the cell {cell}; it has {len(top1)} of 15,625")
    if max(values[0] for values in top1.values()) <= 1:
        raise InputError(f"{where}: accuracies must be in percent, not shares of 1")
