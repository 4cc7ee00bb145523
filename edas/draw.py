"""`python -m edas.draw` draws Fig. 3 and 5 of one run, or of several runs together."""

import tyro

from common.errors import errors_are_messages
from edas.figures import run

if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(run, prog="python -m edas.draw")
