"""The report of a comparison in NAS-Bench-201's space, where nothing needs to be retrained.

true_accuracy.md, .json and .csv, and a picture: what the cell of each epoch truly reaches, beside
the exact distribution over all cells.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from common.draw.cell import INK, QUIET, STYLE
from common.draw.pictures import save_figure
from common.draw.search import epoch_axis
from common.errors import InputError
from common.files import write_whole
from common.networks.genotype import parse
from common.networks.table import DATASETS, Table
from comparison.charts import looks
from comparison.paired import pairs, preamble, sentence
from comparison.progress import duration
from comparison.rows import Mean, mean_of
from comparison.run_folders import LeftOut, Result
from published.tables import FOLDER

NAME = "true_accuracy"
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}
HEAD = ("method", *TITLES.values(), "cells that are better", "search", "published, CIFAR-10")
SHARES = (50, 90, 99)  # percent of the cells


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        label: of the method.
        of: mean over seeds of `true_<data set>` and `rank_<data set>` after the search, and of its
            seconds.
        epochs: mean over seeds of the true accuracy after each epoch; a random search has none.
    """

    label: str
    of: Mapping[str, Mean]
    epochs: Mapping[int, Mean]


@dataclass(frozen=True)
class Known:
    """The content of the report.

    Attributes:
        on: the data set of the searches, one of `DATASETS`.
        rows: the best first.
        top1: accuracies of all cells on it, ascending.
        space: mean and standard deviation over all cells, and the best, of each data set.
        texts: what was run, and the conclusions.
        left_out: searches without a result.
        provenance: see `comparison.provenance`.
    """

    on: str
    rows: Sequence[Row]
    top1: Sequence[float]
    space: Mapping[str, tuple[float, float, float]]
    texts: Sequence[str]
    left_out: Sequence[LeftOut]
    provenance: Mapping[str, Any]


def known(
    results: Sequence[Result], left: Sequence[LeftOut], table: Table, on: str,
    texts: Sequence[str], provenance: Mapping[str, Any],
) -> Known:
    """Collect the report of finished and unfinished searches.

    Args:
        results: searches; one with a failure is left out.
        left: what else is left out.
        table: of all cells.
        on: whose accuracies are drawn and tested.
        texts: what was run.
        provenance: of the searches.
    """
    done = [result for result in results if not result.failure]
    labels = dict.fromkeys(result.label for result in done)
    rows = [_row(label, [r for r in done if r.label == label], table, on) for label in labels]
    rows.sort(key=lambda row: -row.of[f"true_{on}"].mean)
    tested = pairs({row.label: row.of[f"true_{on}"].values for row in rows})
    space = {
        name: (statistics.fmean(column), statistics.pstdev(column), column[-1])
        for name, column in table.sorted.items()
    }
    failed = [LeftOut(f"{r.label}, seed {r.seed}", r.failure) for r in results if r.failure]
    said = [*texts, preamble(tested), "\n".join(f"* {sentence(pair)}" for pair in tested)]
    return Known(on, rows, table.sorted[on], space, said, [*failed, *left], provenance)


def _row(label: str, own: Sequence[Result], table: Table, on: str) -> Row:
    last, curves = {}, {}
    for result in own:
        search = result.search
        try:
            last[result.seed] = table.of(search.genotype)
            curves[result.seed] = {
                line["epoch"]: table.of(parse(json.dumps(line["genotype"])))[f"true_{on}"]
                for line in search.lines("genotypes.jsonl")
            }
        except InputError as error:
            raise InputError(f"{search.folder}: {error}; leave this run out") from None
        last[result.seed]["search_seconds"] = search.result["search_seconds"]
    names = [f"{what}_{name}" for what in ("true", "rank") for name in DATASETS]
    of = {
        name: mean_of({seed: line[name] for seed, line in last.items()})
        for name in (*names, "search_seconds")
    }
    epochs = sorted({epoch for curve in curves.values() for epoch in curve})
    return Row(label, of, {
        epoch: mean_of({seed: curve.get(epoch) for seed, curve in curves.items()})
        for epoch in epochs
    })  # fmt: skip


# ---------------------------------------------------------------------------------------- texts


