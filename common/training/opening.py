"""How a search on images opens: its images, their split, its table, its run folder."""

from __future__ import annotations

from common.data.images import Images
from common.data.split import Split
from common.errors import InputError
from common.networks.fits import check_candidates, check_images
from common.networks.nasbench201 import NASBENCH201
from common.networks.small_images import fit_batch, fit_to_images
from common.networks.table import Table, read_table
from common.run.config import ConfigT, RunConfig, SearchConfig, SpaceFlags
from common.run.flags import flag
from common.run.folder import Run
from common.run.start import start, training_images


def open_search(config: ConfigT, method: str) -> tuple[ConfigT, Run, Images, Split]:
    """Start processes, load and split the training images, and open the run folder.

    Raises:
        InputError: bad flags, data or folder; nothing has been written.
    """
    check_candidates(config.operation_names(), config.channels, config.operations)
    config, accelerator = start(config)
    images = training_images(config, accelerator)
    config = fit_to_images(config, images, accelerator)
    check_images(config, images)
    split = split_of(config, images)
    least = min(len(split.train), len(split.valid))
    config = fit_batch(config, least, accelerator)
    largest = getattr(config, config.largest_batch)
    if largest > least:
        raise InputError(
            f"{flag(config.largest_batch)} {largest}: the smaller part of the {len(images)} "
            f"training images has only {least}; use {least} or less"
        )
    table_of(config)
    run = Run.open(config, method, accelerator)
    pin_split(run, images, split, config.accept_images)
    return config, run, images, split


def table_of(config: RunConfig) -> Table | None:
    """The table of `--table`; None without one.

    Raises:
        InputError: see `read_table`; or a candidate is none of the table's operations.
    """
    if not isinstance(config, SpaceFlags) or config.table is None:
        return None
    names = getattr(config, "candidates", None)
    other = set(names if isinstance(names, tuple) else ()) - set(NASBENCH201.candidates)
    if other:
        raise InputError(
            f"--table {config.table}: has no cells with {', '.join(sorted(other))}; leave out "
            "--table, or that of --candidates"
        )
    return read_table(config.table)


def split_of(config: RunConfig, images: Images) -> Split:
    """The training images of the weights and those of the architecture.

    Raises:
        InputError: see `Split.per_class`.
    """
    if isinstance(config, SearchConfig) and config.split == "shared":
        return Split.shared(len(images))
    if isinstance(config, SearchConfig) and config.train_share is not None:
        return Split.per_class(images, (config.train_share, config.valid_share), config.seed)
    return Split.halves(len(images), config.seed)


def pin_split(run: Run, images: Images, split: Split, accept: bool = False) -> None:
    """Write split.json, or check that a resumed run has the same images and split.

    Raises:
        InputError: it has not.
    """
    run.pin_images("split.json", {
        "classes": list(images.classes), "images_sha256": images.sha256(), **split.to_json(),
    }, accept)
