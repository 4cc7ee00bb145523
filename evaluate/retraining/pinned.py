"""The genotype that a run trains: written down when it begins, the same when it is resumed."""

from __future__ import annotations

from common.errors import InputError
from common.files import digest
from common.networks.genotype import Genotype, load, save
from common.run.folder import Run


def genotype_of(run: Run, asked: str) -> Genotype:
    """That in the run's folder; where it is not there yet or damaged, the one asked for.

    Raises:
        InputError: see `genotype.load`.
    """
    own = run.folder / "genotype.json"
    if own.is_file():
        try:
            return load(own)
        except InputError:
            if run.recorded("genotype.json") is None:
                raise
    return load(asked)


def pin_genotype(run: Run, genotype: Genotype) -> None:
    """Write down the cells that the run trains, or see that a resumed one trains the same.

    Raises:
        InputError: it does not.
    """
    run.pinned["genotype.json"] = ours = digest(genotype.to_json())
    if run.recorded("genotype.json") not in (None, ours):
        raise InputError(
            f"--resume {run.folder}: its checkpoints are of another genotype than "
            f"{genotype.name}; put back the genotype.json that it began with, or start a new "
            "run with --genotype"
        )
    if run.accelerator.is_main_process:
        save(genotype, run.folder / "genotype.json")
