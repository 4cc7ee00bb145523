"""The report's pictures as SVG: charts of all methods, and the runs' own pictures.

Each method has one colour and marker in all charts. Values are `title` elements, which browsers
show under the pointer.
"""

from __future__ import annotations

import html
import io
import re
import statistics
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from common.draw.cell import INK, STYLE
from common.draw.search import epoch_axis
from comparison.progress import duration
from comparison.rows import AVERAGE, CELL, Measured, Summary
from comparison.run_folders import RunFolder

MARKERS = "osD^vP<Xp>hH"
# Far apart in CIELAB (40 or more, CIE76), also where report.css inverts them for a dark page.
COLOURS = (
    "#5997ff", "#ff8000", "#00b200", "#6633ff", "#e5738f", "#994c1f", "#00b286", "#b2a759",
    "#ff59ff", "#47abcc", "#304c00", "#324c4c",
)  # fmt: skip
AVERAGE_LOOK = {"color": INK, "ls": "--", "lw": 1.2, "label": AVERAGE}
SEARCH = ("curves", "measures", "spread")
LARGE = ("architecture_normal", "architecture_reduction", "cycles", "alphas")
PAGE = {**STYLE, "figure.facecolor": "none", "axes.facecolor": "none"}
# Curves over epochs: axis label, which run, key in its metrics.jsonl.
CURVES = (
    ("retraining: test top-1 (%)", "training", "test_top1"),
    ("search: validation top-1 (%)", "search", "valid_top1"),
    ("search: dominant eigenvalue\nof the Hessian in alpha", "search", "hessian_eigenvalue"),
)
MOST_STRIPS = 60  # along an axis of epochs that show values under the pointer

Curve = dict[int, float]  # value by epoch


