"""Image folders, `train/<class>/<image>` and other splits alike: listed and decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as T

from common.errors import InputError


def has_split(root: Path, split: str) -> bool:
    """Whether there is such a folder.

    Raises:
        InputError: the root cannot be read.
    """
    try:
        return (root / split).is_dir()
    except OSError as error:
        raise InputError(f"--data-root {root}: cannot be read ({error.strerror})") from None


def class_names(root: Path, split: str) -> tuple[str, ...]:
    """The class folders of a split, sorted; hidden ones are no classes.

    Raises:
        InputError: there is no such split, or it has fewer than two.
    """
    if not has_split(root, split):
        raise InputError(
            f"--data-root {root}: no folder {split}/ there; an image folder is "
            "train/<class>/<image> with test/ or val/ alike (CINIC-10: train/, valid/ and test/; "
            "ImageNet: train/ and val/)"
        )
    folders = [entry.name for entry in (root / split).iterdir() if entry.is_dir()]
    classes = tuple(sorted(name for name in folders if not name.startswith(".")))
    if len(classes) < 2:
        raise InputError(
            f"--data-root {root}: {split}/ holds {len(classes)} class folders; "
            "two or more are needed, one folder a class"
        )
    return classes


def list_images(
    root: Path, splits: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray, Tensor]:
    """All image files of some splits, split by split and class by class, sorted.

    Returns:
        Their names below the root, as one array of bytes (a million Python strings would be copied
        into every worker process, little by little), and their labels, int64 [N].

    Raises:
        InputError: a class has none in one of the splits.
    """
    names, labels = [], []
    for split in splits:
        for label, name in enumerate(classes):
            found = _images_below(root, f"{split}/{name}")
            if not found:
                raise InputError(f"--data-root: no image in {root / split / name}")
            names += found
            labels += [label] * len(found)
    return np.array([os.fsencode(name) for name in names]), torch.tensor(labels)


def _images_below(root: Path, folder: str) -> list[str]:
    found = []
    for where, _, files in os.walk(root / folder):
        below = Path(where).relative_to(root).as_posix()
        found += [
            f"{below}/{file}" for file in files
            if file.lower().endswith(IMG_EXTENSIONS) and not file.startswith(".")
        ]
    return sorted(found)


def read_images(
    root: Path, names: np.ndarray, size: int | None, like: tuple[int, int, int] | None = None
) -> Tensor:
    """All of these files in memory: uint8 [N, C, H, W].

    Args:
        root: above the files.
        names: below it.
        size: scale and crop them to this square; None: they have one size already.
        like: channels, height and width that they must have. Without it there are three channels if
            any of the images is coloured.

    Raises:
        InputError: a file is no image, or of another size.
    """
    images: list[Tensor] = []
    channels, shape = (None, None) if like is None else (like[0], like[1:])
    for name in names:
        path = root / os.fsdecode(name)
        image = open_image(path, channels)
        if size is not None:
            image = T.center_crop(T.resize(image, size, antialias=True), [size] * 2)
        images.append(T.pil_to_tensor(image))
        shape = shape or images[-1].shape[1:]
        if images[-1].shape[1:] != shape:
            sizes = ["x".join(map(str, s)) for s in (images[-1].shape[1:], shape)]
            raise InputError(
                f"--data-root: {path} is {sizes[0]}, others are {sizes[1]}; "
                "--image-size N brings them to one size"
            )
    channels = max(image.shape[0] for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def open_image(path: Path, channels: int | None) -> Image.Image:
    """One image, decoded; with `channels` None, grey ones have one channel and others three.

    Raises:
        InputError: it is no image, or one of more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise ValueError(f"mode {image.mode}, more than 8 bits a channel")
            grey = image.mode in ("1", "L", "LA") if channels is None else channels == 1
            return image.convert("L" if grey else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"--data-root: {path} is no readable image ({error})") from None
