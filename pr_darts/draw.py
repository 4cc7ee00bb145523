"""`python -m pr_darts.draw` redraws Fig. 2 of a run."""

import tyro

from common.errors import errors_are_messages
from pr_darts.figures import run

if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(run, prog="python -m pr_darts.draw")
