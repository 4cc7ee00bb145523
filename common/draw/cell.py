"""The picture of a cell: a layered drawing of its graph.

Nodes are in columns by their longest path from the inputs; the operations of an edge are in the
columns before its target. An arrow has its own place in each column that it passes, so no arrow
crosses a label or a node, and labels and nodes never overlap. Several cells of a search are drawn
with every node at the same place, so that their differences can be seen.
"""

from __future__ import annotations

import functools
import io
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from common.networks.genotype import OWN_OPS, RECURRENT_OPS, Cell, FixedCell, Op

FAMILIES = {
    "none": "#b0b5bb",
    "max_pool": "#2f8f6b",
    "avg_pool": "#8cc63f",
    "skip": "#e0912f",
    "sep_conv": "#2f6db5",
    "nor_conv": "#2f6db5",
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
    "figure.facecolor": "white", "axes.facecolor": "white",  # also on a dark page
    "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "draw",
}  # fmt: skip
# The branches of a fixed cell: an input and the operations from it to the output.
BRANCHES = {
    "gdas_frc": [
        *((k, ("conv_1x3, stride 1x2", "conv_3x1, stride 2x1", "conv_1x1")) for k in (0, 1)),
        *((k, ("max_pool_3x3, stride 2x2",)) for k in (0, 1)),
    ]  # GDAS, Fig. 3
}
NODE, LABEL, LINE, TITLE = 0.32, 0.25, 0.14, 0.3  # heights, in inches; LINE: of a second line
PORT, SPACE, MARGIN = 0.14, 0.13, 0.1  # distances, in inches
WIDE = 5.5  # cells of more inches are drawn one below the other


def family(name: str) -> str:
    """The key of `FAMILIES` that an operation belongs to, empty if none, as for a user's own."""
    if name in OWN_OPS:  # whatever its name begins with
        return ""
    return next((family for family in FAMILIES if name.startswith(family)), "")


def tint(colour: str, strength: float) -> tuple:
    """A colour mixed with white: strength 1 is the colour itself."""
    return tuple(1 - strength * (1 - c) for c in to_rgb(colour))


def label(op: Op) -> str:
    """The text of an operation; the shape of a parametrised one is on a second line."""
    name, bracket, shape = str(op).partition("(")
    return f"{name}\n{shape.removesuffix(')')}" if bracket else name


Key = int | tuple[int, int]  # a node, or the place of an arrow (its number) in a column


