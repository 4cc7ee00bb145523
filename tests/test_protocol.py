"""The papers' protocols: which commands they start, what they choose, what they repeat."""

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.networks.genotype import load, save
from conftest import ROOT
from retraining import launch
from test_commands import assert_refused

PROTOCOL = "evaluate/protocol.py"
CELLS = ["--genotypes", "darts_v1", "darts_v2", "gdas"]


@pytest.fixture
def started(monkeypatch):
    """Commands instead of which a result is written: what they were, and what they find."""
    calls, results = [], {}

    def call(words):
        folder = Path(words[words.index("--output" if "--output" in words else "--resume") + 1])
        calls.append([str(word) for word in words[1:]])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        found = results.get(folder.name, {"test_top1": 90.0})
        if found is None:
            return 1
        if isinstance(found, type):
            raise found
        (folder / "result.json").write_text(json.dumps(found))
        return 0

    monkeypatch.setattr(launch, "call", call)
    return calls, results


def words_of(call):
    return " ".join(call)


def found_by_best_of(monkeypatch, folder, **provenance):
    """Let evaluate/best_of.py leave a genotype there, of the search that won."""
    fake = launch.call

    def call(words):
        status = fake(words)
        if "best_of.py" in words[1]:
            save(dataclasses.replace(load("gdas"), provenance=provenance), folder / "genotype.json")
        return status

    monkeypatch.setattr(launch, "call", call)


def test_pc_darts_ranks_by_a_tenth_and_trains_the_best_on_all(tmp_path, command, started):
    calls, results = started
    for name, found in {"0": (80, 0.5), "1": (90, 0.7), "2": (90, 0.6)}.items():
        results[name] = {"valid_top1": found[0], "valid_loss": found[1]}
    results["final"] = {"test_top1": 97.5}
    output = tmp_path / "p"
    status, out, err = command(
        PROTOCOL, "pc_darts", "--output", output, *CELLS, "--rank-epochs", 7, "--cutout", 0
    )
    assert status == 0 and "test error 2.50 %" in out, err
    *ranked, final = map(words_of, calls)
    assert len(ranked) == 3
    for call, genotype in zip(ranked, CELLS[1:], strict=True):
        assert "--held-out valid --held-out-share 0.1 --seed 0 --epochs 7 --cutout 0" in call
        assert "--recipe pc_darts" in call and f"--genotype {genotype}" in call
    assert "--genotype gdas" in final and "held-out" not in final and "--epochs" not in final
    result = json.loads((output / "result.json").read_text())
    assert result["winner"] == "gdas" and result["test_top1"] == 97.5


def test_pc_darts_searches_with_five_seeds_first(tmp_path, command, started):
    calls, results = started
    results.update({str(k): {"valid_top1": k, "valid_loss": 1.0} for k in range(5)})
    flags = ["--dataset", "cifar100", "--search-flags=--epochs 3", "--launcher", "env -x"]
    status, _, err = command(PROTOCOL, "pc_darts", "--output", tmp_path / "p", *flags)
    assert status == 0, err
    searches = calls[:5]
    assert all(call[1] == str(ROOT / "pc_darts/search.py") for call in searches)  # after -x
    assert [call[call.index("--seed") + 1] for call in searches] == list("01234")  # 4.4.3
    assert all("--dataset cifar100 --seed" in words_of(call) for call in searches)
    assert all(call[call.index("--epochs") + 1] == "3" for call in searches)
    assert f"--genotype {tmp_path}/p/searches/4" in words_of(calls[-1])


def test_gdas_trains_the_best_of_four_searches(tmp_path, command, started, monkeypatch):
    calls, results = started
    results["best_of"] = {"cells": [{"number": k, "valid_top1": 80 + k} for k in range(4)]}
    found_by_best_of(monkeypatch, tmp_path / "p/best_of", number=3)
    status, out, err = command(PROTOCOL, "gdas", "--output", tmp_path / "p", "--epochs", 5)
    assert status == 0 and "best_of/searches/003" in out, err
    assert "--seed 2 --searches 4" in words_of(calls[0]) and len(calls) == 2
    assert "--recipe gdas" in words_of(calls[1]) and "--epochs 5" in words_of(calls[1])


