"""Estimates memory and refuses what this machine cannot hold, before anything is built.

The figures are lower bounds: what they refuse could not have worked. What they let pass may still
be too much, and ends in the message of `common/errors.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

from common.data.images import large
from common.errors import InputError

CGROUP = (  # the limits of a container, of either version
    Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
)


def check_memory(what: str, needed: float) -> None:
    """Refuse a run that needs more memory than there is.

    Args:
        what: flags and what they come to, as the message begins.
        needed: bytes, at the least.

    Raises:
        InputError: there are not as many.
    """
    there, where = memory()
    if needed > there:
        raise InputError(
            f"{what} take {needed / 2**30:,.1f} GiB of memory at the least, and this {where} has "
            f"{there / 2**30:,.1f}; make them smaller"
        )


def memory() -> tuple[int, str]:
    """Bytes that training can use, and where: one GPU, or this machine with its swap."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, "GPU"
    if torch.accelerator.is_available():  # another one's is not known; it cannot have more
        return psutil.virtual_memory().total, "machine"
    there = psutil.virtual_memory().total + psutil.swap_memory().total
    limits = [file.read_text().strip() for file in CGROUP if file.is_file()]
    return min([there, *(int(limit) for limit in limits if limit.isdecimal())]), "machine"


def of_network(
    shape: tuple[int, int, int], channels: int, cells: int, batch: int, maps: float, weights: float
) -> float:
    """Lower bound of a training step in bytes: kept activations, weights, momentum.

    Args:
        shape: of an image, [C, H, W].
        channels: of the first cell.
        cells: how many, as `common/networks/macro.py` stacks them.
        batch: images at a time, over all processes.
        maps: that a cell keeps for the backward pass, as multiples of one of its nodes' [C, H, W].
        weights: of a cell with C channels, as multiples of C^2.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    number = 2 if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16" else 4  # bytes
    height, width = (-(-side // 8) if large(shape) else side for side in shape[1:])
    kept = held = 0
    for index in range(cells):
        if index in (cells // 3, 2 * cells // 3):
            channels, height, width = 2 * channels, -(-height // 2), -(-width // 2)
        kept += channels * height * width
        held += channels**2
    return number * maps * kept * batch / processes + 2 * 4 * weights * held


def of_padded(count: int, shape: tuple[int, int, int], padding: int) -> int:
    """Bytes of all padded images [C, H, W] in memory."""
    channels, height, width = shape
    return count * channels * (height + 2 * padding) * (width + 2 * padding)


def of_language_model(words: int, units: int, nodes: int, bptt: int, columns: int) -> float:
    """Lower bound of a language model's step in bytes.

    Args:
        words: of the vocabulary.
        units: of word vectors and states.
        nodes: of the recurrent cell, each with a matrix.
        bptt: words of a chunk.
        columns: of the text, over all processes.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    held = words * units + (2 + nodes) * units * 2 * units
    kept = bptt * columns * (2 * words + nodes * units) / processes
    return 4 * (2 * held + kept)
