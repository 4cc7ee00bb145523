"""Padding and cutout of images smaller than those that a paper's recipe is for.

A recipe's padding of 4 and its cutout of 16 are of images of 32 pixels. On smaller ones they would
cut whole images out, so what a recipe says shrinks with the image, and what a flag says is refused.
"""

from __future__ import annotations

import dataclasses

from accelerate import Accelerator

from common.data.images import Images, LabelledImages
from common.errors import InputError
from common.run.config import ConfigT
from common.run.flags import Of32, flag

SCALED = ("crop_padding", "cutout")


def fit_to_images(config: ConfigT, images: LabelledImages, accelerator: Accelerator) -> ConfigT:
    """The config with a recipe's padding and cutout scaled to small images; says so in a line.

    A run that goes on keeps what it has.

    Raises:
        InputError: with a padding or cutout of a flag some training images would be blank.
    """
    if config.resume is not None:
        return config
    config = scaled(config, images.shape, accelerator)
    check_not_blank(config, images)
    return config


def scaled(config: ConfigT, shape: tuple[int, int, int], accelerator: Accelerator) -> ConfigT:
    """The config with what is of 32 pixels scaled to images [C, H, W], where they are smaller."""
    side = min(shape[1:])
    changes = {
        name: round(getattr(config, name) * side / 32) for name in SCALED
        if side < 32 and isinstance(getattr(config, name), Of32)
    }  # fmt: skip
    told = [f"{flag(name)} {now}" for name, now in changes.items() if now != getattr(config, name)]
    if told:
        accelerator.print(
            f"note: {', '.join(told)}: the recipe's, of 32 pixels, scaled to images of {side}"
        )
    return dataclasses.replace(config, **changes)


def check_not_blank(config: ConfigT, images: LabelledImages) -> None:
    """Refuse a padding and cutout that leave nothing of some training images.

    Raises:
        InputError: naming the flags, the share of blank images and what fits.
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
    """The share of crops of images [C, H, W] of which padding and cutout leave nothing.

    Crops and cutouts are drawn for each axis by itself (`common/data/batches.py`).
    """
    axes = [_of_axis(size, padding, cutout) for size in shape[1:]]
    (outside, covered), (other_outside, other_covered) = axes
    return 1 - (1 - outside) * (1 - other_outside) + covered * other_covered


def _of_axis(size: int, padding: int, cutout: int) -> tuple[float, float]:
    """Shares of draws: the crop misses the image; the cutout covers all of it that is seen."""
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
