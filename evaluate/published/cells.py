"""The published cells: the sizes that papers print for their networks, and what is counted here.

`cells.csv` has a line per printed network: the cell, the data set (of `SETTINGS`, or of
`LANGUAGE_MODELS` where the cell is recurrent), the row of the paper's table, the convention by
which it counts multiply-adds (a field of `Complexity`; empty: none, or none known here), and a
slip, where the printed figures are not this network's. GDAS counts convolutions and linear layers,
PC-DARTS and P-DARTS count all operations.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from common.networks import zoo
from common.networks.complexity import (
    LANGUAGE_MODELS,
    complexity,
    parameters,
    recurrent_parameters,
    to_count,
)
from common.networks.genotype import load, published
from published.tables import FOLDER, table, where


def _printed() -> dict[str, list[dict[str, Any]]]:
    """What papers print of each cell's networks: figures in millions, digit by digit."""
    found: dict[str, list[dict[str, Any]]] = {}
    with open(FOLDER / "cells.csv", newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            cells = table(line["paper"], line["table"]).rows[line["row"]]
            params = [text for head, text in cells.items() if "param" in head.lower()]
            adds = [text for head, text in cells.items() if "+x" in head or "x+" in head]
            found.setdefault(line["cell"], []).append({
                "dataset": line["dataset"], "params": params[0],
                "where": where(line["paper"], line["table"]),
                "multiply_adds": adds[0] if adds else None,
                "convention": line["convention"] or None,
                "channels": zoo.CHANNELS.get((line["cell"], line["dataset"])),
                "slip": line["slip"] or None,
            })  # fmt: skip
    return found


PRINTED = _printed()


def count(name: str, dataset: str) -> dict[str, Any]:
    """The size of a published cell's network as its paper evaluates it.

    Multiply-adds are counted on ImageNet alone, where papers print them.
    """
    genotype = load(name)
    if zoo.is_recurrent(genotype):
        model = LANGUAGE_MODELS[dataset]
        cell = genotype.cells["recurrent"]
        return {"units": model.units, "params": recurrent_parameters(cell, model)}
    size = zoo.setting(name, dataset)
    if dataset != "imagenet":
        counted = {"params": parameters(to_count(genotype, size))}
    else:
        counts = asdict(complexity(genotype, size))
        counted = {key: counts[key] for key in ("params", "multiply_adds", "multiply_adds_paper")}
    return {"channels": size.channels, "cells": size.cells, **counted}


def listing() -> Iterator[dict[str, Any]]:
    """Every published cell, with its networks' sizes, counted and printed, and its provenance.

    `params` are those of its CIFAR-10 network, of a recurrent cell those of its model of PTB.
    """
    for name in published():
        genotype = load(name)
        kind, usual = ("recurrent", "ptb") if zoo.is_recurrent(genotype) else ("image", "cifar10")
        networks = [
            {"dataset": row["dataset"], **count(name, row["dataset"]), "printed": row}
            for row in PRINTED.get(name, ())
        ]
        if usual not in [network["dataset"] for network in networks]:
            networks.insert(0, {"dataset": usual, **count(name, usual), "printed": None})
        yield {
            "name": name, "kind": kind, "params": networks[0]["params"], "networks": networks,
            "provenance": dict(genotype.provenance),
        }  # fmt: skip
