"""The picture of a detector: images with their annotated boxes and with those that it found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import font_manager, rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2.functional import resize
from torchvision.utils import draw_bounding_boxes

from common.draw.cell import STYLE
from common.draw.fonts import drawable
from detection.coco import Target

LEAST_SCORE = 0.3  # of a detection that is drawn
SIDE = 600  # pixels of an image's longer side


@rc_context(STYLE)
def detections(
    scenes: Sequence[tuple[Tensor, Target, Target]], classes: Sequence[str], folder: Path
) -> None:
    """Write `detections.png`: a column for each image, annotated above, detections below.

    Args:
        scenes: one or more images, uint8 [3, H, W], each with its annotations and its detections.
        classes: names; label 1 is the first.
        folder: where to.
    """
    classes, families = drawable(classes)
    figure = Figure((2.6 * len(scenes), 5.4))
    rows = figure.subplots(2, len(scenes), squeeze=False)
    figure.subplots_adjust(left=0.03, right=0.995, bottom=0.01, top=0.97, wspace=0.04, hspace=0.06)
    for (above, below), (image, truth, found) in zip(rows.T, scenes, strict=True):
        sure = {name: values[found["scores"] >= LEAST_SCORE] for name, values in found.items()}
        for axes, one in ((above, truth), (below, sure)):
            drawn = with_boxes(image, one, classes, families[-1])
            axes.imshow(drawn.permute(1, 2, 0).numpy())
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
    rows[0, 0].set_ylabel("annotated")
    rows[1, 0].set_ylabel(f"found, score {LEAST_SCORE} or more")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "detections.png", dpi=150)


def with_boxes(image: Tensor, one: Target, classes: Sequence[str], family: str) -> Tensor:
    """The image, scaled to `SIDE`, with its boxes, their classes and, for detections, scores."""
    labels, scale = one["labels"].tolist(), SIDE / max(image.shape[1:])
    image = resize(image, [round(scale * side) for side in image.shape[1:]])
    if not labels:  # torchvision would warn
        return image
    texts = [classes[label - 1] for label in labels]
    if "scores" in one:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, one["scores"], strict=True)]
    return draw_bounding_boxes(
        image, one["boxes"] * scale, texts, [to_hex(f"C{label - 1}") for label in labels],
        width=3, font=font_manager.findfont(family), font_size=24,
    )  # fmt: skip
