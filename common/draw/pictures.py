"""The pictures of a run: its cells, its learning curves, how its architecture came about.

`python -m common.draw RUN_FOLDER` draws any run so far again, `python -m common.draw gdas` the
cells of a published genotype, or of a genotype file. Equal runs give equal SVG files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro
from matplotlib import rc_context
from matplotlib.figure import Figure

from common.draw.cell import FAMILIES, INK, STYLE, cell_figure, cells_figure
from common.draw.confusion import confusion_figure
from common.draw.search import (
    alone,
    architecture_figure,
    epoch_axis,
    measures_figure,
    spread_figure,
)
from common.errors import InputError
from common.files import json_lines, json_object
from common.networks.genotype import FixedCell, Genotype, load, parse, published


def run(folder: Path) -> None:
    """Draw the pictures of a run folder into its `pictures` folder.

    Raises:
        InputError: the folder holds neither metrics.jsonl nor the cells of a random search in its
            result.json, or a genotype.json that is not valid.
    """
    sampled = _sampled(folder / "result.json")
    if (folder / "metrics.jsonl").is_file():
        metrics = json_lines(folder / "metrics.jsonl")
        curves(metrics, folder / "pictures")
        if any("entropy_normal" in line for line in metrics):
            measures(metrics, folder / "pictures")
    elif not sampled:
        raise InputError(f"{folder}: holds no metrics.jsonl, so it is not the folder of a run")
    if sampled:
        spread(sampled, folder / "pictures")
    if (folder / "architecture.jsonl").is_file():
        architecture(json_lines(folder / "architecture.jsonl"), folder / "pictures")
    if (folder / "genotypes.jsonl").is_file():
        evolution(json_lines(folder / "genotypes.jsonl"), folder / "pictures")
    if (folder / "genotype.json").is_file():
        cells(load(folder), folder / "pictures")
    tested = json_object(folder / "test.json")
    if tested is not None:
        confusion(tested, folder / "pictures")


@rc_context(STYLE)
def cells(genotype: Genotype, folder: Path) -> None:
    """Write `<kind>.svg` and `<kind>.png` of each cell."""
    for kind, cell in genotype.cells.items():
        save_figure(cell_figure(cell), folder / kind)


@rc_context(STYLE)
def evolution(history: Sequence[dict], folder: Path) -> None:
    """Write `evolution_<kind>.svg` and `.png`: a cell over a search, in six snapshots at most.

    Args:
        history: a line an epoch: `epoch`, and as `genotype` what was derived then.
        folder: where to.
    """
    if not history:
        return
    at = sorted({round(n) for n in np.linspace(0, len(history) - 1, 6)})
    genotypes = {f"epoch {history[n]['epoch']}": history[n]["genotype"] for n in at}
    shown = {title: parse(json.dumps(value)).cells for title, value in genotypes.items()}
    for kind, last in next(reversed(shown.values())).items():
        if not isinstance(last, FixedCell):
            snapshots = {title: by_kind[kind] for title, by_kind in shown.items()}
            save_figure(cells_figure(snapshots), folder / f"evolution_{kind}")


@rc_context(STYLE)
def curves(metrics: Sequence[dict], folder: Path) -> None:
    """Write `curves.svg` and `.png`: loss and top-1 accuracy (AP, perplexity) over epochs.

    Args:
        metrics: a line an epoch; `epoch`, and of train, valid and test what is there of `_loss`,
            `_top1` and `_AP` (percent) and `_perplexity`. A value that is missing or None leaves a
            gap.
        folder: where to.
    """
    figure = Figure((7.2, 2.7))
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.08, right=0.985, bottom=0.165, top=0.89, wspace=0.2)
    epochs = [line["epoch"] for line in metrics]
    parts = {"train": FAMILIES["sep_conv"], "valid": FAMILIES["skip"], "test": INK}
    drawn = {}
    quantities = {"loss": "loss", "top1": "top-1 accuracy (%)"}
    if any("valid_AP" in line for line in metrics):
        quantities = {"loss": "loss", "AP": "average precision (%)"}
    if any("train_perplexity" in line for line in metrics):
        quantities = {"loss": "loss (nats a word)", "perplexity": "perplexity"}
    for axes, (what, label) in zip(panels, quantities.items(), strict=True):
        for part, colour in parts.items():
            values = np.array([line.get(f"{part}_{what}") for line in metrics], float)
            if np.isfinite(values).any():
                (drawn[part],) = axes.plot(
                    epochs, values, color=colour, marker="o", ms=3, markevery=alone(values)
                )
        axes.set(xlabel="epoch", ylabel=label, yscale="log" if what == "perplexity" else "linear")
        epoch_axis(axes, epochs, ticks=6)
    figure.legend(
        drawn.values(), drawn, loc="upper center", ncols=len(parts), bbox_to_anchor=(0.53, 1.01)
    )
    save_figure(figure, folder / "curves")


@rc_context(STYLE)
def architecture(history: Sequence[dict], folder: Path) -> None:
    """Write `architecture_<kind>.svg` and `.png`: the mixing weights of every edge over epochs.

    Args:
        history: a line an epoch: `epoch`, `candidates` (K names; or for each kind E lists of
            them), `edges` (E pairs of source and target, the same in every line) and for each kind
            in `weights` its `op` [E, K] (or as many as the edge has names) and `edge` [E] or None.
        folder: where to.
    """
    for kind in history[-1]["weights"] if history else ():
        save_figure(architecture_figure(history, kind), folder / f"architecture_{kind}")


@rc_context(STYLE)
def measures(metrics: Sequence[dict], folder: Path) -> None:
    """Write `measures.svg` and `.png`: what a search recorded of its architecture over epochs.

    Args:
        metrics: a line an epoch; `epoch`, `valid_top1`, `cut_top1` and `derived_top1` (percent),
            `cut_statistics`, and of each kind of cell that is searched its `entropy_`, `skips_`,
            `pools_` and `changed_edges_`. A value that is missing or None leaves a gap.
        folder: where to.
    """
    save_figure(measures_figure(metrics), folder / "measures")


@rc_context(STYLE)
def spread(cells: Sequence[dict], folder: Path) -> None:
    """Write `spread.svg` and `.png`: the accuracies of the cells of a random search.

    Args:
        cells: at least one; of each its `number`, `valid_top1` (percent), `params` and maybe
            `valid_loss`, by which the best of equally accurate ones is chosen.
        folder: where to.
    """
    save_figure(spread_figure(cells), folder / "spread")


@rc_context(STYLE)
def confusion(tested: dict, folder: Path) -> None:
    """Write `confusion.svg` and `.png`: what the test images of each class were taken for.

    Args:
        tested: `per_class`, whose K keys are the classes, and `confusion` [K, K], images of each
            class by what they were taken for.
        folder: where to.
    """
    counts = np.array(tested["confusion"])
    save_figure(confusion_figure(counts, list(tested["per_class"])), folder / "confusion")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as `<path>.svg` and `<path>.png`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{path}.svg", metadata={"Date": None})
    figure.savefig(f"{path}.png", dpi=150)


def of(what: tyro.conf.Positional[str], output: Path | None = None) -> None:
    """Draw the pictures of a run folder, or the cells of a published genotype or genotype file.

    Args:
        what: a run folder (into its pictures), a published name or a genotype file.
        output: where the cells go, by default pictures/NAME here.

    Raises:
        InputError: there is no such thing, or the pictures cannot be written.
    """
    path = Path(what).expanduser()
    if what not in published() and path.is_dir():
        if output is not None:
            raise InputError(f"--output {output}: {what} is a run folder, drawn into its pictures")
        run(path)
        return
    try:
        genotype = load(what if what in published() else path)
    except InputError as error:
        raise InputError(str(error).removeprefix("--genotype ")) from None
    folder = Path("pictures") / path.stem if output is None else output.expanduser()
    try:
        cells(genotype, folder)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written ({error.strerror})") from None
    print(f"{folder}: {', '.join(f'{kind}.svg' for kind in genotype.cells)}, and as .png")


# --------------------------------------------------------------------------------------- files


def _sampled(path: Path) -> list[dict]:
    """The cells that a run ranked, without failed ones; none in another run's result."""
    found = (json_object(path) or {}).get("cells")
    return [cell for cell in found if "failed" not in cell] if isinstance(found, list) else []
