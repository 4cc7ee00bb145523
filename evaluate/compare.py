"""Compares methods: searches, retrains under one budget, tests, reports.

    python evaluate/compare.py --preset digits --methods pc_darts gdas darts random --output FOLDER
    python evaluate/compare.py --runs FOLDER ... --output O   run folders that are there already

Stopped by Ctrl-C or killed, the same command goes on; finished runs are kept. The papers' own
tables and figures: evaluate/reproduce.py.
"""

from __future__ import annotations

import sys

from common.errors import errors_are_messages
from common.run.cli import read_flags
from comparison.conduct import compare
from comparison.settings import CompareConfig

if __name__ == "__main__":
    with errors_are_messages():
        compare(read_flags(CompareConfig, sys.argv[1:], __doc__))
