"""Flags: one flat dataclass per command, presets that fill it, and checks before a run starts.

A field is a flag (`batch_size` is `--batch-size`), its docstring is the help. None means derived
from other fields; `config.json` stores the resolved value.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from common.data.datasets import Dataset
from common.errors import InputError
from common.files import digest, json_object
from common.run.flags import Between, OperationsFile, PresetInt, check_bounds

MOST_EDGES = 10_000  # in a supernet, over all cells; EDAS' 20 cells have 280


@dataclass(frozen=True)
class LoopConfig:
    """Flags of every search and retraining, on images and on text."""

    unextended: ClassVar[str] = "only for searches and retrainings on images"  # "": can be extended

    dataset: str = ""
    """Data set."""
    data_root: str = "data"
    """Folder of the data."""
    output: str | None = None
    """Run folder to create, or to continue if it holds a run of the same flags; by default a new
    one under runs/."""
    resume: str | None = None
    """Continue this run folder, without repeating its flags."""
    extend_epochs: Annotated[int | None, Between(1, 10**6)] = None
    """With --resume: train a finished run for so many more epochs. Schedules are recomputed for
    the new total."""
    seed: Annotated[int, Between(0, 2**63 - 1)] = 2
    """Random seed."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads per process; by default one on digits, else the cores that other programs leave
    free at the start, at least one; with several processes or a GPU, each process's share of the
    usable cores. Other numbers round differently."""
    checkpoint_steps: Annotated[int, Between(1, 10**9)] = 50
    """Steps between checkpoints within an epoch; each epoch's end has one."""
    log_with: tuple[str, ...] = ()
    """Also log metrics, pictures and results to these trackers, each installed: tensorboard,
    wandb, mlflow, trackio, and others that accelerate supports."""

    epochs: Annotated[int, Between(1, 10**6)] = 50
    """Epochs."""
    batch_size: Annotated[int, Between(1, 2**20)] = 64
    """Batch size, over all processes together."""
    learning_rate: Annotated[float, Between(0, 1e38, above=True)] = 0.025
    """Initial learning rate of the weights."""
    weight_decay: Annotated[float, Between(0, 1e3)] = 3e-4
    """Weight decay of the weights."""
    grad_clip: Annotated[float, Between(0, 1e9)] = 5.0
    """Clip the norm of the weights' gradient; 0: off."""

    def check(self) -> None:
        """Check the values of the flags.

        Raises:
            InputError: naming the flag and what it takes.
        """
        check_bounds(self)

    def check_precision(self, precision: str) -> None:
        """Check accelerate's mixed precision.

        Raises:
            InputError: it needs a loss scaler (fp16), which explicit gradients bypass.
        """
        if precision not in ("no", "bf16"):
            raise InputError(
                f"--mixed_precision {precision} (accelerate's flag): use bf16 or no; "
                "explicit gradients bypass the loss scaler that others need"
            )

    def check_processes(self, processes: int) -> None:
        """Check that the processes can split a batch.

        Raises:
            InputError: naming the flag and what it takes.
        """
        if self.batch_size % processes or self.batch_size < 2 * processes:
            raise InputError(
                f"--batch-size {self.batch_size}: {processes} processes share it; use a multiple "
                f"of {processes} with at least 2 items for each process"
            )

    def resolved(self: ConfigT) -> ConfigT:
        """The config with every derived field filled in."""
        return self

    def extended(self: ConfigT) -> ConfigT:
        """The config with `extend_epochs` added to its epochs.

        Raises:
            InputError: there is no run to resume, or its method cannot be extended.
        """
        if self.extend_epochs is None:
            return self
        if self.unextended or self.resume is None:
            why = self.unextended or "add --resume RUN_FOLDER, of a finished run"
            raise InputError(f"--extend-epochs {self.extend_epochs}: {why}")
        before = described(Path(self.resume)).get("extended", {}).values()
        begun = max(before, default=None) == self.epochs - self.extend_epochs
        if begun and json_object(Path(self.resume) / "result.json") is None:
            return dataclasses.replace(self, extend_epochs=None)  # the same command, once more
        return dataclasses.replace(self, epochs=self.epochs + self.extend_epochs)


