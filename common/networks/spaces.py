"""All search spaces, by the name of `--space`."""

from __future__ import annotations

from common.networks.genotype import Genotype
from common.networks.nasbench201 import NASBENCH201
from common.networks.space import DARTS, Space

SPACES: dict[str, Space] = {space.name: space for space in (DARTS, NASBENCH201)}


def space_of(genotype: Genotype) -> Space:
    """The space of a genotype's cells, by their kinds; DARTS' if they are of none."""
    found = (space for space in SPACES.values() if set(space.kinds) & genotype.cells.keys())
    return next(found, DARTS)
