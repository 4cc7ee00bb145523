"""Batches of images with boxes: read, augmented and resized to one size by worker processes.

A batch is a function of the seed and the step, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from common.data.image_folder import open_image
from common.data.streamed import Request, requests
from common.distributed import generator_of
from common.errors import InputError, UnreadableFile
from common.preemption import survive
from common.run.config import RunConfig
from common.run.start import workers
from detection.coco import Coco, Target

# Images uint8 [B, 3, S, S]; for each its `boxes` in these pixels, `labels`, the `number` of the
# image in the split and the `size` [H, W] of its file.
Batch = tuple[Tensor, list[Target]]
Sample = tuple[Tensor, Target]
GREY = (123, 117, 104)  # ImageNet's mean colour fills what a zoom out adds


def plain(image_size: int) -> v2.Transform:
    """Resize to a square, without augmentation."""
    return v2.Compose([v2.ToImage(), v2.Resize((image_size, image_size))])


def augmentation(image_size: int, flip: bool) -> v2.Transform:
    """SSD's (Liu et al. 2016, 2.2 and 3.6), as torchvision's reference trains SSD300 with it."""
    return v2.Compose([
        v2.ToImage(),
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
        config: a `config.DetectConfig`.
        rank: of this process, which gets an equal share of every batch.
        processes: how many.

    Attributes:
        indices: int64: the images used, as positions in the split.

    Raises:
        InputError: there are fewer images than a batch or the limit asks for.
    """

    def __init__(self, split: Coco, config: RunConfig, rank: int = 0, processes: int = 1):
        self.split, self.indices, limit = split, split.trainable(), config.limit_images
        self.transform = augmentation(config.image_size, config.flip)
        self.batch_size, self.seed, self.workers = config.batch_size, config.seed, workers(config)
        self.rank, self.processes = rank, processes
        if limit is not None:
            self._check("--limit-images", limit)
            generator = generator_of(config.seed, "limit")
            chosen = torch.randperm(len(self.indices), generator=generator)[:limit]
            self.indices = self.indices[chosen.sort().values]
        self._check("--batch-size", config.batch_size)

    def _check(self, flag: str, wanted: int) -> None:
        count = len(self.indices)
        if wanted > count:
            raise InputError(f"{flag} {wanted}: only {count} training images have a box")

    def __len__(self) -> int:
        """Whole batches in an epoch; the remaining images wait for another order."""
        return len(self.indices) // self.batch_size

    def from_step(self, first: int, end: int) -> Iterator[Batch]:
        """This process' shares of batches `first` to `end` - 1, counted from the run's first."""
        epoch, before = divmod(first, len(self))
        position = (epoch, before * self.batch_size, first, self.batch_size)
        plan = requests(self.indices, (self.seed, "train"), position, self.rank, self.processes)
        return read(self.split, self.transform, islice(plan, end - first), self.workers)


def read(
    split: Coco, transform: v2.Transform, plan: Iterable[list[Request]], workers: int
) -> Iterator[Batch]:
    """Read batches of images ahead of use.

    Args:
        split: the images.
        transform: PIL images and targets to images [3, S, S] and targets.
        plan: for each batch, positions in the split and seeds of the transform.
        workers: processes that read; 0: this one does.

    Raises:
        UnreadableFile: an image became unreadable.
    """
    loader = DataLoader(
        _Images(split, transform), batch_sampler=plan, num_workers=workers, collate_fn=_together,
        worker_init_fn=survive, pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # by default DataLoader draws from the global one
    )  # fmt: skip
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
            image = open_image(self.split.files[number], 3)
        except InputError as error:  # returned: an error raised in a worker prints its traceback
            return UnreadableFile(error)
        size, target = image.size[::-1], self.split.target(number)
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
        with torch.random.fork_rng(devices=[]):  # without workers, training draws from it too
            torch.default_generator.manual_seed(seed)  # not a GPU's, which the step has seeded
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