@pytest.mark.parametrize("paper", ["pc_darts", "gdas"])
def test_all_trainings_have_the_protocols_seed(tmp_path, command, started, monkeypatch, paper):
    """Not the seed of the search that won: here the second of three."""
    calls, results = started
    top1 = (80, 90, 85)
    results["best_of"] = {"cells": [{"number": k, "valid_top1": v} for k, v in enumerate(top1)]}
    results.update({str(k): {"valid_top1": v, "valid_loss": 1.0} for k, v in enumerate(top1)})
    found_by_best_of(monkeypatch, tmp_path / "p/best_of", number=1, seed=8)
    flags = ["--seed", 7, "--searches", 3]
    status, _, err = command(PROTOCOL, paper, "--output", tmp_path / "p", *flags)
    assert status == 0, err
    winner = json.loads((tmp_path / "p/result.json").read_text())["winner"]
    assert Path(winner).name == {"pc_darts": "1", "gdas": "001"}[paper]
    trainings = [call for call in calls if call[0] == str(ROOT / "evaluate/train.py")]
    seeds = [call[call.index("--seed") + 1] for call in trainings]
    assert seeds == ["7"] * {"pc_darts": 3 + 1, "gdas": 1}[paper]


def test_pr_darts_is_the_mean_of_the_last_five_epochs_over_three_seeds(tmp_path, command, started):
    calls, results = started
    means = {"2": 97.0, "3": 97.3, "4": 97.9}
    results.update({seed: {"test_top1_last_five": mean} for seed, mean in means.items()})
    flags = ["--genotype", "pr_darts_dl2", "--seed", 2]
    status, out, err = command(PROTOCOL, "pr_darts", "--output", tmp_path / "p", *flags)
    assert status == 0, err
    assert [call[call.index("--seed") + 1] for call in calls] == list(means)
    result = json.loads((tmp_path / "p/result.json").read_text())
    assert result["test_top1"] == pytest.approx(97.4)
    assert result["test_top1_std"] == pytest.approx(statistics.stdev(means.values()))


def test_stopped_and_started_again_it_repeats_nothing(tmp_path, command, started):
    calls, results = started
    ranked = {"valid_top1": 90.0, "valid_loss": 1.0}
    results.update({"0": ranked, "1": KeyboardInterrupt, "2": ranked})
    words = (PROTOCOL, "pc_darts", "--output", tmp_path / "p", *CELLS)
    status, _, err = command(*words)
    assert status == 130 and "the same command goes on" in err
    results["1"] = None  # a child that fails
    status, _, err = command(*words)
    assert status == 2 and "ranked/1 ended with status 1" in err
    results["1"] = ranked
    assert command(*words, "--threads", 1)[0] == 0
    names = [Path(call[call.index(flag) + 1]).name for call in calls
             for flag in ("--output", "--resume") if flag in call]
    assert names == ["0", "1", "1", "1", "2", "final"]
    assert calls[3][1:] == ["--resume", str(tmp_path / "p/ranked/1")]
    assert command(*words)[0] == 0 and len(calls) == 6  # all is read


def test_real_trainings(tmp_path, command, monkeypatch):
    def call(words):
        return command(Path(words[1]).relative_to(ROOT), *words[2:])[0]

    monkeypatch.setattr(launch, "call", call)
    status, out, err = command(
        PROTOCOL, "pc_darts", "--output", tmp_path / "p", "--preset", "digits", "--genotypes",
        "darts_v1", "gdas_frc", "--epochs", 2, "--rank-epochs", 1, "--limit-images", 100,
        "--train-flags=--channels 4 --cells 3",
    )  # fmt: skip
    assert status == 0, out + err
    images = [json.loads((tmp_path / f"p/{name}/images.json").read_text())
              for name in ("ranked/0", "ranked/1", "final")]
    assert images[0] == images[1] and "test_sha256" in images[2]
    result = json.loads((tmp_path / "p/result.json").read_text())
    assert load(tmp_path / "p/final") == load(result["winner"])
    final = json.loads((tmp_path / "p/final/result.json").read_text())
    assert final["epochs"] == 2 and final["test_top1"] == result["test_top1"]


