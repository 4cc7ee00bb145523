"""Trains a language model of any recurrent cell from scratch and reports its perplexities.

    python evaluate/train_rnn.py --genotype gdas_rnn            the paper's recipe on PTB
    python evaluate/train_rnn.py --genotype RUN                 a search's cell, on its text
    python evaluate/train_rnn.py --preset text --genotype lstm  the baseline
"""

from __future__ import annotations

import sys

from common.errors import errors_are_messages
from common.run.cli import parse
from retraining.rnn import METHOD, chosen_preset, retrain_rnn

if __name__ == "__main__":
    with errors_are_messages():
        argv = sys.argv[1:]
        retrain_rnn(parse(chosen_preset(argv), METHOD, argv, __doc__))
