"""`python -m pr_darts.draw` redraws Fig. 2 of a run."""

from pathlib import Path

import tyro

from common.errors import errors_are_messages


def draw(folder: tyro.conf.Positional[Path]) -> None:
    """Draw `pictures/cycles.svg` and `.png` of a PR-DARTS search, finished or not."""
    from pr_darts import figures

    figures.run(folder)


if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(draw, prog="python -m pr_darts.draw")
