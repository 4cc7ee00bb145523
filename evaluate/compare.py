"""Compares methods: search, retrain under one budget, test, report.

    python evaluate/compare.py --preset digits --methods pc_darts gdas darts random --output FOLDER
    python evaluate/compare.py --runs FOLDER ... --output O   existing run folders

After Ctrl-C or a kill, the same command continues; finished runs are kept. The papers' own tables
and figures: evaluate/reproduce.py.
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
