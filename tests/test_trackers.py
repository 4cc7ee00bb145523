"""--log-with: metrics, pictures and results in accelerate's trackers."""

import json

import numpy as np
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from PIL import Image

from builders import SEARCH, TINY_SEARCH, assert_refused
from common.run.config import saved
from common.run.trackers import log_metrics, log_results
from pc_darts.config import METHOD, PCDARTSConfig

SMALL = [
    *TINY_SEARCH, *"--channels 4 --cells 3 --nodes 3 --limit-images 64 --batch-size 16".split(),
    *"--epochs 2 --checkpoint-steps 100 --threads 1".split(),
]


class Recorder(GeneralTracker):
    """A tracker with the methods of accelerate's for Weights & Biases."""

    name, requires_logging_directory, tracker = "recorder", False, None

    def __init__(self):
        super().__init__()
        self.logged, self.images, self.tables = [], {}, {}

    def log(self, values, step=None, **kwargs):
        self.logged.append((step, values))

    def log_images(self, values, step=None, **kwargs):
        self.images.update(values)

    def log_table(self, table_name, columns=None, data=None, **kwargs):
        self.tables[table_name] = data


def test_numbers_pictures_and_results_are_logged(accelerator, tmp_path):
    recorder = Recorder()
    accelerator.trackers = [recorder]
    log_metrics(accelerator, {"epoch": 3, "loss": 0.5, "test_loss": None, "note": "text"}, 3)
    assert recorder.logged == [(3, {"epoch": 3, "loss": 0.5})]
    log_results(accelerator, tmp_path)  # before there are any
    assert recorder.images == {}
    (tmp_path / "pictures").mkdir()
    Image.new("RGBA", (3, 2), "red").save(tmp_path / "pictures" / "normal.png")
    (tmp_path / "result.json").write_text(json.dumps({"valid_top1": 90.5, "cells": []}))
    log_results(accelerator, tmp_path)
    (picture,) = recorder.images["pictures/normal"]
    assert np.array_equal(picture, np.full((2, 3, 3), (255, 0, 0)))
    assert recorder.tables["result"] == [["valid_top1", "90.5"]]


def test_tensorboard(tmp_path, command):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    status, _, err = command(
        SEARCH, *SMALL, "--log-with", "tensorboard", "--output", run, pictures=True
    )
    assert status == 0, err
    events = EventAccumulator(str(run / "nas"))
    events.Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("valid_top1", "train_loss"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(k, pytest.approx(line[name])) for k, line in enumerate(lines, 1)]
    tags = events.Tags()
    assert {"pictures/normal", "pictures/reduction", "pictures/curves"} <= set(tags["images"])
    assert "result/text_summary" in tags["tensors"]


def test_wandb_offline_beside_tensorboard(tmp_path, command, monkeypatch):
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    status, _, err = command(
        SEARCH, *SMALL, "--log-with", "wandb", "tensorboard", "--output", run, pictures=True
    )
    assert status == 0, err
    (logged,) = (run / "wandb").glob("offline-run-*")
    pictures = {path.name.partition("_")[0] for path in logged.rglob("media/images/pictures/*")}
    assert {"normal", "reduction", "curves"} <= pictures
    assert list(logged.rglob("media/table/result_*.json"))
    assert list(run.glob("nas/events.out.tfevents*"))


def test_trackers_that_cannot_log_are_refused(tmp_path, command):
    run = tmp_path / "run"
    result = command(SEARCH, *TINY_SEARCH, "--log-with", "paper", "--output", run)
    assert_refused(result, "--log-with paper: unknown.*tensorboard.*wandb", run)
    missing = sorted(LOGGER_TYPE_TO_CLASS.keys() - set(map(str, get_available_trackers())))
    if not missing:
        pytest.skip("all trackers are installed")
    result = command(SEARCH, *TINY_SEARCH, "--log-with", missing[0], "--output", run)
    assert_refused(result, f"--log-with {missing[0]}: not installed; pip install", run)


@pytest.mark.parametrize(
    ("written", "read"),
    [(None, ()), ("tensorboard", ("tensorboard",)), (["mlflow", "wandb"], ("mlflow", "wandb"))],
)
def test_config_json_of_this_and_older_versions(written, read, tmp_path):
    """They had null, or the name of one tracker."""
    description = {
        "method": METHOD, "mixed_precision": "no", "processes": 1, "log_with": written
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(description))
    assert saved(PCDARTSConfig, tmp_path, METHOD).log_with == read
