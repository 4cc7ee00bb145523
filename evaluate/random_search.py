"""Random search: trains random cells briefly and ranks them by validation accuracy.

The baseline of every search. Cells are uniform over the edges and operations of the space; the
result has the mean and spread of all cells, not only the best. --preset digits: eight cells in two
minutes on a CPU, no download.
"""

from __future__ import annotations

import shlex
import sys

from common.errors import errors_are_messages
from common.networks.small_images import fit_batch
from common.networks.spaces import SPACES
from common.run.cli import parse
from common.run.folder import Run
from common.run.operations import flag_words
from common.run.start import start, training_images
from common.training.opening import pin_split, split_of, table_of
from retraining.loop import check_images
from retraining.random_cells import METHOD, PRESETS, RandomSearchConfig, random_genotype
from retraining.ranking import conclude, seconds, train_briefly


def search(config: RandomSearchConfig) -> None:
    """Sample, train and rank; the split is that of a search with the same seed."""
    config, accelerator = start(config)
    images = training_images(config, accelerator)
    split = split_of(config, images)
    config = fit_batch(config, len(split.train), accelerator)
    check_images(config, images.subset(split.train))
    table_of(config)
    with Run.open(config, METHOD, accelerator) as run:
        pin_split(run, images, split, config.accept_images)
        train, valid = images.subset(split.train), images.subset(split.valid)
        space, table = SPACES[config.space], table_of(config)
        nodes = config.nodes - space.inputs
        genotypes = [
            random_genotype(nodes, config.seed, k, space, config.candidates)
            for k in range(config.samples)
        ]
        cells = []
        for number, genotype in enumerate(genotypes):
            run.say(f"\ncell {number + 1} of {config.samples}")
            cell = train_briefly(config, run, genotype, number, train, valid)
            cells.append({**cell, **(table.of(genotype) if table else {})})
        conclude(config, run, genotypes, cells, seconds(cells))
        command = ["python", "evaluate/train.py", "--genotype", str(run.folder)]
        run.say(f"next: {shlex.join([*command, *flag_words(config.operations)])}")


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
