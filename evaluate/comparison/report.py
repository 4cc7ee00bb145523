"""Writes a comparison's report: comparison.json, comparison.csv, comparison.md and report.html.

The texts are in report.md.jinja and report.html.jinja. The page is one file; its only links are
those to run folders and logs, relative to it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2  # torch needs it

from common.files import write_whole
from comparison.paired import Pair, preamble, seeds_needed, sentence
from comparison.progress import duration
from comparison.published import Printed
from comparison.rows import AVERAGE, CELL, KINDS, Mean, Measured, Summary, summary
from comparison.run_folders import LeftOut, Result

NOTHING = "\u2014"
TEST = (
    "Accuracies are of the test images after the last epoch of the retraining; retraining reports "
    "them after each epoch, nothing is chosen by them, and only the last one is used in the tables."
)
PRINTED_HEAD = ("row", "where", "mean", "best", "of", "parameters (M)", "search")
PRINTED_NOTE = (
    "Test error in percent on CIFAR-10, with the papers' own settings and trainings. Do not "
    "compare them with the results above."
)


@dataclass(frozen=True)
class Plan:
    """What a comparison runs.

    Attributes:
        budget: in words.
        changes: what the budget changes in single methods.
    """

    budget: str
    changes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        title: of the report.
        command: the command line that made it.
        plan: what was run.
        printed: the papers' results, by label.
        measured: the metrics of every label and seed, and of every random cell.
        summaries: of every label; the average random cell is the last.
        pairs: the tested pairs of rows.
        left_out: what has no result, and why.
        notes: differences between the runs that are allowed.
        provenance: see `comparison.provenance`.
    """

    title: str
    command: str
    plan: Plan
    printed: Mapping[str, Sequence[Printed]]
    measured: Sequence[Measured]
    summaries: Sequence[Summary]
    pairs: Sequence[Pair]
    left_out: Sequence[LeftOut]
    notes: Sequence[str]
    provenance: Mapping[str, Any]

    @property
    def methods(self) -> list[Summary]:
        """The rows of methods."""
        return [row for row in self.summaries if row.label != AVERAGE]

    @property
    def average(self) -> Mean | None:
        """Accuracy of the average random cell; None without random cells."""
        rows = [row for row in self.summaries if row.label == AVERAGE]
        return rows[0].means["accuracy"] if rows else None


# ------------------------------------------------------------------------------ the conclusion


def headline(report: Report) -> list[str]:
    """The result in a few sentences."""
    best = [row for row in report.methods if row.means["accuracy"]]
    if not best:
        return ["No retraining of a search's cells has finished."]
    best.sort(key=lambda row: -row.means["accuracy"].mean)
    top = best[0].means["accuracy"]
    texts = [f"Highest mean: {best[0].label}, {in_words(top, 'seed')}."]
    if report.average:
        texts.append(f"The average random cell: {in_words(report.average, 'cell')}.")
    separated = [pair for pair in report.pairs if pair.separated]
    if separated:
        texts += [sentence(pair) for pair in separated]
    elif report.pairs:
        text = "No difference between methods is significant"
        most, needed = max(len(p.seeds) for p in report.pairs), seeds_needed(len(report.pairs))
        more = f"; with {most} seed{'s' if most > 1 else ''} none can be: it takes {needed} or more"
        texts.append(f"{text}{more if most < needed else ''}.")
    return texts


# ---------------------------------------------------------------------------------- the table


def in_words(mean: Mean, unit: str) -> str:
    """Percent, as mean, standard deviation and number of seeds or cells."""
    sd = "" if mean.sd is None else f" \u00b1 {mean.sd:.2f}"
    return f"{mean.mean:.2f}{sd} % ({mean.n} {unit}{'s' if mean.n > 1 else ''})"


def spread(mean: Mean, style: str = ".2f") -> str:
    """Mean, standard deviation and number."""
    sd = "" if mean.sd is None else f" \u00b1 {mean.sd:.2f}"
    return f"{mean.mean:{style}}{sd} ({mean.n})"


def plain(mean: Mean, style: str = ",.0f") -> str:
    """The mean alone."""
    return f"{mean.mean:{style}}"


