"""The report's figures: SVG that fits a page, a telephone's too, and has no colour of its own."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from common.draw.cell import INK, OTHER, STYLE, cell_figure
from common.draw.search import LOOKS, alone, architecture_figure, epoch_axis
from comparison.progress import duration
from comparison.rows import Summary
from comparison.run_folders import Result, RunFolder

COLOURS = (
    "#2f6db5", "#e0912f", "#2f8f6b", "#b5505c", "#8d57b0", "#7a6a4f", "#c25fa0", "#5f7383",
    "#9aa52b", "#2aa5b8",
)  # fmt: skip
MARKERS = "osD^vP<Xp>hH"
WIDTH = 3.6  # inches
PAGE = {**STYLE, "figure.facecolor": "none", "axes.facecolor": "none"}


def looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker a row."""
    return {
        label: (COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)])
        for n, label in enumerate(labels)
    }


@rc_context(PAGE)
def cost(rows: Sequence[Summary]) -> str:
    """Accuracy against search time: a small mark a seed, a large one their mean."""
    shown = looks([row.label for row in rows])
    legend = 0.19 * -(-len(rows) // 3)  # inches, of lines of three
    figure = Figure((1.25 * WIDTH, 0.9 * WIDTH + legend))
    bottom = (0.5 + legend) / figure.get_figheight()
    axes = figure.add_axes((0.125, bottom, 0.85, 0.98 - bottom))
    handles = []
    for row in rows:
        if row.accuracy is None or row.search_seconds is None:
            continue
        colour, marker = shown[row.label]
        for seed, accuracy in row.accuracy.values.items():
            x = row.search_seconds.values.get(seed)
            if x is not None:
                axes.plot(x, accuracy, marker, ms=3.5, color=colour, alpha=0.45, mew=0)
        handles += axes.plot(
            row.search_seconds.mean, row.accuracy.mean, marker, ms=9, color=colour, mec="white",
            mew=0.8, label=row.label,
        )
    _seconds(axes)
    axes.set(xlabel="search time", ylabel="retrained top-1 (%)")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    if handles:
        legend = figure.legend(
            handles=handles, loc="lower center", ncols=3, bbox_to_anchor=(0.5, 0)
        )
        for text in legend.get_texts():  # labels come from run folders
            text.set_parse_math(False)
    return as_svg(figure)


def _seconds(axes: Axes) -> None:
    """A logarithmic axis of times, labelled as a person says them."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.15, high * 1.15)
    low, high = axes.get_xlim()
    steps = [b * 60**k for k in range(3) for b in (1, 2, 5, 10, 20, 30)] + [3600 * 24, 3600 * 72]
    ticks = [tick for tick in steps if low <= tick <= high]
    axes.set_xticks(ticks or [round((low * high) ** 0.5)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))


@rc_context(PAGE)
def search_curves(results: Sequence[Result]) -> str:
    """Validation accuracy over epochs, a line a seed; dashed that of the derived cell."""
    figure = Figure((WIDTH, 0.62 * WIDTH))
    axes = figure.add_axes((0.14, 0.2, 0.83, 0.75))
    epochs: list[int] = []
    for result in results:
        for search in result.searches:
            lines = search.lines("metrics.jsonl")
            at = [line["epoch"] + 1 for line in lines]
            epochs += at
            _line(axes, at, [line.get("valid_top1") for line in lines], color=COLOURS[0])
            derived = [line.get("derived_top1") for line in lines]
            _line(axes, at, derived, color=INK, ls="--", lw=1)
    axes.set(xlabel="epoch", ylabel="validation top-1 (%)")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    epoch_axis(axes, epochs, ticks=6)
    return as_svg(figure)


@rc_context(PAGE)
def watch(results: Sequence[Result]) -> str:
    """Over epochs: skips and entropy of both cells, edges whose best operation changed.

    The eigenvalue of the Hessian too, where it was recorded.
    """
    found = {search.folder: search.lines("metrics.jsonl") for r in results for search in r.searches}
    seen = any(line.get("hessian_eigenvalue") is not None for ls in found.values() for line in ls)
    panels = {"skips": "derived\nskips", "entropy": "entropy\n(nats)"}
    panels["changed_edges"] = "best op.\nchanged"
    if seen:
        panels["hessian_eigenvalue"] = "eigenvalue"
    figure = Figure((WIDTH, 0.3 * WIDTH * len(panels) + 0.3))
    height = figure.get_figheight()
    every = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(
        left=0.19, right=0.97, bottom=0.42 / height, top=1 - 0.08 / height, hspace=0.18
    )
    for axes, (key, label) in zip(every, panels.items(), strict=True):
        epochs: list[int] = []
        for lines in found.values():
            at = [line["epoch"] + 1 for line in lines]
            epochs += at
            if key == "hessian_eigenvalue":
                _line(axes, at, [line.get(key) for line in lines], color=OTHER)
                continue
            for kind, look in LOOKS.items():
                values = [line.get(f"{key}_{kind}") for line in lines]
                _line(axes, at, values, color=look["color"], lw=0.6 * look["lw"])
        whole = key in ("skips", "changed_edges")
        axes.set_ylabel(label)
        axes.yaxis.set_label_coords(-0.12, 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=whole))
        least = {"skips": 8, "entropy": 0.1, "changed_edges": 1}
        if key in least:
            top = 1.06 * max(least[key], *(np.nanmax(line.get_ydata()) for line in axes.lines), 0)
            axes.set_ylim(-0.06 * top, top)
        axes.tick_params(labelbottom=axes is every[-1])
        epoch_axis(axes, epochs, ticks=6)
    every[-1].set_xlabel("epoch")
    return as_svg(figure)


def _line(axes: Axes, at: Sequence[int], values: Sequence[float | None], **look) -> None:
    """A line where there are numbers; a mark where one stands alone."""
    numbers = np.array(values, float)
    if np.isfinite(numbers).any():
        look = {"lw": 1.3, "alpha": 0.75, **look}
        axes.plot(at, numbers, marker="o", ms=2.5, markevery=alone(numbers), **look)


@rc_context(PAGE)
def cell(run: RunFolder, kind: str) -> str | None:
    """A cell, as the run drew it, or drawn now."""
    if kind not in run.genotype.cells:
        return None
    return _drawn(run, kind) or as_svg(cell_figure(run.genotype.cells[kind]))


@rc_context(PAGE)
def alphas(search: RunFolder, kind: str) -> str | None:
    """The mixing weights of every edge over epochs."""
    history = search.lines("architecture.jsonl")
    if not history or kind not in history[-1]["weights"]:
        return None
    name = f"architecture_{kind}"
    return _drawn(search, name) or as_svg(architecture_figure(history, kind))


def picture(search: RunFolder, name: str) -> str | None:
    """What only some methods draw, as PR-DARTS' Fig. 2."""
    return _drawn(search, name)


def _drawn(run: RunFolder, name: str) -> str | None:
    path: Path = run.folder / "pictures" / f"{name}.svg"
    text = path.read_text() if path.exists() else ""
    return page_svg(text) if text.rstrip().endswith("</svg>") else None  # or killed as it drew


def as_svg(figure: Figure) -> str:
    """A figure as a page has it."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return page_svg(file.getvalue())


def page_svg(text: str) -> str:
    """An SVG file's drawing alone: no header, no metadata, no background."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = text.replace('style="fill: #ffffff"', 'style="fill: none"')  # of figure and axes
    return re.sub(r"\n\s*", "\n", text)


