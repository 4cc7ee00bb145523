"""The paper's table with our figures beside its own, as JSON, Markdown and a picture."""

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
from common.run.folder import commit
from comparison.rows import Mean, mean_of
from comparison.run_folders import run_folder
from reproduction.jobs import Expansion, Part, ranked
from reproduction.plan import Item, Reading
from reproduction.settings import ReproduceConfig

DIGITS = (
    "Scale digits: the paper's plan on 8x8 digits, in minutes. These figures measure nothing that "
    "the paper measures."
)


@dataclass
class Line:
    """A row of the table.

    Attributes:
        label: as the paper has it.
        printed: the paper's figures, by column.
        ours: by column, over seeds.
        chosen: of cells that were chosen, which, and how all of them stood.
        empty: why there is nothing of ours.
    """

    label: str
    printed: dict[str, str]
    ours: dict[str, Mean] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)
    empty: str = ""


def write(config: ReproduceConfig, item: Item, expansion: Expansion, folder: Path) -> None:
    """Write `table.json`, `table.md` and pictures; say the table."""
    lines = lines_of(item, expansion, config.published)
    about = {
        "paper": config.paper, "item": config.item, "title": item.title, "scale": config.scale,
        "published": config.published, "commit": commit(),
        "command": shlex.join(["python", "evaluate/reproduce.py", *sys.argv[1:]]),
        "differs": item.differs, "rows": [asdict(line) for line in lines],
    }  # fmt: skip
    text = "\n".join(markdown(config, item, lines, about)) + "\n"
    write_whole(folder / "table.json", (json.dumps(about, indent=2) + "\n").encode())
    names = ["table.json", "table.md"]
    with rc_context(STYLE):
        draw_table = scatter if item.axes else dots
        figure = draw_table(item, lines, printed=config.scale == "paper")
        if figure is not None:
            pictures.save_figure(figure, folder / "table")
            names.append("table.svg")
    names += shown(item, expansion, folder)
    drawn = [f"![{name}]({name})" for name in names if name.endswith(".svg")]
    write_whole(folder / "table.md", "\n\n".join([text.rstrip(), *drawn, ""]).encode())
    print(f"\n{text}\n{folder}: {', '.join(names)}")


# ------------------------------------------------------------------------------------- its figures


def lines_of(item: Item, expansion: Expansion, published: bool) -> list[Line]:
    """Every row that the paper prints, and those of ours without printed figures."""
    head, printed = item.table()
    counted = {} if item.counted is None else item.counted()
    lines = []
    for label in dict.fromkeys((*printed, *item.rows)):
        figures = dict(zip(head[1:], printed.get(label, ()), strict=False))
        line = Line(label, {name: value for name, value in figures.items() if value})
        if label in item.rows:
            _fill(line, item, expansion.parts[label], published)
        elif label in counted:
            line.ours = {
                name: Mean(value, None, {0: value}) for name, value in counted[label].items()
            }
        else:
            line.empty = "another paper's figures"
        lines.append(line)
    return lines


def _fill(line: Line, item: Item, parts: Mapping[str, Part], published: bool) -> None:
    readings = item.rows[line.label].readings or item.readings
    for head, reading in readings.items():
        part = parts.get(reading.of) if reading.of else next(iter(parts.values()))
        if part is not None and (found := _read(reading, part)) is not None:
            line.ours[head] = found
    chosen = [] if published else [_standing(part) for part in parts.values() if part.judged]
    line.chosen = list(dict.fromkeys(filter(None, chosen)))
    jobs = [job for part in parts.values() for job in (*part.searches, *part.judged, *part.runs)]
    failed = [
        f"{job.name}: {job.why.splitlines()[-1]} (log: {job.log})"
        for job in jobs if job.state == "failed"
    ]  # fmt: skip
    if published and not any(part.training.cells.published for part in parts.values()):
        line.empty = "no published cells"
    elif failed:
        line.empty = "; ".join(dict.fromkeys(failed))
    elif jobs and set(line.ours) < set(readings) and not all(job.finished() for job in jobs):
        line.empty = "not run" if not line.ours else "not all of it has run"


def _read(reading: Reading, part: Part) -> Mean | None:
    jobs = [job for job in (part.searches if reading.searches else part.runs) if job.finished()]
    if reading.seed is not None:
        jobs = [job for job in jobs if job.seed == reading.seed]
    return mean_of({job.seed: reading.value(run_folder(job.folder)) for job in jobs})


def _standing(part: Part) -> str:
    """Which search's cells were chosen, and how all that were ranked stood."""
    choice = part.training.cells.choice
    order = ranked(choice, part.judged)
    if choice.place >= len(order):
        return ""
    number, figure = order[choice.place]
    mean = mean_of({n: value for n, value in order})
    name = f"{part.searches[number].name}, {choice.figure} {figure:.2f}"
    every = "all searches" if len(order) == len(part.judged) else "those that have ended"
    return f"the cells of {name}; of {every} {in_words(mean, 2)}"


