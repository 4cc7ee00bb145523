"""Figures over the epochs of a run; and the accuracies of a random search's cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from common.draw.cell import FAMILIES, INK, OTHER, QUIET, STYLE, Picture, family, tint
from common.networks.genotype import words

MANY = 9  # names of a legend
UNIFORM = {"lw": 0.8, "ls": (0, (4, 2)), "color": INK, "zorder": 1.9}  # the line of no decision
LINE = {"lw": 1.3, "marker": "o", "ms": 2.5}
SOURCES = (*(FAMILIES[of] for of in ("sep_conv", "skip", "max_pool", "dil_conv")), OTHER)
LOOKS = {  # the thin line is drawn on the thick one: where they agree, both are seen
    "normal": {"color": FAMILIES["sep_conv"], "lw": 2.4, "ms": 5},
    "reduction": {"color": OTHER, "lw": 1.1, "ms": 2.6},
    "cell": {"color": FAMILIES["sep_conv"], "lw": 2.4, "ms": 5},
}
PARTS = {"train": FAMILIES["sep_conv"], "valid": FAMILIES["skip"], "test": INK}
ACCURACIES = {
    "valid_top1": ("supernet", PARTS["valid"]),
    "uncut_top1": ("supernet", tint(PARTS["valid"], 0.45)),
    "cut_top1": ("each edge cut to its best", FAMILIES["dil_conv"]),
    "derived_top1": ("derived cell only", INK),
}
STEPS = (1, 2, 5, 10)  # of ticks
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3}  # a legend


@rc_context(STYLE)
def curves_figure(metrics: Sequence[dict]) -> Picture:
    """Loss and top-1 accuracy (average precision, perplexity) over epochs.

    Args:
        metrics: a line an epoch, with `epoch` and any of `_loss`, `_top1` and `_AP` (percent) and
            `_perplexity` for `train`, `valid` and `test`. A missing value or None is a gap.
    """
    quantities = {"loss": "loss", "top1": "top-1 accuracy (%)"}
    if any("valid_AP" in line for line in metrics):
        quantities = {"loss": "loss", "AP": "average precision (%)"}
    if any("train_perplexity" in line for line in metrics):
        quantities = {"loss": "loss (nats a word)", "perplexity": "perplexity"}
    figure = Picture((7.2, 2.7), layout="constrained")
    shown = {}
    for axes, (what, label) in zip(figure.subplots(1, 2), quantities.items(), strict=True):
        for part, colour in PARTS.items():
            if line := plot_values(axes, metrics, f"{part}_{what}", color=colour, ms=3):
                shown[part] = line
        axes.set(xlabel="epoch", ylabel=label, yscale="log" if what == "perplexity" else "linear")
        epoch_axis(axes, [line["epoch"] for line in metrics], ticks=6)
    figure.legend(shown.values(), shown, loc="outside upper center", ncols=len(PARTS))
    return figure


@rc_context(STYLE)
def architecture_figure(history: Sequence[dict], kind: str) -> Picture:
    """The mixing weights of every edge over epochs: a row a node, a column a source.

    A line is at the weight of uniform candidates, if an edge's weights sum to 1. Where pools of
    candidates change, weights are multiples of the uniform weight and lines are broken. The weights
    of edges, if any, are in panels of their own below, one a node.

    Args:
        history: a line an epoch: `epoch`, `candidates` (K names; or for each kind E lists of
            them), `edges` (E pairs of source and target, the same in every line) and for each kind
            in `weights` its `op` [E, K] (or as many as the edge has names) and `edge` [E] or None.
        kind: of the cell.
    """
    edge = np.array([line["weights"][kind]["edge"] for line in history], float)
    # edge: [epochs, E], or [epochs] without edge weights
    targets = {target: [] for _, target in history[-1]["edges"]}
    for n, (_, target) in enumerate(history[-1]["edges"]):
        targets[target].append(n)
    columns = max(targets) + (0 if len(targets) > 2 else 1)  # a corner for the legend
    heights = [0.7 + 1.25 * len(targets), *([1.85] if edge.ndim == 2 else [])]
    figure = Picture((0.8 + 1.5 * columns, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = parts[0].subplots(len(targets), columns, sharex=True, sharey=True, squeeze=False)
    _candidates(parts[0], panels, history, kind)
    if edge.ndim == 2:
        panels = parts[1].subplots(1, len(targets), sharex=True, squeeze=False)
        _edges(parts[1], dict(zip(targets, panels[0], strict=True)), history, edge)
    return figure


def _candidates(figure: SubFigure, panels: np.ndarray, history: Sequence[dict], kind: str) -> None:
    """Candidates' weights of each edge (i, j) in the row of j and the column of i."""
    epochs, edges = np.array([line["epoch"] for line in history]), history[-1]["edges"]
    names, op = weights_by_name(history, kind)
    there = np.isfinite(op)
    count = there.sum(-1)  # [epochs, E]
    restarts = np.flatnonzero((there[1:] != there[:-1]).any((1, 2))) + 1  # a new pool of candidates
    distribution = np.allclose(np.nansum(op, -1), 1, atol=1e-3)
    pools = restarts.size > 0 and distribution
    op = np.insert(op * count[..., None] if pools else op, restarts, np.nan, axis=0)
    times = np.insert(epochs.astype(float), restarts, epochs[restarts] - 0.5)
    legend = legend_names(names)
    colours = palette(list(dict.fromkeys(legend.values())))
    used = []
    for n, (source, target) in enumerate(edges):
        axes = panels[target - edges[0][1], source]
        used.append(axes)
        for epoch in times[restarts + np.arange(restarts.size)]:
            axes.axvline(epoch, color=QUIET, lw=0.4, zorder=0.5)
        for name, weight in zip(names, op[:, n].T, strict=True):
            line_of_weight(axes, times, weight, color=colours[legend[name]])
        if distribution:
            uniform = 1 if pools else 1 / count[0, n]
            axes.axhline(uniform, **UNIFORM)
            axes.update_datalim([(1, 0.999 * uniform), (1, 1.001 * uniform)], updatex=False)
        axes.set_title(f"x{source} \u2192 x{target}")
        axes.tick_params(length=2, labelsize=7.5)
    for unused in panels.flat:
        if unused not in used:
            unused.remove()
    axes.yaxis.set_major_locator(MaxNLocator(3))  # all share both axes
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.autoscale_view()
    epoch_axis(axes, epochs, ticks=4)
    handles = [Line2D([], [], **LINE, color=colours[name], label=name) for name in colours]
    if distribution:
        alike = "" if pools or np.ptp(count) else f" (1/{count[0, 0]})"
        handles.append(Line2D([], [], **UNIFORM, label=f"uniform{alike}"))
    figure.legend(handles=handles, loc="upper right")
    figure.supxlabel("epoch")
    figure.supylabel("weight / uniform weight" if pools else "mixing weight")


