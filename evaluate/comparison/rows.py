"""A row of the table: figures of one method over its seeds, each with its mean and its number."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.data.images import large
from common.networks.complexity import multiply_adds
from common.networks.genotype import Cell, FixedCell, Genotype, parse
from common.networks.network import Network
from common.networks.ops import POOLS
from common.training.collapse import dominated_by_skips
from comparison.run_folders import Result, RunFolder

LAST = 3  # epochs at the end of a search over which changes of the genotype are counted


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        sd: sample standard deviation; None of one value.
        values: by seed.
    """

    mean: float
    sd: float | None
    values: dict[int, float]

    @property
    def n(self) -> int:
        """Of how many."""
        return len(self.values)


def mean_of(values: dict[int, float | None]) -> Mean | None:
    """Over the seeds that have one; None: none has."""
    there = {seed: value for seed, value in values.items() if value is not None}
    if not there:
        return None
    sd = statistics.stdev(there.values()) if len(there) > 1 else None
    return Mean(statistics.fmean(there.values()), sd, there)


@dataclass(frozen=True)
class Summary:
    """A row.

    Attributes:
        label: of the row.
        accuracy: on the test images, last epoch of the retraining, percent.
        gain: over the mean of the random cells of the same seed, points.
        search_seconds: as the searches recorded them.
        train_seconds: of the retrainings.
        wall_seconds: of both commands, start-up and pictures and all.
        memory_mib: peak of the search.
        params: of the retrained network.
        multiply_adds: of one image; convolutions and linear layers.
        skips: of each kind of cell, as many of its edges.
        pools: likewise.
        changed: edges of the derived cells that differ from an epoch before, an epoch, over the
            last three of the search.
        failures: of seeds without a result, why.
        warnings: of searches that ended in cells full of skips, or were stopped.
        remarks: of those whose cells were so for a while, and what a method reports of its own.
    """

    label: str
    accuracy: Mean | None
    gain: Mean | None
    search_seconds: Mean | None
    train_seconds: Mean | None
    wall_seconds: Mean | None
    memory_mib: Mean | None
    params: Mean | None
    multiply_adds: Mean | None
    skips: dict[str, Mean | None]
    pools: dict[str, Mean | None]
    changed: Mean | None
    failures: dict[int, str]
    warnings: list[str]
    remarks: list[str]


def summaries(
    results: Sequence[Result], random: Sequence[RunFolder]
) -> tuple[list[Summary], dict[int, Mean]]:
    """A row a label, and by seed what random cells reached."""
    baseline = random_by_seed(random)
    labels = list(dict.fromkeys(result.label for result in results))
    return [
        _summary(label, [r for r in results if r.label == label], baseline) for label in labels
    ], baseline


def random_by_seed(random: Sequence[RunFolder]) -> dict[int, Mean]:
    """Of each seed, the accuracies of its random cells."""
    found: dict[int, dict[int, float]] = {}
    for run in random:
        if run.result is not None:
            own = found.setdefault(run.seed, {})
            own[len(own)] = run.result["test_top1"]
    return {seed: mean_of(values) for seed, values in found.items()}


def _summary(label: str, results: Sequence[Result], random: dict[int, Mean]) -> Summary:
    trained = {r.seed: r.training for r in results if r.training is not None}
    searched = {r.seed: r.searches for r in results}

    def of_training(key: str) -> Mean | None:
        return mean_of({seed: run.result.get(key) for seed, run in trained.items()})

    def of_searches(key: str) -> dict[int, list[float]]:
        there = {s: [run.result for run in runs] for s, runs in searched.items()}
        return {s: [r[key] for r in found] for s, found in there.items() if all(found) and found}

    accuracy = of_training("test_top1")
    gains = {
        seed: run.result["test_top1"] - random[seed].mean
        for seed, run in trained.items() if seed in random
    }  # fmt: skip
    seconds = {seed: sum(values) for seed, values in of_searches("search_seconds").items()}
    memory = {seed: max(values) for seed, values in of_searches("peak_memory_mib").items()}
    walls = {
        seed: _sum_or_none([run.wall_seconds(), *(s.wall_seconds() for s in searched[seed])])
        for seed, run in trained.items()
    }
    counts = {seed: cell_counts(run.genotype) for seed, run in trained.items()}
    kinds = ("normal", "reduction")
    return Summary(
        label, accuracy, mean_of(gains), mean_of(seconds), of_training("train_seconds"),
        mean_of(walls), mean_of(memory), of_training("params"),
        mean_of({seed: adds_of(run) for seed, run in trained.items()}),
        {kind: mean_of({s: count[kind][0] for s, count in counts.items()}) for kind in kinds},
        {kind: mean_of({s: count[kind][1] for s, count in counts.items()}) for kind in kinds},
        mean_of({seed: changes(runs[0]) for seed, runs in searched.items() if runs}),
        {r.seed: r.failure for r in results if r.training is None},
        [text for r in results for text in events(r)[0]],
        [text for r in results for text in events(r)[1]],
    )


def _sum_or_none(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(values)


def cell_counts(genotype: Genotype) -> dict[str, tuple[int | None, int | None]]:
    """Of each kind of cell: skip connections and pools; None of a cell that is fixed."""
    found = {}
    for kind, cell in genotype.cells.items():
        names = [] if isinstance(cell, FixedCell) else [edge.op.name for edge in cell.edges]
        counts = names.count("skip_connect"), sum(name in POOLS for name in names)
        found[kind] = (None, None) if isinstance(cell, FixedCell) else counts
    return {"normal": (None, None), "reduction": (None, None), **found}


def adds_of(run: RunFolder) -> int | None:
    """Multiply-adds of a retrained network; None where the run says nothing of its images."""
    counted = both_adds_of(run)
    return None if counted is None else counted[0]


def both_adds_of(run: RunFolder) -> tuple[int, int] | None:
    """By both conventions of `common.networks.complexity`."""
    config, images = run.config, run.read("images.json")
    if "shape" not in images:
        return None
    shape = tuple(images["shape"])  # [C, H, W]
    with torch.device("meta"):
        network = Network(
            run.genotype, config["channels"], config["cells"], len(images["classes"]),
            image_channels=shape[0], large_images=large(shape),
        )
        return multiply_adds(network, torch.empty(1, *shape))


def changes(search: RunFolder) -> float | None:
    """Edges of the derived cells that differ from an epoch before, an epoch, at the end."""
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
    """Warnings and remarks: see `Summary`."""
    warnings, remarks = [], []
    for search in result.searches:
        who = f"{result.label}, seed {result.seed}"
        lines = search.lines("genotypes.jsonl")
        full: dict[str, list[int]] = {}
        for line in lines:
            for kind, cell in parse(json.dumps(line["genotype"])).cells.items():
                if dominated_by_skips(cell):
                    full.setdefault(kind, []).append(line["epoch"])
        for kind, epochs in full.items():
            text = f"{who}: half or more of the {kind} cell's edges were skip connections"
            if epochs[-1] == lines[-1]["epoch"]:
                warnings.append(f"{text} when the search ended.")
            else:
                remarks.append(f"{text} after {len(epochs)} of {len(lines)} epochs, not the last.")
        if (search.result or {}).get("collapsed"):
            warnings.append(f"{who}: stopped on collapse after {search.result['epochs']} epochs.")
        for kind, count in (search.result or {}).get("discovered", {}).items():  # PR-DARTS' own
            possible = search.result["discoverable"]
            remarks.append(f"{who}: discovered {count} of {possible} operations of {kind} cells.")
    return warnings, remarks
