"""A split of a data set: small images in memory (`Images`), large ones in files (`ImageFiles`)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.distributed import generator_of
from common.errors import InputError

LARGE = 128  # pixels: such images stay in their files, and networks get ImageNet's stem


def large(shape: tuple[int, int, int]) -> bool:
    """Whether images [C, H, W] are 128 pixels or more on the smaller side."""
    return min(shape[1:]) >= LARGE


class LabelledImages:
    """Base of both kinds.

    Attributes:
        labels: int64 [N], indices into `classes`.
        classes: their names.
        mean: of each channel, in pixels from 0 to 1; a test split has the training split's.
        std: of each channel, likewise.
        shape: channels, height and width of an image.
    """

    def __len__(self) -> int:
        return len(self.labels)

    def limited(self, count: int | None, seed: int) -> LabelledImages:
        """A random choice of `count` images (None: all).

        Raises:
            InputError: the split has fewer.
        """
        if count is None:
            return self
        if count > len(self):
            raise InputError(f"--limit-images {count}: the training split has {len(self)} images")
        chosen = torch.randperm(len(self), generator=generator_of(seed, "limit"))[:count]
        return self.subset(chosen.sort().values)

    def described(self) -> dict[str, Any]:
        """What the user of a trained network needs to know, as JSON."""
        return {
            "classes": list(self.classes), "shape": list(self.shape),
            "mean": list(self.mean), "std": list(self.std),
        }


@dataclass(frozen=True)
class Images(LabelledImages):
    """Images in memory.

    Attributes:
        pixels: uint8 [N, C, H, W].
        labels, classes, mean, std: see `LabelledImages`.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.pixels.shape[1:])

    def subset(self, indices: Tensor) -> Images:
        """The images at these indices; mean and standard deviation stay."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])

    def sha256(self) -> str:
        """Digest of pixels and labels."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.cpu().contiguous().numpy())
        digest.update(self.labels.cpu().contiguous().numpy())
        return digest.hexdigest()


@dataclass(frozen=True)
class ImageFiles(LabelledImages):
    """Images that are read from their files when a batch needs them.

    Attributes:
        root: of the image folder.
        names: of the files, below the root; bytes [N].
        labels, classes, mean, std, shape: see `LabelledImages`.
        workers: processes that read for each stream of batches; 0: this process reads.
    """

    root: Path
    names: np.ndarray
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, int, int]
    workers: int = 0

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.root / os.fsdecode(self.names[index])

    def subset(self, indices: Tensor) -> ImageFiles:
        """See `Images.subset`."""
        return replace(self, names=self.names[indices.numpy()], labels=self.labels[indices])

    def sha256(self) -> str:
        """Digest of names, file sizes, labels and shape; does not read the files."""
        digest = hashlib.sha256(repr(tuple(self.shape)).encode())
        lengths = [self.path(index).stat().st_size for index in range(len(self))]
        for name in self.names.tolist():
            digest.update(name + b"\n")
        digest.update(np.array(lengths, dtype=np.int64))
        digest.update(self.labels.numpy())
        return digest.hexdigest()
