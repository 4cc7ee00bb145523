"""The pictures of ITNAS: transitions, attention, and how inner edges follow their predecessors.

`python -m itnas.draw RUN_FOLDER` draws them again, also while a search runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from common.draw.cell import FAMILIES, QUIET, STYLE
from common.draw.pictures import save_figure
from common.draw.search import (
    UNIFORM,
    around_uniform,
    epoch_axis,
    line_of_weight,
    source_colour,
    source_lines,
)
from common.errors import InputError
from common.files import json_lines

LESS_OR_MORE = LinearSegmentedColormap.from_list(
    "less or more", [FAMILIES["skip"], "white", FAMILIES["sep_conv"]]
)
ACROSS = 3  # panels a row


def run(folder: Path) -> None:
    """Draw ITNAS' own pictures of a run folder into its `pictures` folder.

    Raises:
        InputError: the folder holds no epoch of a search with transitions.
    """
    file = folder / "architecture.jsonl"
    history = json_lines(file) if file.is_file() else []
    if not history or not all("P" in of for of in history[-1]["weights"].values()):
        raise InputError(
            f"{folder}: holds no epoch of an ITNAS search with transitions; what other searches "
            "have is drawn by python -m common.draw"
        )
    for kind in history[-1]["weights"]:
        for name, figure in (
            ("transitions", transitions_figure(history[-1], kind)),
            ("attention", attention_figure(history, kind)),
            ("inner_edges", inner_edges_figure(history[-1], kind)),
        ):
            save_figure(figure, folder / "pictures" / f"{name}_{kind}")


@rc_context(STYLE)
def transitions_figure(line: dict, kind: str) -> Figure:
    """P^(m,i,j) of every triple as a heat map: a row an inner edge, a column m.

    Args:
        line: of architecture.jsonl, with `triples`, `P` [triples, K, K] and `beta` [triples].
        kind: of cell.
    """
    weights, names = line["weights"][kind], [short(name) for name in line["candidates"]]
    P = np.array(weights["P"], float)
    inner = by_edge(weights["triples"])
    rows, columns = len(inner), max(map(len, inner.values()))
    figure = Figure((0.9 + 1.4 * columns, 1.3 + 1.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    even = 1 / len(names)  # each row at the start
    norm = _less_or_more(P, even)
    for r, (row, ((i, j), numbers)) in enumerate(zip(panels, inner.items(), strict=True)):
        for m, number in enumerate(numbers):
            image = row[m].imshow(P[number], cmap=LESS_OR_MORE, norm=norm)
            beta = weights["beta"][number]
            row[m].set_title(f"x{m} \u2192 x{i} \u2192 x{j}   $\\beta$ {beta:.2f}", fontsize=8)
            _heat_map_ticks(row[m], names if r == rows - 1 else (), () if m else names)
        for axes in row[len(numbers) :]:
            axes.remove()
    _colour_bar(figure, image, figure.axes, "transition probability")
    figure.supxlabel("operation on the inner edge")
    figure.supylabel("operation on its predecessor")
    return figure


@rc_context(STYLE)
def attention_figure(history: Sequence[dict], kind: str) -> Figure:
    """beta^(m,i,j) over epochs: a panel an inner edge, a line a predecessor.

    Args:
        history: the lines of architecture.jsonl.
        kind: of cell.
    """
    epochs = [line["epoch"] for line in history]
    beta = np.array([line["weights"][kind]["beta"] for line in history], float)  # [epochs, triples]
    inner = by_edge(history[-1]["weights"][kind]["triples"])
    figure = Figure(
        (0.8 + 2.15 * min(ACROSS, len(inner)), 1.1 + 1.55 * _rows(inner)), layout="constrained"
    )
    panels = figure.subplots(_rows(inner), min(ACROSS, len(inner)), sharex=True, squeeze=False)
    for axes, ((i, j), numbers) in zip(panels.flat, inner.items(), strict=False):
        for m, number in enumerate(numbers):
            line_of_weight(axes, epochs, beta[:, number], color=source_colour(m))
        axes.set_title(f"x{i} \u2192 x{j}")
    for axes in panels.flat[len(inner) :]:
        axes.remove()
    around_uniform({axes: 1 / len(axes.lines) for axes in panels.flat[: len(inner)]})
    epoch_axis(panels[0, 0], epochs, ticks=4)
    handles = source_lines(max(map(len, inner.values())))
    figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.2
    )
    figure.supxlabel("epoch")
    figure.supylabel("attention to a predecessor")
    return figure


@rc_context(STYLE)
def inner_edges_figure(line: dict, kind: str) -> Figure:
    """The rows of each inner edge's predecessors, and their contributions to its own row.

    Args:
        line: of architecture.jsonl.
        kind: of cell.
    """
    weights, names = line["weights"][kind], [short(name) for name in line["candidates"]]
    Z = {tuple(edge): np.array(row) for edge, row in zip(line["edges"], weights["op"], strict=True)}
    P, beta = np.array(weights["P"], float), weights["beta"]
    inner = by_edge(weights["triples"])
    even = 1 / len(names)
    norm = _less_or_more(np.array([Z[m, i] for i, _ in inner for m in range(i)]), even)
    tallest = max(Z[edge].max() for edge in inner)
    columns = min(ACROSS, len(inner))
    figure = Figure((1.0 + 2.15 * columns, 0.9 + 2.4 * _rows(inner)), layout="constrained")
    panels = figure.subplots(
        2 * _rows(inner), columns, squeeze=False, height_ratios=(2, 3) * _rows(inner)
    )
    for n, ((i, j), numbers) in enumerate(inner.items()):
        row, column = divmod(n, columns)
        upper, lower = panels[2 * row : 2 * row + 2, column]
        predecessors = [Z[m, i] for m in range(len(numbers))]
        image = upper.imshow(predecessors, cmap=LESS_OR_MORE, norm=norm, aspect="auto")
        _heat_map_ticks(upper, (), [f"x{m} \u2192 x{i}" for m in range(len(numbers))])
        upper.set_title(f"x{i} \u2192 x{j}")
        base = np.zeros(len(names))
        for m, (number, weight) in enumerate(zip(numbers, predecessors, strict=True)):
            share = beta[number] * weight @ P[number]
            lower.bar(range(len(names)), share, 0.78, base, color=source_colour(m))
            base += share
        lower.axhline(even, **UNIFORM | {"zorder": 2.5})
        lower.set(xlim=(-0.5, len(names) - 0.5), ylim=(0, 1.08 * tallest))
        lower.set_xticks(range(len(names)), names, rotation=90)
        lower.grid(axis="x", visible=False)
        lowest = n + ACROSS >= len(inner)
        lower.tick_params(length=2, labelsize=7.5, labelleft=column == 0, labelbottom=lowest)
        if column == 0:
            upper.set_ylabel("predecessors'\nweights")
            lower.set_ylabel("weight,\nby predecessor")
    for axes in figure.axes:
        if not axes.has_data():
            axes.remove()
    figure.align_ylabels()
    handles = [
        Patch(color=source_colour(m), label=f"from x{m}")
        for m in range(max(map(len, inner.values())))
    ]
    handles.append(Line2D([], [], label="uniform", **UNIFORM))
    figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.2
    )
    _colour_bar(figure, image, figure.axes, "predecessors' weights")
    figure.supxlabel("operation")
    return figure


# ---------------------------------------------------------------------------------------- parts


def by_edge(triples: Sequence[Sequence[int]]) -> dict[tuple[int, int], list[int]]:
    """Indices of the triples (m, i, j) of each inner edge (i, j), by m."""
    numbered = groupby(enumerate(triples), key=lambda entry: tuple(entry[1][1:]))
    return {edge: [number for number, _ in entries] for edge, entries in numbered}


def short(name: str) -> str:
    """An operation's name as a tick label: `sep 3` for `sep_conv_3x3`."""
    kind, _, rest = name.partition("_")
    return f"{kind} {rest[-1]}" if "conv" in rest else kind


def _rows(inner: dict) -> int:
    """Rows of panels for so many inner edges."""
    return math.ceil(len(inner) / ACROSS)


def _heat_map_ticks(axes: Axes, across: Sequence[str], down: Sequence[str]) -> None:
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xticks(range(len(across)), across, rotation=90)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0, labelsize=7, pad=2)


def _less_or_more(values: np.ndarray, uniform: float) -> CenteredNorm:
    """White is the uniform weight; the farthest value has the full colour."""
    return CenteredNorm(uniform, max(1e-3, abs(values - uniform).max()))


def _colour_bar(figure: Figure, image: AxesImage, panels: Sequence[Axes], label: str) -> None:
    """The colours of `_less_or_more` above panels, from 0 on."""
    norm = image.norm
    bar = figure.colorbar(
        image, ax=panels, location="top", shrink=0.8, pad=0.02, aspect=30, format="%.3f",
        ticks=[max(0, norm.vmin), norm.vcenter, norm.vmax], label=label,
    )  # fmt: skip
    bar.ax.set_xlim(left=max(0, norm.vmin))
    bar.outline.set_edgecolor(QUIET)
