"""Batches of large images, read from their files by worker processes.

Workers read ahead and apply torchvision's transforms to PIL images; the device normalises batches.
Each image has its own augmentation seed, so a batch depends only on the run's seed and the step,
not on the number of workers or on where the run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as T

from common.data.batches import Augmentation, Batch, Stream, shuffled
from common.data.image_folder import open_image
from common.data.images import ImageFiles
from common.distributed import generator_of, seed_of
from common.errors import InputError, UnreadableFile
from common.preemption import survive

Request = tuple[int, int]  # index of an image, seed of its augmentation
Position = tuple[int, int, int, int]  # epoch, start within it, step, batch size


def training_transform(size: int, augmentation: Augmentation) -> v2.Transform:
    """A random crop scaled to [size, size], then flips and colours."""
    steps = [v2.RandomResizedCrop(size)]
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.color_jitter:
        jitter = augmentation.color_jitter
        steps.append(v2.ColorJitter(jitter, jitter, jitter, hue=jitter / 2))
    return v2.Compose(steps)


def evaluation_transform(size: int) -> v2.Transform:
    """The centre crop [size, size] of an image whose shorter side is scaled to size * 256/224."""
    return v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)])


class StreamedBatches(Stream):
    """Batches of images in files; see `batches.Stream` for the arguments."""

    def __init__(
        self, images: ImageFiles, device: torch.device, indices: Tensor | None, batch_size: int,
        augmentation: Augmentation, **draws: Any,
    ):
        super().__init__(images, device, indices, batch_size, augmentation, **draws)
        self.images = images
        self._transform = training_transform(self.shape[-1], augmentation)
        self._stream: Iterator = iter(())
        self._next: Position | None = None  # of the stream's next batch

    def cut(self, epoch: int, start: int, step: int) -> Batch:
        """See `Stream.cut`; fast if this batch follows the last one, which is read ahead."""
        position = (epoch, start, step, self.batch_size)
        if position != self._next:
            self._stream = iter(())  # ends the old workers
            wanted = requests(self.indices, self.key, position, self.rank, self.processes)
            self._stream = iter(self._loader(wanted, self._transform))
        self._next = after(position, len(self.indices))
        x, labels = self._received(next(self._stream))
        if self.augmentation.cutout:
            x = self._cut_out(x, self._centres(step)[self.rank :: self.processes])
        return x, labels

    def evaluate(self) -> Iterator[Batch]:
        """See `Stream.evaluate`; reads the scaled centre of each image."""
        wanted = [[(index, 0) for index in self.indices[p].tolist()] for p in self._evaluated()]
        for batch in self._loader(wanted, evaluation_transform(self.shape[-1])):
            yield self._received(batch)

    def _loader(self, wanted: Iterable[list[Request]], transform: v2.Transform) -> DataLoader:
        return DataLoader(
            _Reader(self.images, transform), batch_sampler=wanted, collate_fn=_together,
            num_workers=self.images.workers, worker_init_fn=survive,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # keeps torch's own generator, which steps use, as it is
        )

    def _received(self, batch: Batch | InputError) -> Batch:
        if isinstance(batch, InputError):
            raise batch
        pixels, labels = batch
        return self._normalised(self._send(pixels)), self._send(labels)

    def _centres(self, step: int) -> Tensor:
        """Cutout centres of all processes: [B, 2]."""
        generator = generator_of(*self.key, "cutout", step)
        centres = torch.rand(self.batch_size, 2, generator=generator)
        return (centres * torch.tensor(self.shape[1:])).long()


def requests(
    indices: Tensor, key: tuple[int, str], position: Position, rank: int, processes: int
) -> Iterator[list[Request]]:
    """A process' share of a batch and of all that follow, without end.

    A function, as a method would make `StreamedBatches` refer to itself through its stream, and
    workers take seconds to end if the garbage collector ends them.
    """
    epoch = None
    while True:
        if position[0] != epoch:
            epoch = position[0]
            order = indices[shuffled(key, epoch, len(indices))]
        _, start, step, size = position
        yield [
            (index, seed_of(*key, "augment", step, place))
            for place, index in enumerate(order[start : start + size].tolist())
        ][rank::processes]
        position = after(position, len(indices))


def after(position: Position, count: int) -> Position:
    """Position of the next batch: in this epoch, or the first of the next one."""
    epoch, start, step, size = position
    if start + 2 * size > count:
        return epoch + 1, 0, step + 1, size
    return epoch, start + size, step + 1, size


class _Reader(Dataset):
    """Read and transform one image in a worker."""

    def __init__(self, images: ImageFiles, transform: v2.Transform):
        self.images, self.transform = images, transform

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | InputError:
        index, seed = request
        try:
            image = open_image(self.images.path(index), self.images.shape[0])
        except InputError as error:  # returned, as a raised one would carry the worker's traceback
            return UnreadableFile(
                f"{error}. If that passes, --resume goes on; else replace or remove the file and "
                "start a new run"
            )
        with torch.random.fork_rng(devices=[]):  # without workers, steps use this generator
            torch.default_generator.manual_seed(seed)
            pixels = T.pil_to_tensor(self.transform(image))  # uint8 [C, size, size]
        return pixels, self.images.labels[index]


def _together(read: list[tuple[Tensor, Tensor] | InputError]) -> Batch | InputError:
    """Collate a batch; the first error, if any."""
    for one in read:
        if isinstance(one, InputError):
            return one
    pixels, labels = zip(*read, strict=True)
    return torch.stack(pixels), torch.stack(labels)