def markdown(report: Known) -> str:
    """true_accuracy.md, also what is printed."""
    count, lines = len(report.top1), ["# Comparison in NAS-Bench-201's space", ""]
    table = [HEAD, ["---"] * len(HEAD), *(_cells(row, report, count) for row in report.rows)]
    spread = [f"{mean:.2f} \u00b1 {sd:.2f}" for mean, sd, _ in report.space.values()]
    best = [f"{best:.2f}" for *_, best in report.space.values()]
    table += [["a random cell (exact)", *spread, "50 %", "", ""],
              ["the best cell of each", *best, "0 %", "", ""]]  # fmt: skip
    lines += [f"| {' | '.join(row)} |" for row in table]
    shares = "; ".join(
        f"{100 - share} % reach {np.percentile(report.top1, share):.2f} %" for share in SHARES
    )
    lines += ["", (
        "Accuracies in percent, mean \u00b1 sample standard deviation (number of seeds): what the "
        "benchmark's table says of the cell after the last epoch. The row of a random cell is over "
        f"all {count:,} cells, and exact: no search is needed for it. On {TITLES[report.on]} "
        f"{shares}. Published figures are of other settings; empty: none is known here."
    )]  # fmt: skip
    sources = published()
    lines += ["", *(
        f"* {row.label}: published in {sources[row.label][1]}." for row in report.rows
        if row.label in sources
    )]
    for one in report.left_out:
        lines += ["", f"Left out: {one.what}", "", "```", one.why, "```"]
    lines += [part for text in report.texts for part in ("", text)]
    about = report.provenance
    lines += ["", f"Report: {about['date']}, commit {about['commit']}; runs: " + "; ".join(
        f"{name} {', '.join(values)}" for name, values in about["runs"].items()
    )]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cells(row: Row, report: Known, count: int) -> list[str]:
    """A method's line of the table."""
    rank, seconds = row.of[f"rank_{report.on}"], row.of["search_seconds"]
    better = 100 * (rank.mean - 1) / count
    return [
        row.label, *(_spread(row.of[f"true_{name}"]) for name in DATASETS), f"{better:.1f} %",
        duration(seconds.mean) if seconds else "", published().get(row.label, ("", ""))[0],
    ]  # fmt: skip


def _spread(mean: Mean) -> str:
    sd = "" if mean.sd is None else f" \u00b1 {mean.sd:.2f}"
    return f"{mean.mean:.2f}{sd} ({mean.n})"


def published() -> dict[str, tuple[str, str]]:
    """What papers print on CIFAR-10, and where, by method; others have not been found."""
    with open(FOLDER / "nasbench201.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    told = {line["method"]: (line["CIFAR-10 top-1 (%)"], line["where"]) for line in lines}
    return {method: both for method, both in told.items() if all(both)}


def as_csv(report: Known) -> str:
    """A line per method, seed and epoch; epoch `end`: the chosen cell, with all its accuracies."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{what}_{name}" for what in ("true", "rank") for name in DATASETS]
    writer.writerow(["method", "seed", "epoch", *names])
    for row in report.rows:
        for epoch, mean in row.epochs.items():
            for seed, value in mean.values.items():
                shown = [value if name == f"true_{report.on}" else "" for name in names]
                writer.writerow([row.label, seed, epoch, *shown])
        for seed in row.of[names[0]].values:
            values = [row.of[name].values.get(seed) for name in names]
            writer.writerow([row.label, seed, "end", *values])
    return file.getvalue()


# -------------------------------------------------------------------------------------- picture


@rc_context(STYLE)
def figure(report: Known) -> Figure:
    """True accuracy over epochs, mean and standard deviation, and the histogram of all cells.

    A random search is a mark at the end: it chooses its cell there.
    """
    picture = Figure((7.2, 3.4), layout="constrained")
    axes, beside = picture.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    last = max((epoch for row in report.rows for epoch in row.epochs), default=1)
    lowest = []
    for label, look in looks([row.label for row in report.rows]).items():
        row = next(row for row in report.rows if row.label == label)
        curve = row.epochs or {last: row.of[f"true_{report.on}"]}
        mean = np.array([value.mean for value in curve.values()])
        sd = np.array([value.sd or 0 for value in curve.values()])
        axes.plot([*curve], mean, lw=1.4, ms=3.5, markevery=max(1, last // 10), label=label, **look)
        axes.fill_between([*curve], mean - sd, mean + sd, color=look["color"], alpha=0.15, lw=0)
        lowest.append(min(mean - sd))
    average, _, best = report.space[report.on]
    for panel in (axes, beside):
        panel.axhline(average, color=QUIET, lw=1, ls="--", label="a random cell, mean")
        panel.axhline(best, color=INK, lw=1, ls=":", label="the best cell")
    low = min([*lowest, average]) - 2
    beside.hist(report.top1, bins=np.arange(low, best + 0.5, 0.5), orientation="horizontal",
                color=QUIET)  # fmt: skip
    beside.set(xlabel="cells", title=f"all {len(report.top1):,}")
    epoch_axis(axes, list(range(1, last + 1)), ticks=8)
    axes.set(xlabel="epoch", ylim=(max(0, low), best + 1),
             ylabel=f"true {TITLES[report.on]} top-1 (%)")  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=4)
    return picture


def write(report: Known, folder: Path) -> None:
    """Write the files."""
    content = dataclasses.asdict(report)
    del content["top1"]  # they are the table's
    text = json.dumps(content, indent=2, allow_nan=False)
    write_whole(folder / f"{NAME}.json", f"{text}\n".encode())
    write_whole(folder / f"{NAME}.csv", as_csv(report).encode())
    write_whole(folder / f"{NAME}.md", markdown(report).encode())
    if report.rows:
        save_figure(figure(report), folder / NAME)
