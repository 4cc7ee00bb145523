"""The metrics of each seed, and the rows of the table: a method's mean, deviation and number."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.data.images import large
from common.networks.complexity import multiply_adds
from common.networks.genotype import Cell, FixedCell, Genotype, parse
from common.networks.network import Network, weightless
from common.networks.ops import POOLS
from common.training.collapse import dominated_by_skips
from comparison.run_folders import Result, RunFolder

CELL = "random cell"  # label of a retrained random cell
AVERAGE = "average random cell"  # the row of all of them
LAST = 3  # final epochs of a search over which changes of the genotype are counted
KINDS = ("normal", "reduction")
METRICS = (
    "accuracy", "gain", "search_seconds", "train_seconds", "wall_seconds", "memory_mib", "params",
    "multiply_adds",
)  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        sd: sample standard deviation; None for one value.
        values: by seed; of random cells by their number among all.
    """

    mean: float
    sd: float | None
    values: dict[int, float]

    @property
    def n(self) -> int:
        return len(self.values)


def mean_of(values: Mapping[int, float | None]) -> Mean | None:
    """The mean over the seeds that have a value; None where none has."""
    there = {seed: value for seed, value in values.items() if value is not None}
    if not there:
        return None
    sd = statistics.stdev(there.values()) if len(there) > 1 else None
    return Mean(statistics.fmean(there.values()), sd, there)


@dataclass(frozen=True)
class Measured:
    """One seed of a method, or one random cell, whose label is CELL.

    Attributes:
        result: its run folders.
        metrics: by name, see `Summary`; those that are unknown are None or left out.
    """

    result: Result
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class Summary:
    """A row.

    Attributes:
        label: of the row.
        means: by metric. accuracy: top-1 on the test images after the last epoch, percent; gain:
            over the mean of the random cells of the same seed, points; search_seconds and
            train_seconds: as the runs measured them; wall_seconds: of both commands, start-up
            included; memory_mib: peak of the search; params and multiply_adds: of the retrained
            network and one image; changed: edges of the derived cells that change per epoch, over
            the last three of the search; skips and pools: edges of each kind of cell.
        failures: by seed, why there is no accuracy.
        warnings: searches that ended in cells dominated by skips, or were stopped.
        remarks: searches whose cells were so for a while, and what a method itself reports.
    """

    label: str
    means: dict[str, Any]  # Mean | None; of skips and pools one per kind of cell
    failures: dict[int, str]
    warnings: list[str]
    remarks: list[str]


def measure(results: Sequence[Result], random: Sequence[RunFolder]) -> list[Measured]:
    """The metrics of each result, then of each random cell.

    Args:
        results: of all labels and seeds.
        random: finished retrainings of random cells.
    """
    baseline = {
        seed: statistics.fmean(run.result["test_top1"] for run in random if run.seed == seed)
        for seed in {run.seed for run in random}
    }
    cells = [Result(CELL, run.seed, None, run) for run in random]
    return [
        *(Measured(result, _metrics(result, baseline)) for result in results),
        *(Measured(cell, _metrics(cell, {})) for cell in cells),
    ]


def summaries(measured: Sequence[Measured]) -> list[Summary]:
    """A row per method, then the average random cell, if there is one."""
    rows: dict[str, list[Measured]] = {}
    for one in measured:
        label = AVERAGE if one.result.label == CELL else one.result.label
        rows.setdefault(label, []).append(one)
    return [summary(label, own) for label, own in rows.items()]


def summary(label: str, own: Sequence[Measured]) -> Summary:
    """The row of one label's seeds, or of one seed."""
    results = [one.result for one in own]
    keys = range(len(own)) if label == AVERAGE else [result.seed for result in results]

    def mean(name: str) -> Mean | None:
        return mean_of({key: one.metrics.get(name) for key, one in zip(keys, own, strict=True)})

    means = {name: mean(name) for name in METRICS}
    for name in ("skips", "pools"):
        means[name] = {kind: mean(f"{name}_{kind}") for kind in KINDS}
    means["changed"] = mean("changed")
    failures = {result.seed: result.failure for result in results if result.training is None}
    told = [events(result) for result in results]
    return Summary(
        label, means, failures, sum((w for w, _ in told), []), sum((r for _, r in told), [])
    )


