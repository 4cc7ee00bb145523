"""The picture of a search in cycles, as Fig. 2 of the paper.

`python -m pr_darts.draw RUN_FOLDER` draws it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from common.draw.cell import FAMILIES, INK, QUIET, STYLE
from common.draw.pictures import save_figure
from common.draw.search import ABOVE, PARTS, epoch_axis
from common.errors import InputError
from common.files import json_lines
from common.networks.ops import POOLS

TYPES = {  # types of candidates: label and colour
    "conv": ("convolutions", FAMILIES["sep_conv"]),
    "pool": ("poolings", FAMILIES["max_pool"]),
    "skip": ("identity", FAMILIES["skip"]),
    "own": ("own operations", INK),
}
DASHES = {"normal": "-", "reduction": (0, (3, 1.5))}
ACCURACIES = {
    "train_top1": ("training", PARTS["train"]), "valid_top1": ("validation", PARTS["valid"])
}  # fmt: skip


def run(folder: Path) -> None:
    """Draw `pictures/cycles.svg` and `.png` of a PR-DARTS search, finished or not.

    Raises:
        InputError: the folder holds no such search.
    """
    file = folder / "metrics.jsonl"
    metrics = json_lines(file) if file.is_file() else []
    if not metrics or "cycle" not in metrics[0]:
        raise InputError(f"{folder}: holds no epoch of a PR-DARTS search (in its metrics.jsonl)")
    architecture = folder / "architecture.jsonl"
    finished = (folder / "genotype.json").is_file() and architecture.is_file()
    last = after_the_last_pruning(json_lines(architecture)[-1]) if finished else None
    save_figure(cycles_figure(metrics, last), folder / "pictures" / "cycles")


def after_the_last_pruning(line: dict) -> dict[str, float]:
    """Shares and similarity of the pools once each edge has kept only its best candidate.

    Args:
        line: the last line of architecture.jsonl.
    """
    found = {}
    for kind, weights in line["weights"].items():
        pairs = zip(line["candidates"][kind], weights["op"], strict=True)
        best = [names[int(np.argmax(of_edge))] for names, of_edge in pairs]
        pools = sum(name in POOLS for name in best)
        skips = best.count("skip_connect")
        convolutions = sum("(" in name for name in best)  # see `Op.__str__`
        own = len(best) - convolutions - pools - skips
        counts = {"conv": convolutions, "pool": pools, "skip": skips, "own": own}
        found |= {f"{name}_share_{kind}": n / len(best) for name, n in counts.items()}
        found[f"similarity_{kind}"] = 1.0  # a candidate is like itself
    return found


@rc_context(STYLE)
def cycles_figure(metrics: Sequence[dict], last: dict[str, float] | None = None) -> Figure:
    """Fig. 2 over epochs: accuracies, batch size, candidates of either cell's pools, and others.

    Args:
        metrics: a line an epoch, as `CycleTrainer` records it.
        last: shares and similarity after the last pruning; None: the search has not ended.
    """
    figure = Figure((7.2, 8.4), layout="constrained")
    panels = figure.subplot_mosaic(
        [["top1", "top1"], ["learning_rate", "batch_size"], ["seconds", "similarity"],
         ["normal", "reduction"]], sharex=True,
    )  # fmt: skip
    epochs = [line["epoch"] for line in metrics]
    lines = [*metrics, {"epoch": epochs[-1] + 1, **last}] if last else metrics
    pools = [line["epoch"] for line in lines]
    step = {"lw": 1.5, "drawstyle": "steps-mid"}
    for key, (label, colour) in ACCURACIES.items():
        values = [line[key] for line in metrics]
        panels["top1"].plot(epochs, values, color=colour, lw=1.5, label=label)
    panels["top1"].set_ylabel("top-1 accuracy (%)")
    labels = {
        "learning_rate": "learning rate", "batch_size": "images a batch",
        "seconds": "seconds an epoch",
    }  # fmt: skip
    for key, label in labels.items():
        panels[key].plot(epochs, [line[key] for line in metrics], color=INK, **step)
        panels[key].set(ylabel=label, ylim=(0, None))
    for kind, dashes in DASHES.items():
        for name, (label, colour) in TYPES.items():
            share = [100 * line.get(f"{name}_share_{kind}", 0) for line in lines]
            if name == "own" and not any(share):
                continue
            panels[kind].plot(pools, share, color=colour, label=label, **step)
        panels[kind].set(ylabel=f"candidates, {kind} (%)", ylim=(0, None), xlabel="epoch")
        similarity = [line[f"similarity_{kind}"] for line in lines]
        look = {"color": INK, "ls": dashes, "label": f"{kind} cell", **step}
        panels["similarity"].plot(pools, similarity, **look)
    panels["similarity"].set(ylabel="similarity", ylim=(0, 1.04))

    begun = [after["epoch"] for line, after in pairwise(metrics) if line["cycle"] != after["cycle"]]
    for key, axes in panels.items():
        axes.grid(axis="x", visible=False)
        for epoch in [*begun, *pools[len(epochs) :]]:
            axes.axvline(epoch - 0.5, color=QUIET, lw=0.6, zorder=0.5)
        if key not in labels:
            axes.legend(ncols=3, columnspacing=1, handlelength=1.5, handletextpad=0.5, **ABOVE)
    panels["top1"].tick_params(labelbottom=True)  # wider than the panels below
    epoch_axis(axes, pools, ticks=6)
    return figure
