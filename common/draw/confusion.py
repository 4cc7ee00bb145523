"""The figure of a confusion matrix, for a handful of classes as for a thousand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.draw.cell import FAMILIES, INK, OTHER
from common.draw.fonts import drawable, family_of

FEW, NAMED = 20, 200  # classes up to which each share is written down, and each class named
PAIRS = 30  # confusions that are named where shares are not written down
SHADES = LinearSegmentedColormap.from_list("shades", ["white", FAMILIES["sep_conv"], "#12304f"])


def confusion_figure(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """What the images of each class were taken for.

    Args:
        counts: [K, K], images of class i that were taken for class j.
        classes: their K names.
    """
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)  # of each row
    short = [name if len(name) <= 18 else f"{name[:17]}\u2026" for name in classes]
    names, fonts = drawable(short)
    if len(names) <= FEW:
        side = max(0.45 * len(names), 1.5) + 1.2  # inches
        figure = Figure((side, side), layout="constrained")
        _matrix(figure.subplots(), percent, names, fonts)
    else:
        side = 10 if len(names) > NAMED else min(max(0.12 * len(names), 6), 16) + 1.2
        figure = Figure((side + 3.5, side), layout="constrained")
        matrix, bars = figure.subplots(1, 2, width_ratios=(side, 1.2))
        _matrix(matrix, percent, names, fonts)
        _commonest(bars, percent, names, fonts, room=int(side / 0.25))
    if names != short:
        figure.axes[0].set_ylabel("class\n(numbers as in test.json)")
    return figure


def _matrix(axes: Axes, percent: np.ndarray, names: Sequence[str], fonts: list[str]) -> None:
    """Rows are true classes; a shade is the root of its share, so that rare confusions show."""
    axes.imshow(
        percent, cmap=SHADES, norm=PowerNorm(0.5, 0, 100), interpolation="nearest", aspect="auto"
    )
    axes.grid(False)
    axes.spines[["top", "right"]].set_visible(True)
    axes.set(xlabel="taken for", ylabel="class")
    if len(names) > NAMED:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        return
    size = 8.5 if len(names) <= FEW else 5.5
    plain = {"fontsize": size, "parse_math": False}  # a name may hold a $
    plain |= family_of(fonts)
    turned = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(len(names)), names, rotation=turned, **plain)
    axes.set_yticks(range(len(names)), names, **plain)
    axes.tick_params(length=2)
    for (row, column), share in np.ndenumerate(percent):
        if share > 0 and len(names) <= FEW:
            text = f"{share:.1f}" if share < 9.95 else f"{share:.0f}"
            colour = "white" if share > 25 else INK
            axes.text(column, row, text, color=colour, fontsize=7.5, ha="center", va="center")


def _commonest(
    axes: Axes, percent: np.ndarray, names: Sequence[str], fonts: list[str], room: int
) -> None:
    """The commonest confusions as bars, from the top down, where there is room for so many."""
    wrong = percent * (1 - np.eye(len(percent)))
    order = np.argsort(-wrong, axis=None, kind="stable")[: min(PAIRS, room)]
    pairs = [divmod(int(flat), len(names)) for flat in order if wrong.flat[flat] > 0]
    places = range(len(pairs))
    axes.barh(places, [wrong[pair] for pair in pairs], height=0.6, color=OTHER)
    labels = [f"{names[i]} \u2192 {names[j]}" for i, j in pairs]
    axes.set_yticks(places, labels, fontsize=7.5, parse_math=False, **family_of(fonts))
    axes.set_ylim(room - 0.5, -0.5)
    axes.set_title("commonest confusions (% of the class)", loc="right", fontsize=8.5)
    axes.grid(False, axis="y")
    axes.spines[["bottom", "top"]].set_visible(False)
    axes.xaxis.tick_top()
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(length=2)
