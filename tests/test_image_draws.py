"""Random augmentation: independent for each image, step, seed and stream.

All images of a data set are the same picture here, so all differences are random.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from common.data import loader
from common.data.batches import Augmentation
from common.data.images import ImageFiles, Images

SIZE, COUNT, BATCH = 32, 40, 20  # two steps are an epoch
NOISE = torch.randint(256, (3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
RAMP = torch.linspace(0, 255, SIZE).expand(3, SIZE, SIZE)  # from a dark left to a bright right


def filled(*colour):
    """A picture of one colour, the same after any crop and flip."""
    return torch.tensor(colour)[:, None, None].expand(3, SIZE, SIZE)


def mirrored(x):
    """Whether copies of RAMP are bright on the left."""
    left, right = x.mean((-3, -2)).tensor_split(2, dim=-1)
    return left.mean(-1) > right.mean(-1)


@dataclass(frozen=True)
class Draw:
    """An augmentation, a picture that shows it alone, and how to see it."""

    augmentation: Augmentation
    picture: Tensor
    seen: Callable[[Tensor], Tensor]
    least: int  # different outcomes in a batch


DRAWS = {
    "crop": Draw(Augmentation(crop_padding=4), NOISE, lambda x: x, 15),
    "flip": Draw(Augmentation(flip=True), RAMP, mirrored, 2),
    "cutout": Draw(Augmentation(cutout=8), filled(255, 255, 255), lambda x: x == 0, 18),
    "colours": Draw(Augmentation(color_jitter=0.4), filled(200, 120, 60), lambda x: x, 18),
}
every_draw = pytest.mark.parametrize(
    ("where", "draw"),
    [
        pytest.param(where, draw, id=f"{where}-{name}")
        for where in ("memory", "files")
        for name, draw in DRAWS.items()
        if (where, name) != ("memory", "colours")  # only for images in files
    ],
)


@pytest.fixture
def copies(tmp_path):
    """Makes a data set of one picture, in memory or in files, with mean 0."""

    def make(where, picture):
        labels, classes, mean, std = torch.zeros(COUNT).long(), ("a", "b"), (0.0,) * 3, (1.0,) * 3
        pixels = picture.to(torch.uint8)
        if where == "memory":
            return Images(pixels.expand(COUNT, -1, -1, -1), labels, classes, mean, std)
        T.to_pil_image(pixels).save(tmp_path / "one.png")
        names = np.array([b"one.png"] * COUNT)
        return ImageFiles(tmp_path, names, labels, classes, mean, std, (3, SIZE, SIZE))

    return make


def served(images, augmentation, steps, seed=0, stream="train"):
    """Training images of the first steps: [steps, BATCH, 3, SIZE, SIZE]."""
    batches = loader.batches(images, "cpu", None, BATCH, augmentation, seed=seed, stream=stream)
    return torch.stack([batches.train(step)[0] for step in range(steps)])


def different(outcomes):
    """How many of these tensors differ."""
    outcomes = list(outcomes)
    return len(torch.stack(outcomes).reshape(len(outcomes), -1).unique(dim=0))


@every_draw
def test_images_of_a_batch_are_augmented_independently(copies, where, draw):
    (batch,) = served(copies(where, draw.picture), draw.augmentation, steps=1)
    assert different(draw.seen(image) for image in batch) >= draw.least


@every_draw
def test_each_step_augments_anew(copies, where, draw):
    """Within an epoch and in the next one."""
    steps = served(copies(where, draw.picture), draw.augmentation, steps=4)
    assert different(draw.seen(batch) for batch in steps) == 4


@every_draw
def test_seeds_and_streams_augment_differently(copies, where, draw):
    images = copies(where, draw.picture)
    firsts = [
        served(images, draw.augmentation, 1, seed, stream)
        for seed, stream in ((0, "train"), (1, "train"), (2, "train"), (0, "valid"))
    ]
    assert different(draw.seen(batch) for batch in firsts) == 4


@pytest.mark.parametrize("where", ["memory", "files"])
def test_half_of_the_images_are_flipped(copies, where):
    images = copies(where, RAMP)
    flipped = mirrored(served(images, Augmentation(flip=True), steps=8))
    assert 0.35 < flipped.float().mean() < 0.65
    assert not mirrored(served(images, Augmentation(), steps=2)).any()
