"""The pictures of ITNAS: transitions, attention, and how inner edges follow their predecessors.

`python -m itnas.draw RUN_FOLDER` draws those of any search so far again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import tyro
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from common.draw.cell import FAMILIES, INK, OTHER, QUIET, STYLE, tint
from common.draw.pictures import save_figure
from common.draw.search import epoch_axis
from common.errors import InputError
from common.files import json_lines

BLUE, ORANGE = FAMILIES["sep_conv"], FAMILIES["skip"]
LESS_OR_MORE = LinearSegmentedColormap.from_list("less or more", [ORANGE, "white", BLUE])
WEIGHT = LinearSegmentedColormap.from_list("weight", ["white", INK])  # no source's colour
SOURCES = (BLUE, ORANGE, FAMILIES["max_pool"], FAMILIES["dil_conv"], OTHER)  # m = 0, 1, 2, ...
ACROSS = 3  # panels a row


def run(folder: tyro.conf.Positional[Path]) -> None:
    """Draw ITNAS' own pictures of a run folder into its `pictures` folder.

    Raises:
        InputError: the folder holds no epoch of a search with transitions.
    """
    file = folder / "architecture.jsonl"
    history = json_lines(file) if file.is_file() else []
    if not history or "P" not in history[-1]["weights"]["normal"]:
        raise InputError(
            f"{folder}: holds no epoch of an ITNAS search with transitions; what other searches "
            "have is drawn by python -m common.draw"
        )
    with rc_context(STYLE):
        for kind in history[-1]["weights"]:
            for name, figure in (
                ("transitions", transitions_figure(history[-1], kind)),
                ("attention", attention_figure(history, kind)),
                ("inner_edges", inner_edges_figure(history[-1], kind)),
            ):
                save_figure(figure, folder / "pictures" / f"{name}_{kind}")


def transitions_figure(line: dict, kind: str) -> Figure:
    """P^(m,i,j) of every triple as a heat map: inner edges are rows, m columns.

    Args:
        line: of architecture.jsonl, with `triples`, `P` [triples, K, K] and `beta` [triples].
        kind: of cell.
    """
    weights, names = line["weights"][kind], [short(name) for name in line["candidates"]]
    P = np.array(weights["P"], float)
    inner = by_edge(weights["triples"])
    rows, columns = len(inner), max(len(numbers) for numbers in inner.values())
    figure = Figure((0.95 + 1.4 * columns, 1.35 + 1.4 * rows))
    width, height = figure.get_size_inches()
    grid = figure.add_gridspec(
        rows, columns, left=0.8 / width, right=1 - 0.1 / width, bottom=0.65 / height,
        top=1 - 0.8 / height, wspace=0.14, hspace=0.2,
    )  # fmt: skip
    even = 1 / len(names)  # rows as they begin
    norm = CenteredNorm(even, max(1e-3, abs(P - even).max()))
    for r, ((i, j), numbers) in enumerate(inner.items()):
        for m, number in enumerate(numbers):
            axes = figure.add_subplot(grid[r, m])
            image = axes.imshow(P[number], cmap=LESS_OR_MORE, norm=norm)
            beta = f"$\\beta$ {weights['beta'][number]:.2f}"
            axes.set_title(f"{m} \u2192 {i} \u2192 {j}   {beta}", fontsize=8, pad=3)
            _operations(axes, names if r == rows - 1 else None, names if m == 0 else None)
    figure.supxlabel("operation on the inner edge", fontsize=8.5, y=0.06 / height)
    figure.supylabel("operation on its predecessor", fontsize=8.5, x=0.06 / width)
    scale = figure.add_axes([0.8 / width, 1 - 0.42 / height, 2.66 / width, 0.13 / height])
    bar = figure.colorbar(
        image, cax=scale, orientation="horizontal", ticks=[max(0, norm.vmin), even, norm.vmax],
        format="%.3f",
    )
    scale.set_xlim(left=max(0, norm.vmin))
    bar.outline.set_edgecolor(QUIET)
    scale.grid(visible=False)
    scale.tick_params(length=2, labelsize=7.5)
    scale.set_title("transition probability", fontsize=8.5, pad=4)
    return figure


def attention_figure(history: Sequence[dict], kind: str) -> Figure:
    """beta^(m,i,j) over epochs: a panel an inner edge, a line a predecessor.

    Args:
        history: the lines of architecture.jsonl.
        kind: of cell.
    """
    epochs = [line["epoch"] for line in history]
    beta = np.array([line["weights"][kind]["beta"] for line in history], float)  # [epochs, triples]
    inner = by_edge(history[-1]["weights"][kind]["triples"])
    figure, panels = _panels(len(inner), 1.55)
    low, high = beta.min(), beta.max()
    margin = max(0.02, 0.06 * (high - low))
    for n, (axes, (edge, numbers)) in enumerate(zip(panels, inner.items(), strict=True)):
        for m, number in enumerate(numbers):
            axes.plot(
                epochs, beta[:, number], color=source_colour(m), lw=1.5, marker="o", ms=3,
                markevery=[-1],
            )
        axes.set_title(f"{edge[0]} \u2192 {edge[1]}", fontsize=8.5, pad=3)
        axes.set_ylim(max(0, low - margin), min(1, high + margin))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        epoch_axis(axes, epochs, ticks=4)
        axes.tick_params(length=2, labelsize=7.5, labelleft=n % ACROSS == 0)
        if n + ACROSS < len(inner):
            axes.tick_params(labelbottom=False)
    handles = [
        Line2D([], [], color=source_colour(m), lw=2, label=f"from {m}")
        for m in range(max(len(numbers) for numbers in inner.values()))
    ]
    _legend(figure, handles)
    width, height = figure.get_size_inches()
    figure.supxlabel("epoch", fontsize=8.5, y=0.06 / height)
    figure.supylabel("attention to a predecessor", fontsize=8.5, x=0.06 / width)
    return figure


def inner_edges_figure(line: dict, kind: str) -> Figure:
    """Of every inner edge the rows of its predecessors, and what each adds to its own row.

    Args:
        line: of architecture.jsonl.
        kind: of cell.
    """
    weights, names = line["weights"][kind], [short(name) for name in line["candidates"]]
    Z = {tuple(edge): np.array(row) for edge, row in zip(line["edges"], weights["op"], strict=True)}
    P, beta = np.array(weights["P"], float), weights["beta"]
    inner = by_edge(weights["triples"])
    even = 1 / len(names)  # rows as they begin
    darkest = max(row.max() for row in Z.values())
    tallest = max(Z[edge].max() for edge in inner)
    figure, panels = _panels(len(inner), 2.2, left=0.95, below=0.74, apart=0.27)
    for n, (axes, ((i, j), numbers)) in enumerate(zip(panels, inner.items(), strict=True)):
        axes.set_axis_off()
        upper, lower = axes.inset_axes([0, 0.62, 1, 0.38]), axes.inset_axes([0, 0, 1, 0.57])
        predecessors = [Z[m, i] for m in range(len(numbers))]
        upper.imshow(predecessors, cmap=WEIGHT, vmin=0, vmax=darkest, aspect="auto")
        _operations(upper, None, [f"{m} \u2192 {i}" for m in range(len(numbers))])
        upper.set_title(f"{i} \u2192 {j}", fontsize=8.5, pad=3)
        base = np.zeros(len(names))
        for m, (number, row) in enumerate(zip(numbers, predecessors, strict=True)):
            share = beta[number] * row @ P[number]
            lower.bar(range(len(names)), share, 0.78, base, color=source_colour(m))
            base = base + share
        lower.axhline(even, color=INK, lw=0.8, ls=(0, (4, 2)))
        lower.set(xlim=(-0.5, len(names) - 0.5), ylim=(0, 1.08 * tallest))
        lower.set_xticks(range(len(names)), names, rotation=90)
        lower.grid(axis="x", visible=False)
        lower.yaxis.set_major_locator(MaxNLocator(3))
        lowest = n + ACROSS >= len(inner)
        lower.tick_params(
            length=2, labelsize=7.5, pad=2, labelleft=n % ACROSS == 0, labelbottom=lowest
        )
        if n % ACROSS == 0:
            scale = f"predecessors,\n0 to {darkest:.2f}"  # white to black
            for part, label in ((upper, scale), (lower, "what they add")):
                part.set_ylabel(label)
                part.yaxis.set_label_coords(-0.26, 0.5)
    handles = [
        Line2D([], [], color=source_colour(m), lw=6, label=f"from {m}")
        for m in range(max(len(numbers) for numbers in inner.values()))
    ]
    handles.append(Line2D([], [], color=INK, lw=0.8, ls=(0, (4, 2)), label="even"))
    _legend(figure, handles)
    height = figure.get_size_inches()[1]
    figure.supxlabel("operation", fontsize=8.5, y=0.06 / height)
    return figure


# ---------------------------------------------------------------------------------------- parts


def by_edge(triples: Sequence[Sequence[int]]) -> dict[tuple[int, int], list[int]]:
    """Where the triples of each inner edge (i, j) stand, by m."""
    numbered = groupby(enumerate(triples), key=lambda entry: tuple(entry[1][1:]))
    return {edge: [number for number, _ in entries] for edge, entries in numbered}


def short(name: str) -> str:
    """An operation's name as a tick label."""
    kind, _, rest = name.partition("_")
    return f"{kind} {rest[-1]}" if "conv" in rest else kind


