"""Draws the pictures of a run folder, or the cells of a published genotype or genotype file.

A genotype may also be FILE:NAME or its text, in any form of common/networks/formats.py.

python -m common.draw RUN_FOLDER
python -m common.draw gdas --output FOLDER
"""

from pathlib import Path

import tyro

from common.errors import errors_are_messages
from common.run.flags import OperationsFile
from common.run.operations import load_file


def draw(
    what: tyro.conf.Positional[str], output: Path | None = None, operations: OperationsFile = None
) -> None:
    """Draw the pictures of one thing.

    Args:
        what: a run folder, a published name, a genotype file, FILE.py:NAME or a genotype's text.
        output: folder for the cells, by default pictures/NAME here. A run's pictures go into its
            own folder.
    """
    from common.draw import pictures

    if operations is not None:
        load_file(Path(operations).expanduser())
    pictures.of(what, output)


if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(draw, prog="python -m common.draw", description=__doc__)