@pytest.mark.parametrize(("words", "searched"), [
    ([], "cifar10"), (["--search-flags=--dataset cifar100"], "cifar100"),
])  # fmt: skip
@pytest.mark.parametrize("paper", ["gdas", "pr_darts"])
def test_cifar_100_is_trained_on_and_not_searched_on(
    tmp_path, command, started, monkeypatch, paper, words, searched
):
    """Both papers search on CIFAR-10 only, and print the same cells' error on CIFAR-100."""
    calls, results = started
    results["best_of"] = {"cells": [{"number": 0, "valid_top1": 80}]}
    results.update({seed: {"test_top1_last_five": 80.0} for seed in "234"})
    found_by_best_of(monkeypatch, tmp_path / "p/best_of", number=0)
    status, _, err = command(
        PROTOCOL, paper, "--output", tmp_path / "p", "--dataset", "cifar100", *words
    )
    assert status == 0, err
    search, *trainings = calls

    def images(call):  # the last one counts
        return call[len(call) - call[::-1].index("--dataset")]

    assert images(search) == searched and len(trainings) == (1 if paper == "gdas" else 3)
    assert {images(training) for training in trainings} == {"cifar100"}


@pytest.mark.parametrize(("words", "message"), [
    (["--search-flags", "'--epochs 3"], "--search-flags .*: No closing quotation; close"),
    (["--train-flags", '"--epochs 3'], "--train-flags .*: No closing quotation; close"),
    (["--launcher", "accelerate 'launch"], "--launcher .*: No closing quotation; close"),
    (["--launcher", "no_such_launcher -x"], "--launcher no_such_launcher: there is no such"),
    (["--searches", 10**9], "--searches 1000000000: must be 1000"),
    (["--epochs", 0], "--epochs 0: must be 1"),
    (["--searches", 0], "--searches 0: must be 1"),
    (["--cutout", -1], "--cutout -1: must be 0"),
    (["--train-flags=--epochz 3"], "--epochz"),
    (["--dataset", "svhn"], "--recipe pc_darts: has no settings for svhn"),
    (["--genotypes", "darts_v1", "nothing"], "--genotype nothing"),
])  # fmt: skip
def test_bad_input_is_named_before_the_first_search(tmp_path, command, started, words, message):
    result = command(PROTOCOL, "pc_darts", "--output", tmp_path / "p", *words)
    assert_refused(result, message, tmp_path / "p")
    assert started[0] == []


def test_a_folder_of_something_else_is_left_alone(tmp_path, command, started):
    words = (PROTOCOL, "pc_darts", "--output", tmp_path, *CELLS)
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(command(*words), "--output .* is not empty")
    (tmp_path / "notes.txt").unlink()
    started[1].update({str(k): {"valid_top1": 1.0, "valid_loss": 1.0} for k in range(3)})
    assert command(*words)[0] == 0
    assert_refused(command(*words, "--epochs", 9), "was begun with epochs None, not 9")
    result = command(PROTOCOL, "gdas", "--output", tmp_path)
    assert_refused(result, "was begun with protocol pc_darts, not gdas")


def test_a_command_ends_with_the_program_that_started_it(tmp_path):
    code = (
        "import sys; from retraining.launch import call; "
        "sys.exit(call([sys.executable, '-c', 'import time; time.sleep(60)']))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'evaluate'}"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.time() + 30
    while not (children := psutil.Process(parent.pid).children()) and time.time() < deadline:
        time.sleep(0.05)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 128 + signal.SIGTERM
    assert not children[0].is_running()
