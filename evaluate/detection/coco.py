"""Images with boxes, in COCO's layout: `annotations/instances_<split>.json` beside `<split>/`.

Reading needs no pycocotools; only scoring does (see `average_precision`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as T

from common.data.image_folder import open_image
from common.errors import InputError

# An object's label is 1 plus its category's position among the sorted ids; 0 is the background.
# COCO's own ids have gaps: 80 of them, from 1 to 90.


@dataclass(frozen=True)
class Boxes:
    """The annotated objects of one image or of many.

    Attributes:
        corners: float32 [N, 4]: left, top, right, bottom in pixels of the image file.
        labels: int64 [N], from 1 on.
        areas: float32 [N]: of the object, by which COCO calls it small, medium or large.
        crowd: bool [N]: a group; neither trained on nor missed when it is not found.
    """

    corners: Tensor
    labels: Tensor
    areas: Tensor
    crowd: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice | Tensor) -> Boxes:
        return Boxes(
            self.corners[which], self.labels[which], self.areas[which], self.crowd[which]
        )


@dataclass(frozen=True)
class Coco:
    """One split; its images stay on the disk.

    Attributes:
        files: of the images.
        boxes: of all images, one image after another.
        first: int64 [images + 1]: where an image's boxes begin, and the last one's end.
        categories: id -> name, by ascending id.
        sha256: of the annotation file.
    """

    files: tuple[Path, ...]
    boxes: Boxes
    first: Tensor
    categories: dict[int, str]
    sha256: str

    def __len__(self) -> int:
        return len(self.files)

    def boxes_of(self, image: int) -> Boxes:
        """The objects of an image."""
        return self.boxes[int(self.first[image]) : int(self.first[image + 1])]

    def trainable(self) -> Tensor:
        """int64: the images with an object to train on, one that is no crowd."""
        single = running_count(~self.boxes.crowd)[self.first]
        return single.diff().nonzero().flatten()


def read_split(root: str | Path, split: str) -> Coco:
    """The annotations of a split, checked.

    Raises:
        InputError: a file is missing or damaged, an annotation is not usable, or there is none.
    """
    file = Path(root) / "annotations" / f"instances_{split}.json"
    where = f"--data-root {root}: {file.relative_to(root)}"
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise OSError(errno.EINVAL, "it is no file")
        data = file.read_bytes()
        content: dict[str, Any] = json.loads(data)
        images, annotations = content["images"], content["annotations"]
        categories = {int(one["id"]): str(one["name"]) for one in content["categories"]}
        files = {one["id"]: Path(root) / split / one["file_name"] for one in images}
    except FileNotFoundError:
        raise InputError(
            f"{where} is missing; a folder in COCO's layout holds annotations/instances_<split>"
            ".json and <split>/ of each split (--train-split, --valid-split)"
        ) from None
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} is damaged ({type(error).__name__}: {error})") from None
    if len(files) < len(images):
        raise InputError(f"{where} gives two images one id")
    absent = next((path for path in files.values() if not path.is_file()), None)
    if absent is not None:
        raise InputError(f"{where} names the image {absent}, which is not there")
    categories = dict(sorted(categories.items()))
    boxes, first = _boxes(annotations, list(files), list(categories), where)
    return Coco(
        tuple(files.values()), boxes, first, categories, hashlib.sha256(data).hexdigest()
    )


def _boxes(
    annotations: Sequence[dict[str, Any]], images: Sequence[Any], categories: Sequence[int],
    where: str,
) -> tuple[Boxes, Tensor]:
    """The objects sorted by image, and where each image's begin."""
    position = {image: k for k, image in enumerate(images)}
    label = {category: k for k, category in enumerate(categories, 1)}
    rows = []  # image, four corners, label, area, crowd
    for number, one in enumerate(annotations):
        try:
            x, y, width, height = map(float, one["bbox"])
            image, category = one["image_id"], one["category_id"]
            area, crowd = float(one.get("area", width * height)), bool(one.get("iscrowd", 0))
            known = image in position, category in label
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{where}: annotation {number} needs a bbox [x, y, width, height], an image_id and "
                "a category_id"
            ) from None
        if not all(known):
            unknown = f"category {category}" if known[0] else f"image {image}"
            raise InputError(f"{where}: annotation {number} is of {unknown}, which is not listed")
        if not all(map(math.isfinite, (x, y, width, height, area))):
            raise InputError(f"{where}: annotation {number} has a box that is not finite")
        if width > 0 and height > 0:  # COCO has a few without extent; they mean nothing
            corners = (x, y, x + width, y + height)
            rows.append((position[image], *corners, label[category], area, crowd))
    if not rows:
        raise InputError(f"{where} has no box")
    table = torch.tensor(rows, dtype=torch.float64)  # exact for every integer here
    table = table[table[:, 0].argsort(stable=True)]
    counts = torch.bincount(table[:, 0].long(), minlength=len(images))
    boxes = Boxes(table[:, 1:5].float(), table[:, 5].long(), table[:, 6].float(), table[:, 7] > 0)
    return boxes, running_count(counts)


def running_count(counts: Tensor) -> Tensor:
    """int64 [N + 1]: how many there are before each, and in all."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])


def read_image(path: Path) -> tv_tensors.Image:
    """uint8 [3, H, W].

    Raises:
        InputError: see `image_folder.open_image`.
    """
    return tv_tensors.Image(T.pil_to_tensor(open_image(path, 3)))