def _edges(
    figure: SubFigure, panels: dict[int, Axes], history: Sequence[dict], edge: np.ndarray
) -> None:
    """Weights [epochs, E] of the edges into each node."""
    epochs, edges = [line["epoch"] for line in history], history[-1]["edges"]
    for node, axes in panels.items():
        into = [n for n, (_, target) in enumerate(edges) if target == node]
        for n in into:
            line_of_weight(axes, epochs, edge[:, n], color=source_colour(edges[n][0]))
        axes.set_title(f"edges into x{node}")
    around_uniform({axes: 1 / len(axes.lines) for axes in panels.values()})
    epoch_axis(axes, epochs, ticks=4)
    figure.legend(handles=source_lines(max(panels)), loc="outside right upper")
    figure.supxlabel("epoch")
    figure.supylabel("edge weight")


def around_uniform(panels: dict[Axes, float]) -> None:
    """Give panels a line at their uniform weight, and equal ranges around it, from 0 on."""
    moved = [
        abs(line.get_ydata() - even).max() for axes, even in panels.items() for line in axes.lines
    ]
    half = 1.1 * max(*moved, 0.001)
    for axes, even in panels.items():
        axes.axhline(even, **UNIFORM)
        axes.set_ylim(max(even - half, 0), even + half)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.tick_params(length=2, labelsize=7.5)


def source_lines(count: int) -> list[Line2D]:
    """The entries of a legend for lines from so many nodes, and for uniform weights."""
    nodes = [
        Line2D([], [], **LINE, color=source_colour(node), label=f"from x{node}")
        for node in range(count)
    ]
    return [*nodes, Line2D([], [], **UNIFORM, label="uniform")]


def line_of_weight(axes: Axes, epochs: Sequence[float], values: np.ndarray, **look) -> None:
    """A line with marks at its last value and at values between gaps."""
    axes.plot(epochs, values, markevery=[*alone(values), len(values) - 1], **LINE, **look)


