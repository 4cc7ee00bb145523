"""The paper's table with our results beside its own, as JSON, Markdown and a picture."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from common.draw import pictures
from common.draw.cell import FAMILIES, INK, STYLE
from common.files import write_whole
from common.networks.genotype import load
from common.run.description import commit
from comparison.rows import Mean, mean_of
from comparison.run_folders import run_folder
from reproduction.jobs import Expansion, Part
from reproduction.plan import Item, Reading
from reproduction.settings import ReproduceConfig

DIGITS = (
    "Scale digits: the paper's plan on 8x8 digits, in minutes. These figures measure nothing that "
    "the paper measures."
)
CITED = "another paper's figures"


@dataclass
class Line:
    """A row of the table.

    Attributes:
        label: as in the paper.
        printed: the paper's figures, by column.
        ours: our results over seeds, by column.
        chosen: where cells were chosen: which, and the ranking's mean.
        empty: why results of ours are missing.
    """

    label: str
    printed: dict[str, str]
    ours: dict[str, Mean] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)
    empty: str = ""


def write(config: ReproduceConfig, item: Item, expansion: Expansion, folder: Path) -> None:
    """Write `table.json`, `table.md` and pictures; print the table."""
    lines = lines_of(item, expansion, config.published)
    about = {
        "paper": config.paper, "item": config.item, "title": item.title, "scale": config.scale,
        "published": config.published, "commit": commit(),
        "command": shlex.join(["python", "evaluate/reproduce.py", *sys.argv[1:]]),
        "differs": item.differs, "rows": [asdict(line) for line in lines],
    }  # fmt: skip
    write_whole(folder / "table.json", (json.dumps(about, indent=2) + "\n").encode())
    files = ["table.json", "table.md"]
    with rc_context(STYLE):
        draw_table = scatter if item.axes else dots
        figure = draw_table(item, lines, printed=config.scale == "paper")
        if figure is not None:
            pictures.save_figure(figure, folder / "table")
            files.append("table.svg")
    files += shown(item, expansion, folder)
    text = "\n".join(markdown(config, item, lines, about))
    drawn = [f"![{name}]({name})" for name in files if name.endswith(".svg")]
    write_whole(folder / "table.md", "\n\n".join([text, *drawn, ""]).encode())
    print(f"\n{text}\n\n{folder}: {', '.join(files)}")


# ------------------------------------------------------------------------------------- its rows


def lines_of(item: Item, expansion: Expansion, published: bool) -> list[Line]:
    """The paper's rows, and those of ours that it does not print."""
    counted = item.counted() if item.counted else {}
    lines = []
    for label in dict.fromkeys((*item.printed.rows, *item.rows)):
        printed = item.printed.rows.get(label, {})
        line = Line(label, {name: value for name, value in printed.items() if value})
        if label in item.rows:
            _fill(line, item, expansion.parts[label], published)
        elif label in counted:
            line.ours = {name: mean_of({0: value}) for name, value in counted[label].items()}
        else:
            line.empty = CITED
        lines.append(line)
    return lines


def _fill(line: Line, item: Item, parts: Mapping[str, Part], published: bool) -> None:
    for head, reading in item.readings.items():
        part = parts.get(reading.training) if reading.training else next(iter(parts.values()))
        if part is not None and (found := _read(reading, part)) is not None:
            line.ours[head] = found
    if not published:
        chosen = [_chosen(part) for part in parts.values() if part.judged]
        line.chosen = list(dict.fromkeys(filter(None, chosen)))
    jobs = [job for part in parts.values() for job in (*part.searches, *part.judged, *part.runs)]
    failed = [
        f"{job.name}: {job.why.splitlines()[-1]} (log: {job.log})"
        for job in jobs if job.state == "failed"
    ]  # fmt: skip
    if published and not any(part.cells.published for part in parts.values()):
        line.empty = "no published cells"
    elif failed:
        line.empty = "; ".join(dict.fromkeys(failed))
    elif not all(job.finished() for job in jobs):
        line.empty = "not all runs have finished" if line.ours else "not run"


def _read(reading: Reading, part: Part) -> Mean | None:
    jobs = [job for job in (part.searches if reading.searches else part.runs) if job.finished()]
    if reading.seed is not None:
        jobs = [job for job in jobs if job.seed == reading.seed]
    return mean_of({job.seed: reading.value(run_folder(job.folder)) for job in jobs})


def _chosen(part: Part) -> str:
    """The search whose cells were chosen, and the mean of all that were ranked."""
    choice, ranking = part.cells.choice, part.ranking()
    if choice.place >= len(ranking):
        return ""
    search, value = ranking[choice.place]
    mean = mean_of({n: value for n, (_, value) in enumerate(ranking)})
    every = "all searches" if len(ranking) == len(part.judged) else "the finished searches"
    return (
        f"the cells of {search.name}, {choice.figure} {value:.2f}; of {every} {in_words(mean, 2)}"
    )


def in_words(mean: Mean | None, digits: int) -> str:
    """A mean with its standard deviation and number."""
    if mean is None:
        return ""
    spread = "" if mean.sd is None else f" ± {mean.sd:.{digits}f}"
    return f"{mean.mean:.{digits}f}{spread} (n={mean.n})"


# ------------------------------------------------------------------------------------- as text


