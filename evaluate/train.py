"""Trains the network of any genotype from scratch and reports its test accuracy.

    python evaluate/train.py --genotype gdas_frc                its paper's recipe on CIFAR-10
    python evaluate/train.py --genotype gdas_frc --recipe darts --dataset imagenet
    python evaluate/train.py --preset digits --genotype RUN     what a search on digits found

The default --recipe is that of the genotype's paper or method, else PC-DARTS' (all recipes:
evaluate/README.md). With --recipe, --preset or --dataset before --help, the help shows their
defaults.
"""

from __future__ import annotations

import sys

from common.errors import errors_are_messages
from common.run.cli import parse
from retraining.config import chosen_preset
from retraining.loop import METHOD, retrain

if __name__ == "__main__":
    with errors_are_messages():
        argv = sys.argv[1:]
        retrain(parse(chosen_preset(argv), METHOD, argv, __doc__))