def weights_by_name(history: Sequence[dict], kind: str) -> tuple[list[str], np.ndarray]:
    """Names of candidates and their weights [epochs, E, names]; NaN where an edge has none."""
    rows = []
    for line in history:
        of_edges = line["candidates"]
        same = [of_edges] * len(line["edges"])
        rows.append(of_edges[kind] if isinstance(of_edges, dict) else same)
    names = list(dict.fromkeys(name for line in rows for row in line for name in row))
    op = np.full((len(history), len(history[-1]["edges"]), len(names)), np.nan)
    for t, (line, candidates) in enumerate(zip(history, rows, strict=True)):
        for n, row in enumerate(candidates):
            op[t, n, [names.index(name) for name in row]] = line["weights"][kind]["op"][n]
    return names, op


def legend_names(names: Sequence[str]) -> dict[str, str]:
    """What a legend calls each name: itself, or of many the operation without shape, or family."""
    operations = {name: name.partition("(")[0] for name in names}
    for called in ({name: name for name in names}, operations):
        if len({*called.values()}) <= MANY:
            return called
    return {name: family(name) or "other" for name in names}


def palette(names: Sequence[str]) -> dict[str, str | tuple]:
    """A colour for each name: its family's; later ones of a family are lighter."""
    families = [family(name) for name in names]
    return {
        name: tint(FAMILIES.get(of, OTHER), 0.6 ** families[:n].count(of))
        for n, (name, of) in enumerate(zip(names, families, strict=True))
    }


def source_colour(node: int) -> tuple:
    """A colour for a node as the source of edges; lighter after five nodes."""
    return tint(SOURCES[node % len(SOURCES)], 0.5 ** (node // len(SOURCES)))


@rc_context(STYLE)
def measures_figure(metrics: Sequence[dict], history: Sequence[dict] = ()) -> Picture:
    """What a search recorded of its architecture over epochs.

    The entropy's axis shows the range of its values; a line is at the entropy of uniform
    weights, ln(candidates), if that is no farther from the values than they are from another.
    Without entropies, of weights that are no distributions, there is no such panel.

    Args:
        metrics: a line an epoch: `epoch`, `valid_top1`, `cut_top1` and `derived_top1` (percent),
            `cut_statistics`, and for each searched kind of cell `entropy_`, `skips_`, `pools_` and
            `changed_edges_`. A missing value or None is a gap.
        history: lines of the architecture, as `architecture_figure` takes, for the uniform entropy.
    """
    figure = Picture((7.2, 4.7), layout="constrained")
    panels = figure.subplot_mosaic(
        [["accuracy", "entropy"], ["skips", "changed_edges"], ["pools", "changed_edges"]],
        sharex=True, height_ratios=(2, 1, 1),
    )  # fmt: skip
    epochs = [line["epoch"] for line in metrics]
    accuracy = panels.pop("accuracy")
    accuracy.set_ylabel("validation top-1 (%)")
    accuracy.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=STEPS))
    statistics = "/".join(sorted({line.get("cut_statistics") for line in metrics} - {None}))
    for key, (label, colour) in ACCURACIES.items():
        if line := plot_values(accuracy, metrics, key, last=True, color=colour, lw=1.5, ms=3.5):
            used = "running" if key == "valid_top1" else statistics
            line.set_label(f"{label} ({used} statistics)")
    accuracy.legend(**ABOVE)
    labels = {
        "entropy": ("entropy of alpha\n(nats)", 0), "skips": ("derived\nskips", 8),
        "pools": ("derived\npools", 8),
        "changed_edges": ("edges whose best\noperation changed", 1),
    }  # fmt: skip
    for key, axes in panels.items():
        label, least = labels[key]
        for kind, look in LOOKS.items():
            if line := plot_values(axes, metrics, f"{key}_{kind}", last=True, **look):
                line.set_label(words(kind))
        axes.set_ylabel(label)
        if least:
            axes.update_datalim([(epochs[-1], 0), (epochs[-1], least)])  # the axis' least range
        axes.margins(y=0.08)
        ticks = 3 if key in ("skips", "pools") else 5
        axes.yaxis.set_major_locator(MaxNLocator(ticks, integer=key != "entropy", steps=STEPS))
    _uniform_entropy(panels["entropy"], metrics, history)
    panels["entropy"].ticklabel_format(axis="y", useOffset=False)
    if panels["entropy"].lines:
        panels["entropy"].legend(**ABOVE)
    else:
        panels["entropy"].set_axis_off()
        panels["entropy"].legend(handles=panels["changed_edges"].get_lines(), **ABOVE)
    for key in ("pools", "changed_edges"):
        panels[key].set_xlabel("epoch")
    epoch_axis(accuracy, epochs, ticks=6)  # all share it
    figure.align_ylabels()
    return figure


