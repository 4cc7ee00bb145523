"""--cut-steps: the derived architecture's accuracy within epochs (EDAS, Fig. 3)."""

import dataclasses

import numpy as np
import pytest

from builders import (
    SEARCH_CONFIG,
    assert_refused,
    interrupt_after,
    make_search_trainer,
    metrics_of,
)
from common.files import json_lines
from common.supernet.supernet import SuperNet
from edas.figures import Record, cuts_figure

SEARCH = "edas/search.py"
TINY = [
    *"--preset digits --threads 1 --epochs 2 --channels 4 --cells 3 --nodes 3".split(),
    *"--limit-images 130 --batch-size 16".split(),
]


def test_measuring_within_an_epoch_changes_nothing_and_says_what_the_epochs_end_says(
    tmp_path, accelerator
):
    """The last iteration of an epoch is what is validated after it."""
    lines, metrics = {}, {}
    for steps in (0, 1):
        config = dataclasses.replace(SEARCH_CONFIG, cut_accuracy="batch", cut_steps=steps)
        trainer = make_search_trainer(tmp_path / str(steps), accelerator, SuperNet, config=config)
        (tmp_path / str(steps)).mkdir()
        for _ in trainer.epochs():
            for train, valid in trainer.batches():
                assert all(module.training for module in trainer.network.modules())
                trainer.arch_step(valid)
                trainer.weight_step(train)
            trainer.validate()
        metrics[steps] = metrics_of(tmp_path / str(steps))
        lines[steps] = trainer.run.lines("iterations.jsonl")
    assert metrics[0] == metrics[1] and lines[0] == []
    assert [line["step"] for line in lines[1]] == list(range(4))
    for line, epoch in zip(lines[1][1::2], metrics[1], strict=True):
        for key in ("epoch", "cut_top1", "derived_top1", "cut_statistics"):
            assert line[key] == epoch[key]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("iterations")


def test_a_search_stopped_within_an_epoch_tells_each_iteration_once(folder, command):
    """What was measured after its last checkpoint is measured again."""
    flags = [*TINY, "--cut-steps", 1, "--checkpoint-steps", 3]
    status, _, err = command(SEARCH, *flags, "--output", folder / "whole")
    assert status == 0, err
    stopped = folder / "stopped"
    interrupt_after(1, lambda: command(SEARCH, *flags, "--output", stopped))
    with open(stopped / "iterations.jsonl", "a") as file:
        file.write('{"epoch": 0, "step": 3, "cut_top1": 1.0}\n')  # as a kill leaves it
    assert command(SEARCH, "--resume", stopped)[0] == 0
    whole = (folder / "whole" / "iterations.jsonl").read_text()
    assert (stopped / "iterations.jsonl").read_text() == whole != ""


def test_cut_steps_needs_the_statistics(tmp_path, command):
    flags = [*TINY, "--cut-accuracy", "off", "--cut-steps", 1, "--output", tmp_path / "r"]
    assert_refused(command(SEARCH, *flags), "--cut-steps 1: add --cut-accuracy")
    assert not (tmp_path / "r").exists()


def test_figure_3_is_drawn_over_iterations(folder):
    record = Record.of(folder / "whole")
    figure = cuts_figure([record, record])
    uncut, cut, derived = figure.axes
    lines = json_lines(folder / "whole" / "iterations.jsonl")
    steps = [line["step"] + 1 for line in lines]
    for axes, key in ((cut, "cut_top1"), (derived, "derived_top1")):
        assert axes.lines[0].get_xdata().tolist() == steps and axes.get_xlabel() == "iteration"
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), [line[key] for line in lines])
    assert uncut.lines[0].get_xdata().tolist() == [steps[-1] / 2, steps[-1]]
