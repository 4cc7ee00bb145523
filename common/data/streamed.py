"""Batches of large images, read from their files by worker processes.

Workers open, crop and flip single images (torchvision's transforms on PIL's), ahead of the step
that asks; the device normalises whole batches. Each image's draws come from a seed of its own, so
a batch is a function of the seed and the step, whatever the number of workers and wherever a run
was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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

Request = tuple[int, int]  # an image's index, the seed of its draws
Position = tuple[int, int, int, int]  # epoch, start within it, step, batch size


def training_transform(size: int, augmentation: Augmentation) -> v2.Transform:
    """A random crop of any size and aspect, scaled to [size, size]; then flips and colours."""
    steps = [v2.RandomResizedCrop(size)]
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.color_jitter:
        jitter = augmentation.color_jitter
        steps.append(v2.ColorJitter(jitter, jitter, jitter, hue=jitter / 2))
    return v2.Compose(steps)


def evaluation_transform(size: int) -> v2.Transform:
    """The centre of the image, scaled so that 256/224 of it is the shorter side."""
    return v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)])


class StreamedBatches(Stream):
    """Batches of images that are in files; see `batches.Stream` for the arguments."""

    def __init__(
        self, images: ImageFiles, device: torch.device, indices: Tensor | None, batch_size: int,
        augmentation: Augmentation, **draws,
    ):
        super().__init__(images, device, indices, batch_size, augmentation, **draws)
        self.images = images
        self._transform = training_transform(self.shape[-1], augmentation)
        self._stream: Iterator = iter(())
        self._next: Position | None = None  # what the stream holds next

    def cut(self, epoch: int, start: int, step: int) -> Batch:
        """See `Stream.cut`; quick where it asks for the batch that follows the last one."""
        position = (epoch, start, step, self.batch_size)
        if position != self._next:
            self._stream = iter(())  # ends the workers of the old one
            wanted = requests(self.indices, self.key, position, self.rank, self.processes)
            self._stream = iter(self._loader(wanted, self._transform))
        self._next = after(position, len(self.indices))
        x, labels = self._received(next(self._stream))
        if self.augmentation.cutout:
            x = self._cut_out(x, self._centres(step)[self.rank :: self.processes])
        return x, labels

    def evaluate(self) -> Iterator[Batch]:
        """See `Stream.evaluate`; each image is its scaled centre."""
        wanted = [[(index, 0) for index in self.indices[p].tolist()] for p in self._evaluated()]
        for batch in self._loader(wanted, evaluation_transform(self.shape[-1])):
            yield self._received(batch)

    def _loader(self, wanted: Iterable[list[Request]], transform: v2.Transform) -> DataLoader:
        return DataLoader(
            _Reader(self.images, transform), batch_sampler=wanted, collate_fn=_together,
            num_workers=self.images.workers, pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # of seeds that nobody uses; not torch's, which steps do
        )

    def _received(self, batch: Batch | InputError) -> Batch:
        if isinstance(batch, InputError):
            raise batch
        pixels, labels = batch
        return self._normalised(self._send(pixels)), self._send(labels)

    def _centres(self, step: int) -> Tensor:
        """Cutout's, of the whole batch: [B, 2]."""
        generator = generator_of(*self.key, "cutout", step)
        centres = torch.rand(self.batch_size, 2, generator=generator)
        return (centres * torch.tensor(self.shape[1:])).long()


def requests(
    indices: Tensor, key: tuple[int, str], position: Position, rank: int, processes: int
) -> Iterator[list[Request]]:
    """A process' share of a batch and, endlessly, of all that follow; see `Stream`.

    No method of `StreamedBatches`, which would hold itself by its own stream: workers of a stream
    that the garbage collector finds take seconds to end.
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
    """The next batch: of the same epoch, or the first of another where this one has no more."""
    epoch, start, step, size = position
    if start + 2 * size > count:
        return epoch + 1, 0, step + 1, size
    return epoch, start + size, step + 1, size


class _Reader(Dataset):
    """What a worker does for one image."""

    def __init__(self, images: ImageFiles, transform: v2.Transform):
        self.images, self.transform = images, transform

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | InputError:
        index, seed = request
        try:
            image = open_image(self.images.path(index), self.images.shape[0])
        except InputError as error:  # returned: raised, a worker's traceback would be its message
            return UnreadableFile(
                f"{error}. If that passes, --resume goes on; else mend it or take it out, and "
                "start a new run"
            )
        with torch.random.fork_rng(devices=[]):  # without workers, the generator is the step's
            torch.default_generator.manual_seed(seed)
            pixels = T.pil_to_tensor(self.transform(image))  # uint8 [C, size, size]
        return pixels, self.images.labels[index]


def _together(read: list[tuple[Tensor, Tensor] | InputError]) -> Batch | InputError:
    """A batch of what was read; the first error if there are any."""
    for one in read:
        if isinstance(one, InputError):
            return one
    pixels, labels = zip(*read, strict=True)
    return torch.stack(pixels), torch.stack(labels)
