"""The picture of a cell: a layered drawing of its graph.

Nodes stand in columns by their longest path from the inputs, the operations of an edge in those
before its target. What passes a column has a place of its own in it, so by construction no arrow
crosses a label or a node, and no two of these overlap.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from matplotlib.textpath import TextPath
from scipy.optimize import lsq_linear  # scipy comes with scikit-learn

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
INK, QUIET, OTHER = "#24292f", "#aab2bb", "#b5505c"
STYLE = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 8.5, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": QUIET,
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
NODE, LABEL, PORT, SPACE = 0.32, 0.25, 0.14, 0.13  # heights and distances of a cell, in inches
TITLE = 0.3  # height of a title

Arrow = tuple[int, int, tuple[str, ...]]  # source, target, the operations from one to the other


def family(name: str) -> str:
    """The key of `FAMILIES` that an operation belongs to, empty if none."""
    return next((family for family in FAMILIES if name.startswith(family)), "")


def tint(colour: str, strength: float) -> tuple:
    """A colour mixed with white: strength 1 is the colour itself."""
    return tuple(1 - strength * (1 - c) for c in to_rgb(colour))


@dataclass(frozen=True)
class Layout:
    """Where everything of a cell stands, in inches. A key is a node, or a place (arrow, column).

    Attributes:
        names: what is written on the nodes.
        arrows: see `Arrow`.
        ways: of each arrow, its source, the places it passes, its target.
        labels: the operation at a place.
        columns: what stands in each, from the top.
        wide, tall: sizes of nodes and labels.
        left, right: ends in x.
        y: middle in y.
    """

    names: dict[int, str]
    arrows: Sequence[Arrow]
    ways: list[list[Hashable]]
    labels: dict[Hashable, str]
    columns: list[list[Hashable]]
    wide: dict[Hashable, float]
    tall: dict[Hashable, float]
    left: dict[Hashable, float]
    right: dict[Hashable, float]
    y: dict[Hashable, float]

    def box(self) -> tuple[float, float, float, float]:
        """x and y of the lower left corner, width and height, with a margin of 0.1."""
        low = min(y - self.tall.get(key, 0) / 2 for key, y in self.y.items()) - 0.1
        high = max(y + self.tall.get(key, 0) / 2 for key, y in self.y.items()) + 0.1
        return -0.1, low, max(self.right.values()) + 0.2, high - low


def cell_figure(cell: Cell | FixedCell) -> Figure:
    """The picture of a cell, in its own size: a unit of its axes is an inch."""
    layout = _layout(cell)
    figure = Figure(layout.box()[2:])
    _paint(figure, layout, 0, 0)
    return figure


def cells_figure(cells: dict[str, Cell | FixedCell], columns: int = 2) -> Figure:
    """Several cells, each under its title, row by row."""
    layouts = [_layout(cell) for cell in cells.values()]
    sizes = [layout.box()[2:] for layout in layouts]
    rows = [range(n, min(n + columns, len(sizes))) for n in range(0, len(sizes), columns)]
    wide = [max(width for width, _ in sizes[c::columns]) for c in range(min(columns, len(sizes)))]
    tall = [TITLE + max(sizes[n][1] for n in row) for row in rows]
    figure = Figure((sum(wide), sum(tall)))
    titles = list(cells)
    for r, row in enumerate(rows):
        top = sum(tall[r:])
        for c, n in enumerate(row):
            x = sum(wide[:c])
            _paint(figure, layouts[n], x, top - TITLE - sizes[n][1])
            at = ((x + 0.1) / sum(wide), (top - 0.08) / sum(tall))
            figure.text(*at, titles[n], va="top", fontweight="bold")
    return figure


@functools.lru_cache(maxsize=16)  # a search's last snapshot is the cell that it found
def _layout(cell: Cell | FixedCell) -> Layout:
    names, arrows = _graph(cell)
    columns, ways = _columns(names, arrows)
    labels = {
        place: op
        for way, (*_, ops) in zip(ways, arrows, strict=True)
        for place, op in zip(way[-1 - len(ops) : -1], ops, strict=True)
    }
    texts = names | labels
    wide = {key: max(0.34, _width(text) + 0.2) for key, text in texts.items()}
    into = Counter(target for *_, target in ways)
    tall = {key: max(NODE, PORT * (into[key] + 1)) if key in names else LABEL for key in texts}
    links = [link for way in ways for link in pairwise(way)]
    columns = _order(columns, links)
    y = _rows(columns, links, tall)
    left, right = _across(columns, links, wide, y)
    return Layout(names, arrows, ways, labels, columns, wide, tall, left, right, y)


def _graph(cell: Cell | FixedCell) -> tuple[dict[int, str], list[Arrow]]:
    """Names of the nodes, and the arrows; the last node is the output."""
    ends = ("$c_{k-2}$", "$c_{k-1}$", "$c_{k}$")
    if isinstance(cell, FixedCell):
        nodes, arrows = 0, [(source, 2, ops) for source, ops in BRANCHES[cell.name]]
    elif cell.inputs == 1:  # recurrent: state 0 is computed, too
        ends, nodes = ("$x_{t}$", "$h_{t-1}$", "$h_{t}$"), 1 + cell.nodes
        arrows = [(0, 2, ()), (1, 2, ())]
        arrows += [(2 + edge.source, 2 + edge.target, (str(edge.op),)) for edge in cell.edges]
        arrows += [(2 + state, 2 + nodes, ()) for state in cell.output]
    else:
        nodes = cell.nodes
        arrows = [(edge.source, edge.target, (str(edge.op),)) for edge in cell.edges]
        arrows += [(state, 2 + nodes, ()) for state in cell.output]
    *before, after = ends
    return dict(enumerate([*before, *map(str, range(nodes)), after])), arrows


def _columns(
    names: dict[int, str], arrows: Sequence[Arrow]
) -> tuple[list[list[Hashable]], list[list[Hashable]]]:
    """What stands in each column, and the way of each arrow: its source, places, its target."""
    at = {0: 0, 1: 0}
    for source, target, ops in sorted(arrows, key=lambda arrow: arrow[1]):
        at[target] = max(at.get(target, 0), at[source] + len(ops) + 1)
    last = len(names) - 1
    at[last] = max(at[last], *(1 + at[node] for node in range(last)))
    columns = [[node for node in names if at[node] == c] for c in range(max(at.values()) + 1)]
    ways = []
    for n, (source, target, _) in enumerate(arrows):
        places = [(n, column) for column in range(at[source] + 1, at[target])]
        for place in places:
            columns[place[1]].append(place)
        ways.append([source, *places, target])
    return columns, ways


def _order(columns: list[list[Hashable]], links: Sequence[tuple]) -> list[list[Hashable]]:
    """The order within columns with the fewest crossings, found by sorting by neighbours."""
    rng = random.Random(0)
    before, after = ({key: [] for key in chain(*columns)} for _ in range(2))
    for source, target in links:
        before[target].append(source)
        after[source].append(target)
    tried = []
    for _ in range(40):
        columns = [columns[0], *(rng.sample(column, len(column)) for column in columns[1:])]
        for near in (before, after) * 4:
            rank = {}
            for column in columns if near is before else columns[::-1]:
                if column is not columns[0]:
                    column.sort(key=lambda k: sum(rank[n] for n in near[k]) / max(1, len(near[k])))
                rank.update((key, (i + 0.5) / len(column)) for i, key in enumerate(column))
            tried.append((_crossings(columns, links, rank), [list(c) for c in columns]))
    return min(tried, key=lambda one: one[0])[1]


def _crossings(columns: Sequence[Sequence], links: Sequence[tuple], rank: dict) -> float:
    """How many pairs of links cross; of equals, nodes in order and flat links are better."""
    column = {key: c for c, keys in enumerate(columns) for key in keys}
    ends = [(column[a], rank[a], rank[b]) for a, b in links]
    crossed = sum(
        (p[1] - q[1]) * (p[2] - q[2]) < 0 for p, q in combinations(ends, 2) if p[0] == q[0]
    )
    nodes = [[key for key in keys if isinstance(key, int)] for keys in columns]
    disorder = sum(a > b for keys in nodes for a, b in combinations(keys, 2))
    return crossed + 0.05 * disorder + 0.01 * sum(abs(a - b) for _, a, b in ends)


def _rows(columns: Sequence[Sequence], links: Sequence[tuple], tall: dict) -> dict:
    """y of everything, from the top: the flattest links that keep order and distances."""
    row = {key: n for n, key in enumerate(chain(*columns))}
    sums, least = np.zeros((len(row), len(row))), np.zeros(len(row))
    lower = np.zeros(len(row))  # y = least + sums @ slack, each slack >= lower
    for column in columns:
        lower[row[column[0]]] = -np.inf
        for above, key in pairwise(column):
            both = isinstance(above, int) and isinstance(key, int)
            gap = (tall.get(above, 0) + tall.get(key, 0)) / 2 + (2 if both else 1) * SPACE
            least[row[key]] = least[row[above]] + gap
        for n, key in enumerate(column):
            sums[row[key], [row[above] for above in column[: n + 1]]] = 1
    pull = np.zeros((len(links) + 1, len(row)))
    for n, (source, target) in enumerate(links):
        pull[n, row[source]], pull[n, row[target]] = 1, -1
    pull[-1] = 0.01
    loose = [{a, b} <= tall.keys() and int in (type(a), type(b)) for a, b in links]
    force = np.array([*np.where(loose, 1, 3), 1.0])
    bend = np.ones(len(force))
    for _ in range(8):  # reweighted: few bends rather than many small ones
        weighted = pull * (force / (0.02 + abs(bend)) ** 0.5)[:, None]
        y = least + sums @ lsq_linear(weighted @ sums, -weighted @ least, (lower, np.inf)).x
        bend = pull @ y
    return {key: -y[n] for key, n in row.items()}


def _bends(way: Sequence, columns: Sequence[Sequence], y: dict, tall: dict) -> list[Hashable]:
    """The places that a way needs to keep clear of others; a slope may pass the rest."""

    def free(place: Hashable, start: Hashable, end: Hashable) -> bool:
        low, high = sorted((y[start], y[end]))
        others = {key: (tall.get(key, 0) + SPACE) / 2 for key in columns[place[1]] if key != place}
        return place not in tall and low <= y[place] <= high and not any(
            low - space < y[key] < high + space for key, space in others.items()
        )

    kept = [0]
    while (n := kept[-1]) < len(way) - 1:
        ends = range(len(way) - 1, n, -1)  # as far as it goes
        kept.append(next(m for m in ends if all(free(p, way[n], way[m]) for p in way[n + 1 : m])))
    return [way[n] for n in kept]


def _across(
    columns: Sequence[Sequence], links: Sequence[tuple], wide: dict, y: dict
) -> tuple[dict, dict]:
    """Left and right end of everything in x; the steeper the links, the further the columns."""
    left, right, x = {}, {}, 0.0
    for column in columns:
        width = max(wide.get(key, 0) for key in column)
        left.update(dict.fromkeys(column, x))
        right.update(dict.fromkeys(column, x + width))
        steep = max((abs(y[a] - y[b]) for a, b in links if a in column), default=0)
        x += width + 0.22 + 0.28 * steep
    return left, right


# ------------------------------------------------------------------------------------- its paint


def _width(text: str) -> float:
    """Inches of a text in the size of the pictures."""
    return TextPath((0, 0), text, size=STYLE["font.size"]).get_extents().width / 72


def _paint(figure: Figure, layout: Layout, x: float, y: float) -> None:
    """Draw a cell with its lower left corner at x, y of the figure, in inches."""
    wide, tall = figure.get_size_inches()
    start, low, width, height = layout.box()
    axes = figure.add_axes((x / wide, y / tall, width / wide, height / tall))
    axes.set(xlim=(start, start + width), ylim=(low, low + height))
    axes.set_axis_off()
    left, right, y = layout.left, layout.right, layout.y
    for way, (_, target, ops) in zip(layout.ways, layout.arrows, strict=True):
        into = sorted((w for w in layout.ways if w[-1] == target), key=lambda w: y[w[-2]])
        port = y[target] + PORT * (into.index(way) - (len(into) - 1) / 2)
        middle = (left[target] + right[target] - layout.wide[target]) / 2
        bends = _bends(way[:-1], layout.columns, y, layout.tall)
        points = [(end[key], y[key]) for key in bends for end in (left, right)]
        colour = FAMILIES.get(family(ops[-1]), OTHER) if ops else QUIET
        _arrow(axes, [*points[1:], (middle - 0.02, port)], colour)
        for place in (place for place in way if place in layout.labels):
            _box(axes, layout, place, layout.labels[place], LABEL - 0.02, tint(colour, 0.16))
    for node, name in layout.names.items():
        _box(axes, layout, node, name, layout.tall[node], "#eceff2")


def _arrow(axes: Axes, points: Sequence[tuple[float, float]], colour: str) -> None:
    """A curve through the points, level at each of them."""
    curve = [points[0]]
    for (x, y), (u, v) in pairwise(points):
        curve += [((x + u) / 2, y), ((x + u) / 2, v), (u, v)]
    path = Curve(curve, [Curve.MOVETO] + [Curve.CURVE4] * (len(curve) - 1))
    style = "-|>,head_length=4.5,head_width=2.2"
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle=style, color=colour, lw=1.3))


def _box(
    axes: Axes, layout: Layout, key: Hashable, text: str, height: float, fill: str | tuple
) -> None:
    x, y, width = (layout.left[key] + layout.right[key]) / 2, layout.y[key], layout.wide[key]
    shape = f"round,pad=0,rounding_size={min(height, 0.25) / 2}"
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, fc=fill, ec="none"))
    axes.text(x, y, text, ha="center", va="center_baseline")
