"""The picture of a cell: a layered drawing of its graph.

Nodes are in columns by their longest path from the inputs; the operations of an edge are in the
columns before its target. An arrow has its own place in each column that it passes, so no arrow
crosses a label or a node, and labels and nodes never overlap.
"""

from __future__ import annotations

import functools
import io
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, combinations, pairwise
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from scipy.linalg import block_diag
from scipy.optimize import nnls

from common.networks.genotype import Cell, FixedCell

FAMILIES = {
    "none": "#b0b5bb",
    "max_pool": "#2f8f6b",
    "avg_pool": "#8cc63f",
    "skip": "#e0912f",
    "sep_conv": "#2f6db5",
    "dil_conv": "#8d57b0",
    "tanh": "#2f6db5",
    "relu": "#e0912f",
    "sigmoid": "#8d57b0",
    "identity": "#2f8f6b",
}
INK, QUIET, OTHER, NEUTRAL = "#24292f", "#aab2bb", "#b5505c", "#eceff2"
STYLE = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 8.5, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": QUIET,
    "axes.titlesize": "medium", "axes.titlepad": 3, "figure.labelsize": "medium",
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e8eaed", "grid.linewidth": 0.7,
    "xtick.color": QUIET, "ytick.color": QUIET, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "draw",
}  # fmt: skip
# The branches of a fixed cell: an input and the operations from it to the output.
BRANCHES = {
    "gdas_frc": [
        *((k, ("conv_1x3, stride 1x2", "conv_3x1, stride 2x1", "conv_1x1")) for k in (0, 1)),
        *((k, ("max_pool_3x3, stride 2x2",)) for k in (0, 1)),
    ]  # GDAS, Fig. 3
}
NODE, LABEL, TITLE = 0.32, 0.25, 0.3  # heights, in inches
PORT, SPACE, MARGIN = 0.14, 0.13, 0.1  # distances, in inches


def family(name: str) -> str:
    """The key of `FAMILIES` that an operation belongs to, empty if none."""
    return next((family for family in FAMILIES if name.startswith(family)), "")


def tint(colour: str, strength: float) -> tuple:
    """A colour mixed with white: strength 1 is the colour itself."""
    return tuple(1 - strength * (1 - c) for c in to_rgb(colour))


Key = int | tuple[int, int]  # a node, or the place of an arrow (its number) in a column


class Arrow(NamedTuple):
    """The operations from a node to another."""

    source: int
    target: int
    ops: Sequence[str] = ()

    @property
    def colour(self) -> str:
        return FAMILIES.get(family(self.ops[-1]), OTHER) if self.ops else QUIET


class Box(NamedTuple):
    """A node or an operation; its middle and its size in inches."""

    text: str
    x: float
    y: float
    width: float
    height: float
    colour: str | tuple


class Line(NamedTuple):
    """An arrow: the points where it is horizontal, in inches."""

    points: list[tuple[float, float]]
    colour: str


class Picture(Figure):
    """A figure that a notebook shows, also without pyplot."""

    @rc_context(STYLE)
    def _repr_svg_(self) -> str:
        with io.StringIO() as file:
            self.savefig(file, format="svg", metadata={"Date": None})
            return file.getvalue()


@rc_context(STYLE)
def cell_figure(cell: Cell | FixedCell) -> Picture:
    """The picture of a cell. The unit of its axes is an inch."""
    return cells_figure({"": cell})


@rc_context(STYLE)
def cells_figure(cells: Mapping[str, Cell | FixedCell], columns: int = 2) -> Picture:
    """Several cells, each below its title, row by row."""
    drawn = [(title, *layout(cell)) for title, cell in cells.items()]
    widths = [max(size[0] for *_, size in drawn[c::columns]) for c in range(columns) if drawn[c:]]
    figure = Picture()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    top = 0.0
    for first in range(0, len(drawn), columns):
        row = drawn[first : first + columns]
        below = top - TITLE * any(title for title, *_ in row)
        for c, (title, lines, boxes, _) in enumerate(row):
            left = sum(widths[:c])
            axes.text(left + MARGIN, top - MARGIN, title, va="top", fontweight="bold")
            _paint(axes, lines, boxes, left, below)
        top = below - max(height for *_, (_, height) in row)
    figure.set_size_inches(sum(widths), -top)
    axes.set(xlim=(0, sum(widths)), ylim=(top, 0))
    return figure


