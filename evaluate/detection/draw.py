"""The picture of a detector: images with their annotated boxes beside those that it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from common.draw.cell import STYLE
from common.draw.fonts import drawable, family_of
from detection.average_precision import Found
from detection.coco import Boxes

SURE = 0.3  # least score of a detection that is drawn


@dataclass(frozen=True)
class Scene:
    """An image uint8 [3, H, W], what is on it and what was found."""

    image: Tensor
    truth: Boxes
    found: Found


@rc_context(STYLE)
def detections(scenes: Sequence[Scene], names: Sequence[str], folder: Path) -> None:
    """Write `detections.png`: a column an image, annotated above, found below.

    Args:
        scenes: at least one.
        names: of the classes; label 1 is the first.
        folder: where to.
    """
    names, fonts = drawable(names)
    figure = Figure((2.6 * len(scenes), 5.4))
    rows = figure.subplots(2, len(scenes), squeeze=False)
    figure.subplots_adjust(left=0.03, right=0.995, bottom=0.01, top=0.97, wspace=0.04, hspace=0.06)
    for column, scene in enumerate(scenes):
        sure = scene.found.scores >= SURE
        corners, labels = scene.found.corners[sure], scene.found.labels[sure]
        said = [f"{names[k - 1]} {s:.2f}" for k, s in zip(
            labels.tolist(), scene.found.scores[sure].tolist(), strict=True
        )]  # fmt: skip
        _draw(
            rows[0, column], scene.image, scene.truth.corners, scene.truth.labels,
            [names[k - 1] for k in scene.truth.labels], fonts,
        )  # fmt: skip
        _draw(rows[1, column], scene.image, corners, labels, said, fonts)
    rows[0, 0].set_ylabel("annotated")
    rows[1, 0].set_ylabel(f"found, score {SURE} or more")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "detections.png", dpi=150)


def _draw(
    axes: Axes, image: Tensor, corners: Tensor, labels: Tensor, texts: Sequence[str],
    fonts: list[str],
) -> None:  # fmt: skip
    axes.imshow(image.permute(1, 2, 0).numpy())
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for (left, top, right, bottom), label, text in zip(
        corners.tolist(), labels.tolist(), texts, strict=True
    ):
        colour = colormaps["tab20"]((label - 1) % 20)
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=1.6)
        )
        room = top > 0.06 * image.shape[1]  # above the box
        axes.text(
            left, top, text, color="white", fontsize=7, va="bottom" if room else "top",
            clip_on=True, bbox={"fc": colour, "ec": "none", "pad": 1}, parse_math=False,
            **family_of(fonts),
        )  # fmt: skip
