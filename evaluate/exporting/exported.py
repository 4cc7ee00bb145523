"""A trained network in other formats: ONNX, torch.export, and a folder that timm loads.

An ONNX or .pt2 file runs without this repository. It takes normalised images [batch, C, H, W] and
gives logits, as the network does and as the pipelines of torchvision and timm expect. Classes, mean
and standard deviation are in the file: as ONNX metadata, or as the extra file `about.json` of a
.pt2. The batch has any size; height and width are those of the training images, or any with
`any_size`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor
from torch.export import Dim, ExportedProgram

from common.data.images import large
from common.networks import timm_models
from common.networks.trained import Trained

Form = Callable[[Tensor], Tensor]  # normalised images [B, C, H, W] to logits [B, classes]

MOST = 2**31 - 1  # torch 2.6 needs an upper bound to slice along the batch


def describe(trained: Trained, any_size: bool) -> dict[str, Any]:
    """What a user of an exported file must know.

    `shape` is the training images'; where `least_size` is None the file takes no other.
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


def least_size(trained: Trained) -> int:
    """The fewest pixels a side whose last map has two; a map of one is another program."""
    return (32 if large(trained.shape) else 4) + 1


def open_dimensions(trained: Trained, any_size: bool) -> dict[int, Dim]:
    """The dimensions of the images [B, C, H, W] whose sizes a file leaves open."""
    dimensions = {0: Dim("batch", min=1, max=MOST)}
    if any_size:
        least = least_size(trained)
        dimensions[2] = Dim("height", min=least, max=MOST)
        dimensions[3] = Dim("width", min=least, max=MOST)
    return dimensions


def example(trained: Trained) -> Tensor:
    """Images to trace with: two, as export takes a dimension of one to be always one."""
    return torch.zeros(2, *trained.shape)


# ----------------------------------------------------------------------------------- torch.export


def trace(trained: Trained, any_size: bool = False) -> ExportedProgram:
    """The network's operations for any batch size, with `any_size` for any height and width."""
    # Convolutions run fastest channels last, but export would then tie height to width.
    layout = torch.contiguous_format if any_size else torch.channels_last
    trained.network.to(memory_format=layout)
    shapes = (open_dimensions(trained, any_size),)
    with _quiet(), torch.no_grad():
        return torch.export.export(
            trained.network, (example(trained),), strict=False, dynamic_shapes=shapes
        )


def to_pt2(program: ExportedProgram, trained: Trained, any_size: bool = False) -> bytes:
    """The content of a .pt2 file; `any_size` as the program was traced with."""
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(
            program, buffer, extra_files={"about.json": json.dumps(describe(trained, any_size))}
        )
    return buffer.getvalue()


def from_pt2(data: bytes) -> Form:
    """The function in a .pt2 file."""
    return torch.export.load(io.BytesIO(data)).module()


# ------------------------------------------------------------------------------------------- ONNX


def to_onnx(program: ExportedProgram, trained: Trained, any_size: bool = False) -> bytes:
    """The content of an .onnx file; `any_size` as the program was traced with."""
    import onnx

    images, dimensions = example(trained), open_dimensions(trained, any_size)
    names = {"input_names": ["images"], "output_names": ["logits"]}
    with _quiet():
        try:
            model = torch.onnx.export(
                program, (images,), dynamo=True, verbose=False, dynamic_shapes=(dimensions,),
                **names,
            ).model_proto  # fmt: skip
        except torch.onnx.OnnxExporterError:
            # torch 2.6 cannot use today's onnxscript. Its older exporter records one pass, which is
            # enough: a derived network computes the same in every pass.
            buffer = io.BytesIO()
            axes = {"images": {k: dim.__name__ for k, dim in dimensions.items()}}
            axes["logits"] = {0: "batch"}
            torch.onnx.export(
                trained.network, (images,), buffer, dynamo=False, dynamic_axes=axes, **names
            )
            model = onnx.load_from_string(buffer.getvalue())
    about = describe(trained, any_size)
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
    onnx.helper.set_model_props(model, texts)
    return model.SerializeToString()


def from_onnx(data: bytes) -> Form:
    """The function in an .onnx file, run by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


# ------------------------------------------------------------------------------------------- timm


def to_timm(trained: Trained) -> dict[str, bytes]:
    """The files of a folder for timm: weights, and config.json with the genotype inside."""
    arguments = timm_models.arguments_of(trained)
    model = timm.create_model(
        "derived_nas", pretrained_cfg=timm_models.cfg_of(trained), **arguments
    )
    model.load_state_dict(trained.network.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def from_timm(files: dict[str, bytes]) -> Form:
    """The network that timm loads from a folder of these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings and log lines, which a user cannot act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
