"""The report's pictures as SVG: charts of all methods, and the runs' own pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from common.draw.cell import STYLE
from common.draw.search import epoch_axis
from comparison.progress import duration
from comparison.rows import Summary
from comparison.run_folders import Result, RunFolder

MARKERS = "osD^vP<Xp>hH"
SEARCH = ("curves", "measures", "spread")
LARGE = ("architecture_normal", "architecture_reduction", "cycles", "alphas")
PAGE = {**STYLE, "figure.facecolor": "none", "axes.facecolor": "none"}


@rc_context(PAGE)
def cost(rows: Sequence[Summary]) -> str:
    """Test accuracy over search time: a small mark per seed, a large one for their mean."""
    figure = Figure((4.5, 3.3 + 0.2 * -(-len(rows) // 3)), layout="constrained")
    axes = figure.subplots()
    for n, row in enumerate(rows):
        accuracy, seconds = row.means["accuracy"], row.means["search_seconds"]
        if accuracy is None or seconds is None:
            continue
        look = {"color": f"C{n}", "marker": MARKERS[n % len(MARKERS)], "ls": ""}
        seeds = accuracy.values.keys() & seconds.values.keys()
        points = [(seconds.values[seed], accuracy.values[seed]) for seed in seeds]
        axes.plot(*zip(*points, strict=True), ms=3.5, alpha=0.45, mew=0, **look)
        axes.plot(seconds.mean, accuracy.mean, ms=9, mec="white", label=row.label, **look)
    _seconds(axes)
    axes.set(xlabel="search time", ylabel="retrained top-1 (%)")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=3)
        for text in legend.get_texts():
            text.set_parse_math(False)  # labels contain a user's settings
    return _as_svg(figure)


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


@rc_context(PAGE)
def eigenvalues(results: Sequence[Result]) -> list[str]:
    """The Hessian's dominant eigenvalue over epochs, a line per seed; empty if not recorded."""
    figure = Figure((7.2, 2.2), layout="constrained")
    axes, epochs = figure.subplots(), []
    for result in results:
        lines = result.search.lines("metrics.jsonl") if result.search else []
        lines = [line for line in lines if line.get("hessian_eigenvalue") is not None]
        at = [line["epoch"] for line in lines]
        axes.plot(at, [line["hessian_eigenvalue"] for line in lines], marker="o", ms=2.5)
        epochs += at
    axes.set(xlabel="epoch", ylabel="dominant eigenvalue\nof the Hessian in alpha")
    epoch_axis(axes, epochs, ticks=6)
    return [_as_svg(figure)] if epochs else []


def pictures(run: RunFolder | None, *names: str) -> list[str]:
    """A run's own pictures, those that exist."""
    paths = [] if run is None else [run.folder / "pictures" / f"{name}.svg" for name in names]
    texts = [path.read_text() for path in paths if path.exists()]
    return [_inline(text) for text in texts if text.rstrip().endswith("</svg>")]  # not cut off


def _as_svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return _inline(file.getvalue())


def _inline(text: str) -> str:
    """An SVG file as part of a page: without header, metadata, styles and white background."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = text.replace('style="fill: #ffffff"', 'style="fill: none"')  # of figure and axes
    return re.sub(r"\n\s*", "\n", text)