@dataclass(frozen=True)
class RunConfig(LoopConfig):
    """Flags of every search and retraining on images."""

    dataset: Dataset = "cifar10"
    """Data set. digits needs no download; folder: your own images."""
    data_root: str = "data"
    """Folder of CIFAR or SVHN (downloaded if absent), or image folder with train/<class>/ and
    test/ or val/."""
    image_size: Annotated[int | None, Between(4, 4096)] = None
    """Resize and crop the images of a folder to this many pixels (ImageNet: 224). From 128 on,
    images are read from disk and the networks use ImageNet's stem."""
    workers: Annotated[int | None, Between(0, 1024)] = None
    """Processes that read images of 128 pixels or more; 0: none; by default a share of the
    cores, at most 16."""
    accept_images: bool = False
    """With --resume: continue although image files have changed."""
    limit_images: Annotated[int | None, Between(1, 10**9)] = None
    """Use only this many training images, chosen by the seed."""

    epochs: int = 50
    """Epochs."""
    batch_size: int = 64
    """Batch size, over all processes together."""
    crop_padding: Annotated[int, Between(0, 1024)] = PresetInt(4)
    """Pad by this many pixels, then crop at random. Images read from disk get a random resized
    crop instead."""
    flip: bool = True
    """Random horizontal flips."""
    cutout: Annotated[int, Between(0, 4096)] = 0
    """Side of the cutout square in pixels; 0: off."""

    channels: Annotated[int, Between(1, 4096)] = 16
    """Channels in the first cell; doubled at each reduction cell."""
    cells: Annotated[int, Between(1, 200)] = 8
    """Number of cells; those at one and two thirds are reduction cells."""
    operations: OperationsFile = None
    learning_rate: float = 0.025
    """Initial learning rate of the weights (SGD)."""
    learning_rate_min: Annotated[float, Between(0, 1e38)] = 0.0
    """Final learning rate of the cosine schedule."""
    momentum: Annotated[float, Between(0, 1, below=True)] = 0.9
    """Momentum of the weights' SGD."""

    def check(self) -> None:
        super().check()
        if self.cells < self.least_cells():
            raise InputError(
                f"--cells {self.cells}: use 3 or more; two of them are reduction cells"
            )

    def least_cells(self) -> int:
        """The smallest number of cells."""
        return 3

    def least_size(self) -> tuple[float, float]:
        """Lower bounds for a cell with C channels: feature maps [C, H, W] kept, weights over C^2.

        They hold for any operations, so nothing that fits in memory is refused.
        """
        return 8, 2