def span(mean: Mean) -> str:
    """A mean of seconds."""
    return f"{mean.mean:.0f} s" if mean.mean < 600 else duration(mean.mean)


def both(means: Mapping[str, Mean | None]) -> str:
    """Of the normal and of the reduction cell; a fixed cell has none."""
    if not any(means.values()):
        return NOTHING
    return " / ".join("fixed" if m is None else f"{m.mean:.1f}" for m in means.values())


COLUMNS: tuple[tuple[str, str, Callable], ...] = (
    ("retrained top-1 (%)", "accuracy", spread),
    ("gain over the average random cell (points)", "gain", partial(spread, style="+.2f")),
    ("search", "search_seconds", span),
    ("retraining", "train_seconds", span),
    ("end to end", "wall_seconds", span),
    ("memory (MiB)", "memory_mib", plain),
    ("parameters", "params", plain),
    ("multiply-adds", "multiply_adds", plain),
    ("skips, normal / reduction", "skips", both),
    ("pools, normal / reduction", "pools", both),
    ("edges changed per epoch, last 3", "changed", partial(plain, style=".1f")),
)


# A single seed has no deviation.
OF_A_SEED = {"accuracy": partial(plain, style=".2f"), "gain": partial(plain, style="+.2f")}


@dataclass(frozen=True)
class TableCell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        key: what it is sorted by; empty without a value.
        seeds: the value of each seed.
    """

    text: str
    key: str
    seeds: str = ""


def cells_of(row: Summary, one_seed: bool = False) -> list[TableCell]:
    """A row's cells in every column."""
    cells = [TableCell(row.label, row.label)]
    for _, name, text in COLUMNS:
        value = row.means[name]
        mean = value[KINDS[0]] if isinstance(value, dict) else value
        text = OF_A_SEED.get(name, text) if one_seed else text
        shown = NOTHING if value is None else text(value)
        key = "" if mean is None else f"{mean.mean:.9g}"
        unit = "cell" if row.label == AVERAGE else "seed"
        seeds = {} if mean is None or one_seed else mean.values
        lines = [f"{unit} {seed}: {seeds[seed]:,.6g}" for seed in sorted(seeds)]
        cells.append(TableCell(shown, key, "\n".join(lines)))
    return cells


def sorted_rows(rows: Sequence[Summary]) -> list[list[TableCell]]:
    """The table, the highest accuracy first; rows without one are last."""
    def order(row: Summary) -> float:
        accuracy = row.means["accuracy"]
        return float("inf") if accuracy is None else -accuracy.mean

    return [cells_of(row) for row in sorted(rows, key=order)]


def table_note(average: Mean | None) -> str:
    """The explanation below the table.

    Args:
        average: accuracy of the average random cell; None without random cells.
    """
    text = f"Mean \u00b1 sample standard deviation (number of seeds). {TEST} "
    if average is None:
        return text + "No random cells were retrained, so there is no gain."
    return (
        f"{text}Random cells are drawn uniformly and retrained alike; their mean is over cells, "
        "not seeds. A gain is over the random cells of the same seed."
    )


def seed_rows(report: Report, folder: Path) -> list[tuple[int, list[TableCell], list[tuple]]]:
    """Each seed of each method and each random cell: seed, cells, links from the page."""
    return [
        (
            one.result.seed,
            cells_of(summary(one.result.label, [one]), one_seed=True),
            links(one.result, folder),
        )
        for one in report.measured
    ]


