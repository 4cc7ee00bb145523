"""The picture of a search in cycles, as Fig. 2 of the paper.

`python -m pr_darts.draw RUN_FOLDER` draws it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tyro
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.draw.cell import FAMILIES, INK, QUIET, STYLE
from common.draw.pictures import save_figure
from common.draw.search import LOOKS, epoch_axis
from common.errors import InputError
from common.files import json_lines
from common.networks.ops import POOLS

TYPES = {  # of candidates: a label and a colour each
    "conv": ("convolutions", FAMILIES["sep_conv"]),
    "pool": ("poolings", FAMILIES["max_pool"]),
    "skip": ("identity", FAMILIES["skip"]),
}
DASHES = {"normal": "-", "reduction": (0, (3, 1.5))}
ACCURACIES = {"train_top1": ("training", LOOKS["normal"]["color"]),
              "valid_top1": ("validation", FAMILIES["skip"])}  # fmt: skip


def run(folder: tyro.conf.Positional[Path]) -> None:
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
    with rc_context(STYLE):
        save_figure(cycles_figure(metrics, last), folder / "pictures" / "cycles")


def after_the_last_pruning(line: dict) -> dict[str, float]:
    """Shares and similarity of pools of which each edge's best candidate is left.

    Args:
        line: the last one of architecture.jsonl.
    """
    found = {}
    for kind, weights in line["weights"].items():
        pairs = zip(line["candidates"][kind], weights["op"], strict=True)
        best = [names[int(np.argmax(of_edge))] for names, of_edge in pairs]
        pools = sum(name in POOLS for name in best)
        skips = best.count("skip_connect")
        counts = {"conv": len(best) - pools - skips, "pool": pools, "skip": skips}
        found |= {f"{name}_share_{kind}": n / len(best) for name, n in counts.items()}
        found[f"similarity_{kind}"] = 1.0  # a candidate is like itself
    return found


def cycles_figure(metrics: Sequence[dict], last: dict[str, float] | None = None) -> Figure:
    """The panels of Fig. 2 over epochs.

    Accuracies, the learning rate, the batch size, an epoch's time, what the pools of either cell
    hold, and how alike that is.

    Args:
        metrics: a line an epoch, as `CycleTrainer` records it.
        last: shares and similarity after the last pruning; None: the search has not ended.
    """
    figure = Figure((7.2, 8.4))
    grid = figure.add_gridspec(
        4, 2, left=0.085, right=0.985, bottom=0.05, top=0.96, wspace=0.24, hspace=0.45
    )
    accuracy, *others = figure.add_subplot(grid[0, :]), *map(figure.add_subplot, list(grid)[2:])
    rate, batch, time, similar, normal, reduction = others
    epochs = [line["epoch"] for line in metrics]
    for key, (label, colour) in ACCURACIES.items():
        accuracy.plot(epochs, [line[key] for line in metrics], color=colour, lw=1.5, label=label)
    accuracy.set_ylabel("top-1 accuracy (%)")
    _legend(accuracy, accuracy.lines)
    for axes, key, label in (
        (rate, "learning_rate", "learning rate"), (batch, "batch_size", "images a batch"),
        (time, "seconds", "seconds an epoch"),
    ):  # fmt: skip
        values = np.array([line[key] for line in metrics], float)
        axes.plot(epochs, values, color=INK, lw=1.5, drawstyle="steps-mid")
        axes.set(ylabel=label, ylim=(0, 1.06 * values.max()))

    ends = [*epochs, epochs[-1] + 1] if last else epochs
    lines = [*metrics, last] if last else metrics
    for axes, kind in ((normal, "normal"), (reduction, "reduction")):
        for name, (label, colour) in TYPES.items():
            share = [100 * line[f"{name}_share_{kind}"] for line in lines]
            axes.plot(ends, share, color=colour, lw=1.5, drawstyle="steps-mid", label=label)
        axes.set(ylabel=f"candidates, {kind} (%)", ylim=(0, None), xlabel="epoch")
        _legend(axes, axes.lines)
        values = [line[f"similarity_{kind}"] for line in lines]
        dashes = DASHES[kind]
        similar.plot(
            ends, values, color=INK, ls=dashes, lw=1.5, drawstyle="steps-mid",
            label=f"{kind} cell",
        )  # fmt: skip
    similar.set(ylabel="similarity", ylim=(0, 1.04))
    _legend(similar, similar.lines)

    begun = [
        after["epoch"] for line, after in pairwise(metrics) if line["cycle"] != after["cycle"]
    ]
    for axes in figure.axes:
        axes.grid(axis="x", visible=False)
        for epoch in [*begun, *ends[len(epochs):]]:
            axes.axvline(epoch - 0.5, color=QUIET, lw=0.6, zorder=0.5)
        epoch_axis(axes, ends, ticks=6)
    return figure


def _legend(axes: Axes, handles: Sequence[Line2D]) -> None:
    """Above the axes, where no data is."""
    axes.legend(
        handles=handles, ncols=len(handles), loc="lower left", bbox_to_anchor=(0, 1),
        borderaxespad=0.3, columnspacing=1, handlelength=1.5, handletextpad=0.5,
    )  # fmt: skip
