"""The published cells: the sizes that papers print for their networks, and what is counted here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from common.networks.complexity import (
    LANGUAGE_MODELS,
    SETTINGS,
    Setting,
    complexity,
    on_meta,
    parameters,
    recurrent_parameters,
)
from common.networks.genotype import Genotype, load, published


@dataclass(frozen=True)
class Printed:
    """What a paper prints of the network of a cell.

    Attributes:
        dataset: of `SETTINGS`, or of `LANGUAGE_MODELS` where the cell is recurrent.
        params: millions, digit by digit.
        multiply_adds: millions, of one image.
        convention: the count of `Complexity` that they are; None: no convention known here.
        channels: of the first cell's nodes, where it is not the setting's.
        where: paper and table.
        slip: in what the figures above are not this network's.
    """

    dataset: str
    params: str
    where: str
    multiply_adds: str | None = None
    convention: str | None = None
    channels: int | None = None
    slip: str | None = None


# Convolutions and linear layers are GDAS' convention, the rest too is PC-DARTS' and P-DARTS'
# (see `complexity`). DARTS' figures and P-DARTS' stand here as PC-DARTS cites them.
PRODUCTS, ALL = "multiply_adds", "multiply_adds_paper"
NO_CONVENTION = "no convention known here counts 574 M: it is 530 M, or 544 M as PC-DARTS counts"
ENAS = "with as many units as DARTS' and GDAS' cells its 11 nodes have more"

PRINTED = {
    "darts_v1": (
        Printed("cifar10", "3.3", "PC-DARTS, Table 1",
                slip="3.3 M are the second order's cells; PR-DARTS prints 2.9 M"),
    ),
    "darts_v2": (
        Printed("cifar10", "3.3", "PC-DARTS, Table 1"),
        Printed("imagenet", "4.7", "PC-DARTS, Table 2", "574", slip=NO_CONVENTION),
    ),
    "p_darts": (
        Printed("cifar10", "3.4", "PC-DARTS, Table 1"),
        Printed("imagenet", "4.9", "PC-DARTS, Table 2", "557", ALL),
    ),
    "pc_darts_cifar10": (
        Printed("cifar10", "3.6", "PC-DARTS, Table 1"),
        Printed("imagenet", "5.3", "PC-DARTS, Table 2", "586", ALL),
    ),
    "pc_darts_imagenet": (Printed("imagenet", "5.3", "PC-DARTS, Table 2", "597", ALL),),
    "gdas": (
        Printed("cifar10", "3.4", "GDAS, Table 1"),
        Printed("cifar10", "3.3", "GDAS, Table 5", slip="of the same network: Table 1 is right"),
        Printed("imagenet", "5.3", "GDAS, Table 2", "581", PRODUCTS, channels=50),
    ),
    "gdas_frc": (
        Printed("cifar10", "2.5", "GDAS, Table 1"),
        Printed("imagenet", "4.4", "GDAS, Table 2", "497", PRODUCTS, channels=52),
    ),
    "gdas_normal_frc_reduction": (Printed("cifar10", "3.0", "GDAS, Table 5"),),
    "frc_normal_gdas_reduction": (Printed("cifar10", "2.9", "GDAS, Table 5"),),
    "pr_darts_dl1": (Printed("cifar10", "3.2", "PR-DARTS, Table III"),),
    "pr_darts_dl2": (Printed("cifar10", "4.0", "PR-DARTS, Table III"),),
    "pr_darts_dr": (Printed("cifar10", "4.2", "PR-DARTS, Table III"),),
    "pr_darts_ur": (Printed("cifar10", "5.4", "PR-DARTS, Table III"),),
    "darts_v1_rnn": (Printed("ptb", "23", "GDAS, Table 3"),),
    "darts_v2_rnn": (
        Printed("ptb", "23", "GDAS, Table 3"), Printed("wikitext2", "33", "GDAS, Table 4"),
    ),
    "gdas_rnn": (
        Printed("ptb", "23", "GDAS, Table 3"), Printed("wikitext2", "33", "GDAS, Table 4"),
    ),
    "enas_rnn": (
        Printed("ptb", "24", "GDAS, Table 3", slip=ENAS),
        Printed("wikitext2", "33", "GDAS, Table 4", slip=ENAS),
    ),
}  # fmt: skip


def is_recurrent(genotype: Genotype) -> bool:
    """Whether a genotype describes a recurrent cell instead of an image network."""
    return "recurrent" in genotype.cells


def image_names() -> list[str]:
    """The published cells of image networks, sorted."""
    return [name for name in published() if not is_recurrent(load(name))]


def setting(name: str, dataset: str) -> Setting:
    """The size in which the paper of a cell evaluates it; other cells than published ones: DARTS'.

    Args:
        name: of the cell.
        dataset: of `SETTINGS`.
    """
    printed = [row for row in PRINTED.get(name, ()) if row.dataset == dataset and row.channels]
    usual = SETTINGS[dataset]
    return replace(usual, channels=printed[0].channels) if printed else usual


def count(name: str, dataset: str) -> dict[str, Any]:
    """The size of a published cell's network as its paper evaluates it.

    Multiply-adds are counted on ImageNet alone, where papers print them.
    """
    genotype = load(name)
    if is_recurrent(genotype):
        model = LANGUAGE_MODELS[dataset]
        cell = genotype.cells["recurrent"]
        return {"units": model.units, "params": recurrent_parameters(cell, model)}
    size = setting(name, dataset)
    if dataset != "imagenet":
        counted = {"params": parameters(on_meta(genotype, size))}
    else:
        counts = asdict(complexity(genotype, size))
        counted = {key: counts[key] for key in ("params", PRODUCTS, ALL)}
    return {"channels": size.channels, "cells": size.cells, **counted}


def listing() -> Iterator[dict[str, Any]]:
    """Every published cell, with its networks' sizes, counted and printed, and its provenance.

    `params` are those of its CIFAR-10 network, of a recurrent cell those of its model of PTB.
    """
    for name in published():
        genotype = load(name)
        kind, usual = ("recurrent", "ptb") if is_recurrent(genotype) else ("image", "cifar10")
        rows = PRINTED.get(name, ())
        networks = [
            {"dataset": row.dataset, **count(name, row.dataset), "printed": asdict(row)}
            for row in rows
        ]
        if usual not in [row.dataset for row in rows]:
            networks.insert(0, {"dataset": usual, **count(name, usual), "printed": None})
        yield {
            "name": name, "kind": kind, "params": networks[0]["params"], "networks": networks,
            "provenance": dict(genotype.provenance),
        }
