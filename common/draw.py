"""The pictures of a run: its cells, its learning curves, how its architecture came about.

`python -m common.draw RUN_FOLDER` draws any run so far again. Equal runs give equal SVG files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from common.draw_cell import FAMILIES, INK, OTHER, STYLE, cell_figure, family, tint
from common.errors import InputError, errors_are_messages
from common.genotype import Genotype, load

EDGE = {"lw": 0.8, "ls": (0, (4, 2))}  # the line of an edge's weight


def run(folder: tyro.conf.Positional[Path]) -> None:
    """Draw the pictures of a run folder into its `pictures` folder.

    Raises:
        InputError: the folder holds no metrics.jsonl, or a genotype.json that is not valid.
    """
    if not (folder / "metrics.jsonl").is_file():
        raise InputError(f"{folder}: holds no metrics.jsonl, so it is not the folder of a run")
    curves(_lines(folder / "metrics.jsonl"), folder / "pictures")
    if (folder / "architecture.jsonl").is_file():
        architecture(_lines(folder / "architecture.jsonl"), folder / "pictures")
    if (folder / "genotype.json").is_file():
        cells(load(folder), folder / "pictures")


@rc_context(STYLE)
def cells(genotype: Genotype, folder: Path) -> None:
    """Write `<kind>.svg` and `<kind>.png` of the normal and the reduction cell."""
    for kind, cell in genotype.cells.items():
        if kind != "recurrent":
            _save(cell_figure(cell), folder / kind)


@rc_context(STYLE)
def curves(metrics: Sequence[dict], folder: Path) -> None:
    """Write `curves.svg` and `.png`: loss and top-1 accuracy over epochs.

    Args:
        metrics: a line an epoch; `epoch`, and of train, valid and test what is there of `_loss`
            and `_top1` (percent). A value that is missing or None leaves a gap.
        folder: where to.
    """
    figure = Figure((7.2, 2.7))
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.08, right=0.985, bottom=0.165, top=0.89, wspace=0.2)
    epochs = [line["epoch"] for line in metrics]
    parts = {"train": FAMILIES["sep_conv"], "valid": FAMILIES["skip"], "test": INK}
    drawn = {}
    quantities = {"loss": "loss", "top1": "top-1 accuracy (%)"}
    for axes, (what, label) in zip(panels, quantities.items(), strict=True):
        for part, colour in parts.items():
            values = np.array([line.get(f"{part}_{what}") for line in metrics], float)
            if np.isfinite(values).any():
                (drawn[part],) = axes.plot(
                    epochs, values, color=colour, marker="o", ms=3, markevery=_alone(values)
                )
        axes.set(xlabel="epoch", ylabel=label)
        _epoch_axis(axes, epochs, ticks=6)
    figure.legend(
        drawn.values(), drawn, loc="upper center", ncols=len(parts), bbox_to_anchor=(0.53, 1.01)
    )
    _save(figure, folder / "curves")


@rc_context(STYLE)
def architecture(history: Sequence[dict], folder: Path) -> None:
    """Write `architecture_<kind>.svg` and `.png`: the mixing weights of every edge over epochs.

    Args:
        history: a line an epoch: `epoch`, `candidates` (K names), `edges` (E pairs of source and
            target, the same in every line) and for each kind in `weights` its `op` [E, K] and
            `edge` [E] or None.
        folder: where to.
    """
    for kind in history[-1]["weights"] if history else ():
        _save(_architecture_figure(history, kind), folder / f"architecture_{kind}")


def main() -> None:
    """The command."""
    with errors_are_messages():
        tyro.cli(run, prog="python -m common.draw")


# ------------------------------------------------------------------------- curves, architecture


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{path}.svg", metadata={"Date": None})
    figure.savefig(f"{path}.png", dpi=150)


def _alone(values: np.ndarray) -> list[int]:
    """The indices of values between gaps: a line would not show them."""
    there = np.pad(np.isfinite(values), 1)
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()


def _architecture_figure(history: Sequence[dict], kind: str) -> Figure:
    epochs = [line["epoch"] for line in history]
    weights = [line["weights"][kind] for line in history]
    op = np.array([w["op"] for w in weights], float)  # [epochs, E, K]
    edge = np.array([w["edge"] for w in weights], float)  # [epochs, E], [epochs] without any
    edges, palette = history[-1]["edges"], _palette(history[-1]["candidates"])
    size = max(target for _, target in edges) - 1  # nodes: a row each
    columns = size + 1 if size > 3 else size + 2  # the legend needs the corner
    figure = Figure((0.8 + 1.45 * columns, 0.75 + 1.2 * size))
    width, height = figure.get_size_inches()
    grid = figure.add_gridspec(
        size, columns, left=0.6 / width, right=1 - 0.1 / width, bottom=0.45 / height,
        top=1 - 0.25 / height, wspace=0.12, hspace=0.35,
    )  # fmt: skip
    top = 1.05 * np.nanmax([op.max(), edge.max() if edge.ndim == 2 else 0])
    for n, (source, target) in enumerate(edges):
        axes = figure.add_subplot(grid[target - 2, source])
        for k, colour in enumerate(palette.values()):
            axes.plot(epochs, op[:, n, k], color=colour, lw=1.3, marker="o", ms=2.5, markevery=[-1])
        if edge.ndim == 2:
            axes.plot(epochs, edge[:, n], color=INK, marker=".", markevery=[-1], ms=3, **EDGE)
        axes.set_title(f"{source} \u2192 {target}", fontsize=8.5, pad=3)
        axes.set_ylim(0, top)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        _epoch_axis(axes, epochs, ticks=3)
        axes.tick_params(
            length=2, labelsize=7.5, labelleft=source == 0, labelbottom=target == size + 1
        )
    handles = [Line2D([], [], color=colour, lw=2, label=name) for name, colour in palette.items()]
    if edge.ndim == 2:
        handles.append(Line2D([], [], color=INK, **EDGE, label="edge's weight"))
    figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(1, 1))
    figure.supxlabel("epoch", x=0.5, y=0.06 / height, fontsize=8.5, va="bottom")
    figure.supylabel("mixing weight", x=0.1 / width, fontsize=8.5, ha="left")
    return figure


def _epoch_axis(axes: Axes, epochs: Sequence[int], ticks: int) -> None:
    first, last = min(epochs, default=0), max(epochs, default=0)
    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    locator = MaxNLocator(ticks, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_locator(locator)


def _palette(names: Sequence[str]) -> dict[str, tuple]:
    """A colour a name: that of its family, the later ones of a family lighter."""
    families = [family(name) for name in names]
    return {
        name: tint(FAMILIES.get(family, OTHER), 0.6 ** families[:n].count(family))
        for n, (name, family) in enumerate(zip(names, families, strict=True))
    }


if __name__ == "__main__":
    main()
