"""The figure of a confusion matrix, for a few classes or a thousand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm

from common.draw.cell import FAMILIES, INK, OTHER, STYLE, Picture
from common.draw.fonts import drawable, family_of

FEW, NAMED = 20, 200  # up to so many classes, numbers are written; all classes are named
PAIRS = 30  # confusions named where numbers are not written
SHADES = LinearSegmentedColormap.from_list("shades", ["white", FAMILIES["sep_conv"]])


@rc_context(STYLE)
def confusion_figure(counts: np.ndarray, classes: Sequence[str]) -> Picture:
    """The confusion matrix in percent of each class; for many classes, the commonest confusions.

    Args:
        counts: [K, K], images of class i classified as j.
        classes: the K names.
    """
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    short = [name if len(name) <= 18 else f"{name[:17]}\u2026" for name in classes]
    names, fonts = drawable(short)
    text = {"parse_math": False, **family_of(fonts)}  # a name may contain a $
    few = len(names) <= FEW
    if few:
        side = max(0.45 * len(names), 1.5) + 1.2  # inches
        figure = Picture((side, side), layout="constrained")
        matrix = figure.subplots()
    else:
        side = 10 if len(names) > NAMED else min(max(0.12 * len(names), 6), 16) + 1.2
        figure = Picture((side + 3.5, side), layout="constrained")
        matrix, bars = figure.subplots(1, 2, width_ratios=(side, 1.2))
        _commonest(bars, percent, names, text, room=int(side / 0.25))

    # The shade is the square root of the percentage, so that rare confusions are visible.
    matrix.imshow(percent, cmap=SHADES, norm=PowerNorm(0.5, 0, 100), aspect="auto")
    matrix.grid(False)
    matrix.spines[["top", "right"]].set_visible(True)
    matrix.tick_params(length=2)
    numbered = "\n(numbers as in test.json)" if names != short else ""
    matrix.set(xlabel="taken for", ylabel=f"class{numbered}")
    if len(names) <= NAMED:
        size = 8.5 if few else 5.5
        turned = 90 if max(map(len, names)) > 2 else 0
        matrix.set_xticks(range(len(names)), names, rotation=turned, fontsize=size, **text)
        matrix.set_yticks(range(len(names)), names, fontsize=size, **text)
    for (row, column), share in np.ndenumerate(percent) if few else ():
        if share > 0:
            label = f"{share:.1f}" if share < 9.95 else f"{share:.0f}"
            look = {"color": "white" if share > 70 else INK, "fontsize": 7.5}
            matrix.text(column, row, label, ha="center", va="center", **look)
    return figure


def _commonest(
    axes: Axes, percent: np.ndarray, names: Sequence[str], text: dict, room: int
) -> None:
    """The commonest confusions as bars from the top; `room` bars fill the height."""
    wrong = percent * (1 - np.eye(len(percent)))
    order = np.argsort(-wrong, axis=None, kind="stable")[: min(PAIRS, room)]
    pairs = [divmod(int(flat), len(names)) for flat in order if wrong.flat[flat] > 0]
    axes.barh(range(len(pairs)), [wrong[pair] for pair in pairs], height=0.6, color=OTHER)
    labels = [f"{names[i]} \u2192 {names[j]}" for i, j in pairs]
    axes.set_yticks(range(len(pairs)), labels, fontsize=7.5, **text)
    axes.set_ylim(room - 0.5, -0.5)
    axes.set_title("commonest confusions (% of the class)", loc="right")
    axes.grid(False, axis="y")
    axes.spines[["bottom", "top"]].set_visible(False)
    axes.xaxis.tick_top()
    axes.tick_params(length=2)
