"""List and decode image folders: `train/<class>/<image>`, other splits alike.

torchvision's `ImageFolder` counts hidden folders and thumbnails as images, skips unreadable folders
silently, follows links in circles and reads a photograph without its EXIF orientation.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, features
from torch import Tensor

from common.errors import InputError, is_main_process

READABLE = (
    ".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp",
    *([".avif"] if features.check("avif") else []),
)  # fmt: skip
GREY = ("1", "L", "LA")
MODES = (*GREY, "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
NOT_IMAGES = ("@eaDir", "__MACOSX")  # thumbnails of a NAS, resource forks in macOS zips
NAMED = 5  # damaged files that a message names; the others are counted


def has_split(root: Path, split: str) -> bool:
    """Whether the folder exists.

    Raises:
        InputError: the root cannot be read.
    """
    try:
        return (root / split).is_dir()
    except OSError as error:
        raise InputError(f"--data-root {root}: cannot be read ({error.strerror})") from None


def class_names(root: Path, split: str) -> tuple[str, ...]:
    """The class folders of a split, sorted, without hidden ones.

    Raises:
        InputError: the split is missing, has fewer than two classes, or a name is not UTF-8.
    """
    if not has_split(root, split):
        raise InputError(
            f"--data-root {root}: no folder {split}/ there; an image folder has "
            "train/<class>/<image>, and test/, val/ or valid/ alike (CINIC-10: train/, valid/ and "
            "test/; ImageNet: train/ and val/)"
        )
    classes = class_folders(root, split)
    for name in classes:
        if name != os.fsencode(name).decode(errors="replace"):
            raise InputError(
                f"--data-root {root}: the name of {os.fsencode(name)!r} in {split}/ is not UTF-8; "
                "rename the folder"
            )
    if len(classes) < 2:
        raise InputError(
            f"--data-root {root}: {split}/ holds {len(classes)} class folders; two or more are "
            "needed, one folder per class"
        )
    return classes


def class_folders(root: Path, split: str) -> tuple[str, ...]:
    """The folders in a split, sorted, without hidden ones."""
    folders = [entry.name for entry in (root / split).iterdir() if entry.is_dir()]
    return tuple(sorted(name for name in folders if not _hidden(name)))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in NOT_IMAGES


def list_images(
    root: Path, splits: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray, Tensor]:
    """List the image files of some splits, sorted within each split and class.

    Skips hidden folders, follows links, and reports the number of skipped files in one line.

    Returns:
        Names below the root, as one array of bytes (reference counts would copy a million Python
        strings into every worker process), and labels, int64 [N].

    Raises:
        InputError: a class of a split has no image; also see `_files_below`.
    """
    names, labels, others = [], [], Counter()
    for split in splits:
        for label, name in enumerate(classes):
            found = []
            for file in sorted(_files_below(root, f"{split}/{name}")):
                if file.lower().endswith(READABLE):
                    found.append(file)
                else:
                    others[Path(file).suffix.lower() or "without extension"] += 1
            if not found:
                raise InputError(f"--data-root: no image in {root / split / name}")
            names += found
            labels += [label] * len(found)
    if others and is_main_process():
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(NAMED))
        print(
            f"note: skipped files in {root} ({', '.join(splits)}) of other formats: {kinds}",
            file=sys.stderr,
        )
    return np.array([os.fsencode(name) for name in names]), torch.tensor(labels)


def _files_below(root: Path, folder: str) -> Iterator[str]:
    """The files in a class folder at any depth, as names below the root, without hidden ones.

    Unlike torchvision's `make_dataset`, this follows links without loops: each folder is listed
    once, and a link to a folder above the class is ignored, as its images belong to other classes.

    Raises:
        InputError: a folder cannot be read, or an image name is not a file.
    """
    top = root / folder
    seen = {os.path.realpath(above) for above in (*top.parents, *top.resolve().parents)}
    for path, folders, files in os.walk(top, onerror=_unreadable_folder, followlinks=True):
        if (real := os.path.realpath(path)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(  # real folders before links to them
            (name for name in folders if not _hidden(name)),
            key=lambda name: (os.path.islink(os.path.join(path, name)), name),
        )
        for name in files:
            file = os.path.join(path, name)
            if _hidden(name):
                continue
            if os.path.isfile(file):
                yield folder + file.removeprefix(str(top))
            elif name.lower().endswith(READABLE):
                what = "a broken link" if os.path.islink(file) else "a pipe or a device"
                raise InputError(f"--data-root: {file} is {what}; remove it")


def _unreadable_folder(error: OSError) -> None:
    raise InputError(f"--data-root: {error.filename} cannot be read ({error.strerror})") from None


def check_files(root: Path, names: np.ndarray) -> None:
    """Decode every file once (about a thousand per second).

    Raises:
        InputError: with the number of damaged files and the names of the first ones.
    """
    def error(name: bytes) -> str | None:
        try:
            open_image(root / os.fsdecode(name), None)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        errors = [found for found in pool.map(error, names) if found]
    if errors:
        more = f"\n... and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        raise InputError("\n".join(errors[:NAMED]) + more)


def any_coloured(root: Path, names: np.ndarray) -> bool:
    """Whether any file is coloured, by its header.

    Raises:
        InputError: a file is not an image.
    """
    for name in names:
        path = root / os.fsdecode(name)
        try:
            with Image.open(path) as image:
                if image.mode not in GREY:
                    return True
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(path, error) from None
    return False


def read_images(
    root: Path, names: np.ndarray, size: int | None, like: tuple[int, int, int] | None = None
) -> Tensor:
    """Read all files into memory: uint8 [N, C, H, W].

    Args:
        root: of the image folder.
        names: of the files, below the root.
        size: scale and crop to this square; None: all images have one size.
        like: required channels, height and width; None: three channels if any image is coloured.

    Raises:
        InputError: files are not images (all are counted), or their sizes differ.
    """
    from torchvision.transforms.v2 import functional as T

    images: list[Tensor] = []
    channels, shape = (None, None) if like is None else (like[0], like[1:])
    for name in names:
        path = root / os.fsdecode(name)
        try:
            image = open_image(path, channels)
        except InputError:
            check_files(root, names)  # names all damaged files, not only this one
            raise
        if size is not None:
            image = T.center_crop(T.resize(image, size, antialias=True), [size] * 2)
        images.append(T.pil_to_tensor(image))
        shape = shape or images[-1].shape[1:]
        if images[-1].shape[1:] != shape:
            sizes = ["x".join(map(str, s)) for s in (images[-1].shape[1:], shape)]
            raise InputError(
                f"--data-root: {path} is {sizes[0]}, others are {sizes[1]}; "
                "--image-size N scales all to one size"
            )
    channels = max(image.shape[0] for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def open_image(path: Path, channels: int | None) -> Image.Image:
    """Decode one image and turn it upright.

    Args:
        path: of the file.
        channels: 1 or 3; None: 1 if the image is grey.

    Raises:
        InputError: the file is not an image, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                deep = "more than 8 bits per channel" if image.mode[0] in "IF" else "other colours"
                raise ValueError(f"mode {image.mode}, {deep}; save it as RGB")
            grey = image.mode in GREY if channels is None else channels == 1
            return ImageOps.exif_transpose(image).convert("L" if grey else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, Image.DecompressionBombError):
        error = ValueError(f"over {2 * Image.MAX_IMAGE_PIXELS:,} pixels; scale it down")
    return InputError(f"--data-root: {path} is no readable image ({error})")
