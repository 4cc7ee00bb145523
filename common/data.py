"""Images: where they come from, and how a search splits them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from common.distributed import generator_of
from common.errors import InputError

Dataset = Literal["digits", "cifar10", "cifar100", "folder"]

# Per channel, in units of the pixel range; other data sets' are measured on their training images.
# Deviation: CIFAR-100 has its own; DARTS' and PC-DARTS' code normalises it by CIFAR-10's.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


@dataclass(frozen=True)
class Images:
    """One split of a data set.

    Attributes:
        pixels: uint8 [N, C, H, W].
        labels: int64 [N].
        classes: their names; a label is an index into them.
        mean: of each channel, 0 to 1; a test split carries those of the training split.
        std: of each channel.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.pixels.shape[1:])

    def to(self, device: torch.device) -> Images:
        """The same images on a device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def limited(self, count: int | None, seed: int) -> Images:
        """A seeded choice of `count` images (None: all of them).

        Raises:
            InputError: there are fewer.
        """
        if count is None:
            return self
        if count > len(self):
            raise InputError(f"--limit-images {count}: the training split has {len(self)} images")
        chosen = torch.randperm(len(self), generator=generator_of(seed, "limit"))[:count]
        return self.subset(chosen.sort().values)

    def subset(self, indices: Tensor) -> Images:
        """The images of these indices, normalised as the whole split is."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])

    def sha256(self) -> str:
        """Of pixels and labels: equal data, equal digest."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.cpu().contiguous().numpy())
        digest.update(self.labels.cpu().contiguous().numpy())
        return digest.hexdigest()


# ---------------------------------------------------------------------------------------- loading


def load_train(dataset: Dataset, root: str | Path, image_size: int | None = None) -> Images:
    """The training split of a data set; no test image is used for anything.

    Args:
        dataset: its name.
        root: where it lies: CIFAR's archive (downloaded there if missing), or an image folder
            `train/<class>/*` with `val/<class>/*` or `test/<class>/*`.
        image_size: pixels; scale and crop a folder's images to this square.

    Raises:
        InputError: nothing usable there.
    """
    if image_size is not None and dataset != "folder":
        raise InputError(f"--image-size is for --dataset folder; {dataset} has one size")
    if dataset == "digits":
        return _digits(train=True)
    if dataset != "folder":
        return _cifar(dataset, Path(root), train=True)
    split = Path(root) / "train"
    classes = _classes(split)
    pixels, labels = _read(split, classes, image_size)
    return Images(pixels, labels, classes, *_measure(pixels))


def load_test(
    dataset: Dataset, root: str | Path, train: Images, image_size: int | None = None
) -> Images:
    """The test split that belongs to these training images: their classes, channels and size.

    Raises:
        InputError: nothing usable there, or it does not fit the training images.
    """
    if dataset == "digits":
        return _digits(train=False)
    if dataset != "folder":
        return _cifar(dataset, Path(root), train=False)
    split = next((Path(root) / name for name in ("test", "val") if _is_dir(root, name)), None)
    if split is None:
        raise InputError(f"--data-root {root}: holds neither test/ nor val/ beside train/")
    if _classes(split) != train.classes:
        raise InputError(f"--data-root {root}: {split.name}/ has other classes than train/")
    pixels, labels = _read(split, train.classes, image_size, like=train)
    return Images(pixels, labels, train.classes, train.mean, train.std)


def _digits(train: bool) -> Images:
    """scikit-learn's 1,797 8x8 digits; every fifth of a class is held out for testing."""
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = torch.from_numpy(data.target).long()
    pixels = torch.from_numpy(data.images * (255 / 16)).round().to(torch.uint8)[:, None]
    rank = torch.zeros_like(labels)  # of an image among those of its class
    for label in range(10):
        rank[labels == label] = torch.arange(int((labels == label).sum()))
    held_out = rank % 5 == 2
    statistics = _measure(pixels[~held_out])
    chosen = ~held_out if train else held_out
    return Images(pixels[chosen], labels[chosen], tuple("0123456789"), *statistics)


