"""The picture of `evaluate/benchmark.py --growth`: time and memory against each size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from common.draw.cell import FAMILIES, INK, OTHER

LOOKS = {
    "darts": {"color": INK, "marker": "o"},
    "pc_darts": {"color": FAMILIES["sep_conv"], "marker": "s"},
    "gdas": {"color": FAMILIES["dil_conv"], "marker": "^"},
    "edas": {"color": OTHER, "marker": "D"},
}
FIGURES = {"milliseconds": "ms an iteration", "saved_mib": "MiB kept for backward"}


def growth_figure(points: Sequence[dict[str, Any]]) -> Figure:
    """A column a size, a row a figure, a line a method; both axes logarithmic.

    Args:
        points: {"size": which, "value": its, "method": whose, "milliseconds", "saved_mib"}.
    """
    sizes = list(dict.fromkeys(point["size"] for point in points))
    figure = Figure((2.1 * len(sizes) + 0.4, 4.4), layout="constrained")
    grid = figure.subplots(len(FIGURES), len(sizes), sharex="col", sharey="row", squeeze=False)
    for row, (key, label) in zip(grid, FIGURES.items(), strict=True):
        for axes, size in zip(row, sizes, strict=True):
            for method, look in LOOKS.items():
                own = [p for p in points if p["size"] == size and p["method"] == method]
                if own:
                    axes.plot(
                        [p["value"] for p in own], [p[key] for p in own], lw=1.3, ms=4,
                        label=method, **look,
                    )  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(sorted({p["value"] for p in points if p["size"] == size}))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_formatter(NullFormatter())
            axes.tick_params(labelsize=7.5, length=2)
            axes.grid(alpha=0.25, lw=0.6)
        row[0].set_ylabel(label, fontsize=8.5)
    for axes, size in zip(grid[-1], sizes, strict=True):
        axes.set_xlabel(size, fontsize=8.5)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(LOOKS), fontsize=8.5)
    return figure