@functools.lru_cache(maxsize=16)  # a search's last snapshot is the cell that it found
def layout(cell: Cell | FixedCell) -> tuple[list[Line], list[Box], tuple[float, float]]:
    """The arrows and boxes of a cell, right of x = 0 and below y = 0; width and height of all."""
    names, arrows = _graph(cell)
    columns, ways = _columns(names, arrows)
    texts: dict[Key, str] = {**names}
    colours: dict[Key, str | tuple] = dict.fromkeys(names, NEUTRAL)
    for way, arrow in zip(ways, arrows, strict=True):
        places = way[-1 - len(arrow.ops) : -1]
        texts |= zip(places, arrow.ops, strict=True)
        colours |= dict.fromkeys(places, tint(arrow.colour, 0.16))
    width = {key: max(0.34, _text_width(text) + 0.2) for key, text in texts.items()}
    into = Counter(arrow.target for arrow in arrows)
    height = {key: max(NODE, PORT * (into[key] + 1)) if key in names else LABEL for key in texts}

    links = [link for way in ways for link in pairwise(way)]
    columns = _order(columns, links)
    y = _heights(columns, links, height)
    low, high = (max(s * y[k] + height.get(k, 0) / 2 for k in y) + MARGIN for s in (-1, 1))
    y = {key: value - high for key, value in y.items()}
    left, right, end = {}, {}, MARGIN
    for column in columns:
        left |= dict.fromkeys(column, end)
        end += max(width.get(key, 0) for key in column)
        right |= dict.fromkeys(column, end)
        steps = [abs(y[a] - y[b]) for way in ways for a, b in pairwise(way) if a in column]
        end += 0.22 + 0.28 * max(steps, default=0)  # steep arrows need more room
    lines = []
    for way, arrow in zip(ways, arrows, strict=True):
        target = way[-1]
        ports = sorted((w for w in ways if w[-1] == target), key=lambda w: y[w[-2]])
        port = y[target] + PORT * (ports.index(way) - (len(ports) - 1) / 2)
        points = [(x[key], y[key]) for key in way[:-1] for x in (left, right)]
        edge = (left[target] + right[target] - width[target]) / 2
        lines.append(Line([*points[1:], (edge - 0.02, port)], arrow.colour))
    boxes = [
        Box(text, (left[k] + right[k]) / 2, y[k], width[k], height[k], colours[k])
        for k, text in texts.items()
    ]
    return lines, boxes, (max(right.values()) + MARGIN, low + high)


def _graph(cell: Cell | FixedCell) -> tuple[dict[int, str], list[Arrow]]:
    """Names of the nodes, and the arrows; the last node is the output."""
    ends, first = ("$c_{k-2}$", "$c_{k-1}$", "$c_{k}$"), 2  # nodes are numbered as in the genotype
    if isinstance(cell, FixedCell):
        nodes, arrows = 0, [Arrow(source, 2, ops) for source, ops in BRANCHES[cell.name]]
    elif cell.inputs == 1:  # recurrent: state 0 is computed, too
        ends, first, nodes = ("$x_{t}$", "$h_{t-1}$", "$h_{t}$"), 0, 1 + cell.nodes
        arrows = [Arrow(0, 2), Arrow(1, 2)]
        arrows += [Arrow(2 + edge.source, 2 + edge.target, (str(edge.op),)) for edge in cell.edges]
        arrows += [Arrow(2 + state, 2 + nodes) for state in cell.output]
    else:
        nodes = cell.nodes
        arrows = [Arrow(edge.source, edge.target, (str(edge.op),)) for edge in cell.edges]
        arrows += [Arrow(state, 2 + nodes) for state in cell.output]
    *before, after = ends
    return dict(enumerate([*before, *(f"x{first + n}" for n in range(nodes)), after])), arrows


def _columns(
    names: dict[int, str], arrows: Sequence[Arrow]
) -> tuple[list[list[Key]], list[list[Key]]]:
    """What is in each column, and the way of each arrow: its source, places, its target."""
    at = {0: 0, 1: 0}
    for source, target, ops in sorted(arrows, key=lambda arrow: arrow.target):
        at[target] = max(at.get(target, 0), at[source] + len(ops) + 1)
    last = len(names) - 1
    at[last] = max(at[last], *(1 + at[node] for node in range(last)))
    columns: list[list[Key]] = [[n for n in names if at[n] == c] for c in range(at[last] + 1)]
    ways: list[list[Key]] = []
    for n, (source, target, _) in enumerate(arrows):
        places = [(n, column) for column in range(at[source] + 1, at[target])]
        for place in places:
            columns[place[1]].append(place)
        ways.append([source, *places, target])
    return columns, ways


