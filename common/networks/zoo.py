"""The published cells of `genotypes/`: which are of image networks, and their networks' sizes."""

from __future__ import annotations

from dataclasses import replace

from common.networks.complexity import SETTINGS, Setting
from common.networks.genotype import Genotype, load, published

# Channels of the first cell's nodes, where a paper's network has not the setting's.
CHANNELS = {("gdas", "imagenet"): 50, ("gdas_frc", "imagenet"): 52}  # GDAS, Table 2

NASBENCH201 = {"channels": 16, "cells": 5}  # of the benchmark's networks; cells of each stage


def is_recurrent(genotype: Genotype) -> bool:
    """Whether a genotype describes a recurrent cell instead of an image network."""
    return "recurrent" in genotype.cells


def image_names() -> list[str]:
    """The published cells of image networks, sorted."""
    return [name for name in published() if not is_recurrent(load(name))]


def setting(name: str, dataset: str) -> Setting:
    """The network's size in the paper of a published cell; for any other cell, DARTS' size.

    Args:
        name: of the cell.
        dataset: of `SETTINGS`.
    """
    usual = SETTINGS[dataset]
    return replace(usual, channels=CHANNELS.get((name, dataset), usual.channels))
