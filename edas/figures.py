"""EDAS' pictures: architecture parameters over time (Fig. 5), accuracies of cut networks (Fig. 3).

`python -m edas.draw RUN_FOLDER` draws those of a run again. Several runs share a picture:

    python -m edas.draw ALPHA_MAX_RUN EDAS_RUN EDAS_INV_RUN --output FOLDER
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from common.draw.cell import FAMILIES, INK, OTHER, STYLE
from common.draw.pictures import save_figure
from common.draw.search import UNIFORM, epoch_axis, palette
from common.errors import InputError
from common.files import json_lines
from common.run.config import described

RECORDED = ("metrics", "architecture")  # files with a line an epoch
SHOWN = 6  # edges, of 28
LEADS = "another operation leads"  # a mark's label
CUTS = {
    "uncut_top1": "supernet", "cut_top1": "each edge cut to its best",
    "derived_top1": "derived cell only",
}  # fmt: skip
COLOURS = (INK, FAMILIES["skip"], FAMILIES["sep_conv"], FAMILIES["max_pool"], OTHER)


@dataclass(frozen=True)
class Record:
    """What a search recorded, epoch by epoch.

    Attributes:
        label: its variant, or another method's name, and its seed.
        metrics: lines of metrics.jsonl.
        candidates: the names of an edge's operations.
        names: names of the architecture parameters, normal cell first: edges 1 to 28.
        alpha: [epochs, edges, candidates]; another method has no edges.
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
        """Read a run folder.

        Raises:
            InputError: it has no record of an epoch.
        """
        try:
            config = described(folder)
            metrics, history = (json_lines(folder / f"{name}.jsonl") for name in RECORDED)
            # A kill between two writes leaves one file a line ahead.
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
        """Times (epochs, with --cut-steps iterations) and values of a quantity, [N] each."""
        if not self.iterations:
            return self.epochs, np.array([line.get(key) for line in self.metrics], float)
        if key in self.iterations[0]:
            lines = [(line["step"] + 1, line[key]) for line in self.iterations]
        else:  # after epochs only
            each = (self.iterations[-1]["step"] + 1) / self.iterations[-1]["epoch"]
            lines = [(each * line["epoch"], line.get(key)) for line in self.metrics]
        return tuple(np.array(lines, float).T)

    def fits(self, other: Record) -> bool:
        """Whether both have the same edges and candidates."""
        return (self.names, self.candidates) == (other.names, other.candidates)

    def best(self) -> np.ndarray:
        """[epochs, edges]: index of the best operation, never of `none`."""
        allowed = np.array([name != "none" for name in self.candidates])
        return np.where(allowed, self.alpha, -np.inf).argmax(-1)

    def changes(self) -> np.ndarray:
        """[epochs - 1, edges]: whether the best operation differs from the epoch before."""
        best = self.best()
        return best[1:] != best[:-1]


def of_run(folder: Path) -> None:
    """Draw `alphas.svg` of one search into its `pictures` folder."""
    run((folder,))


def run(folders: Sequence[Path], edges: Sequence[int] = (), output: Path | None = None) -> None:
    """Draw `alphas.svg` of one search; of several, that and `cuts.svg`.

    Args:
        folders: run folders, a row each; another method's search is shown in `cuts.svg` only.
        edges: edges to show, from 1; none: those whose best operation changes most often.
        output: the folder to draw into; None: the `pictures` of a single run.

    Raises:
        InputError: a folder has no search, there is no such edge, or --output is missing.
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
    figures = {}  # drawn before any is written: a refusal leaves no file
    if ours:
        figures["alphas"] = alphas_figure(ours, edges or most_changed(ours))
    if len(records) > 1:
        figures["cuts"] = cuts_figure(records)
    for name, figure in figures.items():
        save_figure(figure, output / name)


# --------------------------------------------------------------------------------------- Fig. 5


@rc_context(STYLE)
def alphas_figure(records: Sequence[Record], edges: Sequence[int]) -> Figure:
    """alpha of chosen edges over epochs, a row a search; a mark where another operation leads.

    A dashed line is at the alpha whose softmax weight is uniform, 1 / candidates.

    Args:
        records: searches with equal candidates.
        edges: numbered from 1, as in Fig. 5.

    Raises:
        InputError: there is no such edge.
    """
    names, colours = records[0].names, palette(records[0].candidates)
    if wrong := [edge for edge in edges if not 1 <= edge <= len(names)]:
        raise InputError(f"--edges {wrong[0]}: there are edges 1 to {len(names)}")
    size = (2.6 + 1.5 * len(edges), max(2.0, 0.6 + 1.35 * len(records)))
    figure = Figure(size, layout="constrained")
    panels = figure.subplots(len(records), len(edges), sharex=True, sharey=True, squeeze=False)
    for record, row in zip(records, panels, strict=True):
        best, changes = record.best(), record.changes()
        for edge, axes in zip(edges, row, strict=True):
            alpha, changed = record.alpha[:, edge - 1], np.flatnonzero(changes[:, edge - 1]) + 1
            for k, (name, colour) in enumerate(colours.items()):
                look = {"color": colour, "lw": 1.3, "ms": 2, "markevery": [-1], "label": name}
                axes.plot(record.epochs, alpha[:, k], "o-", **look)
            uniform = np.log(np.exp(alpha).mean(-1))  # log-mean-exp: exp(it) / sum exp = 1 / K
            axes.plot(record.epochs, uniform, label="uniform weight", **UNIFORM)
            leading = alpha[changed, best[changed, edge - 1]]
            axes.plot(
                record.epochs[changed], leading, "o", label=LEADS, color=INK, ms=4, mfc="none"
            )
            axes.tick_params(length=2, labelsize=7.5)
        row[0].set_ylabel(f"{record.label}\n{changes.sum()} changes in all", fontsize=8)
    for edge, axes in zip(edges, panels[0], strict=True):
        _, kind, pair = names[edge - 1].split("_")
        source, target = pair.split("-")
        axes.set_title(f"{edge}: {kind} x{source} → x{target}")
    epoch_axis(axes, np.concatenate([record.epochs for record in records]), ticks=4)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    figure.supxlabel("epoch")
    return figure


def most_changed(records: Sequence[Record]) -> list[int]:
    """Edges whose best operation changes most often, numbered from 1; of equals the first."""
    counts = sum(record.changes().sum(0) for record in records)
    return sorted(int(n) + 1 for n in np.argsort(-counts, kind="stable")[:SHOWN])


# --------------------------------------------------------------------------------------- Fig. 3


@rc_context(STYLE)
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
    figure = Figure((7.6, 2.9), layout="constrained")
    panels = figure.subplots(1, len(CUTS), sharex=True, sharey=True)
    for axes, (key, title) in zip(panels, CUTS.items(), strict=True):
        for record, colour in zip(records, itertools.cycle(COLOURS), strict=False):
            look = {"color": colour, "marker": "o", "ms": 3, "markevery": [-1], "lw": 1.2}
            axes.plot(*record.over_time(key), label=record.label, **look)
        axes.set(title=title, xlabel="iteration" if measured == {True} else "epoch")
    times = np.concatenate([record.over_time(key)[0] for record in records for key in CUTS])
    epoch_axis(panels[0], times, ticks=5)
    statistics = "/".join(sorted({record.metrics[-1]["cut_statistics"] for record in records}))
    panels[0].set_ylabel(f"validation top-1 (%)\n{statistics} statistics")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(records)))
    return figure