def _order(columns: list[list[Key]], links: Sequence[tuple[Key, Key]]) -> list[list[Key]]:
    """The order within columns with the fewest crossings, found by sorting by neighbours."""
    rng = random.Random(0)
    before, after = defaultdict(list), defaultdict(list)
    for source, target in links:
        before[target].append(source)
        after[source].append(target)
    tried = []
    for _ in range(40):
        columns = [columns[0], *(rng.sample(column, len(column)) for column in columns[1:])]
        for near in (before, after) * 4:
            rank: dict[Key, float] = {}
            for column in columns if near is before else columns[::-1]:
                if column is not columns[0]:
                    column.sort(key=lambda k: sum(rank[n] for n in near[k]) / max(1, len(near[k])))
                rank |= {key: (i + 0.5) / len(column) for i, key in enumerate(column)}
            tried.append((_badness(columns, links, rank), [list(column) for column in columns]))
    return min(tried, key=lambda one: one[0])[1]


def _badness(columns: Sequence[Sequence[Key]], links: Sequence[tuple], rank: dict) -> float:
    """Crossings of links; of equals, nodes in their order and flat links are better."""
    into = {key: c for c, column in enumerate(columns) for key in column}
    ends = [(into[b], rank[a], rank[b]) for a, b in links]
    crossings = sum(
        c == d and (a - e) * (b - f) < 0 for (c, a, b), (d, e, f) in combinations(ends, 2)
    )
    nodes = [[key for key in column if isinstance(key, int)] for column in columns]
    disorder = sum(a > b for column in nodes for a, b in combinations(column, 2))
    return crossings + 0.05 * disorder + 0.01 * sum(abs(a - b) for _, a, b in ends)


def _heights(
    columns: Sequence[Sequence[Key]], links: Sequence[tuple[Key, Key]], tall: dict[Key, float]
) -> dict[Key, float]:
    """y of everything: few bends that keep order and distances; arrows bend next to nodes."""
    row = {key: n for n, key in enumerate(chain(*columns))}
    least = np.zeros(len(row))  # depth below the column's first
    for above, key in chain(*map(pairwise, columns)):
        space = 2 * SPACE if type(above) is type(key) is int else SPACE
        gap = (tall.get(above, 0) + tall.get(key, 0)) / 2 + space
        least[row[key]] = least[row[above]] + gap
    sums = block_diag(*(np.tri(len(column)) for column in columns))
    step = np.zeros((len(links), len(row)))
    for n, (a, b) in enumerate(links):
        step[n, [row[a], row[b]]] = 1, -1
    force = [1 if int in (type(a), type(b)) else 4 for a, b in links]
    bend = np.ones(len(links))
    for _ in range(12):  # reweighted least squares: one large bend rather than many small ones
        weighted = (force / (0.01 + abs(bend)) ** 0.75)[:, None] * step
        slack, _ = nnls(weighted @ sums, -weighted @ least)
        depth = least + sums @ slack
        bend = step @ depth
    return {key: -depth[n] for key, n in row.items()}


def _text_width(text: str) -> float:
    """Inches of a text in the pictures' size."""
    return TextPath((0, 0), text, size=STYLE["font.size"]).get_extents().width / 72


def _paint(
    axes: Axes, lines: Sequence[Line], boxes: Sequence[Box], left: float, top: float
) -> None:
    """Draw a cell with its upper left corner at left, top."""
    for points, colour in lines:
        curve = [points[0]]
        for (x, y), (u, v) in pairwise(points):  # level at each point
            curve += [((x + u) / 2, y), ((x + u) / 2, v), (u, v)]
        path = Path(np.add(curve, (left, top)), [Path.MOVETO] + [Path.CURVE4] * (len(curve) - 1))
        style = "-|>,head_length=4.5,head_width=2.2"
        axes.add_patch(FancyArrowPatch(path=path, arrowstyle=style, color=colour, lw=1.3))
    for text, x, y, width, height, colour in boxes:
        corner = (left + x - width / 2, top + y - height / 2)
        shape = f"round,pad=0,rounding_size={min(height, LABEL) / 2}"
        axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, fc=colour, ec="none"))
        axes.text(left + x, top + y, text, ha="center", va="center_baseline")
