"""Print the parameters and multiply-adds of the network that a genotype describes.

    python evaluate/complexity.py --genotype pc_darts_imagenet --dataset imagenet
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import tyro

from common.complexity import SETTINGS, complexity
from common.errors import errors_are_messages
from common.genotype import load

# key of the JSON form -> what a person reads
CONVENTIONS = {
    "params": "parameters, without the auxiliary head",
    "params_with_auxiliary": "parameters, with the auxiliary head",
    "multiply_adds": "multiply-adds, convolutions and linear layers",
    "multiply_adds_paper": "multiply-adds, PC-DARTS' convention",
}


@dataclass(frozen=True)
class Options:
    """Size of the network that a genotype describes."""

    genotype: str
    """A published name, a genotype file or the folder of a search."""
    dataset: Literal["cifar10", "cifar100", "imagenet"] = "cifar10"
    """Sets the image size, the stem, the classes and the defaults of channels and cells."""
    channels: int | None = None
    """Of the first cell's nodes (default: 36, on ImageNet 48)."""
    cells: int | None = None
    """How many cells (default: 20, on ImageNet 14)."""
    json: bool = False
    """Print one JSON object."""


def report(options: Options) -> dict[str, Any]:
    """The network and its counts, as the JSON form prints them.

    Raises:
        InputError: no such genotype, or a size that makes no network.
    """
    sizes = {"channels": options.channels, "cells": options.cells}
    given = {key: value for key, value in sizes.items() if value is not None}
    setting = replace(SETTINGS[options.dataset], **given)
    genotype = load(options.genotype)
    return {
        "genotype": genotype.name,
        "dataset": options.dataset,
        "channels": setting.channels,
        "cells": setting.cells,
        "image_size": setting.image_size,
        **asdict(complexity(genotype, setting)),
    }


def table(counts: dict[str, Any]) -> str:
    """The report as a person reads it, a line a convention."""
    lines = [
        "{genotype} on {dataset}: {channels} channels, {cells} cells, "
        "{image_size} x {image_size} pixels".format(**counts)
    ]
    for key, convention in CONVENTIONS.items():
        lines.append(f"  {convention:<45}  {counts[key]:>15,}  {counts[key] / 1e6:>8.2f} M")
    return "\n".join(lines)


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    with errors_are_messages():
        counts = report(options)
        print(json.dumps(counts) if options.json else table(counts))
