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

from common.distributed import generator_of, seed_of
from common.errors import InputError, UnreadableFile
from detection.coco import Coco, read_image

Target = dict[str, Tensor]  # training: boxes [N, 4] in pixels of the resized image, labels [N]
Sample = tuple[Tensor, Target]  # the image uint8 [3, S, S]
Batch = tuple[Tensor, list[Target]]  # images [B, 3, S, S]
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
        InputError: there are fewer images than a batch or the limit asks for.
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

    def from_step(self, first: int, end: int) -> Iterator[Batch | UnreadableFile]:
        """This process' shares of batches `first` to `end` - 1, counted from the run's first.

        Stream follow one another, each in its own random order; the workers read ahead across.

        Yields:
            Images and their boxes and labels; see `received`.
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
) -> Iterable[Batch | UnreadableFile]:
    """Images of these numbers, once, unchanged but for their size.

    Yields:
        Images, and for each its `number` and the `size` [H, W] of its file; see `received`.
    """
    return DataLoader(
        Subset(PlainImages(split, image_size), numbers), batch_size, num_workers=workers,
        collate_fn=_collate, pin_memory=torch.cuda.is_available(), generator=torch.Generator(),
    )  # fmt: skip


def received(batch: Batch | UnreadableFile) -> Batch:
    """A batch as it came from a worker.

    Raises:
        UnreadableFile: a worker met an image that cannot be read.
    """
    if isinstance(batch, UnreadableFile):
        raise batch
    return batch


class AugmentedImages(Dataset):
    """Training images by number and seed."""

    def __init__(self, split: Coco, augment: v2.Transform):
        self.split, self.augment = split, augment

    def __getitem__(self, draw: tuple[int, int]) -> Sample | UnreadableFile:
        number, seed = draw
        boxes = self.split.boxes_of(number)
        boxes = boxes[~boxes.crowd]
        try:
            image = read_image(self.split.files[number])
        except InputError as error:  # returned: raised, a worker's traceback would be its message
            return UnreadableFile(error)
        corners = tv_tensors.BoundingBoxes(
            boxes.corners, format="XYXY", canvas_size=image.shape[1:]
        )
        with torch.random.fork_rng(devices=[]):  # without workers the generator is the step's
            torch.manual_seed(seed)
            image, target = self.augment(image, {"boxes": corners, "labels": boxes.labels})
        corners = target["boxes"].as_subclass(Tensor)
        return image.as_subclass(Tensor), {"boxes": corners, "labels": target["labels"]}


class PlainImages(Dataset):
    """Images by number, unchanged but for their size."""

    def __init__(self, split: Coco, image_size: int):
        self.split, self.resize = split, v2.Resize((image_size, image_size), antialias=True)

    def __getitem__(self, number: int) -> Sample | UnreadableFile:
        try:
            image = read_image(self.split.files[number])
        except InputError as error:
            return UnreadableFile(error)
        file = {"number": torch.tensor(number), "size": torch.tensor(image.shape[1:])}
        return self.resize(image).as_subclass(Tensor), file


def _collate(samples: Sequence[Sample | UnreadableFile]) -> Batch | UnreadableFile:
    for sample in samples:
        if isinstance(sample, UnreadableFile):
            return sample
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)
