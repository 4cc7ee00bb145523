"""`--extend-epochs`: more epochs for a finished run."""

import json

import pytest

from builders import SEARCH, assert_same_run, metrics_of
from common.run.folder import Run
from common.training.schedules import learning_rate

SMALL = "--preset digits --limit-images 128 --batch-size 16 --channels 4 --cells 3 --epochs 2"
SMALL += " --threads 1 --checkpoint-steps 1"
TRAIN = ("evaluate/train.py", *SMALL.split(), "--genotype", "darts_v1", "--learning-rate", 0.1)
RUNS = {"search": (SEARCH, *SMALL.split(), "--warmup-epochs", 1, "--nodes", 4), "retraining": TRAIN}


@pytest.mark.parametrize("words", [
    pytest.param(words, id=name, marks=pytest.mark.slow if name == "search" else ())
    for name, words in RUNS.items()
])  # fmt: skip
def test_a_killed_extension_ends_in_the_same_bits(tmp_path, command, words):
    """The first epochs keep their lines; the new ones follow the schedule of the new total."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    before = {}
    for folder in (whole, killed):
        assert command(*words, "--output", folder)[0] == 0
        before[folder] = (folder / "metrics.jsonl").read_text()
    status, out, err = command(words[0], "--resume", whole, "--extend-epochs", 2)
    assert status == 0, err
    assert "--extend-epochs 2: epochs 3 to 4" in out and "cosine" in out
    assert (whole / "metrics.jsonl").read_text().startswith(before[whole])
    assert json.loads((whole / "config.json").read_text())["epochs"] == 4
    assert json.loads((whole / "result.json").read_text())["epochs"] == 4
    rates = [line["learning_rate"] for line in metrics_of(whole)]
    assert rates[2:] == [learning_rate("cosine", rates[0], epoch, 4) for epoch in (2, 3)]

    save = Run.save_checkpoint
    # Before the first new checkpoint, then within an epoch; the same command goes on.
    extend = (words[0], "--resume", killed, "--extend-epochs", 2)
    for killed_at in ((2, 1), (3, 2)):
        def killing(run, epoch, step, state, killed_at=killed_at):
            if (epoch, step) == killed_at:
                raise KeyboardInterrupt
            save(run, epoch, step, state)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "save_checkpoint", killing)
            assert command(*extend)[0] == 130
        assert not (killed / "result.json").exists()
    assert command(*extend)[0] == 0
    assert_same_run(killed, whole)
    assert command(words[0], "--resume", killed, "--extend-epochs", 1)[0] == 0  # and once more


def test_what_cannot_be_extended(tmp_path, command):
    """A new run, an unfinished one, and cycles that fix the epochs; nothing is changed."""
    folder = tmp_path / "run"
    more = ("--extend-epochs", 1)
    status, _, err = command(*TRAIN, *more, "--output", folder)
    assert status == 2 and "--extend-epochs 1: add --resume" in err and not folder.exists()
    assert command(*TRAIN, "--output", folder)[0] == 0
    (folder / "result.json").unlink()
    config = (folder / "config.json").read_bytes()
    status, _, err = command("evaluate/train.py", "--resume", folder, *more)
    assert status == 2 and "--extend-epochs 1" in err and "not finished" in err
    assert (folder / "config.json").read_bytes() == config
    status, _, err = command("pr_darts/search.py", "--preset", "digits", *more)
    assert status == 2 and "--extend-epochs 1: the cycles" in err