@dataclass(frozen=True)
class SearchConfig(RunConfig):
    """Flags of every search."""

    unextended: ClassVar[str] = ""
    static: ClassVar[bool] = True  # every step runs the same operations, so --compile serves
    largest_batch: ClassVar[str] = "batch_size"  # flag of the largest batch

    nodes: Annotated[int, Between(3, 32)] = 6
    """Nodes of a cell, its two inputs included: 6 means 4 computed nodes and 14 edges."""
    candidates: tuple[str, ...] | None = None
    """Operations of each edge, by name; by default the paper's."""
    arch_learning_rate: Annotated[float, Between(0, 1e38)] = 6e-4
    """Learning rate of the architecture parameters (Adam)."""
    arch_beta1: Annotated[float, Between(0, 1, below=True)] = 0.5
    """Adam's beta1 for the architecture parameters."""
    arch_beta2: Annotated[float, Between(0, 1, below=True)] = 0.999
    """Adam's beta2 for the architecture parameters."""
    arch_weight_decay: Annotated[float, Between(0, 1e3)] = 1e-3
    """L2 penalty of the architecture parameters, added to the gradient."""
    arch_grad_clip: Annotated[float, Between(0, 1e9)] = 0.0
    """Clip the norm of the architecture gradient; 0: off."""
    split: Literal["halves", "shared"] = "halves"
    """halves: one half of the training images for the weights, the other for the architecture;
    shared: all images for both, so that validation measures images that were trained on."""
    train_share: Annotated[float | None, Between(0, 1)] = None
    """Share of each class's training images for the weights; by default one half."""
    valid_share: Annotated[float | None, Between(0, 1)] = None
    """Share of each class's training images for the architecture; by default the other half."""
    compile: bool = False
    """Compile the supernet with torch.compile; for methods that run all operations in every
    step. Takes minutes; never measured on a GPU."""
    cut_accuracy: Literal["off", "batch", "running"] = "off"
    """Each epoch, also validate the supernet cut to its best operations and to the derived
    cell; normalise by the statistics of each batch or by the running ones."""
    cut_steps: Annotated[int, Between(0, 10**9)] = 0
    """Also validate it every so many steps, into iterations.jsonl; each time is a full
    validation. 0: off."""
    hessian: bool = False
    """Each epoch, record the largest eigenvalue of the validation loss's Hessian in alpha, on
    one batch; costs up to 50 arch steps."""
    stop_on_collapse: Literal["off", "skips", "eigenvalue"] = "off"
    """Stop a collapsed search and keep the cell from before. skips: half of the normal cell's
    edges are skip connections; eigenvalue: --hessian's has risen by a third."""

    def check(self) -> None:
        super().check()
        if self.cut_steps and self.cut_accuracy == "off":
            raise InputError(
                f"--cut-steps {self.cut_steps}: add --cut-accuracy batch or running, the "
                "statistics to normalise by"
            )
        if self.compile and not self.static:
            raise InputError(
                "--compile: this method samples operations, so each step would compile again; "
                "leave it out"
            )
        edges = (self.nodes - 2) * (self.nodes + 1) // 2 * self.cells
        if edges > MOST_EDGES:
            raise InputError(
                f"--cells {self.cells}, --nodes {self.nodes}: {edges} edges; use at most "
                f"{MOST_EDGES}"
            )
        shares = self.train_share, self.valid_share
        if (shares[0] is None) != (shares[1] is None):
            raise InputError("--train-share, --valid-share: give both or neither")
        if shares[0] is not None and self.split == "shared":
            raise InputError(
                "--split shared: all images are shared, but there is a --train-share (of the "
                "preset, if you gave none); use another preset, or leave the shares out"
            )
        if shares[0] is not None and sum(shares) > 1:
            raise InputError(
                f"--train-share {shares[0]}, --valid-share {shares[1]}: their sum must be at most 1"
            )
        if self.stop_on_collapse == "eigenvalue" and not self.hessian:
            raise InputError("--stop-on-collapse eigenvalue: add --hessian, which records it")
        if self.hessian and self.compile:
            raise InputError(
                "--hessian, --compile: compiled networks have no second derivatives; drop one"
            )

    def least_size(self) -> tuple[float, float]:
        """Nine tenths of measurements with 2 to 6 computed nodes.

        Every candidate's weights; feature maps of all candidates, or of the sampled ones. A user's
        candidates may have fewer.
        """
        if isinstance(self.candidates, tuple):
            return super().least_size()
        edges = (self.nodes - 2) * (self.nodes + 1) / 2
        return (15 if self.static else 2.5) * edges, 8 * edges

    def operation_names(self) -> tuple[str, ...] | None:
        """`--candidates`, where these are names of operations; None: the method's own."""
        return self.candidates

    def provenance(self) -> dict[str, Any]:
        """Settings that a genotype's provenance records."""
        names = {} if self.candidates is None else {"candidates": list(self.candidates)}
        return names if self.split == "halves" else {**names, "split": self.split}


@dataclass(frozen=True)
class SpaceFlags:
    """Flags of a search in one of several spaces (`common/networks/spaces.py`).

    Put it before the other base, `SearchConfig` or a retraining's.
    """

    space: Literal["darts", "nasbench201"] = "darts"
    """Search space. nasbench201: NAS-Bench-201's, with one kind of cell, --nodes 4, and --cells 5
    in each of three stages (digits: 1)."""
    table: str | None = None
    """CSV file with the accuracies of all NAS-Bench-201 cells; metrics.jsonl then has those of each
    epoch's cell."""

    def resolved(self: ConfigT) -> ConfigT:
        """NAS-Bench-201's sizes in place of a preset's; its derived cells may hold `none`."""
        config = super().resolved()
        if config.space != "nasbench201":
            return config
        sizes = {"nodes": 4, "cells": 1 if config.dataset == "digits" else 5}
        changes = {k: v for k, v in sizes.items() if isinstance(getattr(config, k), PresetInt)}
        if hasattr(config, "derive_none"):
            changes["derive_none"] = True
        return dataclasses.replace(config, **changes)

    def check(self) -> None:
        super().check()
        if self.space == "nasbench201" and self.nodes != 4:
            raise InputError(
                f"--nodes {self.nodes}: --space nasbench201 has 4, its input included; leave it out"
            )
        if self.table is not None and self.space != "nasbench201":
            raise InputError(f"--table {self.table}: only for --space nasbench201")

    def least_cells(self) -> int:
        return 1 if self.space == "nasbench201" else super().least_cells()

    def least_size(self) -> tuple[float, float]:
        """See `RunConfig.least_size`; NAS-Bench-201's cells may run no convolution."""
        return (2, 2) if self.space == "nasbench201" else super().least_size()


