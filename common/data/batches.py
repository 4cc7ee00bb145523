"""Batches: what they hold (`Stream`), and how they are made on the device (`Batches`).

What a batch holds is a function of the seed and the step alone. Small images live on the device as
uint8 and are cropped, flipped and cut there, without worker processes; `streamed_batches` has those
of large images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.images import Images, LabelledImages
from common.distributed import generator_of

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W], labels [B]


@dataclass(frozen=True)
class Augmentation:
    """What training images undergo, in this order.

    Attributes:
        crop_padding: pixels of black around a small image before a crop of its own size. A large
            one is cropped at random in area (8 to 100 %) and aspect (3/4 to 4/3) instead.
        flip: mirror every second image, on average.
        color_jitter: of large images: brightness, contrast and saturation change by up to this
            share, the hue by half of it.
        cutout: side of the square that is set to the mean after normalisation, 0: none; its
            centre is uniform over the image and it is clipped at the borders (DeVries & Taylor).
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    color_jitter: float = 0.0


class Stream(ABC):
    """Shuffled epochs of some images, split into batches.

    Args:
        images: all images.
        device: where batches go.
        indices: which of them; None: all.
        batch_size: global; each process gets its equal share of every batch.
        augmentation: of `train` batches.
        seed: of order and augmentation.
        stream: a name that keeps this object's draws apart from others'.
        rank: of this process.
        processes: how many; divides the batch size.
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
        """Whole batches in one epoch.

        Deviation: the rest of the images waits for another order; the authors' code ends an epoch
        with a smaller batch (98 steps instead of 97 for 25,000 images in batches of 256).
        """
        return len(self.indices) // self.batch_size

    def train(self, step: int) -> Batch:
        """This process' share of batch `step`, counted from the run's first: images and labels.

        Epochs follow one another, each in its own random order.
        """
        epoch, position = divmod(step, len(self))
        return self.cut(epoch, position * self.batch_size, step)

    @abstractmethod
    def cut(self, epoch: int, start: int, step: int) -> Batch:
        """This process' share of an epoch's images from `start` on, augmented as step `step`'s."""

    @abstractmethod
    def evaluate(self) -> Iterator[Batch]:
        """This process' share of all images, once and as they are, normalised."""

    def _evaluated(self) -> tuple[Tensor, ...]:
        """This process' share of all positions, in batches.

        They are of about equal size, none of them small, as some are normalised by themselves.
        """
        mine = torch.arange(self.rank, len(self.indices), self.processes)
        return mine.tensor_split(max(1, len(self.indices) // self.batch_size))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return pixels.float() * self._scale + self._shift

    def _cut_out(self, x: Tensor, centres: Tensor) -> Tensor:
        """Sets the square around each image's centre, [B, 2], to the mean."""
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
    """The order of an epoch over `count` images, as positions among them."""
    return torch.randperm(count, generator=generator_of(*key, "order", epoch))


class Batches(Stream):
    """Batches of images that live on the device; see `Stream` for the arguments."""

    def __init__(
        self, images: Images, device: torch.device, indices: Tensor | None, batch_size: int,
        augmentation: Augmentation, **draws,
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
        draws = self._draw(step)
        share = slice(self.rank, None, self.processes)
        return self._augmented(batch[share], *(draw[share] for draw in draws))

    def evaluate(self) -> Iterator[Batch]:
        _, height, width = self.shape
        padding = self.augmentation.crop_padding
        for batch in self._evaluated():
            batch = self._send(batch)
            pixels = self.pixels[batch, :, padding : padding + height, padding : padding + width]
            yield self._normalised(pixels), self.labels[batch]

    def _draw(self, step: int) -> tuple[Tensor, ...]:
        """Crop offsets, flips and cutout centres of the whole batch: [B, 2], [B], [B, 2]."""
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
