"""The papers' test errors on CIFAR-10 in percent, for the comparison's columns of the papers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

from published.tables import table, where

# Each paper's table of CIFAR-10, and its columns of errors, parameters and costs of the search.
COLUMNS = {
    "pc_darts": ("table1", "Test Err. (%)", "Params (M)", "Search Cost (GPU-days)"),
    "gdas": ("table1", "Error on CIFAR-10", "Params (million)", "Times (days)"),
    "edas": ("table2", "Test Err. (%) C10", "Params (M)", "Search Cost (GPU days)"),
    "itnas": ("table1", "Error (%)", "Params (M)", "Cost"),
    "pr_darts": ("table3", "CIFAR test error [%] 10", "#params (M)", "Search GPU days"),
}


@dataclass(frozen=True)
class Printed:
    """A result as a paper prints it.

    Attributes:
        where: paper and table.
        mean: test error in percent; None where no mean is printed.
        sd: standard deviation beside the mean.
        best: the lowest error of a single run; None where none is printed.
        of: what mean and best are of.
        params: in millions.
        cost: of the search, as printed.
    """

    where: str
    mean: float | None = None
    sd: float | None = None
    best: float | None = None
    of: str = ""
    params: str = ""
    cost: str = ""

    def mean_text(self) -> str:
        """The mean, or that there is none."""
        if self.mean is None:
            return "not printed"
        return f"{self.mean:.2f}" + ("" if self.sd is None else f" \u00b1 {self.sd:.2f}")


def _row(paper: str, label: str, of: str, note: str = "") -> Printed:
    """A row of a paper's table of CIFAR-10: a mean where it prints a deviation, else a best."""
    name, error, params, cost = COLUMNS[paper]
    cells = table(paper, name).rows[label]
    value, _, sd = cells[error].partition(" \u00b1 ")
    figures = {"mean": float(value), "sd": float(sd)} if sd else {"best": float(value)}
    return Printed(
        where(paper, name) + note, of=of, params=cells[params], cost=f"{cells[cost]} GPU-days",
        **figures,
    )  # fmt: skip


def _five(label: str) -> dict[str, float]:
    """Mean, deviation and best of a row of PC-DARTS' Table 4, which prints all five searches."""
    cells = table("pc_darts", "table4").rows[label]
    errors = [float(cells[f"#{n}"]) for n in range(1, 6)]
    sd = float(cells["runs: mean \u00b1 sd"].removeprefix("\u00b1 "))
    return {"mean": round(fmean(errors), 2), "sd": sd, "best": min(errors)}


# PC-DARTS' Table 1 prints the best of five searches with the deviation of all five.
PC_DARTS = replace(
    _row("pc_darts", "PC-DARTS + cutout", "five searches (its mean is that of Table 4)"),
    where="PC-DARTS, Tables 1 and 4", **_five("PC-DARTS(%)"),
)  # fmt: skip
GDAS = _row("gdas", "GDAS [C=36,N=6] + CutOut", "four searches")
FRC = _row("gdas", "GDAS (FRC) [C=36,N=6] + CutOut", "four searches")
UNSTATED = "a number of runs that is not stated"
EDAS = _row("edas", "EDAS CIFAR10 + cutout", UNSTATED)
ITNAS = _row("itnas", "ITNAS", UNSTATED)
DL1, DL2 = (
    _row("pr_darts", f"PR-DARTS {cell}", "three trainings of one cell", f" ({cell})")
    for cell in ("DL1", "DL2")
)
# Their sizes are not printed: Table 1 has those of the cells that DARTS itself published.
DARTS = Printed("PC-DARTS, Table 4 (DARTS-v1)", of="five searches", **_five("DARTS-v1(%)"))
DARTS2 = Printed("PC-DARTS, Table 4 (DARTS-v2)", of="five searches", **_five("DARTS-v2(%)"))
