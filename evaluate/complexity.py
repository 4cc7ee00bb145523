"""Print the parameters and multiply-adds of the network that a genotype describes.

    python evaluate/complexity.py --genotype pc_darts_imagenet --dataset imagenet
    python evaluate/complexity.py --genotype gdas --dataset folder --data-root IMAGES
    python evaluate/complexity.py --list        the published cells, beside what papers print
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from common.data.datasets import load_train
from common.errors import InputError, errors_are_messages
from common.networks import zoo
from common.networks.complexity import Setting, complexity
from common.networks.genotype import load
from common.networks.macro import large
from common.run.cli import at_home
from common.run.flags import Between, check_bounds
from published.cells import listing

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

    genotype: str | None = None
    """A published name, a genotype file or the folder of a search."""
    list: bool = False
    """Instead: every published cell, its sizes and those that papers print, and its source."""
    dataset: Literal["cifar10", "cifar100", "imagenet", "folder"] = "cifar10"
    """Sets the image size, the stem, the classes and the defaults of channels and cells; folder:
    those of the images in --data-root."""
    data_root: str | None = None
    """Of --dataset folder: as for training, train/<class>/*."""
    image_size: Annotated[int | None, Between(4, 4096)] = None
    """Pixels of both sides, instead of the data set's; of a folder, scaled to as for training."""
    classes: Annotated[int | None, Between(1, 10**6)] = None
    """How many, instead of the data set's."""
    channels: Annotated[int | None, Between(1, 4096)] = None
    """Of the first cell's nodes (default: 36, on ImageNet 48, for GDAS' cells 50 and 52)."""
    cells: Annotated[int | None, Between(1, 200)] = None
    """How many cells (default: 20, on ImageNet 14)."""
    json: bool = False
    """Print JSON: one object, or with --list a list of them."""


def report(options: Options) -> dict[str, Any]:
    """The network and its counts, as the JSON form prints them.

    Raises:
        InputError: no genotype, no such one or not of images, or a size that makes no network.
    """
    check_bounds(options)
    if options.genotype is None:
        raise InputError("--genotype: say of what: a published name, a file or a search's folder")
    sizes = ("channels", "cells", "classes", "image_size")
    given = {key: value for key in sizes if (value := getattr(options, key)) is not None}
    setting = replace(usual(options), **given)
    genotype = load(options.genotype)
    if zoo.is_recurrent(genotype):
        raise InputError(
            f"--genotype {options.genotype}: is a recurrent cell, and only image networks are "
            "counted here; --list has the language models of published ones"
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
    """The data set's images and network: of a folder's images as `evaluate/train.py` takes them.

    Raises:
        InputError: flags that do not go together, or no images there.
    """
    if options.dataset != "folder":
        if options.data_root is not None:
            raise InputError("--data-root: is of --dataset folder; add that, or leave it out")
        return zoo.setting(options.genotype, options.dataset)
    if options.data_root is None:
        raise InputError("--dataset folder: say where by --data-root")
    images = load_train("folder", options.data_root, options.image_size)
    like = "imagenet" if large(images.shape) else "cifar10"
    return replace(
        zoo.setting(options.genotype, like), classes=len(images.classes), own=images.shape,
        image_size=max(images.shape[1:]),
    )  # fmt: skip


def table(counts: dict[str, Any]) -> str:
    """The report as a person reads it, a line a convention."""
    lines = [
        "{genotype} on {dataset}: {channels} channels, {cells} cells, "
        "{0} x {1} pixels, {classes} classes".format(*counts["shape"][1:], **counts)
    ]
    for key, convention in CONVENTIONS.items():
        lines.append(f"  {convention:<45}  {counts[key]:>15,}  {counts[key] / 1e6:>8.2f} M")
    return "\n".join(lines)


def entry(cell: dict[str, Any]) -> str:
    """A published cell as a person reads it, a line a network."""
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
        options = at_home(tyro.cli(Options, description=__doc__))
        if options.list and options.json:
            print(json.dumps(list(listing())))
        elif options.list:
            for cell in listing():
                print(entry(cell), flush=True)
        else:
            counts = report(options)
            print(json.dumps(counts) if options.json else table(counts))
