"""Data sets by name: digits, CIFAR, SVHN, and image folders."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.image_folder import (
    any_coloured,
    check_files,
    class_folders,
    class_names,
    has_split,
    list_images,
    open_image,
    read_images,
)
from common.data.images import ImageFiles, Images, large
from common.data.normalization import STATISTICS, measure
from common.distributed import generator_of
from common.errors import InputError, is_main_process

Dataset = Literal["digits", "cifar10", "cifar100", "svhn", "cinic10", "imagenet", "folder"]

# Image folders: the splits that train, and the test splits, of which the first that exists is used.
# CINIC-10 has three equal splits of 90,000. Its train/ and valid/ are one training set here, which
# a search halves like any other.
FOLDERS = {
    "cinic10": (("train", "valid"), ("test",)),
    "imagenet": (("train",), ("val",)),
    "folder": (("train",), ("test", "val", "valid")),
}
MEASURED = 512  # sample of large images that gives mean and standard deviation


def load_train(
    dataset: Dataset, root: str | Path, image_size: int | None = None, workers: int = 0
) -> Images | ImageFiles:
    """Load the training split; no test image is read.

    Args:
        dataset: its name.
        root: folder of CIFAR's or SVHN's files (downloaded if missing), or an image folder
            `train/<class>/*` with `val/<class>/*` or `test/<class>/*`.
        image_size: scale and crop a folder's images to this many pixels (ImageNet's to 224 by
            default). Images of 128 pixels or more, and ImageNet's, stay in their files.
        workers: processes that read such files, for each stream of batches.

    Raises:
        InputError: no usable images there.
    """
    if image_size is not None and dataset not in ("folder", "imagenet"):
        raise InputError(
            f"--image-size is for --dataset folder or imagenet; {dataset} has one size"
        )
    root = Path(root)
    if dataset == "digits":
        return _digits(train=True)
    if dataset == "svhn":
        pixels, labels = _svhn(root, "train", "extra")
        return Images(pixels, labels, tuple("0123456789"), *measure(pixels))
    if dataset in ("cifar10", "cifar100"):
        return _cifar(dataset, root, train=True)
    return _folder(dataset, root, image_size, workers)


def load_test(
    dataset: Dataset, root: str | Path, train: Images | ImageFiles, image_size: int | None = None,
    split: str | None = None,
) -> Images | ImageFiles:
    """Load the test split, with the classes, channels, size and statistics of the training split.

    Prints a note if some classes have no test image.

    Args:
        dataset: its name.
        root: see `load_train`.
        train: the training images.
        image_size: see `load_train`.
        split: folder of the test images; None: the first of the data set's that has class folders.

    Raises:
        InputError: no usable images there, or they do not fit the training images.
    """
    root = Path(root)
    if dataset == "digits":
        return _digits(train=False)
    if dataset == "svhn":
        return Images(*_svhn(root, "test"), train.classes, train.mean, train.std)
    if dataset in ("cifar10", "cifar100"):
        return _cifar(dataset, root, train=False)
    split = _test_split(root, dataset, split)
    found = set(class_folders(root, split))
    if unknown := sorted(found - set(train.classes)):
        raise InputError(
            f"--data-root {root}: {split}/ has other classes than the training images: "
            f"{', '.join(unknown[:5])}"
        )
    classes = [name for name in train.classes if name in found]
    if missing := [name for name in train.classes if name not in found]:
        _note(f"{split}/ has no test image of {', '.join(missing[:5])}")
    names, labels = list_images(root, (split,), classes)
    labels = torch.tensor([train.classes.index(name) for name in classes])[labels]
    if isinstance(train, ImageFiles):
        return dataclasses.replace(train, names=names, labels=labels)
    pixels = read_images(root, names, image_size, like=train.shape)
    return Images(pixels, labels, train.classes, train.mean, train.std)


def _note(text: str) -> None:
    if is_main_process():
        print(f"note: {text}", file=sys.stderr)


def _test_split(root: Path, dataset: str, asked: str | None) -> str:
    """Name of the test images' folder; skips a folder without class folders, with a note."""
    candidates = FOLDERS[dataset][1] if asked is None else (asked,)
    for name in candidates:
        if has_split(root, name):
            if class_folders(root, name):
                return name
            _note(f"skipped {root / name}: it has no class folders, so its images have no labels")
    missing = " and no ".join(f"{name}/" for name in candidates)
    raise InputError(f"--data-root {root}: holds no {missing} with class folders of test images")


