"""Load the network of a finished retraining."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, get_args

from common.data.datasets import Dataset
from common.errors import InputError
from common.files import digest, json_object
from common.networks.genotype import Genotype, parse
from common.networks.network import Network, build, weightless
from common.run import checkpoint
from common.run.config import config_digest, described

METHOD = "retrain"  # of a run of evaluate/train.py, in its config.json
SIZES = ("epochs", "channels", "cells", "auxiliary_weight")


@dataclass(frozen=True)
class Trained:
    """A trained network, with what its user needs to know.

    Attributes:
        network: in evaluation mode, on the CPU, without auxiliary head; normalised images
            [B, C, H, W] to logits [B, classes]. Has the weights of the run's result: the moving
            average if there is one.
        genotype: of its cells.
        config: the run's config.json, with all flags.
        classes: names, in the order of the logits.
        shape: channels, height and width of the training images.
        mean: of each channel, in pixels from 0 to 1.
        std: of each channel, likewise.
    """

    network: Network
    genotype: Genotype
    config: dict[str, Any]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_trained(folder: str | Path) -> Trained:
    """Load the network of a finished retraining.

    Raises:
        InputError: the folder is not a run, not a retraining, unfinished, or damaged, or its files
            do not belong together.
    """
    folder = Path(folder)
    _check_finished(folder)
    config = described(folder)
    genotype = parse(_text(folder, "genotype.json"), str(folder / "genotype.json"))
    images = _read(folder, "images.json")
    try:
        classes, shape, mean, std = (tuple(images[k]) for k in ("classes", "shape", "mean", "std"))
    except (KeyError, TypeError):
        raise InputError(
            f"{folder}: its images.json lacks classes, shape, mean or std; train it again"
        ) from None
    try:
        epochs, channels, cells, auxiliary = (config[k] for k in SIZES)
    except KeyError as error:
        raise InputError(f"{folder}: its config.json lacks {error.args[0]}") from None
    state = _last_state(folder, epochs)
    _check_unchanged(folder, images, state)
    with weightless(genotype) as device:
        network = build(genotype, channels, cells, len(classes), shape, auxiliary > 0)
    if device.type == "meta":  # a user's operation may hold tensors that are not saved
        network = network.to_empty(device="cpu")
    network.set_drop_path(0.0)  # not in the checkpoint
    try:
        if parse(state["genotype"]).cells != genotype.cells:  # other pools have the same weights
            raise RuntimeError
        network.load_state_dict(state["network"] if state["ema"] is None else state["ema"])
    except (KeyError, RuntimeError):
        raise InputError(
            f"{folder}: its checkpoint does not belong to its genotype.json ({genotype.name}), "
            "config.json and images.json; restore the files that the run wrote"
        ) from None
    network.auxiliary = None  # for training only
    return Trained(network.eval(), genotype, config, classes, shape, mean, std)


def _check_finished(folder: Path) -> None:
    """Refuse a folder that is not a finished retraining; see `load_trained`."""
    description = described(folder)
    method, dataset = description["method"], description.get("dataset")
    if method != METHOD and dataset not in get_args(Dataset):  # a detector's, or text
        raise InputError(f"{folder}: is a run of {method}, not of evaluate/train.py")
    if method != METHOD:
        flags = "--preset digits" if dataset == "digits" else f"--dataset {dataset}"
        raise InputError(
            f"{folder}: is a search ({method}), not a trained network; train its cells by\n"
            f"  python evaluate/train.py {flags} --genotype {folder}"
        )
    if not (folder / "result.json").exists():
        raise InputError(
            f"{folder}: is unfinished; finish it by\n"
            f"  python evaluate/train.py --resume {folder}"
        )
    _read(folder, "result.json")


def _read(folder: Path, name: str) -> dict[str, Any]:
    _text(folder, name)  # raises a message if it cannot be read
    found = json_object(folder / name)
    if found is None:
        raise InputError(f"{folder}: its {name} is damaged")
    return found


def _text(folder: Path, name: str) -> str:
    file = folder / name
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait
            raise InputError(f"{folder}: its {name} is no file")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{folder}: its {name} is damaged") from None
    except OSError as error:
        raise InputError(f"{folder}: its {name} cannot be read ({error.strerror})") from None


def _check_unchanged(folder: Path, images: dict[str, Any], state: dict[str, Any]) -> None:
    """Check that the files are those of the checkpoint; older checkpoints do not record them."""
    known = state.get("stands_on") or {"config": None, "pinned": {}}
    ours = {
        "config.json": (known["config"], config_digest(described(folder))),
        "images.json": (known["pinned"].get("images.json"), digest(images)),
    }
    for name, (was, now) in ours.items():
        if was not in (None, now):
            raise InputError(
                f"{folder}: its {name} was changed since its checkpoint was written; restore "
                "the file of the run"
            )


def _last_state(folder: Path, epochs: int) -> dict[str, Any]:
    """The checkpoint of the last epoch, whose result is in result.json."""
    try:
        path, state = next(checkpoint.newest(folder / "checkpoints"), (None, None))
    except UnpicklingError:
        raise InputError(
            f"{folder}: its checkpoint holds more than tensors and plain values; it was not loaded"
        ) from None
    if state is None or state["epoch"] < epochs:
        raise InputError(
            f"{folder}: its last checkpoint is {'missing' if path is None else 'damaged'}; delete "
            f"its result.json, then\n  python evaluate/train.py --resume {folder}\nrepeats the "
            "lost epochs"
        )
    return state
