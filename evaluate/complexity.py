"""Count parameters and multiply-adds of a genotype's network.

    python evaluate/complexity.py --genotype pc_darts_imagenet --dataset imagenet
    python evaluate/complexity.py --genotype gdas --dataset folder --data-root IMAGES
    python evaluate/complexity.py --list        the published cells beside the papers' figures
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from common.data.datasets import load_train
from common.errors import InputError, errors_are_messages
from common.networks import zoo
from common.networks.complexity import Setting, complexity
from common.networks.genotype import load
from common.networks.macro import large
from common.run.cli import read_flags
from common.run.flags import Between, CellName, OperationsFile, check_bounds
from published.cells import listing

# key of the JSON form -> printed name
CONVENTIONS = {
    "params": "parameters, without the auxiliary head",
    "params_with_auxiliary": "parameters, with the auxiliary head",
    "multiply_adds": "multiply-adds, convolutions and linear layers",
    "multiply_adds_paper": "multiply-adds, PC-DARTS' convention",
}


@dataclass(frozen=True)
class Options:
    """Which network to count."""

    genotype: CellName = None
    operations: OperationsFile = None
    list: bool = False
    """List every published cell with its counts, the paper's figures and its source."""
    dataset: Literal["cifar10", "cifar100", "imagenet", "folder"] = "cifar10"
    """Sets image size, stem, classes, and the defaults of channels and cells; folder: those of the
    images in --data-root."""
    data_root: str | None = None
    """Image folder of --dataset folder, with train/<class>/."""
    image_size: Annotated[int | None, Between(4, 4096)] = None
    """Height and width in pixels; by default the data set's."""
    classes: Annotated[int | None, Between(1, 10**6)] = None
    """Number of classes; by default the data set's."""
    channels: Annotated[int | None, Between(1, 4096)] = None
    """Channels in the first cell; by default 36, on ImageNet 48 (GDAS' cells: 50 and 52);
    NAS-Bench-201's 16."""
    cells: Annotated[int | None, Between(1, 200)] = None
    """Number of cells; by default 20, on ImageNet 14; NAS-Bench-201's 5 in each stage."""
    json: bool = False
    """Print JSON: one object, or a list with --list."""


def report(options: Options) -> dict[str, Any]:
    """The network and its counts, in the JSON form.

    Raises:
        InputError: no genotype, an unknown or recurrent one, or sizes without a network.
    """
    check_bounds(options)
    if options.genotype is None:
        raise InputError("--genotype: give a published name, a genotype file or a run folder")
    sizes = ("channels", "cells", "classes", "image_size")
    given = {key: value for key in sizes if (value := getattr(options, key)) is not None}
    genotype = load(options.genotype)
    own = zoo.NASBENCH201 if "cell" in genotype.cells else {}
    setting = replace(usual(options), **{**own, **given})
    if zoo.is_recurrent(genotype):
        raise InputError(
            f"--genotype {options.genotype}: a recurrent cell; only image networks are counted "
            "here (--list has the published language models)"
        )
    return {
        "genotype": genotype.name,
        "dataset": options.dataset,
        "channels": setting.channels,
        "cells": setting.cells,
        "classes": setting.classes,
        "shape": list(setting.shape),
        "image_size": setting.image_size,
        **asdict(complexity(genotype, setting)),
    }


def usual(options: Options) -> Setting:
    """The data set's image size, classes and network.

    Raises:
        InputError: flags that do not go together, or no images there.
    """
    if options.dataset != "folder":
        if options.data_root is not None:
            raise InputError("--data-root: only for --dataset folder; add that, or leave it out")
        return zoo.setting(options.genotype, options.dataset)
    if options.data_root is None:
        raise InputError("--dataset folder: add --data-root")
    images = load_train("folder", options.data_root, options.image_size)
    like = "imagenet" if large(images.shape) else "cifar10"
    return replace(
        zoo.setting(options.genotype, like), classes=len(images.classes), own=images.shape,
        image_size=max(images.shape[1:]),
    )  # fmt: skip


def table(counts: dict[str, Any]) -> str:
    """The printed form, one line per convention."""
    lines = [
        "{genotype} on {dataset}: {channels} channels, {cells} cells, "
        "{0} x {1} pixels, {classes} classes".format(*counts["shape"][1:], **counts)
    ]
    for key, convention in CONVENTIONS.items():
        lines.append(f"  {convention:<45}  {counts[key]:>15,}  {counts[key] / 1e6:>8.2f} M")
    if counts["uncounted"]:
        lines.append(f"  not counted: {', '.join(counts['uncounted'])}, products unknown")
    return "\n".join(lines)


def entry(cell: dict[str, Any]) -> str:
    """The printed form of a published cell, one line per network."""
    provenance = "; ".join(str(value) for value in cell["provenance"].values())
    lines = [f"{cell['name']}  ({provenance})"]
    for network in cell["networks"]:
        size = "channels" if "channels" in network else "units"
        line = f"  {network['dataset']:<10}{network[size]:>4} {size:<9}"
        line += f"{network['params']:>11,} parameters"
        printed = network["printed"]
        if printed and printed["multiply_adds"]:
            convention = printed["convention"] or "multiply_adds"
            line += f", {network[convention] / 1e6:.0f} M {CONVENTIONS[convention]}"
        if printed:
            figures = [printed["params"], printed["multiply_adds"]]
            figures = " and ".join(f"{figure} M" for figure in figures if figure)
            line += f"; {printed['where']} prints {figures}"
            line += f" ({printed['slip']})" if printed["slip"] else ""
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    with errors_are_messages():
        options = read_flags(Options, sys.argv[1:], __doc__)
        if options.list and options.json:
            print(json.dumps(list(listing())))
        elif options.list:
            for cell in listing():
                print(entry(cell), flush=True)
        else:
            counts = report(options)
            print(json.dumps(counts) if options.json else table(counts))