def in_words(mean: Mean | None, digits: int) -> str:
    """A mean with its standard deviation and number."""
    if mean is None:
        return ""
    spread = "" if mean.sd is None else f" ± {mean.sd:.{digits}f}"
    return f"{mean.mean:.{digits}f}{spread} (n={mean.n})"


# ------------------------------------------------------------------------------------- its forms


def digits_of(item: Item, label: str, head: str) -> int:
    """How many stand behind the point in a column."""
    if label not in item.rows:
        return 0
    readings = item.rows[label].readings or item.readings
    return readings[head].digits


def markdown(
    config: ReproduceConfig, item: Item, lines: list[Line], about: dict[str, Any]
) -> Iterator[str]:
    """The table as text."""
    head, _ = item.table()
    ours = [name for name in head if any(name in line.ours for line in lines)]
    due = [name for name in head if name in item.readings or any(
        name in row.readings for row in item.rows.values()
    )]  # fmt: skip
    both = list(dict.fromkeys((*due, *ours)))
    yield f"# {config.paper}, {item.title}\n"
    if config.scale == "digits":
        yield f"**{DIGITS}**\n"
    if len(head) > 1:
        columns = [head[0]]
        for name in head[1:]:
            columns += [f"{name}: paper", "ours"] if name in both else [name]
        yield "| " + " | ".join(columns) + " |"
        yield "|" + "---|" * len(columns)
        for line in lines:
            cells = [line.label]
            for name in head[1:]:
                cells.append(line.printed.get(name, ""))
                if name in both:
                    found = line.ours.get(name)
                    single = item.counted is not None and found is not None
                    digits = digits_of(item, line.label, name) if found else 0
                    cells.append(f"{found.mean:,.0f}" if single else in_words(found, digits))
            yield "| " + " | ".join(cells) + " |"
        yield "\nAn empty cell of ours was not run.\n" if due else ""
    choices = [
        training.cells.choice for row in item.rows.values() for training in row.trainings.values()
    ]
    rules = dict.fromkeys(choice.rule for choice in choices if choice is not None)
    for rule in () if config.published else rules:
        yield f"* Cells are chosen by this rule of the paper's scale: {rule}."
    for line in lines:
        for text in line.chosen:
            yield f"* {line.label}: {text}."
        if line.empty and line.empty != "another paper's figures":
            yield f"* {line.label}: {line.empty}."
    quoted = [line.label for line in lines if line.empty == "another paper's figures"]
    if quoted:
        yield f"* {len(quoted)} rows are figures of the papers in brackets, and not run here."
    yield f"\n{item.differs}\n\nIn the paper: {item.cost}.\n"
    yield f"Command: `{about['command']}` (commit {about['commit']})."


def number(text: str) -> float | None:
    """What a printed figure begins with."""
    found = re.match(r"[\d.]*\d", text)
    return float(found[0]) if found else None


def dots(item: Item, lines: list[Line], printed: bool) -> Figure | None:
    """Of each row its runs, their mean and the paper's figure, in the first column of ours.

    Where rows have columns of their own, of each column of the first row. None: nothing has run.

    Args:
        item: which.
        lines: of its table.
        printed: whether the paper's figures can be compared with these.
    """
    blue = {"color": FAMILIES["sep_conv"]}
    if item.counted is not None or not any(line.ours for line in lines):
        return None
    if item.readings:
        main = next(iter(item.readings))
        entries = [(line.label, line, main) for line in lines if main in line.ours]
    else:
        first = next(line for line in lines if line.label == next(iter(item.rows)))
        main, entries = first.label, [(name, first, name) for name in first.ours]
    if not entries:
        return None
    figure = Figure((7.2, 0.9 + 0.32 * len(entries)), layout="constrained")
    axes = figure.subplots()
    drawn, shown_values = {}, []
    for place, (_, line, name) in enumerate(entries):
        ours, theirs = line.ours[name], number(line.printed.get(name, ""))
        runs = list(ours.values.values())
        shown_values += runs
        (drawn["each run"],) = axes.plot(runs, [place] * ours.n, "o", ms=4, mfc="none", **blue)
        (drawn["mean"],) = axes.plot(ours.mean, place, "|", ms=14, mew=2, **blue)
        if printed and theirs is not None:
            (drawn["the paper's"],) = axes.plot(theirs, place, "D", ms=5, color=INK)
    axes.set_yticks(range(len(entries)), [label for label, _, _ in entries], parse_math=False)
    axes.set_ylim(len(entries) - 0.5, -0.5)
    if min(shown_values) > 0 and max(shown_values) > 4 * min(shown_values):  # CIFAR and ImageNet
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(main, parse_math=False)
    figure.legend(drawn.values(), drawn, loc="outside upper right", ncols=3)
    return figure


def scatter(item: Item, lines: list[Line], printed: bool) -> Figure | None:
    """One column against another, a point a row; the paper's, where both are printed, hollow.

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
    """Cells that are drawn, and pictures that searches have drawn: their files here."""
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