def _uniform_entropy(axes: Axes, metrics: Sequence[dict], history: Sequence[dict]) -> None:
    """Add the line of uniform weights where it is near the values."""
    drawn = []
    for kind in history[-1]["weights"] if history else ():
        found = [line.get(f"entropy_{kind}") for line in metrics]
        values = np.array([value for value in found if value is not None])
        _, op = weights_by_name(history, kind)
        uniform = np.log(np.isfinite(op).sum(-1)).mean(-1)  # [epochs]
        far = values.size and uniform.min() - values.max() > np.ptp(values) > 0
        if far or not values.size or any(np.array_equal(uniform, other) for other in drawn):
            continue
        label = None if drawn else "uniform weights"
        look = UNIFORM | {"zorder": 2.5}  # above the values, which may be the same
        axes.plot([line["epoch"] for line in history], uniform, label=label, **look)
        drawn.append(uniform)


@rc_context(STYLE)
def spread_figure(cells: Sequence[dict]) -> Picture:
    """The accuracies of a random search's cells over their parameters; mean and deviation.

    Args:
        cells: at least one, with `number`, `valid_top1` (percent), `params` and maybe
            `valid_loss`, which decides on the best of equally accurate cells.
    """
    figure = Picture((5.4, 3.3), layout="constrained")
    axes = figure.subplots()
    params = np.array([cell["params"] for cell in cells], float)
    unit, units = (1e6, "millions") if params.max() >= 1e6 else (1e3, "thousands")
    params /= unit
    top1 = np.array([cell["valid_top1"] for cell in cells], float)
    best = min(range(len(cells)), key=lambda n: (-top1[n], cells[n].get("valid_loss", 0)))
    dot = {"mec": "white", "mew": 0.6}
    axes.plot(
        params, top1, "o", ms=6, color=FAMILIES["sep_conv"], label=f"cells: {len(cells)}", **dot
    )
    label = f"best: cell {cells[best]['number']}, {top1[best]:.2f} %"
    axes.plot(params[best], top1[best], "D", ms=7.5, color=FAMILIES["skip"], label=label, **dot)
    mean = top1.mean()
    axes.axhline(mean, color=INK, lw=1, zorder=1.5, label=f"mean: {mean:.2f} %")
    if len(cells) > 1:  # one alone has no deviation
        deviation = top1.std(ddof=1)
        low, high = mean - deviation, mean + deviation
        axes.axhspan(
            low, high, lw=0, zorder=0, fc=tint(FAMILIES["sep_conv"], 0.13),
            label=f"\u00b1 one standard deviation: {deviation:.2f}",
        )  # fmt: skip
        axes.update_datalim([(params[best], low), (params[best], high)])  # matplotlib 3.9 omits it
    axes.legend(ncols=2, **ABOVE)
    axes.set(xlabel=f"parameters ({units})", ylabel="validation top-1 (%)")
    axes.ticklabel_format(useOffset=False)
    return figure


def plot_values(
    axes: Axes, metrics: Sequence[dict], key: str, last: bool = False, **look
) -> Line2D | None:
    """Plot a quantity over epochs with marks at values between gaps and maybe at the last.

    Returns:
        the line, None without a value.
    """
    values = np.array([line.get(key) for line in metrics], float)
    found = np.flatnonzero(np.isfinite(values))
    if not found.size:
        return None
    marks = [*alone(values), *(found[-1:] if last else [])]
    epochs = [line["epoch"] for line in metrics]
    return axes.plot(epochs, values, marker="o", markevery=marks, **look)[0]


def alone(values: np.ndarray) -> list[int]:
    """The indices of values between gaps, which a line does not show."""
    found = np.pad(np.isfinite(values), 1)
    return np.flatnonzero(found[1:-1] & ~found[:-2] & ~found[2:]).tolist()


def epoch_axis(axes: Axes, epochs: Sequence[int], ticks: int) -> None:
    """Set the limits of the x axis, with a margin, and at most so many ticks at integers."""
    first, last = min(epochs, default=0), max(epochs, default=0)
    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1, steps=STEPS))
