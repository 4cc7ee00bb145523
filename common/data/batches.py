"""Shuffled, augmented batches of images: the interface (`Stream`) and small images (`Batches`).

A batch is a function of the seed and the step alone. Small images stay on the device as uint8 and
are cropped, flipped and cut out there, without worker processes; `streamed` reads large ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.images import Images, LabelledImages
from common.distributed import generator_of

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W], labels [B]


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images, in this order.

    Attributes:
        crop_padding: pixels of black around a small image before a random crop of its own size. A
            large image is cropped at a random area (8 to 100 %) and aspect (3/4 to 4/3) instead.
        flip: mirror an image with probability 0.5.
        color_jitter: large images only: brightness, contrast and saturation change by up to this
            share, the hue by half of it.
        cutout: side of the square that is set to the mean after normalisation (0: none). Its
            centre is uniform over the image; the borders clip it (DeVries & Taylor).
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    color_jitter: float = 0.0


class Stream(ABC):
    """Shuffled epochs, split into batches.

    Args:
        images: the data set.
        device: of the batches.
        indices: the images to use; None: all.
        batch_size: over all processes; each gets an equal share of every batch.
        augmentation: of training batches.
        seed: of order and augmentation.
        stream: name that separates the random numbers of streams with the same seed.
        rank: of this process.
        processes: number of processes; divides the batch size.
    """

    def __init__(
        self,
        images: LabelledImages,
        device: torch.device,
        indices: Tensor | None,
        batch_size: int,
        augmentation: Augmentation,
        *,
        seed: int,
        stream: str,
        rank: int = 0,
        processes: int = 1,
    ):
        self.device, self.shape = torch.device(device), images.shape
        self.batch_size, self.augmentation = batch_size, augmentation
        self.indices = torch.arange(len(images)) if indices is None else indices
        self.key, self.rank, self.processes = (seed, stream), rank, processes
        mean, std = (torch.tensor(v, device=device) for v in (images.mean, images.std))
        self._scale = (1 / (255 * std)).view(1, -1, 1, 1)
        self._shift = (-mean / std).view(1, -1, 1, 1)

    def __len__(self) -> int:
        """Number of full batches in an epoch.

        Deviation: an epoch drops its last, smaller batch; the authors' code keeps it (98 steps
        instead of 97 for 25,000 images in batches of 256).
        """
        return len(self.indices) // self.batch_size

    def train(self, step: int) -> Batch:
        """This process' share of batch `step`, counted from the start of the run."""
        epoch, position = divmod(step, len(self))
        return self.cut(epoch, position * self.batch_size, step)

    @abstractmethod
    def cut(self, epoch: int, start: int, step: int) -> Batch:
        """This process' share of the batch at position `start` of an epoch's order.

        `step` seeds the augmentation.
        """

    @abstractmethod
    def evaluate(self) -> Iterator[Batch]:
        """This process' share of all images, in their order, normalised but not augmented."""

    def _evaluated(self) -> tuple[Tensor, ...]:
        """Positions of this process' images, in batches of about equal size.

        None is small, as batch statistics may normalise them.
        """
        mine = torch.arange(self.rank, len(self.indices), self.processes)
        return mine.tensor_split(max(1, len(self.indices) // self.batch_size))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return pixels.float() * self._scale + self._shift

    def _cut_out(self, x: Tensor, centres: Tensor) -> Tensor:
        """Set the square around each image's centre, [B, 2], to the mean."""
        half = self.augmentation.cutout // 2
        inside = []
        for axis, size in enumerate(self.shape[1:]):
            distance = torch.arange(size) - centres[:, axis, None]
            inside.append((distance >= -half) & (distance < self.augmentation.cutout - half))
        hole = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]  # [B, 1, H, W]
        return x.masked_fill(self._send(hole), 0)

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


def shuffled(key: tuple[int, str], epoch: int, count: int) -> Tensor:
    """Order of an epoch: a permutation of `count` positions."""
    return torch.randperm(count, generator=generator_of(*key, "order", epoch))


class Batches(Stream):
    """Batches of images on the device; see `Stream` for the arguments."""

    def __init__(
        self, images: Images, device: torch.device, indices: Tensor | None, batch_size: int,
        augmentation: Augmentation, **draws: Any,
    ):
        super().__init__(images, device, indices, batch_size, augmentation, **draws)
        pixels, labels = images.pixels, images.labels
        if indices is not None:
            pixels, labels = pixels[indices], labels[indices]
        self.labels = self._send(labels)
        self.pixels = F.pad(self._send(pixels), [augmentation.crop_padding] * 4)
        self._order = (-1, self.indices)  # the epoch, positions among the indices

    def cut(self, epoch: int, start: int, step: int) -> Batch:
        if self._order[0] != epoch:
            self._order = (epoch, shuffled(self.key, epoch, len(self.indices)))
        batch = self._order[1][start : start + self.batch_size]
        draws = self.draws(step)
        share = slice(self.rank, None, self.processes)
        return self._augmented(batch[share], *(draw[share] for draw in draws))

    def evaluate(self) -> Iterator[Batch]:
        _, height, width = self.shape
        padding = self.augmentation.crop_padding
        for batch in self._evaluated():
            batch = self._send(batch)
            pixels = self.pixels[batch, :, padding : padding + height, padding : padding + width]
            yield self._normalised(pixels), self.labels[batch]

    def draws(self, step: int) -> tuple[Tensor, ...]:
        """Crop offsets, flips and cutout centres of all processes: [B, 2], [B], [B, 2]."""
        generator = generator_of(*self.key, "augment", step)
        count, (height, width) = self.batch_size, self.shape[1:]
        offsets = torch.randint(
            2 * self.augmentation.crop_padding + 1, (count, 2), generator=generator
        )
        flips = torch.rand(count, generator=generator) < 0.5
        centres = torch.rand(count, 2, generator=generator) * torch.tensor([height, width])
        return offsets, flips, centres.long()

    def _augmented(
        self, batch: Tensor, offsets: Tensor, flips: Tensor, centres: Tensor
    ) -> Batch:
        channels, height, width = self.shape
        rows, columns = torch.arange(height), torch.arange(width)
        if self.augmentation.flip:
            columns = torch.where(flips[:, None], columns.flip(0), columns)  # [B, W]
        rows = self._send(offsets[:, :1] + rows)  # [B, H] of the padded image
        columns = self._send(offsets[:, 1:] + columns)  # [B, W]
        batch = self._send(batch)
        pixels = self.pixels[
            batch[:, None, None, None],
            torch.arange(channels, device=self.device)[:, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]  # [B, C, H, W]
        x = self._normalised(pixels)
        if self.augmentation.cutout:
            x = self._cut_out(x, centres)
        return x, self.labels[batch]
