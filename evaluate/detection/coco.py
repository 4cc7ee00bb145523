"""Images with boxes in COCO's layout: `annotations/instances_<split>.json` beside `<split>/`."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from common.errors import InputError

Object = dict[str, Any]  # COCO's annotation: bbox [x, y, width, height], area, iscrowd and ids
Target = dict[str, Tensor]  # boxes float32 [N, 4] as left, top, right, bottom; labels int64 [N]


@dataclass(frozen=True)
class Coco:
    """One split of a data set; its images stay on disk.

    Objects are renumbered: `image_id` is the position of the file, `category_id` is the label, 1 to
    the number of classes (0 is the background; COCO's own ids have gaps: 80 of them from 1 to 90).

    Attributes:
        files: path of each image.
        objects: annotated objects of each image. A crowd (`iscrowd`) is neither trained on nor
            missed when it is not found.
        classes: names by ascending category id; label 1 is the first.
        sha256: of the annotation file.
    """

    files: list[Path]
    objects: list[list[Object]]
    classes: list[str]
    sha256: str

    def __len__(self) -> int:
        return len(self.files)

    def trainable(self) -> Tensor:
        """int64: positions of the images with an object to train on."""
        single = [any(not one["iscrowd"] for one in objects) for objects in self.objects]
        return torch.tensor(single).nonzero().flatten()

    def target(self, number: int) -> Target:
        """Boxes and labels of an image without crowds, in pixels of its file."""
        objects = [one for one in self.objects[number] if not one["iscrowd"]]
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32).view(-1, 4)
        labels = torch.tensor([one["category_id"] for one in objects], dtype=torch.int64)
        return {"boxes": box_convert(boxes, "xywh", "xyxy"), "labels": labels}


def read_split(root: str | Path, split: str) -> Coco:
    """Read and check the annotations of a split.

    Raises:
        InputError: the file or an image is missing, or an annotation is damaged.
    """
    file = Path(root) / "annotations" / f"instances_{split}.json"
    where = f"--data-root {root}: {file.relative_to(root)}"
    if not file.is_file():
        raise InputError(
            f"{where} is missing; COCO's layout is annotations/instances_<split>.json and <split>/ "
            "for each split (--train-split, --valid-split)"
        )
    try:
        data = file.read_bytes()
        content = json.loads(data)
        names = {int(one["id"]): str(one["name"]) for one in content["categories"]}
        images = {one["id"]: Path(root) / split / one["file_name"] for one in content["images"]}
        annotations, count = list(content["annotations"]), len(content["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} is damaged ({type(error).__name__}: {error})") from None
    if len(images) < count:
        raise InputError(f"{where} has two images with one id")
    absent = next((path for path in images.values() if not path.is_file()), None)
    if absent is not None:
        raise InputError(f"{where} names the image {absent}, which is missing")
    positions = {image: number for number, image in enumerate(images)}
    labels = {category: label for label, category in enumerate(sorted(names), 1)}
    objects: list[list[Object]] = [[] for _ in images]
    for number, annotation in enumerate(annotations):
        try:
            one = _object(annotation, positions, labels)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{where}: annotation {number} ({type(error).__name__}: {error}) needs a finite "
                "bbox [x, y, width, height] and the image_id and category_id of a listed image "
                "and category"
            ) from None
        if min(one["bbox"][2:]) > 0:  # COCO has a few boxes without extent; they mean nothing
            objects[one["image_id"]].append(one)
    if not any(objects):
        raise InputError(f"{where} has no box")
    return Coco(
        list(images.values()), objects, [names[one] for one in labels],
        hashlib.sha256(data).hexdigest(),
    )


def _object(
    annotation: dict[str, Any], positions: dict[Any, int], labels: dict[int, int]
) -> Object:
    x, y, width, height = map(float, annotation["bbox"])
    area = float(annotation.get("area", width * height))
    if not all(map(math.isfinite, (x, y, width, height, area))):
        raise ValueError("not finite")
    return {
        "image_id": positions[annotation["image_id"]],
        "category_id": labels[annotation["category_id"]],
        "bbox": [x, y, width, height],
        "area": area,
        "iscrowd": int(bool(annotation.get("iscrowd", 0))),
    }
