"""One split of a data set: small images in memory (`Images`), large ones in files (`ImageFiles`).

Whoever trains sees no difference: both know their classes and serve batches.
"""

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

LARGE = 128  # pixels: from here on images stay in their files and get ImageNet's stem


def large(shape: tuple[int, int, int]) -> bool:
    """Whether images [C, H, W] are 128 pixels or more on the smaller side."""
    return min(shape[1:]) >= LARGE


class LabelledImages:
    """What both kinds have in common.

    Attributes:
        labels: int64 [N].
        classes: their names; a label is an index into them.
        mean: of each channel, 0 to 1; a test split carries those of the training split.
        std: of each channel.
        shape: channels, height and width of an image.
    """

    def __len__(self) -> int:
        return len(self.labels)

    def limited(self, count: int | None, seed: int) -> LabelledImages:
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

    def described(self) -> dict[str, Any]:
        """What a user of a network that was trained on them must know, as JSON has it."""
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
        """The images of these indices, normalised as the whole split is."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])

    def sha256(self) -> str:
        """Of pixels and labels: equal data, equal digest."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.cpu().contiguous().numpy())
        digest.update(self.labels.cpu().contiguous().numpy())
        return digest.hexdigest()


@dataclass(frozen=True)
class ImageFiles(LabelledImages):
    """Images that stay in their files until a batch needs them; training crops them at random.

    Attributes:
        root: of the image folder.
        names: of the files below it, bytes [N].
        labels, classes, mean, std, shape: see `LabelledImages`.
        workers: processes that read for each stream of batches; 0: none, who asks reads.
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
        """Where an image is."""
        return self.root / os.fsdecode(self.names[index])

    def subset(self, indices: Tensor) -> ImageFiles:
        """The images of these indices, normalised as the whole split is."""
        return replace(self, names=self.names[indices.numpy()], labels=self.labels[indices])

    def sha256(self) -> str:
        """Of names, lengths in bytes, labels and shape: files are told apart without being read."""
        digest = hashlib.sha256(repr(tuple(self.shape)).encode())
        lengths = [self.path(index).stat().st_size for index in range(len(self))]
        for name in self.names.tolist():
            digest.update(name + b"\n")
        digest.update(np.array(lengths, dtype=np.int64))
        digest.update(self.labels.numpy())
        return digest.hexdigest()