def markdown(
    config: ReproduceConfig, item: Item, lines: list[Line], about: Mapping[str, Any]
) -> Iterator[str]:
    """The table with its notes."""
    yield f"# {config.paper}, {item.title}\n"
    if config.scale == "digits":
        yield f"**{DIGITS}**\n"
    yield from _table(item, lines)
    choices = [training.cells.choice for training in item.trainings()]
    rules = dict.fromkeys(choice.rule for choice in choices if choice is not None)
    for rule in () if config.published else rules:
        yield f"* Cells are chosen by this rule, here that of the scale paper: {rule}."
    for line in lines:
        for text in (*line.chosen, line.empty):
            if text and text != CITED:
                yield f"* {line.label}: {text}."
    if cited := sum(line.empty == CITED for line in lines):
        yield f"* {cited} rows are figures of the papers in brackets, and not run here."
    yield f"\n{item.differs}\n\nIn the paper: {item.cost}.\n"
    yield f"Command: `{about['command']}` (commit {about['commit']})."


def _table(item: Item, lines: list[Line]) -> Iterator[str]:
    """The paper's columns, with a column of ours behind each that we measure or count."""
    if not item.printed.columns:
        return
    ours = {*item.readings, *(name for line in lines for name in line.ours)}
    heads = [item.printed.head]
    for name in item.printed.columns:
        heads += [f"{name}: paper", "ours"] if name in ours else [name]
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for line in lines:
        cells = [line.label]
        for name in item.printed.columns:
            cells.append(line.printed.get(name, ""))
            if name in item.readings:
                cells.append(in_words(line.ours.get(name), item.readings[name].digits))
            elif name in ours:  # counted
                cells.append(f"{line.ours[name].mean:,.0f}" if name in line.ours else "")
        yield "| " + " | ".join(cells) + " |"
    yield "\nAn empty cell of ours was not run.\n" if item.readings else ""


# ---------------------------------------------------------------------------------- as pictures


def number(text: str) -> float | None:
    """The number at the start of a printed figure."""
    found = re.match(r"[\d.]*\d", text)
    return float(found[0]) if found else None


def dots(item: Item, lines: list[Line], printed: bool) -> Figure | None:
    """The first column of ours: per row each run, their mean and the paper's figure.

    None: nothing has run.

    Args:
        item: whose table it is.
        lines: of the table.
        printed: whether the paper's figures are comparable, and drawn.
    """
    blue = {"color": FAMILIES["sep_conv"]}
    main = next(iter(item.readings), "")
    lines = [line for line in lines if main in line.ours]
    if not lines:
        return None
    figure = Figure((7.2, 0.9 + 0.32 * len(lines)), layout="constrained")
    axes = figure.subplots()
    drawn, values = {}, []
    for place, line in enumerate(lines):
        ours, theirs = line.ours[main], number(line.printed.get(main, ""))
        runs = list(ours.values.values())
        values += runs
        (drawn["each run"],) = axes.plot(runs, [place] * ours.n, "o", ms=4, mfc="none", **blue)
        (drawn["mean"],) = axes.plot(ours.mean, place, "|", ms=14, mew=2, **blue)
        if printed and theirs is not None:
            (drawn["the paper's"],) = axes.plot(theirs, place, "D", ms=5, color=INK)
    axes.set_yticks(range(len(lines)), [line.label for line in lines], parse_math=False)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    if min(values) > 0 and max(values) > 4 * min(values):  # CIFAR and ImageNet
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(main, parse_math=False)
    figure.legend(drawn.values(), drawn, loc="outside upper right", ncols=3)
    return figure


def scatter(item: Item, lines: list[Line], printed: bool) -> Figure | None:
    """One column against another, a point per row; hollow points are the paper's.

    None: there is no point.
    """
    across, up = item.axes
    figure = Figure((5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for line in lines:
        points = {}
        if across in line.ours and up in line.ours:
            points[line.label] = line.ours[across].mean, line.ours[up].mean
        theirs = tuple(number(line.printed.get(name, "")) for name in item.axes)
        if printed and None not in theirs:
            points[f"{line.label}, the paper's"] = theirs
        for label, point in points.items():
            ours = label == line.label
            look = {"color": FAMILIES["sep_conv"]} if ours else {"color": INK, "mfc": "none"}
            axes.plot(*point, "o" if ours else "D", **look)
            axes.annotate(
                label, point, xytext=(5, 4), textcoords="offset points", parse_math=False
            )
    if not axes.lines:
        return None
    axes.set_xlabel(across, parse_math=False)
    axes.set_ylabel(up, parse_math=False)
    axes.margins(0.2)
    return figure


def shown(item: Item, expansion: Expansion, folder: Path) -> list[str]:
    """Draw the item's cells, copy the searches' pictures; returns the files."""
    files = []
    for name in item.cells:
        pictures.cells(load(name), folder / name)
        files.append(f"{name}/")
    for job in (job for job in expansion.jobs if job.is_search and job.finished()):
        for name in item.shown:
            for kind in ("svg", "png"):
                source = job.folder / "pictures" / f"{name}.{kind}"
                if source.is_file():
                    shutil.copy(source, folder / f"{job.name}.{name}.{kind}")
                    files.append(f"{job.name}.{name}.{kind}")
    return files
