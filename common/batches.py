"""Batches, made on the device: images live there as uint8 and are cropped, flipped and cut there.

No worker processes. What a batch holds is a function of the seed and the step alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data import Images
from common.distributed import generator_of

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W], labels [B]


@dataclass(frozen=True)
class Augmentation:
    """What training images undergo, in this order.

    Attributes:
        crop_padding: pixels of black around the image before a crop of its own size.
        flip: mirror every second image, on average.
        cutout: side of the square that is set to the mean after normalisation, 0: none; its
            centre is uniform over the image and it is clipped at the borders (DeVries & Taylor).
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0


class Batches:
    """Serves batches of some images from the device they are on.

    Args:
        images: on the device.
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
        images: Images,
        indices: Tensor | None,
        batch_size: int,
        augmentation: Augmentation,
        *,
        seed: int,
        stream: str,
        rank: int = 0,
        processes: int = 1,
    ):
        self.batch_size, self.augmentation = batch_size, augmentation
        self.indices = torch.arange(len(images)) if indices is None else indices
        self.key, self.rank, self.processes = (seed, stream), rank, processes
        self.device, self.shape = images.pixels.device, images.shape
        chosen = self.indices.to(self.device)
        self.labels = images.labels[chosen]
        self.pixels = F.pad(images.pixels[chosen], [augmentation.crop_padding] * 4)
        mean, std = (torch.tensor(v, device=self.device) for v in (images.mean, images.std))
        self.scale = (1 / (255 * std)).view(1, -1, 1, 1)
        self.shift = (-mean / std).view(1, -1, 1, 1)
        self._order = (-1, self.indices)  # number of the pass, positions among the indices

    def __len__(self) -> int:
        """Whole batches in one pass.

        Deviation: the rest of the images waits for another order; the authors' code ends a pass
        with a smaller batch (98 steps instead of 97 for 25,000 images in batches of 256).
        """
        return len(self.indices) // self.batch_size

    def train(self, step: int) -> Batch:
        """This process' share of batch `step`, counted from the run's first: images and labels.

        Passes follow one another, each in its own random order.
        """
        turn, position = divmod(step, len(self))
        return self.cut(turn, position * self.batch_size, step)

    def cut(self, turn: int, start: int, step: int) -> Batch:
        """This process' share of the images from `start` on of a pass, drawn for as step `step`."""
        batch = self._pass(turn)[start : start + self.batch_size]
        draws = self._draw(step)
        share = slice(self.rank, None, self.processes)
        return self._augmented(batch[share], *(draw[share] for draw in draws))

    def evaluate(self) -> Iterator[Batch]:
        """This process' share of all images, once and unchanged but for the normalisation.

        In batches of about equal size, none of them small, as some are normalised by themselves.
        """
        _, height, width = self.shape
        padding = self.augmentation.crop_padding
        mine = torch.arange(self.rank, len(self.labels), self.processes)
        for batch in mine.tensor_split(max(1, len(self.labels) // self.batch_size)):
            batch = self._send(batch)
            pixels = self.pixels[batch, :, padding : padding + height, padding : padding + width]
            yield self._normalised(pixels), self.labels[batch]

    def _pass(self, turn: int) -> Tensor:
        if self._order[0] != turn:
            generator = generator_of(*self.key, "order", turn)
            self._order = (turn, torch.randperm(len(self.indices), generator=generator))
        return self._order[1]

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
            x = x.masked_fill(self._send(self._hole(centres)), 0)
        return x, self.labels[batch]

    def _hole(self, centres: Tensor) -> Tensor:
        """[B, 1, H, W]: where cutout sets the image to the mean."""
        half = self.augmentation.cutout // 2
        inside = []
        for axis, size in enumerate(self.shape[1:]):
            distance = torch.arange(size) - centres[:, axis, None]
            inside.append((distance >= -half) & (distance < self.augmentation.cutout - half))
        return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]

    def _normalised(self, pixels: Tensor) -> Tensor:
        return pixels.float() * self.scale + self.shift

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)
