"""Batches of images with boxes: read, augmented and brought to one size by worker processes.

What a batch holds is a function of the seed and the step alone, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

from common.coco import Coco, read_image
from common.distributed import generator_of, seed_of
from common.errors import InputError

Target = dict[str, Tensor]  # training: boxes [N, 4] in pixels of the resized image, labels [N]
GREY = (123, 117, 104)  # ImageNet's mean colour, around images that were zoomed out


def augmentation(image_size: int, flip: bool) -> v2.Transform:
    """SSD's (Liu et al. 2016, 2.2 and 3.6), as torchvision's reference trains SSD300 with it."""
    return v2.Compose([
        v2.ClampBoundingBoxes(),
        v2.RandomPhotometricDistort(),
        v2.RandomZoomOut(fill=GREY),
        v2.RandomIoUCrop(),
        v2.RandomHorizontalFlip(0.5 if flip else 0.0),
        v2.Resize((image_size, image_size), antialias=True),
        v2.SanitizeBoundingBoxes(),
    ])  # fmt: skip


class TrainBatches:
    """Serves training batches; an image without an object to train on is left out.

    Args:
        split: the images.
        image_size: of the square that they are brought to.
        batch_size: global; each process gets its equal share of every batch.
        flip: mirror every second image, on average.
        seed: of order and augmentation.
        limit: use a seeded choice of so many images; None: all.
        workers: processes that read and augment; 0: this one does.
        rank: of this process.
        processes: how many; divides the batch size.

    Raises:
        InputError: there are fewer images than a batch or the limit takes.
    """

    def __init__(
        self, split: Coco, image_size: int, batch_size: int, *, flip: bool, seed: int,
        limit: int | None = None, workers: int = 0, rank: int = 0, processes: int = 1,
    ):
        self.indices = split.trainable()
        if limit is not None:
            if limit > len(self.indices):
                raise InputError(
                    f"--limit-images {limit}: {len(self.indices)} training images have a box"
                )
            chosen = torch.randperm(len(self.indices), generator=generator_of(seed, "limit"))
            self.indices = self.indices[chosen[:limit].sort().values]
        self.images = AugmentedImages(split, augmentation(image_size, flip))
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.rank, self.processes = rank, processes
        if len(self) == 0:
            raise InputError(
                f"--batch-size {batch_size}: only {len(self.indices)} training images have a box"
            )

    def __len__(self) -> int:
        """Whole batches in one pass; the rest waits for another order."""
        return len(self.indices) // self.batch_size

    def from_step(self, first: int, end: int) -> Iterator[tuple[Tensor, list[Target]]]:
        """This process' shares of batches `first` to `end` - 1, counted from the run's first.

        Passes follow one another, each in its own random order; the workers read ahead across.

        Yields:
            uint8 [B, 3, S, S], and for each image its boxes and labels.
        """
        return iter(DataLoader(
            self.images, batch_sampler=self._plan(first, end), num_workers=self.workers,
            collate_fn=_collate, pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else it draws from the global one
        ))  # fmt: skip

    def _plan(self, first: int, end: int) -> Iterator[list[tuple[int, int]]]:
        """For each step, the images of this process and the seeds of their augmentations."""
        turn, order = -1, self.indices
        for step in range(first, end):
            now, position = divmod(step, len(self))
            if now != turn:
                generator = generator_of(self.seed, "train", "order", now)
                shuffled = torch.randperm(len(self.indices), generator=generator)
                turn, order = now, self.indices[shuffled]
            batch = order[position * self.batch_size :][: self.batch_size].tolist()
            seeds = [seed_of(self.seed, "augment", step, k) for k in range(self.batch_size)]
            draws = list(zip(batch, seeds, strict=True))
            yield draws[self.rank :: self.processes]  # of equal length everywhere


def plain_batches(
    split: Coco, numbers: Sequence[int], image_size: int, batch_size: int, workers: int = 0
) -> Iterable[tuple[Tensor, list[Target]]]:
    """Images of these numbers, once, unchanged but for their size.

    Yields:
        uint8 [B, 3, S, S], and for each image its `number` and the `size` [H, W] of its file.
    """
    return DataLoader(
        Subset(PlainImages(split, image_size), numbers), batch_size, num_workers=workers,
        collate_fn=_collate, pin_memory=torch.cuda.is_available(), generator=torch.Generator(),
    )  # fmt: skip


class AugmentedImages(Dataset):
    """Training images by number and seed."""

    def __init__(self, split: Coco, augment: v2.Transform):
        self.split, self.augment = split, augment

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, Target]:
        number, seed = draw
        image = read_image(self.split.files[number])
        boxes = self.split.boxes_of(number)
        boxes = boxes[~boxes.crowd]
        corners = tv_tensors.BoundingBoxes(
            boxes.corners, format="XYXY", canvas_size=image.shape[1:]
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image, target = self.augment(image, {"boxes": corners, "labels": boxes.labels})
        return image.as_subclass(Tensor), {
            "boxes": target["boxes"].as_subclass(Tensor), "labels": target["labels"]
        }  # fmt: skip


class PlainImages(Dataset):
    """Images by number, unchanged but for their size."""

    def __init__(self, split: Coco, image_size: int):
        self.split, self.resize = split, v2.Resize((image_size, image_size), antialias=True)

    def __getitem__(self, number: int) -> tuple[Tensor, Target]:
        image = read_image(self.split.files[number])
        file = {"number": torch.tensor(number), "size": torch.tensor(image.shape[1:])}
        return self.resize(image).as_subclass(Tensor), file


def _collate(samples: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)
