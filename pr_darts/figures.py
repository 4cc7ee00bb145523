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
from matplotlib.ticker import MaxNLocator

from common.draw.cell import FAMILIES, INK, QUIET, STYLE
from common.draw.pictures import save_figure
from common.draw.search import LOOKS, epoch_axis
from common.errors import InputError
from common.files import json_lines

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
    with rc_context(STYLE):
        save_figure(cycles_figure(metrics), folder / "pictures" / "cycles")


def cycles_figure(metrics: Sequence[dict]) -> Figure:
    """Over epochs: accuracies, batch size and time, what the pools hold, how alike it is (Fig. 2).

    Args:
        metrics: a line an epoch, as `CycleTrainer` records it.
    """
    figure = Figure((7.2, 5.4))
    grid = figure.add_gridspec(
        2, 2, left=0.085, right=0.935, bottom=0.08, top=0.94, wspace=0.27, hspace=0.42
    )
    accuracy, batch, shares, similar = (figure.add_subplot(place) for place in grid)
    epochs = [line["epoch"] for line in metrics]
    for key, (label, colour) in ACCURACIES.items():
        accuracy.plot(epochs, [line[key] for line in metrics], color=colour, lw=1.5, label=label)
    accuracy.set_ylabel("top-1 accuracy (%)")
    _legend(accuracy, accuracy.lines)

    _batch(batch, epochs, metrics)

    for kind, dashes in DASHES.items():
        for name, (_, colour) in TYPES.items():
            share = [100 * line[f"{name}_share_{kind}"] for line in metrics]
            shares.plot(epochs, share, color=colour, ls=dashes, lw=1.5, drawstyle="steps-mid")
        values = [line[f"similarity_{kind}"] for line in metrics]
        similar.plot(epochs, values, color=INK, ls=dashes, lw=1.5, drawstyle="steps-mid")
    shares.set(ylabel="candidates (%)", ylim=(0, None))
    kinds = [Line2D([], [], color=INK, ls=dashes, label=f"{kind} cell")
             for kind, dashes in DASHES.items()]  # fmt: skip
    types = [Line2D([], [], color=colour, label=label) for label, colour in TYPES.values()]
    _legend(shares, types)
    similar.set(ylabel="similarity", ylim=(0, 1.04))
    _legend(similar, kinds)

    begun = [
        after["epoch"] for line, after in pairwise(metrics) if line["cycle"] != after["cycle"]
    ]
    for axes in figure.axes:
        axes.grid(axis="x", visible=False)
        for epoch in begun:
            axes.axvline(epoch - 0.5, color=QUIET, lw=0.6, zorder=0.5)
        epoch_axis(axes, epochs, ticks=6)
        axes.set_xlabel("epoch" if axes in (shares, similar) else "")
    return figure


def _batch(axes: Axes, epochs: Sequence[int], metrics: Sequence[dict]) -> None:
    """Batch size, and an epoch's time on a scale of its own beside it."""
    sizes = [line["batch_size"] for line in metrics]
    (size,) = axes.plot(
        epochs, sizes, color=LOOKS["normal"]["color"], lw=1.5, drawstyle="steps-mid",
        label="batch size",
    )  # fmt: skip
    axes.set(ylabel="images a batch", ylim=(0, 1.06 * max(sizes)))
    seconds = np.array([line["seconds"] for line in metrics], float)
    other = axes.twinx()
    (time,) = other.plot(epochs, seconds, color=INK, lw=0.9, ls=(0, (1, 1)), label="epoch's time")
    other.set(ylabel="seconds", ylim=(0, 1.06 * seconds.max()))
    other.grid(visible=False)
    other.yaxis.set_major_locator(MaxNLocator(5))
    _legend(axes, [size, time])


def _legend(axes: Axes, handles: Sequence[Line2D]) -> None:
    """Above the axes, where no data is."""
    axes.legend(
        handles=handles, ncols=len(handles), loc="lower left", bbox_to_anchor=(0, 1),
        borderaxespad=0.3, columnspacing=1, handlelength=1.5, handletextpad=0.5,
    )  # fmt: skip
