"""`python -m common.draw RUN_FOLDER` draws any run so far."""

import tyro

from common.draw.pictures import run
from common.errors import errors_are_messages

if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(run, prog="python -m common.draw")
