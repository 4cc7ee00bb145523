"""Trains a language model of any recurrent cell from scratch and reports its perplexities.

    python evaluate/train_rnn.py --genotype gdas_rnn            the paper's recipe on PTB
    python evaluate/train_rnn.py --preset text --genotype RUN   what a search on the text found
    python evaluate/train_rnn.py --preset text --genotype lstm  the yardstick
"""

from __future__ import annotations

import sys

from retraining.rnn import METHOD, PRESETS, retrain_rnn

from common.errors import errors_are_messages
from common.run.cli import parse

if __name__ == "__main__":
    with errors_are_messages():
        retrain_rnn(parse(PRESETS, METHOD, sys.argv[1:], __doc__))
