"""report.html: one file with all of a comparison, which asks the network for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from common.draw.cell import INK
from common.draw.search import LOOKS
from common.files import write_whole
from comparison import charts
from comparison.paired import preamble, sentence
from comparison.rows import Mean, Summary
from comparison.run_folders import Result
from comparison.text_report import (
    COLUMNS,
    PRINTED,
    PRINTED_NOTE,
    TEST,
    Report,
    cells_of,
    printed_rows,
    random_line,
    to_be_known,
)


def write(report: Report, folder: Path) -> None:
    """The file."""
    write_whole(folder / "report.html", page(report).encode())


def page(report: Report) -> str:
    """The whole of it."""
    style, script = (
        Path(__file__).with_name(name).read_text()
        for name in ("report.css", "report.js")
    )
    body = "\n".join(_body(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{body}\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _body(report: Report) -> Iterator[str]:
    yield f"<h1>{escape(report.title)}</h1>"
    yield f'<p class="quiet">{escape(report.budget)}</p><pre>{escape(report.command)}</pre>'
    for row in report.summaries:
        yield from (f'<p class="warn">{escape(text)}</p>' for text in row.warnings)
    yield from _results_table(report)
    yield from _failures(report.summaries)
    yield "<h2>Accuracy against cost</h2>"
    yield _figure(charts.cost(report.summaries), "A small mark is a seed, a large one the mean "
                  "over seeds; time is that of the search alone.", "one")
    by_label = {row.label: [] for row in report.summaries}
    for result in report.results:
        by_label[result.label].append(result)
    yield from _searches(by_label)
    yield from _cells(by_label)
    yield from _alphas(by_label)
    yield "<h2>The papers' own figures</h2>"
    yield f'<p class="quiet">{escape(PRINTED_NOTE)}</p>'
    yield from _table(PRINTED, printed_rows(report), "words")
    yield "<h2>What can be concluded</h2>"
    yield f"<p>{escape(preamble(report.pairs))}</p>"
    yield from _list([sentence(pair) for pair in report.pairs])
    if remarks := to_be_known(report):
        yield "<h2>To be known</h2>"
        yield from _list(remarks)


def _results_table(report: Report) -> Iterator[str]:
    yield '<div class="scroll"><table class="sortable"><thead><tr>'
    yield from (f"<th><button>{escape(name)}</button></th>" for name in COLUMNS)
    yield "</tr></thead><tbody>"
    for row in report.summaries:
        texts = zip(cells_of(row), _sort_keys(row), strict=True)
        mark = ' <span class="failed">(failed runs)</span>' if row.failures else ""
        yield "<tr>" + "".join(
            f'<td data-value="{escape(key)}">{escape(text)}{mark if n == 0 else ""}</td>'
            for n, (text, key) in enumerate(texts)
        ) + "</tr>"  # fmt: skip
    yield "</tbody></table></div>"
    yield (
        f'<p class="quiet">Mean \u00b1 sample standard deviation (number of seeds). {escape(TEST)} '
        f"{escape(random_line(report))}</p>"
    )


def _sort_keys(row: Summary) -> list[str]:
    """What a column sorts by: means, not their texts."""
    values: list[Mean | None] = [
        row.accuracy, row.gain, row.search_seconds, row.train_seconds, row.wall_seconds,
        row.memory_mib, row.params, row.multiply_adds, row.skips["normal"], row.pools["normal"],
        row.changed,
    ]  # fmt: skip
    return [row.label, *("" if value is None else f"{value.mean:.9g}" for value in values)]


def _failures(rows: Sequence[Summary]) -> Iterator[str]:
    failed = [(row.label, seed, why) for row in rows for seed, why in row.failures.items()]
    if failed:
        yield '<h2 class="failed">Runs without a result</h2>'
        for label, seed, why in failed:
            yield f"<p>{escape(label)}, seed {seed}</p><pre>{escape(why)}</pre>"


def _searches(by_label: dict[str, list[Result]]) -> Iterator[str]:
    shown = {
        label: results for label, results in by_label.items()
        if any(search.lines("metrics.jsonl") for r in results for search in r.searches)
    }  # fmt: skip
    if not shown:
        return
    yield "<h2>Search curves</h2>"
    yield _key([("supernet, validation half", charts.COLOURS[0], ""),
                ("its derived cell with the same weights, where recorded", INK, "dashed")])
    yield '<div class="grid">'
    for label, results in shown.items():
        yield _figure(charts.search_curves(results), "", title=label)
    yield "</div><h2>Collapse watched</h2>"
    yield _key([(f"{kind} cell", look["color"], "") for kind, look in LOOKS.items()])
    yield (
        '<p class="quiet">Skip connections in the derived cell, entropy of the mixing weights '
        "(which counts from ln of the candidates to 0), edges whose first rank changed since the "
        "epoch before; a line a seed.</p>"
    )
    yield '<div class="grid">'
    for label, results in shown.items():
        yield _figure(charts.watch(results), "", title=label)
    yield "</div>"


def _cells(by_label: dict[str, list[Result]]) -> Iterator[str]:
    yield "<h2>Cells</h2>"
    seeds = sorted({r.seed for results in by_label.values() for r in results})
    for n, seed in enumerate(seeds):
        yield f"<details{' open' if n == 0 else ''}><summary>seed {seed}</summary>"
        yield '<div class="grid wide cells">'
        for label, results in by_label.items():
            for result in results:
                if result.seed == seed and result.training is not None:
                    kinds = (charts.cell(result.training, kind) for kind in LOOKS)
                    yield _figure("".join(filter(None, kinds)), "normal cell, then reduction cell",
                                  title=label)
        yield "</div></details>"


def _alphas(by_label: dict[str, list[Result]]) -> Iterator[str]:
    """Of each row's first seed: three would say the same at three times the size."""
    yield "<h2>Alphas over time</h2>"
    for label, results in by_label.items():
        search = next((s for r in results for s in r.searches), None)
        found = [] if search is None else [charts.alphas(search, kind) for kind in LOOKS]
        # What only one method draws: PR-DARTS' Fig. 2, EDAS' Fig. 5.
        found += [] if search is None else [charts.picture(search, n) for n in ("cycles", "alphas")]
        drawn = [svg for svg in found if svg is not None]
        if drawn:
            yield f"<details><summary>{escape(label)}, seed {search.seed}</summary>"
            yield '<div class="grid wide">' + "".join(_figure(s, "", "big") for s in drawn)
            yield "</div></details>"


def _figure(svg: str, caption: str, kind: str = "", title: str = "") -> str:
    head = f"<h3>{escape(title)}</h3>" if title else ""
    foot = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}">{head}{svg}{foot}</figure>'


def _key(entries: Sequence[tuple[str, str, str]]) -> str:
    spans = "".join(
        f'<span><i class="{kind}" style="color:{colour if kind == "" else "inherit"}"></i>'
        f"{escape(text)}</span>"
        for text, colour, kind in entries
    )
    return f'<p class="key quiet">{spans}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> Iterator[str]:
    yield f'<div class="scroll"><table class="{kind}"><thead><tr>'
    yield from (f"<th>{escape(name)}</th>" for name in head)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>"
    yield "</tbody></table></div>"


def _list(texts: Sequence[str]) -> Iterator[str]:
    yield "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"
