"""Random search: cells drawn at random, each trained briefly, ranked by validation.

What a search must beat. Cells are uniform over the edges and operations of DARTS' space; mean and
spread of all of them are kept, not the best alone. --preset digits: eight cells in two minutes on
two CPU cores, with nothing to download.
"""

from __future__ import annotations

import shlex
import sys

from common.errors import errors_are_messages
from common.run.cli import parse
from common.run.folder import Run
from common.run.start import start, training_images
from common.training.bilevel import pin_split, split_of
from retraining.loop import check_images
from retraining.random_cells import METHOD, PRESETS, RandomSearchConfig, random_genotype
from retraining.ranking import conclude, seconds, train_briefly


def search(config: RandomSearchConfig) -> None:
    """Draw, train, rank; the halves of the images are those of a search with this seed."""
    config, accelerator = start(config)
    images = training_images(config, accelerator)
    split = split_of(config, images)
    check_images(config, images.subset(split.train))
    run = Run.open(config, METHOD, accelerator)
    pin_split(run, images, split, config.accept_images)
    train, valid = images.subset(split.train), images.subset(split.valid)
    nodes = config.nodes - 2
    genotypes = [random_genotype(nodes, config.seed, number) for number in range(config.samples)]
    cells = []
    for number, genotype in enumerate(genotypes):
        run.say(f"\ncell {number + 1} of {config.samples}")
        cells.append(train_briefly(config, run, genotype, number, train, valid))
    conclude(config, run, genotypes, cells, seconds(cells))
    command = shlex.join(["python", "evaluate/train.py", "--genotype", str(run.folder)])
    run.say(f"next: {command}")
    run.close()


if __name__ == "__main__":
    with errors_are_messages():
        search(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
