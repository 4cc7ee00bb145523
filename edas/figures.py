"""EDAS' pictures: architecture parameters over time (Fig. 5), accuracies of what is cut (Fig. 3).

`python -m edas.draw RUN_FOLDER` draws those of a run again; of several runs, one picture sets them
beside each other:

    python -m edas.draw ALPHA_MAX_RUN EDAS_RUN EDAS_INV_RUN --output FOLDER
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from common.draw.cell import FAMILIES, INK, OTHER, STYLE
from common.draw.pictures import save_figure
from common.draw.search import epoch_axis, palette
from common.errors import InputError
from common.files import json_lines
from common.run.config import described

RECORDED = ("metrics", "architecture")  # line by line, an epoch each
SHOWN = 6  # edges, of 28
COLOURS = (INK, FAMILIES["skip"], FAMILIES["sep_conv"], FAMILIES["max_pool"], OTHER)


@dataclass(frozen=True)
class Record:
    """What a search wrote down, epoch by epoch.

    Attributes:
        label: its variant, or the method if that is another, and its seed.
        metrics: lines of metrics.jsonl.
        candidates: the names of an edge's operations.
        names: of the architecture parameters, normal cell first: edges 1 to 28.
        alpha: [epochs, edges, candidates]; without edges, if it is of another method.
        iterations: lines of iterations.jsonl; none without --cut-steps.
    """

    label: str
    metrics: list[dict]
    candidates: list[str]
    names: list[str]
    alpha: np.ndarray
    iterations: list[dict]

    @property
    def epochs(self) -> np.ndarray:
        """[epochs]."""
        return np.array([line["epoch"] for line in self.metrics])

    @classmethod
    def of(cls, folder: Path) -> Record:
        """The record in a run folder.

        Raises:
            InputError: there is none.
        """
        try:
            config = described(folder)
            metrics, history = (json_lines(folder / f"{name}.jsonl") for name in RECORDED)
            # A kill between the two leaves one a line ahead.
            metrics, history = zip(*zip(metrics, history, strict=False), strict=True)
            label, last = config.get("variant", config["method"]), history[-1]
        except (OSError, KeyError, ValueError):  # an InputError is a ValueError
            raise InputError(
                f"{folder}: is not the folder of a search that has finished an epoch"
            ) from None
        names = list(last["parameters"]) if config["method"] == "edas" else []
        alpha = [[line["parameters"][name] for name in names] for line in history]
        label = f"{label}, seed {config['seed']}"
        steps = folder / "iterations.jsonl"
        return cls(
            label, list(metrics), last["candidates"], names, np.array(alpha, float),
            json_lines(steps) if steps.is_file() else [],
        )  # fmt: skip

    def over_time(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """[N], [N]: when it was measured, in iterations where the search did so, and the values."""
        if not self.iterations:
            return self.epochs, np.array([line.get(key) for line in self.metrics], float)
        if key in self.iterations[0]:
            lines = [(line["step"] + 1, line[key]) for line in self.iterations]
        else:  # after epochs only
            each = (self.iterations[-1]["step"] + 1) / (self.iterations[-1]["epoch"] + 1)
            lines = [(each * (line["epoch"] + 1), line.get(key)) for line in self.metrics]
        return tuple(np.array(lines, float).T)

    def fits(self, other: Record) -> bool:
        """Whether both are of the same edges and candidates."""
        return (self.names, self.candidates) == (other.names, other.candidates)

    def best(self) -> np.ndarray:
        """[epochs, edges]: the operation of first rank; `none` never is."""
        allowed = np.array([name != "none" for name in self.candidates])
        return np.where(allowed, self.alpha, -np.inf).argmax(-1)

    def changes(self) -> np.ndarray:
        """[epochs - 1, edges]: whether the first rank is another's than an epoch before."""
        best = self.best()
        return best[1:] != best[:-1]


def of_run(folder: Path) -> None:
    """Draw `alphas.svg` of one search into its `pictures` folder."""
    run((folder,))


def run(
    folders: tyro.conf.Positional[tuple[Path, ...]],
    /,
    edges: tuple[int, ...] = (),
    output: Path | None = None,
) -> None:
    """Draw `alphas.svg` of one search; of several, that and `cuts.svg`.

    Args:
        folders: of the searches, each a row; one by another method is shown in `cuts.svg` only.
        edges: which are shown, 1 to 14 of the normal cell, 15 to 28 of the reduction cell; by
            default those with the most changes of first rank in all runs.
        output: the folder to draw into; that of one run by default is its `pictures`.

    Raises:
        InputError: a folder is not that of a search, there is no such edge, or nowhere to draw.
    """
    if not folders or (output is None and len(folders) > 1):
        raise InputError("name one run folder, or several and the folder to draw into: --output")
    records = [Record.of(folder) for folder in folders]
    ours = [record for record in records if record.names]
    for folder, record in zip(folders, records, strict=True):
        if record.names and not record.fits(ours[0]):
            raise InputError(
                f"{folder}: its edges or candidates are not those of the first run; "
                "draw runs of equal --nodes and --candidates"
            )
    output = output or folders[0] / "pictures"
    with rc_context(STYLE):
        figures = {}  # all of them, before any is written
        if ours:
            figures["alphas"] = alphas_figure(ours, edges or _most_changed(ours))
        if len(records) > 1:
            figures["cuts"] = cuts_figure(records)
        for name, figure in figures.items():
            save_figure(figure, output / name)


