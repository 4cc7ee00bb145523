"""Trains the network of any genotype from scratch and reports its test accuracy.

    python evaluate/train.py --genotype pc_darts_cifar10        the paper's CIFAR-10 recipe
    python evaluate/train.py --preset digits --genotype RUN     what a search on digits found
"""

from __future__ import annotations

import sys

from common.config import parse
from common.errors import errors_are_messages
from common.retrain import METHOD, PRESETS, retrain

if __name__ == "__main__":
    with errors_are_messages():
        retrain(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
