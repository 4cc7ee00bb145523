"""COCO's average precision, by pycocotools (extra `[detection]`)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

from torchvision.ops import box_convert

from common.errors import InputError
from detection.coco import Coco, Object, Target

# Table 5's columns, in percent: the mean over IoU thresholds 0.5 to 0.95, at 0.5, at 0.75, and
# the mean for small (area below 32^2), medium (below 96^2) and large objects.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def check_installed() -> None:
    """Raise before a training that could not be scored.

    Raises:
        InputError: pycocotools is not installed.
    """
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"detection needs pycocotools: pip install -e '.[detection]' ({error})"
        ) from None


def average_precision(split: Coco, found: Mapping[int, Target]) -> dict[str, float | None]:
    """Percent for each of `METRICS`; None where the split has no object of that size.

    Args:
        split: all its images count, also those without a detection.
        found: detections by image: `boxes`, `labels` and `scores` [N], 0 to 1.
    """
    from pycocotools.cocoeval import COCOeval

    truth = [one for objects in split.objects for one in objects]
    detections = []
    for image, one in found.items():
        boxes = box_convert(one["boxes"], "xyxy", "xywh")
        columns = (boxes.tolist(), one["labels"].tolist(), one["scores"].tolist())
        detections += [
            {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3],
             "iscrowd": 0, "score": score}
            for box, label, score in zip(*columns, strict=True)
        ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        scored = COCOeval(_index(split, truth), _index(split, detections), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    percents = (100 * float(value) for value in scored.stats)
    return {
        name: None if percent < 0 else percent
        for name, percent in zip(METRICS, percents, strict=False)
    }


def _index(split: Coco, objects: Iterable[Object]) -> Any:
    """pycocotools' index; `COCO.loadRes` would refuse an empty list of detections."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(len(split))],
        "categories": [{"id": label} for label, _ in enumerate(split.classes, 1)],
        "annotations": [{"id": k, **one} for k, one in enumerate(objects, 1)],  # 0 is miscounted
    }
    coco.createIndex()
    return coco