# --------------------------------------------------------------------------------------- Fig. 5


def alphas_figure(records: Sequence[Record], edges: Sequence[int]) -> Figure:
    """alpha of chosen edges over epochs: a row a search; a mark where another operation leads.

    Args:
        records: searches among equal candidates.
        edges: as Fig. 5 numbers them, from 1.

    Raises:
        InputError: there is no such edge.
    """
    names, colours = records[0].names, palette(records[0].candidates)
    if wrong := [edge for edge in edges if not 1 <= edge <= len(names)]:
        raise InputError(f"--edges {wrong[0]}: there are edges 1 to {len(names)}")
    columns = min(4, max(1, round(1.5 * len(edges) / 1.6)))  # of the legend
    over = 0.35 + 0.2 * math.ceil((len(colours) + 1) / columns)
    figure = Figure((0.93 + max(1.5 * len(edges), 2.4), 0.45 + over + 1.35 * len(records)))
    width, height = figure.get_size_inches()
    panels = figure.subplots(len(records), len(edges), sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.85 / width, right=1 - 0.08 / width, bottom=0.45 / height, top=1 - over / height,
        wspace=0.1, hspace=0.28,
    )  # fmt: skip
    for r, (record, row) in enumerate(zip(records, panels, strict=True), 1):
        epochs, best, changes = record.epochs, record.best(), record.changes()
        for edge, axes in zip(edges, row, strict=True):
            alpha, changed = record.alpha[:, edge - 1], np.flatnonzero(changes[:, edge - 1]) + 1
            for k, colour in enumerate(colours.values()):
                axes.plot(epochs, alpha[:, k], "o-", color=colour, lw=1.3, ms=2, markevery=[-1])
            leading = alpha[changed, best[changed, edge - 1]]
            axes.plot(epochs[changed], leading, "o", color=INK, ms=4, mfc="none", mew=1)
            epoch_axis(axes, epochs, ticks=4)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(length=2, labelsize=7.5, labelbottom=r == len(records))
        row[0].set_ylabel(f"{record.label}\n{changes.sum()} changes in all", fontsize=8)
    for edge, axes in zip(edges, panels[0], strict=True):
        _, kind, pair = names[edge - 1].split("_")
        axes.set_title(f"{edge}: {kind} {pair.replace('-', ' → ')}", fontsize=8.5, pad=4)
    handles = [Line2D([], [], color=colour, lw=2, label=name) for name, colour in colours.items()]
    mark = {"marker": "o", "ls": "", "color": INK, "mfc": "none"}
    handles.append(Line2D([], [], label="another operation leads", **mark))
    figure.legend(handles=handles, loc="upper center", ncols=columns)
    figure.supxlabel("epoch", y=0.06 / height, fontsize=8.5, va="bottom")
    return figure


def _most_changed(records: Sequence[Record]) -> list[int]:
    """The edges whose first rank changed most often in all searches, from 1; ties to the first."""
    counts = sum(record.changes().sum(0) for record in records)
    return sorted(int(n) + 1 for n in np.argsort(-counts, kind="stable")[:SHOWN])


# --------------------------------------------------------------------------------------- Fig. 3


def cuts_figure(records: Sequence[Record]) -> Figure:
    """Validation accuracy of the supernet, of it cut to best operations, of its derived cell.

    Raises:
        InputError: a search did not record them.
    """
    for record in records:
        if record.metrics[-1].get("cut_top1") is None:
            raise InputError(f"{record.label}: was run without --cut-accuracy, which Fig. 3 needs")
    measured = {bool(record.iterations) for record in records}
    if len(measured) > 1:
        raise InputError("some of the searches were run with --cut-steps, some without: draw alike")
    unit = "iteration" if measured == {True} else "epoch"
    figure = Figure((7.6, 2.9))
    panels = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(left=0.1, right=0.99, bottom=0.16, top=0.8, wspace=0.08)
    shown = {
        "uncut_top1": "supernet", "cut_top1": "each edge cut to its best",
        "derived_top1": "derived cell only",
    }  # fmt: skip
    for axes, (key, title) in zip(panels, shown.items(), strict=True):
        for record, colour in zip(records, itertools.cycle(COLOURS), strict=False):
            look = {"color": colour, "marker": "o", "ms": 3, "markevery": [-1], "lw": 1.2}
            axes.plot(*record.over_time(key), label=record.label, **look)
        epoch_axis(axes, [when for record in records for when in record.over_time(key)[0]], ticks=5)
        axes.set_title(title, fontsize=8.5)
        axes.set_xlabel(unit)
    statistics = "/".join(sorted({record.metrics[-1]["cut_statistics"] for record in records}))
    panels[0].set_ylabel(f"validation top-1 (%)\n{statistics} statistics")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(records))
    return figure
