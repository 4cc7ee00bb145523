"""Write a genotype as another program's text.

    python evaluate/convert.py gdas --to darts                        Genotype(normal=[...], ...)
    python evaluate/convert.py RUN --to nasbench301 > cell.json       a search's cells
    python evaluate/convert.py genotypes.py:PDARTS --to json          a genotype file of ours

All commands read these texts for --genotype, and more: those of common/networks/formats.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from common.errors import InputError, errors_are_messages
from common.networks import formats
from common.networks.genotype import json_text, load
from common.run.cli import read_flags
from common.run.flags import OperationsFile

WRITERS = {
    "darts": formats.namedtuple_text,
    "nasbench301": formats.numbered_text,
    "naslib": formats.compact_text,
    "nasbench201": formats.topology_text,
    "fairdarts": formats.triples_text,
}


@dataclass(frozen=True)
class Options:
    """Which genotype to write in which form."""

    genotype: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CELL")]
    """A published name, a run folder, a genotype file, FILE.py:NAME, or a genotype's text."""
    to: Literal["darts", "nasbench301", "naslib", "fairdarts", "nasbench201", "json"]
    """The form: DARTS' namedtuple, NAS-Bench-301's dictionary, NASLib's tuples, FairDARTS'
    namedtuple of triples, NAS-Bench-201's string, or our JSON."""
    operations: OperationsFile = None


def text(options: Options) -> str:
    """The genotype in the form asked for.

    Raises:
        InputError: there is no such genotype, or the form cannot express it.
    """
    try:
        genotype = load(options.genotype)
    except InputError as error:
        raise InputError(str(error).removeprefix("--genotype ")) from None
    if options.to == "json":
        return json_text(genotype)
    try:
        return WRITERS[options.to](genotype.to_json()["cells"])
    except InputError as error:
        raise InputError(
            f"--to {options.to}: cannot express {genotype.name}: {error}; take --to json"
        ) from None


if __name__ == "__main__":
    with errors_are_messages():
        print(text(read_flags(Options, sys.argv[1:], __doc__)))
