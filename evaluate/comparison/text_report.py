"""comparison.json and comparison.md: the table, the papers' figures apart, and what follows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import write_whole
from comparison.paired import Pair, preamble, sentence
from comparison.plan import Row
from comparison.progress import duration
from comparison.rows import Mean, Summary
from comparison.run_folders import Result, RunFolder

NOTHING = "\u2014"
TEST = (
    "Accuracies are of the test images after the last epoch of the retraining; retraining reports "
    "them after each epoch, nothing is chosen by them, and only the last one is read here."
)
PRINTED_NOTE = (
    "Test error in percent on CIFAR-10, with the papers' own settings and trainings; figures of "
    "another experiment, not to be compared with those above."
)
COLUMNS = (
    "method", "retrained top-1 (%)", "gain over the average random cell (points)", "search",
    "retraining", "end to end", "memory (MiB)", "parameters", "multiply-adds",
    "skips, normal/reduction", "pools, normal/reduction", "edges changed an epoch, last 3",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """All that is reported.

    Attributes:
        title: of what was compared.
        command: that made it.
        budget: in words.
        rows: of the plan, for the papers' figures.
        results: run by run.
        summaries: row by row.
        random: retrained random cells, all of them.
        baseline: what they reached.
        pairs: of rows over seeds.
        notes: what is unequal, and what a reader must know.
    """

    title: str
    command: str
    budget: str
    rows: Sequence[Row]
    results: Sequence[Result]
    summaries: Sequence[Summary]
    random: Sequence[RunFolder]
    baseline: Mean | None
    pairs: Sequence[Pair]
    notes: Sequence[str]


def cells_of(row: Summary) -> list[str]:
    """A row's texts, in the order of COLUMNS."""
    return [
        row.label, number(row.accuracy), number(row.gain, signed=True), span(row.search_seconds),
        span(row.train_seconds), span(row.wall_seconds), number(row.memory_mib, 0),
        number(row.params, 0), number(row.multiply_adds, 0), both(row.skips), both(row.pools),
        number(row.changed, 1, spread=False),
    ]  # fmt: skip


def number(value: Mean | None, digits: int = 2, signed: bool = False, spread: bool = True) -> str:
    """A mean, with its deviation and number where that is asked for."""
    if value is None:
        return NOTHING
    text = f"{value.mean:{'+' if signed else ''},.{digits}f}"
    if digits < 2 or not spread:
        return text
    return f"{text} \u00b1 {value.sd:.{digits}f} ({value.n})" if value.sd is not None else (
        f"{text} ({value.n})"
    )


def span(value: Mean | None) -> str:
    """A mean of seconds."""
    if value is None:
        return NOTHING
    return f"{value.mean:.0f} s" if value.mean < 600 else duration(value.mean)


def both(counts: dict[str, Mean | None]) -> str:
    """Of the normal and of the reduction cell; a fixed cell has none."""
    return " / ".join("fixed" if c is None else f"{c.mean:.1f}" for c in counts.values())


def random_line(report: Report) -> str:
    """What the average random cell reached."""
    if report.baseline is None:
        return "No random cells were retrained, so no gain over them is known."
    return (
        f"The average random cell reaches {number(report.baseline)} % (over all cells, not seeds; "
        "they are drawn uniformly, not chosen, and retrained alike); a gain is over the random "
        "cells of the same seed."
    )


def markdown(report: Report) -> str:
    """comparison.md."""
    return "\n".join(_markdown(report)) + "\n"


def _markdown(report: Report) -> Iterator[str]:
    yield from (f"# {report.title}", "", f"`{report.command}`", "", report.budget, "")
    yield from _table(COLUMNS, [cells_of(row) for row in report.summaries])
    yield from ("", f"Mean \u00b1 sample standard deviation (number of seeds). {TEST}", "")
    yield random_line(report)
    failures = [(s.label, seed, why) for s in report.summaries for seed, why in s.failures.items()]
    if failures:
        yield from ("", "## Runs without a result", "")
        for label, seed, why in failures:
            yield from (f"{label}, seed {seed}:", "", "```", why, "```", "")
    yield from ("", "## The papers' own figures", "")
    yield from (PRINTED_NOTE, "")
    yield from _table(PRINTED, printed_rows(report))
    yield from ("", "## What can be concluded", "", preamble(report.pairs), "")
    yield from (f"* {sentence(pair)}" for pair in report.pairs)
    remarks = to_be_known(report)
    if remarks:
        yield from ("", "## To be known", "", *(f"* {text}" for text in remarks))


def to_be_known(report: Report) -> list[str]:
    """What is unequal, and what searches did."""
    rows = report.summaries
    return [*report.notes, *(text for row in rows for text in (*row.warnings, *row.remarks))]


PRINTED = ("row", "where", "mean", "best", "of", "parameters (M)", "search", "in words")


def printed_rows(report: Report) -> list[list[str]]:
    """A line a printed figure; a best never without the column of its mean."""
    return [
        [
            row.label, p.where, p.mean_text(), NOTHING if p.best is None else f"{p.best:.2f}",
            p.of or NOTHING, p.params or NOTHING, p.cost or NOTHING, p.text or NOTHING,
        ]
        for row in report.rows for p in row.printed
    ]  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"


def as_json(report: Report) -> dict[str, Any]:
    """comparison.json: every figure by seed, every run folder, every pair."""
    return {
        "title": report.title,
        "command": report.command,
        "budget": report.budget,
        "test": TEST,
        "rows": [dataclasses.asdict(row) for row in report.summaries],
        "random_cells": report.baseline and dataclasses.asdict(report.baseline),
        "printed": {
            row.label: [dataclasses.asdict(p) for p in row.printed] for row in report.rows
        },
        "pairs": [dataclasses.asdict(p) | {"separated": p.separated} for p in report.pairs],
        "conclusions": [preamble(report.pairs), *map(sentence, report.pairs)],
        "notes": list(report.notes),
        "runs": [
            {
                "label": r.label, "seed": r.seed, "failure": r.failure or None,
                "searches": [str(s.folder) for s in r.searches],
                "training": r.training and str(r.training.folder),
            }
            for r in report.results
        ],
    }


def write(report: Report, folder: Path) -> None:
    """Both files."""
    text = json.dumps(as_json(report), indent=2, allow_nan=False)
    write_whole(folder / "comparison.json", f"{text}\n".encode())
    write_whole(folder / "comparison.md", markdown(report).encode())