ConfigT = TypeVar("ConfigT", bound=LoopConfig)

# In a folder whose run never started.
LEFT_BY_A_KILL = {".writable", "config.json.tmp", "running.json"}
# Keys of config.json that are not flags but determine results; keys that do not determine them.
FOLLOWED = {"method", "mixed_precision", "processes", "commit"}
TOLD = {
    "output", "resume", "data_root", "workers", "accept_images", "device", "machine", "versions",
    "command", "started", "extend_epochs", "extended",
}  # fmt: skip


def saved(kind: type[ConfigT], folder: Path, method: str) -> ConfigT:
    """The config of a run folder; flags newer than the run get their defaults.

    The file of --operations is not among them: only a command line names code to run.

    Raises:
        InputError: no run there, a run of another method, or a damaged config.json.
    """
    data = described(folder)
    if data["method"] != method:
        raise InputError(f"{folder}: is a run of {data['method']}, not of {method}")
    missing = [name for name in ("mixed_precision", "processes") if name not in data]
    if missing:
        raise InputError(f"{folder}: its config.json lacks {', '.join(missing)}")
    hints = typing.get_type_hints(kind)
    kept = data.keys() - {"operations"}
    names = [field.name for field in dataclasses.fields(kind) if field.name in kept]
    values = {name: data[name] for name in names}
    if not isinstance(values.get("log_with", []), list):  # an older version's: null, or one name
        values["log_with"] = [values["log_with"]] if values["log_with"] is not None else []
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise InputError(f"{folder}: its config.json is damaged ({name} is {value!r})")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}  # JSON has none
    return kind(**{**values, "resume": str(folder)})


def younger(config: LoopConfig, description: dict[str, Any]) -> dict[str, Any]:
    """Flags that config.json lacks because they are newer, with their defaults."""
    names = [field.name for field in dataclasses.fields(config)]
    known = {*description, "extend_epochs"}
    return {name: getattr(config, name) for name in names if name not in known}


def unknown(config: LoopConfig, description: dict[str, Any]) -> list[str]:
    """Keys of config.json that this version does not know."""
    names = {field.name for field in dataclasses.fields(config)}
    return sorted(set(description) - names - FOLLOWED - TOLD)


def config_digest(description: dict[str, Any]) -> str:
    """Digest of everything in config.json that determines the result."""
    return digest({name: value for name, value in description.items() if name not in TOLD})


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value has a field's type."""
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if kind is tuple:
        if not isinstance(value, list):
            return False
        parts = parts[:1] * len(value) if parts[1:] == (...,) else parts
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint


def described(folder: Path) -> dict[str, Any]:
    """The contents of a run folder's config.json, `method` among them.

    Raises:
        InputError: no run there, or it cannot be read.
    """
    file = folder / "config.json"
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise InputError(f"{folder}: config.json is not a file")
        data = json.loads(file.read_bytes())
        if not isinstance(data, dict) or not isinstance(data["method"], str):
            raise KeyError
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir() and {path.name for path in folder.iterdir()} <= LEFT_BY_A_KILL:
            raise InputError(
                f"{folder}: its run was killed before the first step; start it again with the same "
                f"command and --output {folder}"
            ) from None
        raise InputError(f"{folder}: no run there (no config.json)") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, RecursionError):
        raise InputError(f"{folder}: its config.json is damaged") from None
    return data
