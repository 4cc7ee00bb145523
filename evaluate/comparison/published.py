"""What the papers print: test errors on CIFAR-10 in percent. Never mixed with figures of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Printed:
    """A figure as a paper prints it.

    Attributes:
        where: paper and table.
        mean: test error in percent; None where no mean is printed.
        sd: standard deviation beside the mean.
        best: the best single one; None where none is printed.
        of: what mean and best are of.
        params: in millions.
        cost: of the search, as printed.
        text: of what has no number of its own, as a curve that only a picture shows.
    """

    where: str
    mean: float | None = None
    sd: float | None = None
    best: float | None = None
    of: str = ""
    params: str = ""
    cost: str = ""
    text: str = ""

    def mean_text(self) -> str:
        """The mean, or that there is none."""
        if self.mean is None:
            return "not printed"
        return f"{self.mean:.2f}" + ("" if self.sd is None else f" \u00b1 {self.sd:.2f}")


PC_DARTS = Printed(
    "PC-DARTS, Tables 1 and 4", 2.67, 0.07, 2.57, "five searches (its mean is that of Table 4)",
    "3.6", "0.1 GPU-days",
)
GDAS = Printed("GDAS, Table 1", best=2.93, of="four searches", params="3.4", cost="0.21 GPU-days")
FRC = Printed("GDAS, Table 1", best=2.82, of="four searches", params="2.5", cost="0.17 GPU-days")
EDAS = Printed(
    "EDAS, Table 2", best=2.92, of="a number of runs that is not stated", params="3.44",
    cost="0.125 GPU-days",
)
EDAS_INV = Printed(
    "EDAS, Table 2 (warmup)", best=2.86, of="a number of runs that is not stated",
    params="3.15", cost="0.125 GPU-days",
)
ITNAS = Printed(
    "ITNAS, Table 1", best=2.45, of="a number of runs that is not stated", params="4.0",
    cost="0.30 GPU-days",
)
DL1 = Printed(
    "PR-DARTS, Table III (DL1)", 2.74, 0.12, of="three trainings of one cell", params="3.2",
    cost="0.82 GPU-days",
)
DL2 = Printed(
    "PR-DARTS, Table III (DL2)", 2.51, 0.09, of="three trainings of one cell", params="4.0",
    cost="0.82 GPU-days",
)
DR = Printed(
    "PR-DARTS, Table III (DR)", 2.55, 0.19, of="three trainings of one cell", params="4.2",
    cost="0.88 GPU-days",
)
UR = Printed(
    "PR-DARTS, Table III (UR)", 3.79, 0.24, of="three trainings of one cell", params="5.4",
    cost="1.10 GPU-days",
)
# Their sizes are not printed: Table 1 has those of the cells that DARTS itself published.
DARTS = Printed("PC-DARTS, Table 4 (DARTS-v1)", 3.07, 0.15, 2.89, "five searches")
DARTS2 = Printed("PC-DARTS, Table 4 (DARTS-v2)", 2.95, 0.21, 2.68, "five searches")