def source_colour(m: int) -> tuple:
    """Of predecessors from node m; lighter where colours are used up."""
    return tint(SOURCES[m % len(SOURCES)], 0.5 ** (m // len(SOURCES)))


def _operations(axes: Axes, across: Sequence[str] | None, down: Sequence[str] | None) -> None:
    """Ticks of a heat map; None: no labels."""
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(True)
    for axis, labels in ((axes.xaxis, across), (axes.yaxis, down)):
        axis.set_ticks(range(len(labels or ())), labels or ())
    axes.tick_params(length=0, labelsize=7, pad=2)
    axes.tick_params(axis="x", rotation=90)


def _panels(
    count: int, tall: float, left: float = 0.7, below: float = 0.5, apart: float = 0.14
) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, `ACROSS` a row, with room for a legend above."""
    columns, rows = min(ACROSS, count), math.ceil(count / ACROSS)
    figure = Figure((left + 0.1 + 2.15 * columns, below + 0.6 + tall * rows))
    width, height = figure.get_size_inches()
    grid = figure.add_gridspec(
        rows, columns, left=left / width, right=1 - 0.1 / width, bottom=below / height,
        top=1 - 0.6 / height, wspace=apart, hspace=0.25,
    )  # fmt: skip
    return figure, [figure.add_subplot(grid[divmod(n, columns)]) for n in range(count)]


def _legend(figure: Figure, handles: list[Line2D]) -> None:
    """Above the panels."""
    figure.legend(
        handles=handles, loc="upper center", ncols=len(handles), bbox_to_anchor=(0.53, 1),
        columnspacing=1.2,
    )
