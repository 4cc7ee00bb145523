"""A paper's table or figure by one command, at the paper's own settings.

    python evaluate/reproduce.py --list                                 every item of every paper
    python evaluate/reproduce.py gdas table1 --output FOLDER            the experiment to the letter
    python evaluate/reproduce.py gdas table1 --output FOLDER --scale digits      its plan in minutes
    python evaluate/reproduce.py gdas table1 --dry-run                  all commands, none started

FOLDER then contains the paper's table with our figures beside its own: table.md, table.json and
table.svg. After Ctrl-C or a crash, the same command continues; finished runs are not repeated.
"""

from __future__ import annotations

import sys

from common.errors import errors_are_messages
from common.run.cli import read_flags
from reproduction.conduct import listed, reproduce
from reproduction.settings import ReproduceConfig

if __name__ == "__main__":
    with errors_are_messages():
        config = read_flags(ReproduceConfig, sys.argv[1:], __doc__)
        if config.list:
            print(listed(config.paper))
        else:
            reproduce(config)
