"""Exports a trained network as ONNX and by torch.export, and checks both.

    python evaluate/export.py RUN                   needs pip install -e '.[export]'
    python evaluate/export.py RUN --formats pt2     torch.export alone needs no more than torch

RUN is the folder of a finished `evaluate/train.py`. It then holds network.onnx (for onnxruntime),
network.pt2 (for torch.export.load) and export.json: what the network takes and gives, and how far
the files are from it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from common.distributed import generator_of
from common.errors import InputError, errors_are_messages
from common.files import write_whole
from common.networks.trained import Trained, load_trained
from common.run.cli import read_flags
from common.run.flags import Between, check_bounds
from common.run.folder import commit
from common.run.memory import check_memory, of_network
from common.run.start import set_threads
from exporting import exported
from exporting.exported import Form, from_onnx, from_pt2, to_onnx, to_pt2

TOLERANCE = 1e-4  # of a logit
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # the extra [export]
WRITERS = {"onnx": to_onnx, "pt2": to_pt2}
READERS = {"onnx": from_onnx, "pt2": from_pt2}
Shape = tuple[int, int, int, int]  # of images [B, C, H, W]


@dataclass(frozen=True)
class Options:
    """What to export, and for which images."""

    run: tyro.conf.Positional[Path]
    """The folder of a finished retraining."""
    formats: tuple[Literal["onnx", "pt2"], ...] = ("onnx", "pt2")
    """onnx: network.onnx; pt2: network.pt2, by torch.export."""
    any_size: bool = False
    """Let the files take images of any height and width, not only those trained on."""
    batch_sizes: Annotated[tuple[int, ...], Between(most=2**20)] = (1, 8, 32)
    """Images of a forward pass, to check."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads; by default the usable cores."""


def export(options: Options) -> None:
    """Write the formats asked for into the run folder, if they compute what the network does.

    Raises:
        InputError: no such run, it is not finished, or a package is missing.
        SystemExit: 1, a format differs from the network; nothing was written.
    """
    check(options)
    trained = load_trained(options.run)
    largest, size = max(options.batch_sizes), (trained.config["channels"], trained.config["cells"])
    check_memory(
        f"--batch-sizes {largest}: forward passes",
        of_network(trained.shape, *size, largest, 0.5, 0.5),
    )
    set_threads(options.threads)
    program = exported.trace(trained, options.any_size)
    data = {
        name: WRITERS[name](program, trained, options.any_size) for name in options.formats
    }
    sizes = sorted({1, 3, *options.batch_sizes})  # others than the example's too
    shapes = [(size, *trained.shape) for size in sizes]
    if options.any_size:
        least = exported.least_size(trained)
        shapes += [(3, trained.shape[0], least, least + 6), (2, trained.shape[0], 67, 40)]
    files = {
        f"network.{name}": {
            "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
            "max_difference": verified(name, content, trained, shapes),
        } for name, content in data.items()
    }
    for name, content in data.items():
        write(options.run / f"network.{name}", content)
    packages = ("torch", *PACKAGES) if "onnx" in data else ("torch",)
    content = {
        **exported.describe(trained, options.any_size),
        "files": files, "checked_batch_sizes": sizes,
        "versions": {name: importlib.import_module(name).__version__ for name in packages},
        "commit": commit(),
    }
    write(options.run / "export.json", (json.dumps(content, indent=2) + "\n").encode())


def check(options: Options) -> None:
    """Refuse flags that cannot work, before anything is loaded.

    Raises:
        InputError: naming the flag and the mend.
    """
    check_bounds(options)
    if not options.formats:
        raise InputError("--formats: name one or both of onnx, pt2")
    if not options.batch_sizes or min(options.batch_sizes) < 1:
        raise InputError("--batch-sizes: give one or more, each 1 or more")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in options.formats and missing:
        raise InputError(
            f"--formats onnx: {', '.join(missing)} not installed; pip install -e '.[export]', or "
            "--formats pt2 for torch.export alone"
        )


def verified(name: str, content: bytes, trained: Trained, shapes: list[Shape]) -> float:
    """How far a format is from the network, see `difference`.

    Raises:
        SystemExit: 1, too far.
    """
    worst = difference(trained, READERS[name](content, torch.device("cpu")), shapes)
    print(f"network.{name:<4}  largest difference from the network {worst:.1e}")
    if not worst < TOLERANCE:
        raise SystemExit(
            f"error: network.{name} must be within {TOLERANCE} of the network; nothing was "
            "written. --formats without it exports the rest"
        )
    return worst


@torch.no_grad()
def difference(trained: Trained, form: Form, shapes: list[Shape]) -> float:
    """The largest difference of a logit from the network's, over batches of several shapes."""
    found = []
    for shape in shapes:
        images = torch.randn(shape, generator=generator_of("images", shape[0]))
        found.append((form(images) - trained.network(images)).abs().max())
    return torch.stack(found).max().item()  # NaN where there is any


def write(path: Path, data: bytes) -> None:
    """Write a file of the run.

    Raises:
        InputError: it cannot be written.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    with errors_are_messages():
        export(read_flags(Options, sys.argv[1:], __doc__))
