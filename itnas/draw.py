"""`python -m itnas.draw` redraws the transitions, attention and inner edges of a run."""

import tyro

from common.errors import errors_are_messages
from itnas.figures import run

if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(run, prog="python -m itnas.draw")
