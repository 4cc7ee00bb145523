"""Batches of images with boxes: read, augmented and resized to one size by worker processes.

A batch is a function of the seed and the step, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from common.data.streamed import Request, requests
from common.distributed import generator_of
from common.errors import InputError, UnreadableFile
from detection.coco import Coco, Target, read_image

# Images uint8 [B, 3, S, S]; for each its `boxes` in these pixels, `labels`, the `number` of the
# image in the split and the `size` [H, W] of its file.
Batch = tuple[Tensor, list[Target]]
Sample = tuple[Tensor, Target]
GREY = (123, 117, 104)  # ImageNet's mean colour fills what a zoom out adds


def augmentation(image_size: int, flip: bool) -> v2.Transform:
    """SSD's (Liu et al. 2016, 2.2 and 3.6), as torchvision's reference trains SSD300 with it."""
    return v2.Compose([
        v2.ClampBoundingBoxes(),
        v2.RandomPhotometricDistort(),
        v2.RandomZoomOut(fill=GREY),
        v2.RandomIoUCrop(),
        v2.RandomHorizontalFlip(0.5 if flip else 0.0),
        v2.Resize((image_size, image_size)),
        v2.SanitizeBoundingBoxes(),
    ])  # fmt: skip


class TrainBatches:
    """Shuffled epochs of the images that have an object to train on, split into batches.

    Args:
        split: the images.
        image_size: they are resized to a square of this side.
        batch_size: global; each process gets an equal share of every batch.
        flip: mirror half of the images.
        seed: of order and augmentation.
        limit: use a seeded choice of this many images; None: all.
        workers: processes that read and augment; 0: this one does.
        rank: of this process.
        processes: how many; divides the batch size.

    Attributes:
        indices: int64: the images used, as positions in the split.

    Raises:
        InputError: there are fewer images than a batch or the limit asks for.
    """

    def __init__(
        self, split: Coco, image_size: int, batch_size: int, *, flip: bool, seed: int,
        limit: int | None = None, workers: int = 0, rank: int = 0, processes: int = 1,
    ):
        self.split, self.transform = split, augmentation(image_size, flip)
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.rank, self.processes = rank, processes
        self.indices = split.trainable()
        count = len(self.indices)
        if limit is not None:
            if limit > count:
                raise InputError(f"--limit-images {limit}: only {count} training images have a box")
            chosen = torch.randperm(count, generator=generator_of(seed, "limit"))[:limit]
            self.indices = self.indices[chosen.sort().values]
        if batch_size > len(self.indices):
            raise InputError(
                f"--batch-size {batch_size}: only {len(self.indices)} training images have a box"
            )

    def __len__(self) -> int:
        """Whole batches in an epoch; the remaining images wait for another order."""
        return len(self.indices) // self.batch_size

    def from_step(self, first: int, end: int) -> Iterator[Batch]:
        """This process' shares of batches `first` to `end` - 1, counted from the run's first.

        Raises:
            UnreadableFile: an image became unreadable.
        """
        epoch, before = divmod(first, len(self))
        position = (epoch, before * self.batch_size, first, self.batch_size)
        plan = requests(self.indices, (self.seed, "train"), position, self.rank, self.processes)
        return _read(self.split, self.transform, islice(plan, end - first), self.workers)


def plain_batches(
    split: Coco, numbers: Iterable[int], image_size: int, batch_size: int, workers: int = 0
) -> Iterator[Batch]:
    """The images at these positions, once, resized without augmentation."""
    plan = BatchSampler([(number, 0) for number in numbers], batch_size, drop_last=False)
    return _read(split, v2.Resize((image_size, image_size)), plan, workers)


def _read(
    split: Coco, transform: v2.Transform, plan: Iterable[list[Request]], workers: int
) -> Iterator[Batch]:
    loader = DataLoader(
        _Images(split, transform), batch_sampler=plan, num_workers=workers, collate_fn=_together,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # by default DataLoader draws from the global one
    )
    for batch in loader:
        if isinstance(batch, UnreadableFile):
            raise batch
        yield batch


class _Images(Dataset):
    """Images and targets by position and seed of the transform."""

    def __init__(self, split: Coco, transform: v2.Transform):
        self.split, self.transform = split, transform

    def __getitem__(self, request: Request) -> Sample | UnreadableFile:
        number, seed = request
        try:
            image = read_image(self.split.files[number])
        except InputError as error:  # returned: an error raised in a worker prints its traceback
            return UnreadableFile(error)
        size, target = image.shape[1:], self.split.target(number)
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
        with torch.random.fork_rng(devices=[]):  # without workers, training draws from it too
            torch.manual_seed(seed)
            image, target = self.transform(image, {**target, "boxes": boxes})
        return image.as_subclass(Tensor), {
            "boxes": target["boxes"].as_subclass(Tensor), "labels": target["labels"],
            "number": torch.tensor(number), "size": torch.tensor(size),
        }  # fmt: skip


def _together(samples: Sequence[Sample | UnreadableFile]) -> Batch | UnreadableFile:
    """A batch of what was read; the first error if there is one."""
    for sample in samples:
        if isinstance(sample, UnreadableFile):
            return sample
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)
