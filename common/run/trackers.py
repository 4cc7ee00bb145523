"""Experiment trackers, by accelerate: flags, metrics of each epoch, pictures and results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from common.errors import InputError
from common.files import json_object

PROJECT = "nas"  # the trackers' project or experiment; TensorBoard's folder in the run folder
ONE_PICTURE = ("aim", "clearml")  # by name; the other trackers take several


def check_trackers(names: Sequence[str]) -> None:
    """Check that accelerate knows these trackers and that they are installed.

    Raises:
        InputError: naming the flag and the fix.
    """
    installed = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise InputError(f"--log-with {name}: unknown to accelerate; use some of {known}")
        if name not in installed:
            raise InputError(f"--log-with {name}: not installed; pip install {name}")


def start_trackers(accelerator: Accelerator, folder: Path, description: dict[str, Any]) -> None:
    """Start a tracker's run of the name of the run folder; files go into the folder.

    Args:
        accelerator: with the trackers' names.
        folder: the run folder.
        description: the contents of config.json, logged as the run's settings.

    Raises:
        InputError: a tracker does not start.
    """
    accelerator.project_configuration.logging_dir = str(folder)
    settings = {
        name: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for name, value in json.loads(json.dumps(description)).items() if value is not None
    }
    arguments = {
        "wandb": {"name": folder.name, "dir": str(folder)},
        "mlflow": {"run_name": folder.name},
        "trackio": {"name": folder.name},
    }
    try:
        accelerator.init_trackers(PROJECT, settings, arguments)
    except Exception as error:  # each tracker has its own, such as for a missing login
        raise InputError(
            f"--log-with: a tracker does not start ({error}); when it does, continue with "
            f"--resume {folder}"
        ) from error


def log_metrics(accelerator: Accelerator, metrics: dict[str, Any], epoch: int) -> None:
    """Log the numbers of an epoch; trackers take nothing else."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    accelerator.log(numbers, step=epoch)


def log_results(accelerator: Accelerator, folder: Path) -> None:
    """Log the pictures and the results of a finished run, to trackers that show them."""
    pictures = {
        f"pictures/{path.stem}": np.asarray(Image.open(path).convert("RGB"))
        for path in sorted((folder / "pictures").glob("*.png"))
    }
    result = json_object(folder / "result.json") or {}
    rows = [[k, str(v)] for k, v in result.items() if isinstance(v, (int, float, str))]
    for tracker in accelerator.trackers:
        if tracker.name == "mlflow":  # shows files
            for path in (folder / "pictures", folder / "result.json"):
                if path.is_dir():
                    tracker.log_artifacts(str(path), path.name)
                elif path.exists():
                    tracker.log_artifact(str(path))
        elif tracker.name == "tensorboard":
            for name, picture in pictures.items():
                tracker.log_images({name: picture[None]}, dataformats="NHWC")
            lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
            tracker.log({"result": "\n".join(lines)})
        elif tracker.name == "trackio":
            import trackio

            tracker.log({name: trackio.Image(picture) for name, picture in pictures.items()})
        elif hasattr(tracker, "log_images"):
            for name, picture in pictures.items():
                tracker.log_images({name: picture if tracker.name in ONE_PICTURE else [picture]})
        if hasattr(tracker, "log_table"):
            tracker.log_table("result", ["quantity", "value"], rows)
