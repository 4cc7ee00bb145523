"""COCO's average precision of detections, by pycocotools (extra `[detection]`)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from common.errors import InputError
from detection.coco import Boxes, Coco

# Table 5's columns, as percent: the mean over IoU thresholds 0.5 to 0.95, at 0.5 and at 0.75, and
# over small (area below 32^2), medium (below 96^2) and large objects.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Found:
    """The detections in one image.

    Attributes:
        image: its number in the split.
        corners: [N, 4]: left, top, right, bottom in pixels of the image file.
        labels: int64 [N].
        scores: [N], 0 to 1.
    """

    image: int
    corners: Tensor
    labels: Tensor
    scores: Tensor


def check_installed() -> None:
    """Whether detections can be scored; to ask before a training.

    Raises:
        InputError: pycocotools is not installed.
    """
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError:
        raise InputError(
            "detections are scored by pycocotools, which is not installed: "
            "pip install -e '.[detection]'"
        ) from None


def average_precision(split: Coco, found: Sequence[Found]) -> dict[str, float | None]:
    """Percent of each of `METRICS`; None where the split has no object of that size.

    Args:
        split: all of whose images count, also those that `found` does not name.
        found: at most one entry an image.
    """
    from pycocotools.cocoeval import COCOeval

    truth = [
        _annotation(image, *row)
        for image in range(len(split))
        for row in _rows(split.boxes_of(image))
    ]
    detections = [
        {**_annotation(one.image, corners, label), "score": score}
        for one in found
        for corners, label, score in zip(
            one.corners.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        scored = COCOeval(_index(split, truth), _index(split, detections), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    percents = (100 * float(value) for value in scored.stats)
    return {
        name: None if percent < 0 else percent
        for name, percent in zip(METRICS, percents, strict=False)
    }


def _rows(boxes: Boxes) -> Iterator[tuple]:
    columns = (boxes.corners, boxes.labels, boxes.areas, boxes.crowd)
    return zip(*(column.tolist() for column in columns), strict=True)


def _annotation(
    image: int, corners: Sequence[float], label: int, area: float | None = None,
    crowd: bool = False,
) -> dict[str, Any]:
    left, top, right, bottom = corners
    width, height = right - left, bottom - top
    return {
        "image_id": image, "category_id": label, "iscrowd": int(crowd),
        "bbox": [left, top, width, height], "area": width * height if area is None else area,
    }  # fmt: skip


def _index(split: Coco, annotations: Sequence[dict[str, Any]]) -> Any:
    """A pycocotools COCO of our own numbers: its ids must begin at 1, or it miscounts."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(len(split))],
        "annotations": [{"id": k, **one} for k, one in enumerate(annotations, 1)],
        "categories": [{"id": k} for k in range(1, len(split.categories) + 1)],
    }
    coco.createIndex()
    return coco