def _metrics(result: Result, baseline: Mapping[int, float]) -> dict[str, float | None]:
    """The metrics of one seed, see `Measured`."""
    metrics: dict[str, float | None] = {}
    if result.search is not None:
        metrics["changed"] = changes(result.search)
        searched = result.search.result or {}
        metrics["search_seconds"] = searched.get("search_seconds")
        metrics["memory_mib"] = searched.get("peak_memory_mib")
    if result.training is not None:
        trained = result.training.result
        metrics["accuracy"] = trained["test_top1"]
        if result.seed in baseline:
            metrics["gain"] = trained["test_top1"] - baseline[result.seed]
        metrics |= {name: trained.get(name) for name in ("train_seconds", "params")}
        metrics["multiply_adds"] = (both_adds_of(result.training) or (None,))[0]
        metrics |= cell_counts(result.training.genotype)
        walls = [run.wall_seconds() for run in result.runs]
        metrics["wall_seconds"] = None if None in walls else sum(walls)
    return metrics


def cell_counts(genotype: Genotype) -> dict[str, int]:
    """Skip connections and pools of each kind of cell, without those of a fixed cell."""
    counts = {}
    for kind, cell in genotype.cells.items():
        if not isinstance(cell, FixedCell):
            names = [edge.op.name for edge in cell.edges]
            counts[f"skips_{kind}"] = names.count("skip_connect")
            counts[f"pools_{kind}"] = sum(name in POOLS for name in names)
    return counts


def both_adds_of(run: RunFolder) -> tuple[int, int] | None:
    """Multiply-adds of a retrained network by both conventions of `common.networks.complexity`.

    None where the run has no images.json, or an operation cannot be counted.
    """
    config, images = run.config, run.read("images.json")
    if "shape" not in images:
        return None
    shape = tuple(images["shape"])  # [C, H, W]
    with weightless(run.genotype):
        network = Network(
            run.genotype, config["channels"], config["cells"], len(images["classes"]),
            image_channels=shape[0], large_images=large(shape),
        )
    *both, uncounted = multiply_adds(network, shape)
    return None if uncounted else tuple(both)


def changes(search: RunFolder) -> float | None:
    """Edges of the derived cells that change per epoch, over the last epochs of a search."""
    lines = search.lines("genotypes.jsonl")[-LAST - 1 :]
    cells = [parse(json.dumps(line["genotype"])).cells for line in lines]
    if len(cells) < 2:
        return None
    changed = sum(
        len(set(now[kind].edges) - set(before[kind].edges))
        for before, now in zip(cells, cells[1:], strict=False)
        for kind in now if isinstance(now[kind], Cell)
    )  # fmt: skip
    return changed / (len(cells) - 1)


def events(result: Result) -> tuple[list[str], list[str]]:
    """The warnings and remarks of a search, see `Summary`."""
    warnings, remarks = [], []
    if result.search is None:
        return warnings, remarks
    who, found = f"{result.label}, seed {result.seed}", result.search.result or {}
    lines = result.search.lines("genotypes.jsonl")
    cells = [parse(json.dumps(line["genotype"])).cells for line in lines]
    for kind in cells[-1] if cells else ():
        dominated = [dominated_by_skips(epoch[kind]) for epoch in cells]
        text = f"{who}: skip connections on half or more of the {kind} cell's edges"
        if dominated[-1]:
            warnings.append(f"{text} at the end of the search.")
        elif any(dominated):
            remarks.append(f"{text} after {sum(dominated)} of {len(lines)} epochs, not the last.")
    if found.get("collapsed"):
        warnings.append(f"{who}: stopped on collapse after {found['epochs']} epochs.")
    for kind, count in found.get("discovered", {}).items():  # PR-DARTS
        possible = found["discoverable"]
        remarks.append(f"{who}: discovered {count} of {possible} operations of {kind} cells.")
    return warnings, remarks
