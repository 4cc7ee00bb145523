"""Crop padding, cutout and batch size for images smaller or fewer than the papers'.

The recipes' padding of 4 and cutout of 16 are for 32 pixels and could blank smaller images. So a
preset's values are scaled to the image size, and flags that blank images are refused. A preset's
batch larger than all images becomes a quarter of them.
"""

from __future__ import annotations

import dataclasses

from accelerate import Accelerator

from common.data.images import Images, LabelledImages
from common.errors import InputError
from common.run.config import ConfigT
from common.run.flags import PresetInt, flag

SCALED = ("crop_padding", "cutout")


def fit_to_images(config: ConfigT, images: LabelledImages, accelerator: Accelerator) -> ConfigT:
    """Scale a recipe's padding and cutout to small images, with a note; check those of flags.

    A resumed run keeps its values.

    Raises:
        InputError: padding or cutout could blank training images.
    """
    if config.resume is not None:
        return config
    config = scaled(config, images.shape, accelerator)
    check_not_blank(config, images)
    return config


def scaled(config: ConfigT, shape: tuple[int, int, int], accelerator: Accelerator) -> ConfigT:
    """Scale the recipe's values for 32 pixels to smaller images [C, H, W]."""
    side = min(shape[1:])
    changes = {
        name: round(getattr(config, name) * side / 32) for name in SCALED
        if side < 32 and isinstance(getattr(config, name), PresetInt)
    }  # fmt: skip
    told = [f"{flag(name)} {now}" for name, now in changes.items() if now != getattr(config, name)]
    if told:
        accelerator.print(
            f"note: {', '.join(told)}: the recipe's for 32 pixels, scaled to {side} pixels"
        )
    return dataclasses.replace(config, **changes)


def fit_batch(config: ConfigT, images: int, accelerator: Accelerator) -> ConfigT:
    """Lower a preset's batch size if it exceeds the number of images, with a note.

    Args:
        config: of a new run.
        images: number of images in the smallest part that batches are taken from.
        accelerator: its processes share each batch, at least two images each.
    """
    if config.resume is not None or not isinstance(config.batch_size, PresetInt):
        return config
    if config.batch_size <= images:
        return config
    processes = accelerator.num_processes
    size = max(2, images // 4 // processes) * processes
    accelerator.print(
        f"note: --batch-size {size}, a quarter of the {images} images that batches are taken from; "
        f"the preset's {config.batch_size} are too many"
    )
    return dataclasses.replace(config, batch_size=size)


def check_not_blank(config: ConfigT, images: LabelledImages) -> None:
    """Refuse a padding and cutout that can blank training images.

    Raises:
        InputError: with the flags, the share of blank images and values that fit.
    """
    padding = config.crop_padding if isinstance(images, Images) else 0
    share = blank_share(images.shape, padding, config.cutout)
    if share == 0:
        return
    height, width = images.shape[1:]
    least = max(height, width)
    if padding >= min(height, width):
        fits = f"--crop-padding {min(height, width) - 1} or less"
        raise InputError(
            f"--crop-padding {padding}: {100 * share:.2g} % of the training images of "
            f"{height}x{width} pixels would be blank; {fits}"
        )
    raise InputError(
        f"--cutout {config.cutout}: with --crop-padding {padding}, {100 * share:.2g} % of the "
        f"training images of {height}x{width} pixels would be blank; "
        f"--cutout {max(least - padding - 1, 0)} or less"
    )


def blank_share(shape: tuple[int, int, int], padding: int, cutout: int) -> float:
    """Share of training images [C, H, W] that padding and cutout blank.

    Crops and cutouts are independent for each axis (`common/data/batches.py`).
    """
    axes = [_of_axis(size, padding, cutout) for size in shape[1:]]
    (outside, covered), (other_outside, other_covered) = axes
    return 1 - (1 - outside) * (1 - other_outside) + covered * other_covered


def _of_axis(size: int, padding: int, cutout: int) -> tuple[float, float]:
    """Probabilities that a crop misses the image, and that the cutout covers its visible part."""
    outside = covered = 0
    half = cutout // 2
    for shift in range(-padding, padding + 1):
        first, last = max(shift, 0), min(size + shift, size) - 1
        if first > last:
            outside += size
            continue
        # centres from which the square reaches both ends
        lowest, highest = max(last - (cutout - half) + 1, 0), min(first + half, size - 1)
        covered += max(highest - lowest + 1, 0)
    draws = (2 * padding + 1) * size
    return outside / draws, covered / draws
