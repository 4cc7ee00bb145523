"""A trained network as a file that programs without this repository can run: ONNX, torch.export.

A file takes normalised images [batch, C, H, W], as the network itself does and as the pipelines of
torchvision and timm make them, so one stands in for the other. It holds what that takes: the
classes, the mean and the standard deviation are ONNX metadata, or the extra file `about.json` of a
.pt2. The batch has any size. An image has the one that the network was trained on, or any.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass

from common.data.images import large
from common.networks.trained import Trained

Form = Callable[[Tensor], Tensor]  # normalised images [B, C, H, W] to logits [B, classes]

MOST = 2**31 - 1  # torch 2.6 needs an end to slice along the batch
NAMES = {"input_names": ["images"], "output_names": ["logits"]}


def describe(trained: Trained, any_size: bool) -> dict[str, Any]:
    """What one must know to use an exported file.

    `shape` is that of the images trained on, the only one taken where `least_size` is None.
    """
    return {
        "genotype": trained.genotype.name,
        "input": "images [batch, channels, height, width] in [0, 1], minus mean, divided by std",
        "output": "logits [batch, classes]",
        "shape": list(trained.shape),
        "least_size": least_size(trained) if any_size else None,
        "mean": list(trained.mean),
        "std": list(trained.std),
        "classes": list(trained.classes),
    }


def example(trained: Trained) -> Tensor:
    """Images to trace with: two, as one would be taken to be always one."""
    return torch.zeros(2, *trained.shape)


def least_size(trained: Trained) -> int:
    """The fewest pixels a side whose last map has two: a map of one is another program."""
    return (32 if large(trained.shape) else 4) + 1


def free(trained: Trained, any_size: bool) -> dict[int, Dim]:
    """Which dimensions of the images [B, C, H, W] a file leaves open."""
    batch = {0: Dim("batch", min=1, max=MOST)}
    if not any_size:
        return batch
    least = least_size(trained)
    return batch | {
        dim: Dim(name, min=least, max=MOST) for dim, name in ((2, "height"), (3, "width"))
    }


# ----------------------------------------------------------------------------------- torch.export


def trace(trained: Trained, any_size: bool = False) -> ExportedProgram:
    """The network's operations, for any batch size, and with `any_size` any height and width."""
    # Channels last is how convolutions run fastest, but export would tie height to width by it.
    layout = torch.contiguous_format if any_size else torch.channels_last
    trained.network.to(memory_format=layout)
    with _quietly(), torch.no_grad():
        return torch.export.export(
            trained.network, (example(trained),), strict=False,
            dynamic_shapes=(free(trained, any_size),),
        )  # fmt: skip


def to_pt2(program: ExportedProgram, trained: Trained, any_size: bool = False) -> bytes:
    """The content of a .pt2 file; `any_size` as the program was traced with."""
    buffer = io.BytesIO()
    about = {"about.json": json.dumps(describe(trained, any_size))}
    with _quietly():
        torch.export.save(program, buffer, extra_files=about)
    return buffer.getvalue()


def from_pt2(data: bytes, device: torch.device) -> Form:
    """What a .pt2 file computes."""
    program = torch.export.load(io.BytesIO(data))
    return move_to_device_pass(program, str(device)).module()


# ------------------------------------------------------------------------------------------- ONNX


def to_onnx(program: ExportedProgram, trained: Trained, any_size: bool = False) -> bytes:
    """The content of an .onnx file; `any_size` as the program was traced with."""
    import onnx

    images, open_dims = example(trained), free(trained, any_size)
    with _quietly():
        try:
            model = torch.onnx.export(
                program, (images,), dynamo=True, verbose=False,
                dynamic_shapes=(open_dims,), **NAMES,
            ).model_proto  # fmt: skip
        except torch.onnx.OnnxExporterError:
            # torch 2.6 does not know today's onnxscript. Its older exporter records one pass,
            # which is enough: a derived network computes the same in every pass.
            buffer = io.BytesIO()
            axes = {"images": {at: dim.__name__ for at, dim in open_dims.items()}}
            axes["logits"] = {0: "batch"}
            torch.onnx.export(
                trained.network, (images,), buffer, dynamo=False, dynamic_axes=axes, **NAMES
            )
            model = onnx.load_from_string(buffer.getvalue())
    about = describe(trained, any_size)
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
    onnx.helper.set_model_props(model, texts)
    return model.SerializeToString()


def from_onnx(data: bytes, device: torch.device) -> Form:
    """What an .onnx file computes by onnxruntime; images and logits are on the CPU."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3  # errors
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    there = onnxruntime.get_available_providers()
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in there]
    session = onnxruntime.InferenceSession(data, settings, providers)
    return lambda images: torch.from_numpy(session.run(None, {"images": images.cpu().numpy()})[0])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters say about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
