"""Exports a trained network as ONNX, by torch.export and for timm, and checks each.

    python evaluate/export.py RUN                   needs pip install -e '.[export]'
    python evaluate/export.py RUN --formats pt2     torch.export needs no package but torch
    python evaluate/export.py RUN --formats timm    a folder for timm.create_model("local-dir:...")

RUN is the folder of a finished `evaluate/train.py`. The command adds network.onnx (onnxruntime),
network.pt2 (torch.export.load), timm/ (model.safetensors, config.json) and export.json: the files'
inputs and outputs, and their largest difference from the network.
"""

from __future__ import annotations

import common  # noqa: F401  before torch: sets how threads wait

# isort: split
import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from common.distributed import generator_of
from common.errors import InputError, errors_are_messages
from common.files import write_whole
from common.networks.trained import Trained, load_trained
from common.run.cli import read_flags
from common.run.description import commit
from common.run.flags import Between, OperationsFile, check_bounds
from common.run.memory import check_memory, of_network
from common.run.operations import check_recorded
from common.run.start import set_threads

TOLERANCE = 1e-4  # of a logit
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # the extra [export]
Shape = tuple[int, int, int, int]  # of images [B, C, H, W]


@dataclass(frozen=True)
class Options:
    """What to export, and for which images."""

    run: tyro.conf.Positional[Path]
    """The folder of a finished retraining."""
    formats: tuple[Literal["onnx", "pt2", "timm"], ...] = ("onnx", "pt2")
    """onnx: network.onnx; pt2: network.pt2, by torch.export; timm: the folder timm."""
    any_size: bool = False
    """Let the files take images of any height and width, not only the training images'."""
    batch_sizes: Annotated[tuple[int, ...], Between(most=2**20)] = (1, 8, 32)
    """Batch sizes at which the files are checked."""
    operations: OperationsFile = None
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads; by default the usable cores."""


def export(options: Options) -> None:
    """Write the formats asked for into the run folder, if they compute what the network does.

    Raises:
        InputError: no such run, it is not finished, or a package is missing.
        SystemExit: 1, a format differs from the network; nothing was written.
    """
    check(options)
    check_recorded(options.run, options.operations)
    from exporting import exported  # timm

    trained, largest = load_trained(options.run), max(options.batch_sizes)
    size = (trained.config["channels"], trained.config["cells"])
    check_memory(
        f"--batch-sizes {largest}: forward passes",
        of_network(trained.shape, *size, largest, 0.5, 0.5),
    )
    set_threads(options.threads)
    contents, forms = {}, {}
    if "timm" in options.formats:
        files = exported.to_timm(trained)
        contents |= {f"timm/{name}": data for name, data in files.items()}
        forms["timm/model.safetensors"] = exported.from_timm(files)
    if set(options.formats) != {"timm"}:
        given = exported.trace(trained, options.any_size), trained, options.any_size
    if "onnx" in options.formats:
        contents["network.onnx"] = exported.to_onnx(*given)
        forms["network.onnx"] = exported.from_onnx(contents["network.onnx"])
    if "pt2" in options.formats:
        contents["network.pt2"] = exported.to_pt2(*given)
        forms["network.pt2"] = exported.from_pt2(contents["network.pt2"])
    sizes = sorted({1, 3, *options.batch_sizes})  # not only the example's
    shapes = [(size, *trained.shape) for size in sizes]
    if options.any_size:
        least = exported.least_size(trained)
        shapes += [(3, trained.shape[0], least, least + 6), (2, trained.shape[0], 67, 40)]
    files = {
        name: {
            "sha256": hashlib.sha256(contents[name]).hexdigest(), "bytes": len(contents[name]),
            "max_difference": checked_difference(name, form, trained, shapes),
        } for name, form in forms.items()
    }
    packages = ("torch", *PACKAGES) if "onnx" in options.formats else ("torch",)
    about = {
        **exported.describe(trained, options.any_size),
        "files": files, "checked_batch_sizes": sizes,
        "versions": {name: importlib.import_module(name).__version__ for name in packages},
        "commit": commit(),
    }
    contents["export.json"] = (json.dumps(about, indent=2) + "\n").encode()
    for name, content in contents.items():
        try:
            (options.run / name).parent.mkdir(exist_ok=True)
            write_whole(options.run / name, content)
        except OSError as error:
            raise InputError(
                f"{options.run / name}: cannot be written ({error.strerror})"
            ) from None
    if "timm" in options.formats:
        place = json.dumps(f"local-dir:{(options.run / 'timm').resolve()}")
        own = "" if options.operations is None else (
            "import common.networks.ops\n"
            f"common.networks.ops.load_file({json.dumps(options.operations)})  # once, before it\n"
        )  # fmt: skip
        print(
            f"\nimport timm, common.networks.timm_models\n{own}"
            f"network = timm.create_model({place}, pretrained=True)"
        )


def check(options: Options) -> None:
    """Refuse flags that cannot work, before anything is loaded.

    Raises:
        InputError: naming the flag and the fix.
    """
    check_bounds(options)
    if not options.formats:
        raise InputError("--formats: name one or more of onnx, pt2, timm")
    if not options.batch_sizes or min(options.batch_sizes) < 1:
        raise InputError("--batch-sizes: give one or more, each 1 or more")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in options.formats and missing:
        raise InputError(
            f"--formats onnx: {', '.join(missing)} not installed; pip install -e '.[export]', or "
            "--formats pt2 for torch.export alone"
        )


@torch.no_grad()
def checked_difference(
    name: str, form: Callable[[Tensor], Tensor], trained: Trained, shapes: list[Shape]
) -> float:
    """The largest difference of a logit from the network's, over batches of these shapes.

    Raises:
        SystemExit: 1, it is `TOLERANCE` or more.
    """
    found = []
    for shape in shapes:
        images = torch.randn(shape, generator=generator_of("images", shape[0]))
        found.append((form(images) - trained.network(images)).abs().max())
    worst = torch.stack(found).max().item()  # NaN where there is any
    print(f"{name:<12}  largest difference from the network {worst:.1e}")
    if not worst < TOLERANCE:
        raise SystemExit(
            f"error: {name} must be within {TOLERANCE} of the network; nothing was written. "
            "--formats without it exports the rest"
        )
    return worst


if __name__ == "__main__":
    with errors_are_messages():
        export(read_flags(Options, sys.argv[1:], __doc__))
