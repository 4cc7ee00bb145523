"""Image folders, `train/<class>/<image>` and other splits alike: listed and decoded."""

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
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as T

from common.errors import InputError, is_main_process

READABLE = (*IMG_EXTENSIONS, ".jfif", ".jp2", *([".avif"] if features.check("avif") else []))
GREY = ("1", "L", "LA")
MODES = (*GREY, "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
NOT_OURS = ("@eaDir", "__MACOSX")  # thumbnails of a NAS, and what macOS adds to a zip
NAMED = 5  # damaged files that a message names


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
        InputError: there is no such split, it has fewer than two, or a name is not UTF-8.
    """
    if not has_split(root, split):
        raise InputError(
            f"--data-root {root}: no folder {split}/ there; an image folder is "
            "train/<class>/<image> with test/, val/ or valid/ alike (CINIC-10: train/, valid/ and "
            "test/; ImageNet: train/ and val/)"
        )
    classes = class_folders(root, split)
    for name in classes:
        if name != os.fsencode(name).decode(errors="replace"):
            raise InputError(
                f"--data-root {root}: the class folder {os.fsencode(name)!r} in {split}/ is not "
                "named in UTF-8; rename it"
            )
    if len(classes) < 2:
        raise InputError(
            f"--data-root {root}: {split}/ holds {len(classes)} class folders; "
            "two or more are needed, one folder a class"
        )
    return classes


def class_folders(root: Path, split: str) -> tuple[str, ...]:
    """The folders in a split, sorted, without hidden ones."""
    folders = [entry.name for entry in (root / split).iterdir() if entry.is_dir()]
    return tuple(sorted(name for name in folders if not _hidden(name)))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in NOT_OURS


def list_images(
    root: Path, splits: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray, Tensor]:
    """All image files of some splits, split by split and class by class, sorted.

    What is in hidden folders is left out; links are followed. Files of other kinds are counted and
    said once.

    Returns:
        Their names below the root, as one array of bytes (a million Python strings would be copied
        into every worker process, little by little), and their labels, int64 [N].

    Raises:
        InputError: a class has none in one of the splits, or see `_files_below`.
    """
    names, labels, others = [], [], Counter()
    for split in splits:
        for label, name in enumerate(classes):
            found = []
            for file in sorted(_files_below(root, f"{split}/{name}")):
                if file.lower().endswith(READABLE):
                    found.append(file)
                else:
                    others[Path(file).suffix.lower() or "without an ending"] += 1
            if not found:
                raise InputError(f"--data-root: no image in {root / split / name}")
            names += found
            labels += [label] * len(found)
    if others and is_main_process():
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(NAMED))
        print(
            f"note: left out of {root} ({', '.join(splits)}), as no image format that is read: "
            f"{kinds}", file=sys.stderr,
        )
    return np.array([os.fsencode(name) for name in names]), torch.tensor(labels)


def _files_below(root: Path, folder: str, seen: set[str] | None = None) -> Iterator[str]:
    """Regular files at any depth, by their names below the root; no hidden ones.

    A folder is listed once, whatever links lead to it, and none that holds this one: its images are
    of other classes.

    Raises:
        InputError: a folder cannot be read, or an image's name leads to no file.
    """
    real = Path(os.path.realpath(root / folder))
    if seen is None:
        above = [*real.parents, *(root / folder).parents]
        seen = {os.path.realpath(path) for path in above}
    if str(real) in seen:
        return
    seen.add(str(real))
    try:
        with os.scandir(root / folder) as found:  # folders before links to them
            entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        raise InputError(
            f"--data-root: {root / folder} cannot be read ({error.strerror})"
        ) from None
    for entry in entries:
        name = f"{folder}/{entry.name}"
        if _hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _files_below(root, name, seen)
        elif entry.is_file():
            yield name
        elif name.lower().endswith(READABLE):
            what = "a link to nothing" if entry.is_symlink() else "a pipe or a device"
            raise InputError(f"--data-root: {root / name} is no file, but {what}; remove it")


def check_files(root: Path, names: np.ndarray) -> None:
    """Decode every one of these files once, a thousand in about a second.

    Raises:
        InputError: some are damaged; all of them are counted, the first ones named.
    """
    def wrong(name: bytes) -> str | None:
        try:
            open_image(root / os.fsdecode(name), None)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        _refuse([error for error in pool.map(wrong, names) if error])


def any_coloured(root: Path, names: np.ndarray) -> bool:
    """Whether any of these files has colours, by its header alone.

    Raises:
        InputError: a file is no image.
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


def _refuse(errors: Sequence[str]) -> None:
    if errors:
        more = f"\n... and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        raise InputError("\n".join(errors[:NAMED]) + more)


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
        InputError: files are no images (all are counted), or one is of another size.
    """
    images: list[Tensor] = []
    errors: list[str] = []
    channels, shape = (None, None) if like is None else (like[0], like[1:])
    for name in names:
        path = root / os.fsdecode(name)
        try:
            image = open_image(path, channels)
        except InputError as error:
            errors.append(str(error))
            continue
        if errors:
            continue
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
    _refuse(errors)
    channels = max(image.shape[0] for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def open_image(path: Path, channels: int | None) -> Image.Image:
    """One image, decoded and upright; with `channels` None, grey ones have one, others three.

    Raises:
        InputError: it is no image, or one of more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                deep = "more than 8 bits a channel" if image.mode[0] in "IF" else "other colours"
                raise ValueError(f"mode {image.mode}, {deep}; save it as RGB")
            grey = image.mode in GREY if channels is None else channels == 1
            # A camera held upright says so in EXIF, and leaves the pixels lying.
            return ImageOps.exif_transpose(image).convert("L" if grey else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, Image.DecompressionBombError):
        error = ValueError(f"over {2 * Image.MAX_IMAGE_PIXELS:,} pixels; scale it down")
    return InputError(f"--data-root: {path} is no readable image ({error})")
