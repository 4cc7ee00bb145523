"""A trained network as a file that programs without this repository can run: ONNX, torch.export.

A file takes normalised images [batch, C, H, W], as the network itself does and as the pipelines of
torchvision and timm make them, so one stands in for the other. It holds what that takes: the
classes, the mean and the standard deviation are ONNX metadata, or the extra file `about.json` of a
.pt2. The batch is of any size, the image of that which the network was trained on.
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

from common.networks.trained import Trained

Form = Callable[[Tensor], Tensor]  # normalised images [B, C, H, W] to logits [B, classes]

BATCH = ({0: Dim("batch", min=1, max=2**31 - 1)},)  # torch 2.6 needs an end to slice along it
NAMES = {"input_names": ["images"], "output_names": ["logits"]}


def describe(trained: Trained) -> dict[str, Any]:
    """What one must know to use an exported file."""
    return {
        "genotype": trained.genotype.name,
        "input": "images [batch, channels, height, width] in [0, 1], minus mean, divided by std",
        "output": "logits [batch, classes]",
        "shape": list(trained.shape),
        "mean": list(trained.mean),
        "std": list(trained.std),
        "classes": list(trained.classes),
    }


def example(trained: Trained) -> Tensor:
    """Images to trace with: two, as one would be taken to be always one."""
    return torch.zeros(2, *trained.shape)


# ----------------------------------------------------------------------------------- torch.export


def trace(trained: Trained) -> ExportedProgram:
    """The network's operations, for any batch size."""
    with _quietly():
        return torch.export.export(
            trained.network, (example(trained),), dynamic_shapes=BATCH, strict=False
        )


def to_pt2(program: ExportedProgram, trained: Trained) -> bytes:
    """The content of a .pt2 file."""
    buffer = io.BytesIO()
    about = {"about.json": json.dumps(describe(trained))}
    with _quietly():
        torch.export.save(program, buffer, extra_files=about)
    return buffer.getvalue()


def from_pt2(data: bytes, device: torch.device) -> Form:
    """What a .pt2 file computes."""
    program = torch.export.load(io.BytesIO(data))
    return move_to_device_pass(program, str(device)).module()


# ------------------------------------------------------------------------------------------- ONNX


def to_onnx(program: ExportedProgram, trained: Trained) -> bytes:
    """The content of an .onnx file."""
    import onnx

    images = example(trained)
    with _quietly():
        try:
            model = torch.onnx.export(
                program, (images,), dynamo=True, dynamic_shapes=BATCH, verbose=False, **NAMES
            ).model_proto
        except torch.onnx.OnnxExporterError:
            # torch 2.6 does not know today's onnxscript. Its older exporter records one pass,
            # which is enough: a derived network computes the same in every pass.
            buffer = io.BytesIO()
            batch = {"images": {0: "batch"}, "logits": {0: "batch"}}
            torch.onnx.export(
                trained.network, (images,), buffer, dynamo=False, dynamic_axes=batch, **NAMES
            )
            model = onnx.load_from_string(buffer.getvalue())
    about = describe(trained)
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
