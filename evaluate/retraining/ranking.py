"""Trains genotypes briefly from scratch and ranks them by validation accuracy.

Used by random search, and to pick one of several searches (DARTS; GDAS 4.2). All results are kept.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from common.data.images import Images
from common.errors import InputError, NotFinite
from common.networks.genotype import Genotype, save
from common.run.config import RunConfig
from common.run.folder import Run
from common.run.operations import recorded
from retraining import loop
from retraining.config import RetrainConfig, TrainConfig


def check_log(config: RunConfig) -> None:
    """Refuse a tracker: the cells' metrics would overwrite one another.

    Raises:
        InputError: naming the flag.
    """
    if config.log_with:
        raise InputError(
            f"--log-with {' '.join(config.log_with)}: the cells would overwrite one another's "
            "metrics; leave it out, each cell has its own metrics.jsonl"
        )


def train_briefly(
    config: TrainConfig, run: Run, genotype: Genotype, number: int, train: Images, valid: Images
) -> dict[str, Any]:
    """Train one genotype in `cells/<number>` of the run's folder, and return its result.

    A training started earlier is resumed. If its loss is not finite, the result has `failed` with
    the reason.
    """
    name = f"cells/{number:03d}"
    fields = [field.name for field in dataclasses.fields(TrainConfig)]
    recipe = RetrainConfig(**{
        **{field: getattr(config, field) for field in fields},
        "output": None, "resume": str(run.folder / name),
        "genotype": genotype.name, "held_out": "valid",
    })
    inner = run.inner(name, recipe, loop.METHOD)
    if inner.result() is None:
        try:
            loop.train(recipe, inner, genotype, train, valid)
        except NotFinite as error:  # a result too; the other cells continue
            run.say(f"cell {number} failed: {error}")
            inner.write("result.json", {"genotype": genotype.name, "failed": str(error)})
        run.accelerator.wait_for_everyone()  # until the result is written
    return {"number": number, **inner.read("result.json")}


def seconds(cells: Sequence[dict[str, Any]]) -> float:
    """Training time of all cells."""
    return sum(cell.get("train_seconds", 0.0) for cell in cells)


def conclude(
    config: TrainConfig, run: Run, genotypes: Sequence[Genotype], cells: list[dict[str, Any]],
    search_seconds: float,
) -> None:
    """Write and print the ranking; the best cell becomes the run's genotype.

    Args:
        config: of the trainings.
        run: gets the best genotype.
        genotypes: the ranked ones.
        cells: their results, in the same order.
        search_seconds: total time.

    Raises:
        NotFinite: no genotype could be trained.
    """
    from common.draw import pictures

    trained = [
        (cell, genotype)
        for cell, genotype in zip(cells, genotypes, strict=True)
        if "failed" not in cell
    ]
    if not trained:
        raise NotFinite(f"none of the {len(cells)} cells could be trained: {cells[0]['failed']}")
    ranked = sorted(trained, key=lambda pair: (-pair[0]["valid_top1"], pair[0]["valid_loss"]))
    winner, genotype = ranked[0]
    best = Genotype(f"{run.method}-{config.dataset}-seed{config.seed}", genotype.cells, {
        "dataset": config.dataset, **genotype.provenance,  # with its own seed
        **recorded(config.operations),
        "number": winner["number"], "of": len(cells), "commit": run.commit,
    })
    top1 = [cell["valid_top1"] for cell, _ in ranked]
    mean, std = statistics.mean(top1), statistics.stdev(top1) if len(top1) > 1 else None
    if run.accelerator.is_main_process:
        save(best, run.folder / "genotype.json")
        pictures.cells(best, run.folder / "pictures")
        pictures.spread([cell for cell, _ in ranked], run.folder / "pictures")
    run.write("result.json", {  # last: the run is finished
        "genotype": best.name,
        "valid_top1": winner["valid_top1"],  # the selection criterion
        "valid_top1_mean": mean,
        "valid_top1_std": std,
        "search_seconds": round(search_seconds, 1),
        "peak_memory_mib": max(cell["peak_memory_mib"] for cell, _ in ranked),
        **{key: winner[key] for key in winner if key.startswith(("true_", "rank_"))},
        "failed": len(cells) - len(ranked),
        "cells": cells,
    })
    run.say(f"\n{'cell':>4} {'valid top-1':>12} {'parameters':>12}")
    for cell, _ in ranked:
        run.say(f"{cell['number']:>4} {cell['valid_top1']:>10.2f} % {cell['params']:>12,}")
    spread = "" if std is None else f", standard deviation {std:.2f}"
    failed = f" ({len(cells) - len(ranked)} failed)" if len(cells) > len(ranked) else ""
    run.say(f"mean {mean:.2f} %{spread}, of {len(ranked)} cells{failed}\n\n{best}\n")
    run.say(f"run folder: {run.folder} (pictures of the cells and of the spread inside)")
