"""Writes a comparison's report: comparison.json, comparison.md and report.html.

The texts are in report.md.jinja and report.html.jinja. The page is one file without external links.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2  # torch needs it

from common.files import write_whole
from comparison import charts
from comparison.paired import Pair, preamble, sentence
from comparison.progress import duration
from comparison.published import Printed
from comparison.rows import KINDS, Mean, Summary
from comparison.run_folders import Result

NOTHING = "\u2014"
TEST = (
    "Accuracies are of the test images after the last epoch of the retraining; retraining reports "
    "them after each epoch, nothing is chosen by them, and only the last one is read here."
)
PRINTED_HEAD = ("row", "where", "mean", "best", "of", "parameters (M)", "search", "in words")
PRINTED_NOTE = (
    "Test error in percent on CIFAR-10, with the papers' own settings and trainings. Do not "
    "compare them with the results above."
)


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        title: of the report.
        command: the command line that made it.
        budget: the budget in words.
        printed: the papers' results, by label.
        results: of every label and seed.
        summaries: of every label.
        baseline: accuracy of all random cells; None without any.
        pairs: the tested pairs of rows.
        notes: differences between the runs that are allowed.
    """

    title: str
    command: str
    budget: str
    printed: Mapping[str, Sequence[Printed]]
    results: Sequence[Result]
    summaries: Sequence[Summary]
    baseline: Mean | None
    pairs: Sequence[Pair]
    notes: Sequence[str]


# ---------------------------------------------------------------------------------- the table


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
    ("skips, normal/reduction", "skips", both),
    ("pools, normal/reduction", "pools", both),
    ("edges changed per epoch, last 3", "changed", partial(plain, style=".1f")),
)


def cells_of(row: Summary) -> list[tuple[str, str]]:
    """A row's text and sort key in every column."""
    cells = [(row.label, row.label)]
    for _, name, text in COLUMNS:
        value = row.means[name]
        mean = value[KINDS[0]] if isinstance(value, dict) else value
        shown = NOTHING if value is None else text(value)
        cells.append((shown, "" if mean is None else f"{mean.mean:.9g}"))
    return cells


def table_note(baseline: Mean | None) -> str:
    """The explanation below the table.

    Args:
        baseline: accuracy of all random cells; None without any.
    """
    text = f"Mean \u00b1 sample standard deviation (number of seeds). {TEST} "
    if baseline is None:
        return text + "No random cells were retrained, so there is no gain."
    return (
        f"{text}The average random cell reaches {spread(baseline)} % (over cells, not seeds; drawn "
        "uniformly and retrained alike). A gain is over the random cells of the same seed."
    )


def printed_of(report: Report) -> list[list[str]]:
    """A line per published result; a best result has its mean beside it, if published."""
    lines = [
        (label, p.where, p.mean_text(), p.best and f"{p.best:.2f}", p.of, p.params, p.cost, p.text)
        for label, printed in report.printed.items() for p in printed
    ]  # fmt: skip
    return [[text or NOTHING for text in line] for line in lines]


# ---------------------------------------------------------------------------------- the files


def as_json(report: Report) -> dict[str, Any]:
    """comparison.json: every metric by seed, every run folder, every pair."""
    rows = []
    for summary in report.summaries:
        row = dataclasses.asdict(summary)
        rows.append({"label": row.pop("label"), **row.pop("means"), **row})
    return {
        "title": report.title,
        "command": report.command,
        "budget": report.budget,
        "test": TEST,
        "rows": rows,
        "random_cells": report.baseline and dataclasses.asdict(report.baseline),
        "printed": {
            label: [dataclasses.asdict(p) for p in printed]
            for label, printed in report.printed.items()
        },
        "pairs": [dataclasses.asdict(p) | {"separated": p.separated} for p in report.pairs],
        "conclusions": [preamble(report.pairs), *map(sentence, report.pairs)],
        "notes": list(report.notes),
        "runs": [
            {
                "label": r.label, "seed": r.seed, "failure": r.failure or None,
                "searches": [str(r.search.folder)] if r.search else [],
                "training": r.training and str(r.training.folder),
            }
            for r in report.results
        ],
    }  # fmt: skip


def rendered(report: Report, template: str, **more: Any) -> str:
    """A template of this folder with the report's texts; HTML is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
        autoescape=lambda name: name.endswith(".html.jinja"), trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    rows, results = report.summaries, report.results
    return environment.get_template(template).render(
        report=report, columns=["method", *(title for title, *_ in COLUMNS)],
        table=[cells_of(row) for row in rows], table_note=table_note(report.baseline),
        printed_head=PRINTED_HEAD, printed=printed_of(report), printed_note=PRINTED_NOTE,
        results={row.label: [r for r in results if r.label == row.label] for row in rows},
        failures=[(row.label, *failed) for row in rows for failed in row.failures.items()],
        preamble=preamble(report.pairs), conclusions=[sentence(pair) for pair in report.pairs],
        notes=[*report.notes, *(t for row in rows for t in (*row.warnings, *row.remarks))],
        **more,
    )  # fmt: skip


def page(report: Report) -> str:
    """report.html."""
    return rendered(report, "report.html.jinja", charts=charts)


def write(report: Report, folder: Path) -> None:
    """Write the three files."""
    text = json.dumps(as_json(report), indent=2, allow_nan=False)
    write_whole(folder / "comparison.json", f"{text}\n".encode())
    write_whole(folder / "comparison.md", rendered(report, "report.md.jinja").encode())
    write_whole(folder / "report.html", page(report).encode())