def _cifar(dataset: str, root: Path, train: bool) -> Images:
    """CIFAR through torchvision: its download, its checksums."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if dataset == "cifar10" else CIFAR100
    try:
        try:
            data = kind(root, train=train)
        except RuntimeError:  # not there, or corrupted
            data = kind(root, train=train, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--dataset {dataset}: no complete copy under --data-root {root}, and the download "
            f"failed ({reason}).\nPut the extracted archive there, or use --dataset folder with "
            "your own images, or --dataset digits, which needs no download."
        ) from None
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(data.targets), tuple(data.classes), *STATISTICS[dataset])


def _is_dir(root: str | Path, name: str) -> bool:
    try:
        return (Path(root) / name).is_dir()
    except OSError as error:
        raise InputError(f"--data-root {root}: cannot be read ({error.strerror})") from None


def _classes(split: Path) -> tuple[str, ...]:
    """The class folders of a split, sorted; hidden ones are no classes."""
    if not _is_dir(split.parent, split.name):
        raise InputError(
            f"--data-root {split.parent}: no folder {split.name}/ there; an image folder is "
            "train/<class>/<image> with test/ or val/ alike"
        )
    folders = [entry.name for entry in split.iterdir() if entry.is_dir()]
    classes = tuple(sorted(name for name in folders if not name.startswith(".")))
    if len(classes) < 2:
        raise InputError(
            f"--data-root {split.parent}: {split.name}/ holds {len(classes)} class folders; "
            "two or more are needed, one folder a class"
        )
    return classes


def _read(
    split: Path, classes: tuple[str, ...], image_size: int | None, like: Images | None = None
) -> tuple[Tensor, Tensor]:
    """All images of a split folder, uint8 [N, C, H, W], and their labels.

    Training images have three channels if any of them is coloured; others have what those have.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((split / name).rglob("*"))
        if path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")
    ]
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(classes))
    if (counts == 0).any():
        empty = classes[int((counts == 0).nonzero()[0])]
        raise InputError(f"--data-root: no image in {split / empty}")
    channels = None if like is None else like.shape[0]
    size = None if like is None else like.shape[1:]
    images: list[Tensor] = []
    for path, _ in files:
        images.append(_decode(path, image_size, channels))
        size = size or images[-1].shape[1:]
        if images[-1].shape[1:] != size:
            sizes = ["x".join(map(str, s)) for s in (images[-1].shape[1:], size)]
            raise InputError(
                f"--data-root: {path} is {sizes[0]}, others are {sizes[1]}; "
                "--image-size N brings them to one size"
            )
    channels = max(image.shape[0] for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images]), labels


def _decode(path: Path, image_size: int | None, channels: int | None) -> Tensor:
    """uint8 [C, H, W]; with `channels` None, one channel for a grey image and three for others."""
    from PIL import Image
    from torchvision.transforms.v2 import functional as T

    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise ValueError(f"mode {image.mode}, more than 8 bits a channel")
            grey = image.mode in ("1", "L", "LA") if channels is None else channels == 1
            image = image.convert("L" if grey else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"--data-root: {path} is no readable image ({error})") from None
    if image_size is not None:
        image = T.center_crop(T.resize(image, image_size, antialias=True), [image_size] * 2)
    return T.pil_to_tensor(image)


def _measure(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, 0 to 1, without a float copy of all images."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in pixels.unbind(1):
        share = torch.bincount(channel.flatten().long(), minlength=256).double() / channel.numel()
        mean.append(float((share * values).sum()))
        std.append(max(float(((share * values**2).sum() - mean[-1] ** 2).sqrt()), 1e-3))
    return tuple(mean), tuple(std)


# -------------------------------------------------------------------------------------- the split


@dataclass(frozen=True)
class Split:
    """The two halves of a search: one trains the weights, the other the architecture.

    Deviation: a seeded random half; DARTS' and PC-DARTS' code takes the first half of the file.

    Attributes:
        train: int64 indices.
        valid: int64 indices, as many.
    """

    train: Tensor
    valid: Tensor

    @classmethod
    def halves(cls, count: int, seed: int) -> Split:
        """A seeded random half against the rest (an odd image is left out)."""
        order = torch.randperm(count, generator=generator_of(seed, "split"))
        return cls(order[: count // 2].clone(), order[count // 2 : 2 * (count // 2)].clone())

    def to_json(self) -> dict:
        """Both lists and their SHA-256."""
        halves = {"train": self.train.tolist(), "valid": self.valid.tolist()}
        digest = hashlib.sha256(json.dumps(halves, separators=(",", ":")).encode())
        return {"sha256": digest.hexdigest(), **halves}
