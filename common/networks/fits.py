"""Check that network, images and this machine's memory fit together."""

from __future__ import annotations

from collections.abc import Sequence

from common.data.images import ImageFiles, Images
from common.errors import InputError
from common.networks.genotype import IMAGE_OPS, OWN_OPS
from common.networks.macro import check_size
from common.networks.ops import try_own
from common.run.config import RunConfig
from common.run.flags import flag
from common.run.memory import check_memory, of_network, of_padded


def check_images(config: RunConfig, images: Images | ImageFiles) -> None:
    """Check the flags against the training images.

    Raises:
        InputError: with the flag and a value that fits, or the images are too small.
    """
    check_size(images.shape, config.channels)
    padding, side = config.crop_padding, max(images.shape[1:])
    if isinstance(images, Images) and padding > side:
        raise InputError(
            f"--crop-padding {padding}: some crops of images of {side} pixels would be blank; use "
            f"{side} or less"
        )
    check_network(config, images.shape)
    if isinstance(images, Images):
        needed = of_padded(len(images), images.shape, padding)
        check_memory(f"--crop-padding {padding}: {len(images)} padded images", needed)


def check_candidates(names: Sequence[str] | None, channels: int, operations: str | None) -> None:
    """Check a search's candidates; None, the method's own, passes.

    Args:
        names: of `--candidates`.
        channels: that enter them in the first cell.
        operations: of `--operations`.

    Raises:
        InputError: no operation but `none`, one is unknown, or one is named twice; or see
            `check_own`.
    """
    check_own(names or (), channels, operations)
    if names is None:
        return
    given, known = f"--candidates {' '.join(names)}", (*IMAGE_OPS, *OWN_OPS)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"{given}: unknown operation {unknown[0]}; known: {', '.join(known)}; "
            "--operations FILE adds your own"
        )
    if len(set(names)) < len(names):
        raise InputError(f"{given}: names an operation twice")
    if set(names) <= {"none"}:
        raise InputError(f"{given}: name at least one operation other than none")


def check_own(names: Sequence[str], channels: int, operations: str | None) -> None:
    """Try the user's own operations among the candidates; arguments as in `check_candidates`.

    Raises:
        InputError: one cannot be built or run, or a file of operations has none of them.
    """
    if operations is not None and not OWN_OPS.keys() & set(names):
        raise InputError(
            f"--operations {operations}: no candidate is one of its operations; add --candidates "
            f"with the names to choose among, {', '.join(OWN_OPS)} and others"
        )
    try_own(names, channels, search=True)


def check_network(config: RunConfig, shape: tuple[int, int, int]) -> None:
    """Refuse a network for images [C, H, W] that does not fit in memory.

    Raises:
        InputError: with the flags that make it smaller.
    """
    needed = of_network(
        shape, config.channels, config.cells,
        config.batch_size // getattr(config, "accumulate", 1), *config.least_size(),
    )
    flags = ", ".join(
        f"{flag(name)} {getattr(config, name)}"
        for name in ("batch_size", "channels", "cells", "nodes") if hasattr(config, name)
    )
    check_memory(f"{flags}: images of {shape[1]}x{shape[2]} pixels", needed)
