"""`python -m edas.draw` draws Fig. 3 and 5 of one run, or of several runs together."""

from pathlib import Path

import tyro

from common.errors import errors_are_messages


def draw(
    folders: tyro.conf.Positional[tuple[Path, ...]],
    /,
    edges: tuple[int, ...] = (),
    output: Path | None = None,
) -> None:
    """Draw `alphas.svg` of one search; of several, that and `cuts.svg`.

    Args:
        folders: run folders, a row each; another method's search is shown in `cuts.svg` only.
        edges: edges to show, 1 to 14 of the normal cell, 15 to 28 of the reduction cell; by
            default those whose best operation changes most often in all runs.
        output: the folder to draw into, by default the `pictures` of a single run.
    """
    from edas import figures

    figures.run(folders, edges, output)


if __name__ == "__main__":
    with errors_are_messages():
        tyro.cli(draw, prog="python -m edas.draw")