def links(result: Result, folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """When each run was started; names and addresses of its folder and log, from the page's."""
    found = []
    for name, run in (("search", result.search), ("retraining", result.training)):
        if run is not None:
            paths = [(name, run.folder), ("log", run.log)]
            there = [(text, address(path, folder)) for text, path in paths if path.exists()]
            found.append((run.started, there))
    return found


def address(path: Path, folder: Path) -> str:
    """A path as a link from a page in a folder."""
    return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def printed_of(report: Report) -> list[list[str]]:
    """A line per published result; a best result has its mean beside it, if published."""
    lines = [
        (label, p.where, p.mean_text(), p.best and f"{p.best:.2f}", p.of, p.params, p.cost)
        for label, printed in report.printed.items() for p in printed
    ]  # fmt: skip
    return [[text or NOTHING for text in line] for line in lines]


def provenance_rows(report: Report) -> list[tuple[str, str]]:
    """The report's provenance, a line per quantity."""
    about = report.provenance
    spans = {name: " to ".join(dict.fromkeys(about[name])) for name in ("started", "finished")}
    return [
        ("report written", f"{about['date']}, commit {about['commit']}"),
        *((f"runs {name}", text or NOTHING) for name, text in spans.items()),
        *((name, ", ".join(values)) for name, values in about["runs"].items()),
    ]


# ---------------------------------------------------------------------------------- the files


def as_json(report: Report) -> dict[str, Any]:
    """comparison.json: every metric by seed, every run folder, every pair."""
    rows = []
    for row in report.summaries:
        content = dataclasses.asdict(row)
        rows.append({"label": content.pop("label"), **content.pop("means"), **content})
    return {
        "title": report.title,
        "conclusions": [*headline(report), preamble(report.pairs), *map(sentence, report.pairs)],
        "command": report.command,
        "budget": report.plan.budget,
        "budget_changes": list(report.plan.changes),
        "provenance": report.provenance,
        "test": TEST,
        "rows": rows,
        "printed": {
            label: [dataclasses.asdict(p) for p in printed]
            for label, printed in report.printed.items()
        },
        "pairs": [dataclasses.asdict(p) | {"separated": p.separated} for p in report.pairs],
        "left_out": [dataclasses.asdict(one) for one in report.left_out],
        "notes": list(report.notes),
        "runs": [
            {
                "label": r.label, "seed": r.seed, "failure": r.failure or None,
                "searches": [str(r.search.folder)] if r.search else [],
                "training": r.training and str(r.training.folder),
                "started": [run.started or None for run in r.runs],
                "logs": [str(run.log) for run in r.runs if run.log.exists()],
            }
            for r in (one.result for one in report.measured)
        ],
    }  # fmt: skip


def as_csv(report: Report) -> str:
    """comparison.csv: a line per label and seed, a column per metric; empty: unknown."""
    names = [name for _, name, _ in COLUMNS if name not in ("skips", "pools")]
    names += [f"{name}_{kind}" for name in ("skips", "pools") for kind in KINDS]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "seed", *names, "search", "retraining"])
    for one in report.measured:
        folders = [run and run.folder for run in (one.result.search, one.result.training)]
        values = [one.metrics.get(name) for name in names]
        writer.writerow([one.result.label, one.result.seed, *values, *folders])
    return file.getvalue()


def rendered(report: Report, template: str, **more: Any) -> str:
    """A template of this folder with the report's texts; HTML is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
        autoescape=lambda name: name.endswith(".html.jinja"), trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    rows = report.summaries
    return environment.get_template(template).render(
        report=report, columns=["method", *(title for title, *_ in COLUMNS)],
        headline=headline(report), table=sorted_rows(rows), table_note=table_note(report.average),
        printed_head=PRINTED_HEAD, printed=printed_of(report), printed_note=PRINTED_NOTE,
        preamble=preamble(report.pairs), conclusions=[sentence(pair) for pair in report.pairs],
        notes=[*report.notes, *(t for row in rows for t in (*row.warnings, *row.remarks))],
        provenance=provenance_rows(report), **more,
    )  # fmt: skip


def page(report: Report, folder: Path) -> str:
    """report.html in a folder."""
    from comparison import charts

    results = [one.result for one in report.measured if one.result.label != CELL]
    by_label = {row.label: [r for r in results if r.label == row.label] for row in report.methods}
    return rendered(
        report, "report.html.jinja", charts=charts, results=results, by_label=by_label,
        seed_rows=seed_rows(report, folder),
    )  # fmt: skip


def write(report: Report, folder: Path) -> None:
    """Write the four files."""
    text = json.dumps(as_json(report), indent=2, allow_nan=False)
    write_whole(folder / "comparison.json", f"{text}\n".encode())
    write_whole(folder / "comparison.csv", as_csv(report).encode())
    write_whole(folder / "comparison.md", rendered(report, "report.md.jinja").encode())
    write_whole(folder / "report.html", page(report, folder).encode())
