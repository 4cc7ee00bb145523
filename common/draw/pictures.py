"""The pictures of a run folder. Equal runs give equal SVG files.

`python -m common.draw RUN_FOLDER` draws a run's again, also while it runs; `python -m common.draw
gdas` draws the cells of a published genotype, or of a genotype file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from common.draw.cell import STYLE, cell_figure, cells_figure
from common.draw.confusion import confusion_figure
from common.draw.search import (
    architecture_figure,
    curves_figure,
    measures_figure,
    spread_figure,
)
from common.errors import InputError
from common.files import json_lines, json_object
from common.networks.genotype import FixedCell, Genotype, load, parse, published


def run(folder: Path) -> None:
    """Draw the pictures of a run folder into its `pictures` folder.

    Raises:
        InputError: the folder has neither metrics.jsonl nor a random search's result.json, or its
            genotype.json is not valid.
    """
    lines = {
        name: json_lines(file) if (file := folder / f"{name}.jsonl").is_file() else []
        for name in ("metrics", "architecture", "genotypes")
    }
    sampled = (json_object(folder / "result.json") or {}).get("cells")
    is_random_search = isinstance(sampled, list) and any("failed" not in cell for cell in sampled)
    if not is_random_search and not (folder / "metrics.jsonl").is_file():
        raise InputError(f"{folder}: holds no metrics.jsonl, so it is not the folder of a run")
    pictures = folder / "pictures"
    if (folder / "metrics.jsonl").is_file():
        save_figure(curves_figure(lines["metrics"]), pictures / "curves")
    if any(key.startswith("entropy_") for line in lines["metrics"] for key in line):
        save_figure(measures_figure(lines["metrics"], lines["architecture"]), pictures / "measures")
    if is_random_search:
        spread([cell for cell in sampled if "failed" not in cell], pictures)
    if history := lines["architecture"]:
        for kind in history[-1]["weights"]:
            save_figure(architecture_figure(history, kind), pictures / f"architecture_{kind}")
    if lines["genotypes"]:
        evolution(lines["genotypes"], pictures)
    if (folder / "genotype.json").is_file():
        cells(load(folder), pictures)
    tested = json_object(folder / "test.json")
    if tested is not None:
        confusion(tested, pictures)


def cells(genotype: Genotype, folder: Path) -> None:
    """Write `<kind>.svg` and `<kind>.png` of each cell."""
    for kind, cell in genotype.cells.items():
        save_figure(cell_figure(cell), folder / kind)


def evolution(history: Sequence[dict], folder: Path) -> None:
    """Write `evolution_<kind>.svg` and `.png`: up to six snapshots of a cell during a search.

    Epochs in a row with the same cell are one snapshot.

    Args:
        history: a line an epoch, with `epoch` and its derived `genotype`; at least one.
        folder: where to write.
    """
    genotypes = [parse(json.dumps(line["genotype"])) for line in history]
    for kind, last in genotypes[-1].cells.items():
        if isinstance(last, FixedCell):
            continue
        epochs = zip([line["epoch"] for line in history], genotypes, strict=True)
        snapshots = {}
        for cell, alike in groupby(epochs, key=lambda one: one[1].cells[kind]):
            shown = [epoch for epoch, _ in alike]
            several = f"epochs {shown[0]} to {shown[-1]}"
            snapshots[several if len(shown) > 1 else f"epoch {shown[0]}"] = cell
        titles = list(snapshots)
        chosen = dict.fromkeys(titles[round(n)] for n in np.linspace(0, len(titles) - 1, 6))
        figure = cells_figure({title: snapshots[title] for title in chosen})
        save_figure(figure, folder / f"evolution_{kind}")


def spread(cells: Sequence[dict], folder: Path) -> None:
    """Write `spread.svg` and `.png`: the cells of a random search, as `spread_figure` takes."""
    save_figure(spread_figure(cells), folder / "spread")


def confusion(tested: dict, folder: Path) -> None:
    """Write `confusion.svg` and `.png`: how the test images of each class were classified.

    Args:
        tested: `per_class`, with the K classes as keys, and `confusion` [K, K]: images of each
            class by predicted class.
        folder: where to write.
    """
    counts = np.array(tested["confusion"])
    save_figure(confusion_figure(counts, list(tested["per_class"])), folder / "confusion")


@rc_context(STYLE)
def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as `<path>.svg` and `<path>.png`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    round_places(figure)
    figure.savefig(f"{path}.svg", metadata={"Date": None})
    figure.savefig(f"{path}.png", dpi=150)


def round_places(figure: Figure) -> None:
    """Lay a figure out and round the places of its panels.

    The layout's last bits differ from process to process, and SVG ids are hashes of all bits.
    """
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        box = part.bbox_relative
        box.p0, box.p1 = np.round(box.p0, 6), np.round(box.p1, 6)
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 6))


def of(what: str, output: Path | None = None) -> None:
    """Draw the pictures of a run folder, or the cells of a published genotype or genotype file.

    Args:
        what: a run folder, a published name, a genotype file, FILE:NAME or a genotype's text.
        output: folder for the cells; None: pictures/NAME here. A run's pictures go into its own.

    Raises:
        InputError: there is no such thing, or the pictures cannot be written.
    """
    path = Path(what).expanduser()
    if what not in published() and os.path.isdir(path):  # a text is too long for Path.is_dir
        if output is not None:
            raise InputError(f"--output {output}: {what} is a run folder, drawn into its pictures")
        run(path)
        return
    try:
        genotype = load(what if what in published() else path)
    except InputError as error:
        raise InputError(str(error).removeprefix("--genotype ")) from None
    named = path.stem if os.path.isfile(path) else genotype.name
    folder = Path("pictures") / named if output is None else output.expanduser()
    try:
        cells(genotype, folder)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written ({error.strerror})") from None
    print(f"{folder}: {', '.join(f'{kind}.svg' for kind in genotype.cells)}, and as .png")
