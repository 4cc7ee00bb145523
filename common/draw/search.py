"""Figures over the epochs of a run; and the accuracies of a random search's cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from common.draw.cell import FAMILIES, INK, OTHER, STYLE, Picture, family, tint

MANY = 9  # with more candidates, families share a colour
EDGE = {"lw": 0.8, "ls": (0, (4, 2)), "color": INK}  # the line of an edge's weight
LOOKS = {  # the thin line is drawn on the thick one: where they agree, both are seen
    "normal": {"color": FAMILIES["sep_conv"], "lw": 2.4, "ms": 5},
    "reduction": {"color": OTHER, "lw": 1.1, "ms": 2.6},
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
    """The mixing weights of every edge over epochs; a row a node, a column a source.

    Args:
        history: a line an epoch: `epoch`, `candidates` (K names; or for each kind E lists of
            them), `edges` (E pairs of source and target, the same in every line) and for each kind
            in `weights` its `op` [E, K] (or as many as the edge has names) and `edge` [E] or None.
        kind: of the cell.
    """
    epochs = [line["epoch"] for line in history]
    edge = np.array([line["weights"][kind]["edge"] for line in history], float)
    # edge: [epochs, E], or [epochs] without edge weights
    names, op = weights_by_name(history, kind)
    edges, colours = history[-1]["edges"], palette(names)
    targets = [target for _, target in edges]
    rows = max(targets) - min(targets) + 1
    columns = max(targets) + (0 if rows > 2 else 1)  # a corner for the legend
    figure = Picture((0.8 + 1.45 * columns, 0.75 + 1.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for n, (source, target) in enumerate(edges):
        axes = panels[target - min(targets), source]
        for name, weight in zip(names, op[:, n].T, strict=True):
            marks = [*alone(weight), len(weight) - 1]
            axes.plot(epochs, weight, "o-", color=colours[name], lw=1.3, ms=2.5, markevery=marks)
        if edge.ndim == 2:
            axes.plot(epochs, edge[:, n], marker=".", markevery=[-1], ms=3, **EDGE)
        axes.set_title(f"{source} \u2192 {target}")
        axes.tick_params(length=2, labelsize=7.5)
    for axes in panels.flat:
        if not axes.lines:
            axes.remove()
    axes = figure.axes[0]  # all share its axes
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    epoch_axis(axes, epochs, ticks=3)
    if len(names) > MANY:
        families = dict.fromkeys(map(family, names))
        colours = {name: FAMILIES.get(name, OTHER) for name in families}
    handles = [Line2D([], [], color=colour, lw=2, label=name) for name, colour in colours.items()]
    if edge.ndim == 2:
        handles.append(Line2D([], [], **EDGE, label="edge's weight"))
    figure.legend(handles=handles, loc="upper right")
    figure.supxlabel("epoch")
    figure.supylabel("mixing weight")
    return figure


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


def palette(names: Sequence[str]) -> dict[str, str | tuple]:
    """A colour for each name: its family's; of few names, later ones of a family are lighter."""
    families = [family(name) for name in names]
    strength = 1 if len(names) > MANY else 0.6
    return {
        name: tint(FAMILIES.get(of, OTHER), strength ** families[:n].count(of))
        for n, (name, of) in enumerate(zip(names, families, strict=True))
    }


@rc_context(STYLE)
def measures_figure(metrics: Sequence[dict]) -> Picture:
    """What a search recorded of its architecture over epochs.

    Args:
        metrics: a line an epoch: `epoch`, `valid_top1`, `cut_top1` and `derived_top1` (percent),
            `cut_statistics`, and for each searched kind of cell `entropy_`, `skips_`, `pools_` and
            `changed_edges_`. A missing value or None is a gap.
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
        "entropy": ("entropy of alpha\n(nats)", 0.1), "skips": ("derived\nskips", 8),
        "pools": ("derived\npools", 8),
        "changed_edges": ("edges whose best\noperation changed", 1),
    }  # fmt: skip
    for key, axes in panels.items():
        label, least = labels[key]
        for kind, look in LOOKS.items():
            if line := plot_values(axes, metrics, f"{key}_{kind}", last=True, **look):
                line.set_label(f"{kind} cell")
        axes.set_ylabel(label)
        axes.update_datalim([(epochs[-1], 0), (epochs[-1], least)])  # the least range of the axis
        axes.margins(y=0.08)
        ticks = 3 if key in ("skips", "pools") else 5
        axes.yaxis.set_major_locator(MaxNLocator(ticks, integer=key != "entropy", steps=STEPS))
    panels["entropy"].legend(**ABOVE)
    for key in ("pools", "changed_edges"):
        panels[key].set_xlabel("epoch")
    epoch_axis(accuracy, epochs, ticks=6)  # all share it
    figure.align_ylabels()
    return figure


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
