"""EDAS (differentiable search with edge dynamics): its tables and figures."""

from __future__ import annotations

from dataclasses import replace

from published.tables import table
from reproduction.plan import Cells, Command, Item, Row, Searches, Training, one, retrain
from reproduction.readings import ACCURACY, DAYS, ERROR, PARAMETERS

SEARCH = Command("edas/search.py")
ON_CIFAR100 = Command("edas/search.py", paper="--preset cifar100")
INVERTED = "--variant edas-inv"
LONG = Command("edas/search.py", paper="--epochs 100", digits="--epochs 16")  # 5.2
CIFAR10, CIFAR100 = retrain("edas"), retrain("edas", "cifar100")
UNSTATED = "The number of searches is not stated: here one, with seed 0. "
OURS = 'Which variant "our method" is, is not stated: here plain EDAS. '
EVOLVING = Searches("edas-long", LONG)

table1 = Item(
    "Table 1: size and accuracy of Fig. 4's snapshots of a search",
    "a search of 100 epochs, 6 trainings of 600 epochs",
    table("edas", "table1").transposed(),
    {f"({letter})": one(Cells(EVOLVING, share=n / 5), CIFAR10)
     for n, letter in enumerate("abcdef")},
    {"Test acc. (%)": ACCURACY, "Parameter size (MB)": PARAMETERS},
    UNSTATED + OURS + "The epochs of the snapshots are not stated, either (5.2: (b) to (d) in "
    '"earlier epochs", (e) and (f) in the "middle of training"): ours are evenly spread, from the '
    'first epoch to the last. "(MB)" are millions of parameters. The paper prints rows as columns.',
)  # fmt: skip


def _trained(data: str, name: str, search: Command, training: Command) -> Row:
    return {data: Training(Cells(Searches(name, search)), training)}


table2 = Item(
    "Table 2: CIFAR-10 and CIFAR-100, with warm-up and without",
    "4 searches of 0.125 GPU-days (Titan X), 4 trainings of 600 epochs",
    table("edas", "table2"),
    {
        "EDAS CIFAR10 + cutout": _trained("C10", "edas", SEARCH, CIFAR10),
        "EDAS CIFAR10 warmup + cutout": _trained(
            "C10", "edas-inv", SEARCH.but(INVERTED), CIFAR10
        ),
        "EDAS CIFAR100 + cutout": _trained("C100", "edas-cifar100", ON_CIFAR100, CIFAR100),
        "EDAS CIFAR100 warmup + cutout": _trained(
            "C100", "edas-inv-cifar100", ON_CIFAR100.but(INVERTED), CIFAR100
        ),
    },
    {
        "Test Err. (%) C10": ERROR.of("C10"), "C100": ERROR.of("C100"), "Params (M)": PARAMETERS,
        "Search Cost (GPU days)": DAYS,
    },
    UNSTATED + "Seven candidates (3.1; 4.1 lists eight) and two edges per node, as in DARTS (4.2 "
    "says the top operation of each edge). Drop-path, auxiliary head and channels of the "
    "trainings are not stated: DARTS'. Alpha decays while its sign is inverted, 10 epochs; the "
    "text sets no end. EDAS' authors ran P-DARTS without refinement for its row; there is no such "
    "search here.",
)  # fmt: skip


def _variant(name: str, validated: bool = False) -> Row:
    """A search of a variant; `validated`: its derived cells in each iteration."""
    search = SEARCH.but(f"--variant {name}")
    return one(Cells(Searches(name, _each_iteration(search) if validated else search)))


def _each_iteration(search: Command) -> Command:
    """Each is validated, on digits every fourth to save time."""
    return replace(
        search.but("--cut-accuracy batch"), paper=f"{search.paper} --cut-steps 1",
        digits="--cut-steps 4",
    )  # fmt: skip


fig3 = Item(
    "Fig. 3: validation accuracy of the derived architecture, iteration by iteration",
    "3 searches, each iteration validated",
    table("edas", "fig3"),
    {
        "DARTS": one(Cells(Searches("darts1", _each_iteration(Command(
            "-m common.baselines.darts", "--order 1", "--epochs 25 --cells 20"
        ))))),
        "alpha-max": _variant("alpha-max", validated=True),
        "edas": _variant("edas", validated=True),
    },
    differs=OURS + "The size and length of DARTS' search are not stated: EDAS' own. Accuracies "
    "are of the supernet's weights, normalised by each batch's statistics. Every iteration is "
    "validated, as the caption has it, on all validation images (not stated); "
    "--search-flags='--cut-steps 50' is 50 times as cheap.",
    drawing=("-m", "edas.draw"),
)  # fmt: skip

fig4 = Item(
    "Fig. 4: the normal cell during a search", "a search of 100 epochs",
    rows={"normal cell": one(Cells(EVOLVING))},
    differs=OURS + "The epochs of the paper's six panels are not stated: ours are evenly spread.",
    shown=("evolution_normal",),
)  # fmt: skip

fig5 = Item(
    "Fig. 5: architecture parameters during a search, three edges of alpha-max, EDAS, EDAS-inv",
    "3 searches",
    table("edas", "fig5"),
    {name: _variant(name) for name in ("alpha-max", "edas", "edas-inv")},
    differs="The paper draws three edges at random, unnamed; ours are the six that changed most "
    "(`python -m edas.draw` draws others by number).",
    drawing=("-m", "edas.draw"),
)

ITEMS = {"table1": table1, "table2": table2, "fig3": fig3, "fig4": fig4, "fig5": fig5}
