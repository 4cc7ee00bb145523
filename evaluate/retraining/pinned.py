"""The genotype of a retraining: stored when the run starts, checked when it resumes."""

from __future__ import annotations

from dataclasses import replace

from common.errors import InputError
from common.files import digest
from common.networks.genotype import Genotype, load, save
from common.run.folder import Run
from common.run.operations import digest_of, in_words, load_file


def genotype_of(run: Run, asked: str) -> Genotype:
    """The genotype in the run folder, or, if missing or damaged, the one asked for.

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


def with_operations(run: Run, genotype: Genotype, path: str | None) -> Genotype:
    """The genotype, its provenance with the file of `--operations` that makes its network.

    Warns if the search had another file: same names, perhaps other modules.
    """
    if path is None or not genotype.own_operations():
        return genotype
    was, now = genotype.provenance.get("operations"), load_file(path)
    if was is not None and digest_of(was) != now["sha256"]:
        run.say(
            f"warning: {genotype.name} was found with operations of {in_words(was)}; this network "
            f"has those of {in_words(now)}"
        )
    return replace(genotype, provenance={**genotype.provenance, "operations": now})


def pin_genotype(run: Run, genotype: Genotype) -> None:
    """Store the genotype, or check that a resumed run has the same.

    Raises:
        InputError: it differs.
    """
    run.pinned["genotype.json"] = ours = digest(genotype.to_json())
    if run.recorded("genotype.json") not in (None, ours):
        raise InputError(
            f"--resume {run.folder}: the checkpoints are of another genotype than "
            f"{genotype.name}; restore genotype.json, or start a new run with --genotype"
        )
    if run.accelerator.is_main_process:
        save(genotype, run.folder / "genotype.json")