def looks(labels: Sequence[str]) -> dict[str, dict]:
    """The colour and marker of each method, the same in all charts."""
    return {
        label: {
            "color": COLOURS[n % len(COLOURS)],
            "marker": MARKERS[(n + n // len(COLOURS)) % len(MARKERS)],
        }
        for n, label in enumerate(labels)
    }


@rc_context(PAGE)
def cost(rows: Sequence[Summary]) -> str:
    """Test accuracy over search time: a small mark per seed, a large one for their mean.

    The average random cell, which no search found, is a horizontal line.
    """
    figure = Figure((5.6, 3.3 + 0.2 * -(-len(rows) // 3)), layout="constrained")
    axes, hovers = figure.subplots(), {}

    def mark(x: float, y: float, text: str, **look) -> Line2D:
        name = f"hover-{len(hovers)}"
        hovers[name] = f"{text}\n{y:.2f} % after a search of {duration(x)}"
        return axes.plot(x, y, gid=name, ls="", **look)[0]

    handles = []
    methods = looks([row.label for row in rows if row.label != AVERAGE])
    for row in rows:
        accuracy, seconds = row.means["accuracy"], row.means["search_seconds"]
        if accuracy is None:
            continue
        if row.label == AVERAGE:
            line = axes.axhline(accuracy.mean, zorder=1.5, gid="hover-average", **AVERAGE_LOOK)
            hovers["hover-average"] = f"{AVERAGE}: {accuracy.mean:.2f} %"
            handles.append(line)
        elif seconds is not None:
            look = methods[row.label]
            for seed in accuracy.values.keys() & seconds.values.keys():
                x, y = seconds.values[seed], accuracy.values[seed]
                mark(x, y, f"{row.label}, seed {seed}", ms=4, alpha=0.5, mew=0, **look)
            of_all = {"ms": 9, "mec": "white", "label": row.label}
            text = f"{row.label}, mean of {accuracy.n}"
            handles.append(mark(seconds.mean, accuracy.mean, text, **of_all, **look))
    _seconds(axes)
    axes.set(xlabel="search time", ylabel="retrained top-1 (%)")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    _legend(figure, handles)
    return _as_svg(figure, hovers)


@rc_context(PAGE)
def curves(measured: Sequence[Measured], label: str, run: str, key: str) -> str:
    """A quantity over epochs: a row of axes per seed, a line per method; shared axes.

    Args:
        measured: all seeds of all methods, and random cells: their line is their mean.
        label: of the vertical axes.
        run: "search" or "training".
        key: of the quantity in metrics.jsonl.

    Returns:
        The picture; empty where no run has the quantity.
    """
    lines = _lines(measured, run, key)
    if not lines:
        return ""
    labels = dict.fromkeys(m.result.label for m in measured if m.result.label != CELL)
    methods = looks(list(labels))
    seeds = sorted({seed for seed, _ in lines})
    figure = Figure((6, 0.9 + 1.6 * len(seeds)), layout="constrained")
    rows = figure.subplots(len(seeds), sharex=True, sharey=True, squeeze=False)[:, 0]
    hovers, handles = {}, {}
    epochs = sorted({epoch for curve in lines.values() for epoch in curve})
    for axes, seed in zip(rows, seeds, strict=True):
        axes.set_title(f"seed {seed}", loc="left", fontsize=9)
        own = {name: curve for (of, name), curve in lines.items() if of == seed}
        for name, curve in own.items():
            look = {"lw": 1.4, "ms": 3.5, "markevery": -(-len(epochs) // 10), "label": name}
            look |= AVERAGE_LOOK if name == AVERAGE else methods[name]
            handles[name] = axes.plot(curve.keys(), curve.values(), **look)[0]
        step = -(-len(epochs) // MOST_STRIPS)
        for epoch in epochs[::step]:
            values = [f"{name}: {c[epoch]:.4g}" for name, c in own.items() if epoch in c]
            gid = f"hover-{len(hovers)}"
            hovers[gid] = "\n".join([f"seed {seed}, epoch {epoch}", *values])
            axes.axvspan(epoch - step / 2, epoch + step / 2, fc="none", ec="none", gid=gid)
    epoch_axis(rows[-1], epochs, ticks=8)
    rows[-1].set_xlabel("epoch")
    figure.supylabel(label, fontsize=8.5)
    order = [name for name in (*methods, AVERAGE) if name in handles]
    _legend(figure, [handles[name] for name in order])
    return _as_svg(figure, hovers)


def _lines(measured: Sequence[Measured], run: str, key: str) -> dict[tuple[int, str], Curve]:
    """The curves by seed and label; of random cells with one seed their mean."""
    every: dict[tuple[int, str], list[Curve]] = {}
    for one in measured:
        folder = getattr(one.result, run)
        lines = [] if folder is None else folder.lines("metrics.jsonl")
        curve = {line["epoch"]: line[key] for line in lines if line.get(key) is not None}
        if curve:
            label = AVERAGE if one.result.label == CELL else one.result.label
            every.setdefault((one.result.seed, label), []).append(curve)
    return {name: _mean_curve(own) for name, own in every.items()}


def _mean_curve(own: Sequence[Curve]) -> Curve:
    epochs = sorted(set().union(*own))
    return {epoch: statistics.fmean(c[epoch] for c in own if epoch in c) for epoch in epochs}


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Below the axes."""
    if handles:
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=3)
        for text in legend.get_texts():
            text.set_parse_math(False)  # labels contain a user's settings


def _seconds(axes: Axes) -> None:
    """A logarithmic time axis, labelled in seconds, minutes and hours."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = low / 1.15, high * 1.15
    steps = [b * 60**k for k in range(3) for b in (1, 2, 5, 10, 20, 30)] + [3600 * 24, 3600 * 72]
    ticks = [tick for tick in steps if low <= tick <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks or [round((low * high) ** 0.5)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))


def pictures(run: RunFolder | None, *names: str) -> list[str]:
    """A run's own pictures, those that exist."""
    paths = [] if run is None else [run.folder / "pictures" / f"{name}.svg" for name in names]
    texts = [path.read_text() for path in paths if path.exists()]
    return [_inline(text) for text in texts if text.rstrip().endswith("</svg>")]  # not cut off


def _as_svg(figure: Figure, hovers: Mapping[str, str]) -> str:
    """A figure as SVG, with a title for each artist whose gid is in `hovers`."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})

    def titled(group: re.Match) -> str:
        return f'<g class="hover"><title>{html.escape(hovers[group[1]])}</title>'

    return _inline(re.sub(r'<g id="(hover-\w+)">', titled, file.getvalue()))


def _inline(text: str) -> str:
    """An SVG file as part of a page: without header, metadata, styles and white background."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = text.replace('style="fill: #ffffff"', 'style="fill: none"')  # of figure and axes
    return re.sub(r"\n\s*", "\n", text)
