"""`python -m itnas.draw` redraws the transitions, attention and inner edges of a run."""

from pathlib import Path

import tyro

from common.errors import errors_are_messages


def draw(folder: tyro.conf.Positional[Path]) -> None:
    """Draw ITNAS' own pictures of a run folder into its `pictures` folder."""
    from itnas import figures

    figures.run(folder)


if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(draw, prog="python -m itnas.draw")
