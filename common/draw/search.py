"""The figures of a search: its architecture over epochs; of a random one, the cells it drew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from common.draw.cell import FAMILIES, INK, OTHER, family, tint

MANY = 9  # more candidates than a legend can name or the eye can tell apart
EDGE = {"lw": 0.8, "ls": (0, (4, 2))}  # the line of an edge's weight
LOOKS = {  # of each kind of cell; the thin one lies on the thick one, both show where they agree
    "normal": {"color": FAMILIES["sep_conv"], "lw": 2.4, "ms": 5},
    "reduction": {"color": OTHER, "lw": 1.1, "ms": 2.6},
}
ACCURACIES = {
    "valid_top1": ("supernet", FAMILIES["skip"]),  # the colour that it has among the curves
    "uncut_top1": ("supernet", tint(FAMILIES["skip"], 0.45)),
    "cut_top1": ("each edge cut to its best", FAMILIES["dil_conv"]),
    "derived_top1": ("derived cell only", INK),
}


# --------------------------------------------------------------------------------- architecture


def architecture_figure(history: Sequence[dict], kind: str) -> Figure:
    """The mixing weights of every edge over epochs: nodes are rows, sources columns."""
    epochs = [line["epoch"] for line in history]
    edge = np.array([line["weights"][kind]["edge"] for line in history], float)
    # edge: [epochs, E], [epochs] without any
    names, op = _by_name(history, kind)
    edges, colours = history[-1]["edges"], palette(names)
    first = min(target for _, target in edges)
    size = max(target for _, target in edges) - first + 1  # nodes: a row each
    columns = max(source for source, _ in edges) + (1 if size > 3 else 2)  # a corner for the legend
    figure = Figure((0.8 + 1.45 * columns, 0.75 + 1.2 * size))
    width, height = figure.get_size_inches()
    grid = figure.add_gridspec(
        size, columns, left=0.6 / width, right=1 - 0.1 / width, bottom=0.45 / height,
        top=1 - 0.25 / height, wspace=0.12, hspace=0.35,
    )  # fmt: skip
    top = 1.05 * np.nanmax([np.nanmax(op), edge.max() if edge.ndim == 2 else 0])
    for n, (source, target) in enumerate(edges):
        axes = figure.add_subplot(grid[target - first, source])
        for name, weight in zip(names, op[:, n].T, strict=True):
            last = {"marker": "o", "ms": 2.5, "markevery": [*alone(weight), len(weight) - 1]}
            axes.plot(epochs, weight, color=colours[name], lw=1.3, **last)
        if edge.ndim == 2:
            axes.plot(epochs, edge[:, n], color=INK, marker=".", markevery=[-1], ms=3, **EDGE)
        axes.set_title(f"{source} \u2192 {target}", fontsize=8.5, pad=3)
        axes.set_ylim(0, top)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        epoch_axis(axes, epochs, ticks=3)
        axes.tick_params(
            length=2, labelsize=7.5, labelleft=source == 0, labelbottom=target == first + size - 1
        )
    shown = colours
    if len(names) > MANY:
        shown = {of: FAMILIES.get(of, OTHER) for of in dict.fromkeys(map(family, names))}
    handles = [Line2D([], [], color=colour, lw=2, label=name) for name, colour in shown.items()]
    if edge.ndim == 2:
        handles.append(Line2D([], [], color=INK, **EDGE, label="edge's weight"))
    figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(1, 1))
    figure.supxlabel("epoch", x=0.5, y=0.06 / height, fontsize=8.5, va="bottom")
    figure.supylabel("mixing weight", x=0.1 / width, fontsize=8.5, ha="left")
    return figure


def _by_name(history: Sequence[dict], kind: str) -> tuple[list[str], np.ndarray]:
    """Names and their weights [epochs, E, names]; a gap where an edge has no such candidate.

    A line's candidates are those of all edges, or by kind those of each edge.
    """
    count = len(history[-1]["edges"])
    rows = [
        line["candidates"][kind] if isinstance(line["candidates"], dict)
        else [line["candidates"]] * count
        for line in history
    ]  # fmt: skip
    names = list(dict.fromkeys(name for line in rows for row in line for name in row))
    op = np.full((len(history), count, len(names)), np.nan)
    for t, (line, candidates) in enumerate(zip(history, rows, strict=True)):
        for n, row in enumerate(candidates):
            op[t, n, [names.index(name) for name in row]] = line["weights"][kind]["op"][n]
    return names, op


def palette(names: Sequence[str]) -> dict[str, tuple]:
    """A colour a name: that of its family, the later ones of a family lighter, if they are few."""
    families = [family(name) for name in names]
    if len(names) > MANY:
        return {name: FAMILIES.get(of, OTHER) for name, of in zip(names, families, strict=True)}
    return {
        name: tint(FAMILIES.get(family, OTHER), 0.6 ** families[:n].count(family))
        for n, (name, family) in enumerate(zip(names, families, strict=True))
    }


# ------------------------------------------------------------------------------------- measures


def measures_figure(metrics: Sequence[dict]) -> Figure:
    """Over epochs: accuracies, entropy, skips and pools derived, edges that changed."""
    figure = Figure((7.2, 4.7))
    grid = figure.add_gridspec(
        2, 2, left=0.1, right=0.985, bottom=0.095, top=0.81, wspace=0.28, hspace=0.17
    )
    halves = grid[1, 0].subgridspec(2, 1, hspace=0.2)
    accuracy, entropy, skips, pools, changed = (
        figure.add_subplot(place) for place in (grid[0, 0], grid[0, 1], *halves, grid[1, 1])
    )
    kinds = [kind for kind in LOOKS if any(f"entropy_{kind}" in line for line in metrics)]
    _legend(accuracy, _accuracies(accuracy, metrics))
    _legend(entropy, [Line2D([], [], **LOOKS[kind], label=f"{kind} cell") for kind in kinds])
    for axes, key, label, least, ticks in (
        (entropy, "entropy", "entropy of alpha\n(nats)", 0.1, 5),
        (skips, "skips", "derived\nskips", 8, 3),
        (pools, "pools", "derived\npools", 8, 3),
        (changed, "changed_edges", "edges whose best\noperation changed", 1, 5),
    ):
        for kind in kinds:
            _line(axes, metrics, f"{key}_{kind}", **LOOKS[kind])
        top = 1.06 * max([least, *(np.nanmax(line.get_ydata()) for line in axes.lines)])
        axes.set(ylabel=label, ylim=(-0.06 * top, top))
        whole = key != "entropy"
        axes.yaxis.set_major_locator(MaxNLocator(ticks, integer=whole, steps=[1, 2, 4, 5, 10]))
    for axes in figure.axes:
        lowest = axes in (pools, changed)
        axes.set_xlabel("epoch" if lowest else "")
        axes.tick_params(labelbottom=lowest)
        axes.yaxis.set_label_coords(-0.125, 0.5)
        epoch_axis(axes, [line["epoch"] for line in metrics], ticks=6)
    return figure


def _accuracies(axes: Axes, metrics: Sequence[dict]) -> list[Line2D]:
    """Draw them; what the legend shows, with the statistics that normalised the cut ones."""
    axes.set_ylabel("validation top-1 (%)")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))  # short labels
    statistics = "/".join(sorted({line.get("cut_statistics") for line in metrics} - {None}))
    handles = []
    for key, (label, colour) in ACCURACIES.items():
        if _line(axes, metrics, key, color=colour, lw=1.5, ms=3.5):
            label += f" ({'running' if key == 'valid_top1' else statistics} statistics)"
            handles.append(Line2D([], [], color=colour, label=label))
    return handles


def _line(axes: Axes, metrics: Sequence[dict], key: str, **look) -> bool:
    """Draw what there is of a quantity, its last value marked; whether there is any."""
    values = np.array([line.get(key) for line in metrics], float)
    there = np.flatnonzero(np.isfinite(values))
    if there.size:
        epochs = [line["epoch"] for line in metrics]
        marked = [*alone(values), there[-1]]
        axes.plot(epochs, values, marker="o", markevery=marked, label=key, **look)
    return bool(there.size)


def _legend(axes: Axes, handles: Sequence[Line2D], columns: int = 1) -> None:
    """Above the axes, where no data is."""
    axes.legend(
        handles=handles, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3
    )


# --------------------------------------------------------------------------------------- spread


def spread_figure(cells: Sequence[dict]) -> Figure:
    """The accuracy of every cell over its parameters; their mean and standard deviation."""
    figure = Figure((5.4, 3.3))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.13, top=0.845)
    params = np.array([cell["params"] for cell in cells], float)
    top1 = np.array([cell["valid_top1"] for cell in cells], float)
    unit, units = (1e6, "millions") if params.max() >= 1e6 else (1e3, "thousands")
    mean = top1.mean()
    best = min(range(len(cells)), key=lambda n: (-top1[n], cells[n].get("valid_loss", 0)))
    dot = {"ls": "", "mec": "white", "mew": 0.6}
    handles = [
        *axes.plot(
            params / unit, top1, marker="o", ms=6, color=FAMILIES["sep_conv"], **dot,
            label=f"cells: {len(cells)}",
        ),
        *axes.plot(
            params[best] / unit, top1[best], marker="D", ms=7.5, color=FAMILIES["skip"], **dot,
            label=f"best: cell {cells[best]['number']}, {top1[best]:.2f} %",
        ),
        axes.axhline(mean, color=INK, lw=1, zorder=1.5, label=f"mean: {mean:.2f} %"),
    ]  # fmt: skip
    if len(cells) > 1:  # one alone has no deviation
        deviation = top1.std(ddof=1)
        low, high = mean - deviation, mean + deviation
        band = axes.axhspan(low, high, lw=0, zorder=0)
        at = params[best] / unit
        axes.update_datalim([(at, low), (at, high)])  # matplotlib 3.9 leaves a band out
        band.set(fc=tint(FAMILIES["sep_conv"], 0.13))
        band.set_label(f"\u00b1 one standard deviation: {deviation:.2f}")
        handles.append(band)
    _legend(axes, handles, columns=2)
    axes.set(xlabel=f"parameters ({units})", ylabel="validation top-1 (%)")
    axes.ticklabel_format(useOffset=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    return figure


# ------------------------------------------------------------------------------------ both axes


def alone(values: np.ndarray) -> list[int]:
    """The indices of values between gaps: a line would not show them."""
    there = np.pad(np.isfinite(values), 1)
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()


def epoch_axis(axes: Axes, epochs: Sequence[int], ticks: int) -> None:
    """Whole epochs, with a margin."""
    first, last = min(epochs, default=0), max(epochs, default=0)
    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    locator = MaxNLocator(ticks, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_locator(locator)