class Place(NamedTuple):
    """A key of one of several cells."""

    cell: int
    key: Key


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
def cells_figure(cells: Mapping[str, Cell | FixedCell]) -> Picture:
    """Several cells of equal numbers of nodes, each below its title; nodes keep their places."""
    drawn, (width, height) = layouts(tuple(cells.values()))
    columns = 1 if width > WIDE else min(2, len(drawn))
    head = TITLE * any(cells)
    figure = Picture()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for n, (title, (lines, boxes)) in enumerate(zip(cells, drawn, strict=True)):
        row, column = divmod(n, columns)
        left, top = column * width, -row * (head + height)
        axes.text(left + MARGIN, top - MARGIN, title, va="top", fontweight="bold")
        _paint(axes, lines, boxes, left, top - head)
    size = columns * width, -(-len(drawn) // columns) * (head + height)
    figure.set_size_inches(size)
    axes.set(xlim=(0, size[0]), ylim=(-size[1], 0))
    return figure


@functools.lru_cache(maxsize=16)
def layouts(
    cells: tuple[Cell | FixedCell, ...],
) -> tuple[list[tuple[list[Line], list[Box]]], tuple[float, float]]:
    """The arrows and boxes of cells, right of x = 0 and below y = 0; width and height of each.

    Args:
        cells: of equal numbers of nodes. A node has the same place in all of them.
    """
    graphs = [_graph(cell) for cell in cells]
    at = _depths(len(graphs[0][0]), [arrow for _, arrows in graphs for arrow in arrows])
    texts: dict[Hashable, str] = {}
    colours: dict[Hashable, str | tuple] = {}
    columns, ways, same = [], [], []  # a list a cell
    height: dict[Hashable, float] = {}
    for n, (names, arrows) in enumerate(graphs):
        of_cell, ways_of_cell = _columns(at, arrows)
        of_cell = _order(of_cell, [link for way in ways_of_cell for link in pairwise(way)])
        columns.append([[Place(n, key) for key in column] for column in of_cell])
        ways.append([[Place(n, key) for key in way] for way in ways_of_cell])
        texts |= {Place(n, key): name for key, name in names.items()}
        colours |= {Place(n, key): NEUTRAL for key in names}
        for way, arrow in zip(ways[-1], arrows, strict=True):
            places = way[-1 - len(arrow.ops) : -1]
            texts |= zip(places, arrow.ops, strict=True)
            colours |= dict.fromkeys(places, tint(arrow.colour, 0.16))
        into = Counter(arrow.target for arrow in arrows)
        height |= {Place(n, key): max(NODE, PORT * (into[key] + 1)) for key in names}
        if n > 0:
            same += [(Place(n - 1, key), Place(n, key)) for key in names]
    width = {
        place: max(0.34, max(map(_text_width, text.split("\n"))) + 0.2)
        for place, text in texts.items()
    }
    height = {place: LABEL + LINE * text.count("\n") for place, text in texts.items()} | height

    links = [link for way in chain(*ways) for link in pairwise(way)]
    y = _heights(list(chain(*columns)), links, same, height)
    low, high = (max(s * y[k] + height.get(k, 0) / 2 for k in y) + MARGIN for s in (-1, 1))
    y = {place: value - high for place, value in y.items()}
    left, right = _sides(columns, links, width, y)
    drawn = []
    for n, (_, arrows) in enumerate(graphs):
        lines = []
        for way, arrow in zip(ways[n], arrows, strict=True):
            points = [(x[place], y[place]) for place in way[:-1] for x in (left, right)]
            edge = (left[way[-1]] + right[way[-1]] - width[way[-1]]) / 2
            lines.append(Line([*points[1:], (edge - 0.02, _port(way, ways[n], y))], arrow.colour))
        boxes = [
            Box(text, (left[k] + right[k]) / 2, y[k], width[k], height[k], colours[k])
            for k, text in texts.items()
            if k.cell == n
        ]
        drawn.append((lines, boxes))
    return drawn, (max(right.values()) + MARGIN, low + high)


def _graph(cell: Cell | FixedCell) -> tuple[dict[int, str], list[Arrow]]:
    """Names of the nodes, and the arrows; the last node is the output."""
    ends, first = ("$c_{k-2}$", "$c_{k-1}$", "$c_{k}$"), 2  # nodes are numbered as in the genotype
    if isinstance(cell, FixedCell):
        nodes, arrows = 0, [Arrow(source, 2, ops) for source, ops in BRANCHES[cell.name]]
    elif _is_recurrent(cell):  # state 0 is computed, too
        ends, first, nodes = ("$x_{t}$", "$h_{t-1}$", "$h_{t}$"), 0, 1 + cell.nodes
        arrows = [Arrow(0, 2), Arrow(1, 2)]
        arrows += [Arrow(2 + e.source, 2 + e.target, (label(e.op),)) for e in cell.edges]
        arrows += [Arrow(2 + state, 2 + nodes) for state in cell.output]
    else:
        first, nodes = cell.inputs, cell.nodes
        ends = ends[2 - first :]
        arrows = [Arrow(edge.source, edge.target, (label(edge.op),)) for edge in cell.edges]
        arrows += [Arrow(state, first + nodes) for state in cell.output]
    *before, after = ends
    zero = () if isinstance(cell, FixedCell) else cell.zero
    names = [f"x{first + n}" + " = 0" * (first + n in zero) for n in range(nodes)]
    return dict(enumerate([*before, *names, after])), arrows


def _is_recurrent(cell: Cell) -> bool:
    operations = {edge.op.name for edge in cell.edges}
    return cell.inputs == 1 and operations != {"none"} and operations <= set(RECURRENT_OPS)


def _depths(nodes: int, arrows: Sequence[Arrow]) -> dict[int, int]:
    """The column of each node: its longest path from the inputs."""
    into, last = {arrow.target for arrow in arrows}, nodes - 1
    at = {node: 0 for node in range(nodes) if node not in into}
    for source, target, ops in sorted(arrows, key=lambda arrow: arrow.target):
        at[target] = max(at.get(target, 0), at[source] + len(ops) + 1)
    at[last] = max(at[last], *(1 + at[node] for node in range(last)))
    return at


def _columns(
    at: dict[int, int], arrows: Sequence[Arrow]
) -> tuple[list[list[Key]], list[list[Key]]]:
    """What is in each column, and the way of each arrow: its source, places, its target."""
    columns: list[list[Key]] = [[n for n in at if at[n] == c] for c in range(max(at.values()) + 1)]
    ways: list[list[Key]] = []
    for n, (source, target, _) in enumerate(arrows):
        places = [(n, column) for column in range(at[source] + 1, at[target])]
        for place in places:
            columns[place[1]].append(place)
        ways.append([source, *places, target])
    return columns, ways


def _order(columns: list[list[Key]], links: Sequence[tuple[Key, Key]]) -> list[list[Key]]:
    """The order within columns with few crossings, found by sorting by neighbours.

    Nodes of a column are in the order of their numbers, as in every other cell.
    """
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
                    nodes = iter(sorted(key for key in column if isinstance(key, int)))
                    column[:] = [next(nodes) if isinstance(k, int) else k for k in column]
                rank |= {key: (i + 0.5) / len(column) for i, key in enumerate(column)}
            tried.append((_badness(columns, links, rank), [list(column) for column in columns]))
    return min(tried, key=lambda one: one[0])[1]


def _badness(columns: Sequence[Sequence[Key]], links: Sequence[tuple], rank: dict) -> float:
    """Crossings of links; of equals, flat links are better."""
    into = {key: c for c, column in enumerate(columns) for key in column}
    column, start, end = np.array([(into[b], rank[a], rank[b]) for a, b in links]).T
    column, above, below = (np.subtract.outer(values, values) for values in (column, start, end))
    crossings = np.sum((column == 0) & (above * below < 0)) / 2
    return crossings + 0.01 * abs(start - end).sum()


def _heights(
    columns: Sequence[Sequence[Place]],
    links: Sequence[tuple[Place, Place]],
    same: Sequence[tuple[Place, Place]],
    tall: dict[Hashable, float],
) -> dict[Place, float]:
    """y of everything: few bends that keep order and distances; arrows bend next to nodes.

    Args:
        columns: of all cells.
        links: between neighbouring columns.
        same: places of equal height.
        tall: heights of nodes and labels.
    """
    from scipy.linalg import block_diag
    from scipy.optimize import nnls

    row = {place: n for n, place in enumerate(chain(*columns))}
    least = np.zeros(len(row))  # depth below the column's first
    for above, place in chain(*map(pairwise, columns)):
        space = 2 * SPACE if _are_nodes(above, place) else SPACE
        gap = (tall.get(above, 0) + tall.get(place, 0)) / 2 + space
        least[row[place]] = least[row[above]] + gap
    sums = block_diag(*(np.tri(len(column)) for column in columns))
    pairs = [*links, *same]
    step = np.zeros((len(pairs), len(row)))
    for n, (a, b) in enumerate(pairs):
        step[n, [row[a], row[b]]] = 1, -1
    force = [1 if _are_nodes(a) or _are_nodes(b) else 4 for a, b in links] + [1e3] * len(same)
    bend = np.ones(len(pairs))
    for _ in range(12):  # reweighted least squares: one large bend rather than many small ones
        weighted = (force / (0.01 + abs(bend)) ** 0.75)[:, None] * step
        slack, _ = nnls(weighted @ sums, -weighted @ least)
        depth = least + sums @ slack
        bend = step @ depth
    return {place: -depth[n] for place, n in row.items()}


def _sides(
    columns: Sequence[Sequence[Sequence[Place]]],
    links: Sequence[tuple[Place, Place]],
    width: dict[Hashable, float],
    y: dict[Place, float],
) -> tuple[dict[Place, float], dict[Place, float]]:
    """x of the left and the right side of everything; `columns` are those of each cell."""
    left, right, end = {}, {}, MARGIN
    for of_cells in zip(*columns, strict=True):
        column = list(chain(*of_cells))
        left |= dict.fromkeys(column, end)
        end += max(width.get(place, 0) for place in column)
        right |= dict.fromkeys(column, end)
        steps = [abs(y[a] - y[b]) for a, b in links if a in column]
        end += 0.22 + 0.28 * max(steps, default=0)  # steep arrows need more room
    return left, right


def _port(way: Sequence[Place], ways: Sequence[Sequence[Place]], y: dict[Place, float]) -> float:
    """y where an arrow meets its target, below the arrows that arrive from above."""
    target = way[-1]
    ports = sorted((w for w in ways if w[-1] == target), key=lambda w: y[w[-2]])
    return y[target] + PORT * (ports.index(way) - (len(ports) - 1) / 2)


def _are_nodes(*places: Place) -> bool:
    return all(isinstance(place.key, int) for place in places)


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
        axes.text(left + x, top + y, text, ha="center", va="center_baseline", linespacing=1.1)