def _folder(dataset: str, root: Path, size: int | None, workers: int) -> Images | ImageFiles:
    """The training images of an image folder."""
    splits, _ = FOLDERS[dataset]
    classes = class_names(root, splits[0])
    for split in splits[1:]:
        if class_names(root, split) != classes:
            raise InputError(
                f"--data-root {root}: {split}/ has other classes than the training images"
            )
    names, labels = list_images(root, splits, classes)
    if dataset == "imagenet":
        size = 224 if size is None else size
        channels, (mean, std) = 3, STATISTICS[dataset]
    elif dataset == "folder" and _are_large(root, names, size):
        channels, mean, std = _measured(root, names, size)
    else:
        pixels = read_images(root, names, size)
        return Images(pixels, labels, classes, *measure(pixels))
    return ImageFiles(root, names, labels, classes, mean, std, (channels, size, size), workers)


def _are_large(root: Path, names: np.ndarray, size: int | None) -> bool:
    """Whether images are too large to be held in memory.

    Raises:
        InputError: they are, and need a size.
    """
    if size is not None:
        return large((3, size, size))
    first = root / os.fsdecode(names[0])
    width, height = open_image(first, None).size
    if large((3, height, width)):
        raise InputError(
            f"--data-root {root}: {first} is {height}x{width} pixels; large images are cropped and "
            "scaled to squares, which need a size: --image-size 224 is usual"
        )
    return False


def _measured(
    root: Path, names: np.ndarray, size: int
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Channels, mean and standard deviation of large images, from a random sample."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    from common.data.streamed import evaluation_transform

    sample = torch.randperm(len(names), generator=generator_of("measure"))[:MEASURED]
    paths = [root / os.fsdecode(name) for name in names[sample.numpy()]]
    centre = evaluation_transform(size)
    try:
        pixels = [pil_to_tensor(centre(open_image(path, None))) for path in paths]
    except InputError:
        check_files(root, names)  # names all damaged files, not only this one
        raise
    channels = 3 if any_coloured(root, names) else 1
    alike = torch.stack([image.expand(channels, -1, -1) for image in pixels])
    return channels, *measure(alike)


def _digits(train: bool) -> Images:
    """scikit-learn's 1,797 8x8 digits; every fifth of a class is a test image."""
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = torch.from_numpy(data.target).long()
    pixels = torch.from_numpy(data.images * (255 / 16)).round().to(torch.uint8)[:, None]
    so_far = F.one_hot(labels).cumsum(0)  # [N, 10], images of each class
    rank = so_far.gather(1, labels[:, None])[:, 0] - 1  # of an image within its class
    held_out = rank % 5 == 2
    statistics = measure(pixels[~held_out])
    chosen = ~held_out if train else held_out
    return Images(pixels[chosen], labels[chosen], tuple("0123456789"), *statistics)


def _cifar(dataset: str, root: Path, train: bool) -> Images:
    """CIFAR-10 or CIFAR-100 through torchvision, which downloads and checks the files."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if dataset == "cifar10" else CIFAR100
    data = _downloaded(dataset, root, functools.partial(kind, train=train))
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(data.targets), tuple(data.classes), *STATISTICS[dataset])


def _svhn(root: Path, *splits: str) -> tuple[Tensor, Tensor]:
    """Pixels and labels of splits of SVHN (format 2, 32x32), through torchvision."""
    from torchvision.datasets import SVHN

    parts = [_downloaded("svhn", root, functools.partial(SVHN, split=name)) for name in splits]
    pixels = torch.cat([torch.from_numpy(part.data) for part in parts])
    labels = torch.cat([torch.from_numpy(part.labels) for part in parts])
    return pixels.contiguous(), labels


@contextlib.contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Let the processes of this machine in one by one; all at once where files have no locks."""
    with open(root / ".downloading", "w") as file:
        with contextlib.suppress(ImportError, OSError):  # Windows; some network file systems
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, or the process ends
        yield


def _download(root: Path, make: Callable[..., Any]) -> None:
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as own:
        for archive in root.iterdir():  # which the user may have put there
            if archive.is_file() and not archive.name.startswith("."):
                (Path(own) / archive.name).symlink_to(archive.resolve())
        make(own, download=True)
        for file in sorted(Path(own).rglob("*")):
            if file.is_file() and not file.is_symlink():
                target = root / file.relative_to(own)
                target.parent.mkdir(exist_ok=True)
                os.replace(file, target)


def _downloaded(dataset: str, root: Path, make: Callable[..., Any]) -> Any:
    """A data set of torchvision, downloaded if its files are missing or corrupted.

    Files appear whole, and runs that start together on one machine download them once.

    Args:
        dataset: its name.
        root: folder of its files.
        make: the data set of a folder.

    Raises:
        InputError: the download failed.
    """
    try:
        try:
            return make(root)
        except RuntimeError:  # missing or corrupted
            root.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(root):
            with contextlib.suppress(RuntimeError):
                return make(root)  # another run has downloaded it
            _download(root, make)
            return make(root)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--dataset {dataset}: no complete copy under --data-root {root}, and the download "
            f"failed ({reason}).\nPut its files there, or use --dataset folder with "
            "your own images, or --dataset digits, which needs no download."
        ) from None
