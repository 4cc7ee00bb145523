"""PR-DARTS (Laube and Zell, Prune and Replace NAS): its tables and figures."""

from __future__ import annotations

import math

from pr_darts.config import PRDARTSConfig, discoverable
from published.tables import table
from reproduction.plan import Cells, Choice, Command, Item, Row, Searches, Training, one, retrain
from reproduction.readings import DAYS, ERROR_OF_LAST_FIVE, PARAMETERS

THREE = (0, 1, 2)  # "three independent" searches per space, and trainings of each cell (IV-C)
SEARCH = Command("pr_darts/search.py", paper="--memory-gib 11")  # GTX 1080 Ti (IV)
RULE = (
    "validation accuracy at the search's end ({}); the paper shows the \"most interesting\" of "
    "three (IV-C)"
)
FIRST = Choice(RULE.format("the best"))
SECOND = Choice(RULE.format("the second"), place=1)
CIFAR = {"10": retrain("pr_darts"), "100": retrain("pr_darts", "cifar100")}


def _cells(space: str, choice: Choice, published: str, *sets: str) -> Row:
    """Three trainings of chosen cells on each of these sets."""
    searches = Searches(f"pr_darts-{space}", SEARCH.but(f"--space {space}"), THREE)
    cells = Cells(searches, choice, published=published)
    return {name: Training(cells, CIFAR[name], THREE) for name in sets}


def cycles() -> dict[str, dict[str, float]]:
    """Table I of the default search."""
    config = PRDARTSConfig()
    rows = {
        "epochs": config.cycle_epochs, "grace epochs": config.grace_epochs,
        "morphisms": config.morphisms, "candidates": config.kept,
    }  # fmt: skip
    return {
        label: {f"cycle {n}": float(value) for n, value in enumerate(values, 1)}
        for label, values in rows.items()
    }


def sizes() -> dict[str, dict[str, float]]:
    """Table II's totals, counted, and the number of cells of K operations."""
    totals = {
        label: float(len(discoverable(PRDARTSConfig(space=space))) - 3)  # without pools and skip
        for label, space in (("DL", "dl"), ("DR", "dr"), ("UR", "ur"))
    }
    cells = {f"cells of K = {K}": math.prod(math.comb(n, 2) for n in (2, 3, 4, 5)) * K**8
             for K in (8, 15)}  # fmt: skip
    return {label: {"total": value} for label, value in {**totals, **cells}.items()}


table1 = Item(
    "Table I: the cycles of a search", "none of its own", table("pr_darts", "table1"),
    counted=cycles, differs="Ours are the defaults of `pr_darts/search.py`.",
)  # fmt: skip

table2 = Item(
    "Table II: the spaces and their sizes", "none of its own", table("pr_darts", "table2"),
    counted=sizes,
    differs="36 and 80 include kernels of 1 with dilation 2, which the caption excludes: without "
    "them 32 and 73. 9.3e9 is a slip: the formula of II-B, 180 K^8, makes 3.02e9 of K = 8 and "
    '4.61e11 of K = 15, "over 150 times" as many, as the text says.',
)  # fmt: skip

table3 = Item(
    "Table III: CIFAR-10 and CIFAR-100",
    "9 searches of 0.82 to 1.10 GPU-days (GTX 1080 Ti), 21 trainings of 600 epochs",
    table("pr_darts", "table3"),
    {
        "PR-DARTS DL1": _cells("dl", SECOND, "pr_darts_dl1", "10", "100"),
        "PR-DARTS DL2": _cells("dl", FIRST, "pr_darts_dl2", "10", "100"),
        "PR-DARTS DR": _cells("dr", FIRST, "pr_darts_dr", "10", "100"),
        "PR-DARTS UR": _cells("ur", FIRST, "pr_darts_ur", "10"),
    },
    {
        "CIFAR test error [%] 10": ERROR_OF_LAST_FIVE.of("10"),
        "100": ERROR_OF_LAST_FIVE.of("100"), "#params (M)": PARAMETERS.of("10"),
        "Search GPU days": DAYS.of("10"),
    },
    "Searches are on CIFAR-10 for both; the paper has no UR on CIFAR-100. The rule that picks one "
    "of three is ours. Figures are means of each training's last five epochs, over three "
    "trainings. Their batch is DARTS' 96; the authors' code sets it by the GPU's memory, 32 to "
    "128.",
)  # fmt: skip

fig2 = Item(
    "Fig. 2: a search over its cycles", "a search of 0.82 GPU-days",
    rows={"search": one(Cells(Searches("pr_darts-dl", SEARCH.but("--space dl"))))},
    differs="The figure is of the search for DL2, whose seed is not stated: ours has seed 0. "
    "Panels show what IV-B describes, and the learning rate.",
    shown=("cycles",),
)  # fmt: skip

fig3 = Item(
    "Fig. 3: the cells DL2 and DR", "none of its own",
    cells=("pr_darts_dl2", "pr_darts_dr"), differs="The authors' cells, drawn anew.",
)  # fmt: skip

ITEMS = {"table1": table1, "table2": table2, "table3": table3, "fig2": fig2, "fig3": fig3}
