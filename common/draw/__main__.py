"""Draws the pictures of a run folder, or the cells of a published genotype or genotype file.

A genotype may also be FILE:NAME or its text, in any form of common/networks/formats.py.

python -m common.draw RUN_FOLDER
python -m common.draw gdas --output FOLDER
"""

import tyro

from common.draw.pictures import of
from common.errors import errors_are_messages

if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(of, prog="python -m common.draw", description=__doc__)
