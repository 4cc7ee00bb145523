"""One damaged file of a run folder: restored, or refused in one message; never another result."""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

from builders import ROOT, of_an_older_version
from common.data import loader
from common.data.batches import Augmentation
from common.data.datasets import Dataset, load_train
from common.errors import InputError
from common.networks.trained import load_trained
from common.run import checkpoint
from common.run.config import RunConfig, saved
from common.run.folder import EPOCH_FILES, Run
from common.run.start import start
from common.training.images import ImageLoop
from common.training.schedules import LearningRate
from retraining.pinned import genotype_of, pin_genotype

METHOD = "tiny"


@dataclass(frozen=True)
class TinyConfig(RunConfig):
    """A run of milliseconds, with every file that a run has."""

    preset: Literal["digits"] = "digits"
    dataset: Dataset = "digits"
    epochs: int = 3
    batch_size: int = 8
    checkpoint_steps: int = 1
    threads: int | None = 1
    genotype: str = "gdas_frc"


class Killed(BaseException):
    """What a run does not outlive."""


class Tiny(ImageLoop):
    """Trains a linear layer; its epochs leave what a search's do."""

    def held_out_metrics(self):
        weight = self.network[1].weight.detach()
        self.run.append("architecture.jsonl", {"epoch": self.epoch + 1, "w": weight.sum().item()})
        self.run.append("genotypes.jsonl", {"epoch": self.epoch + 1, "w": weight[0, :9].tolist()})
        return {"norm": weight.norm().item()}


DIGITS = load_train("digits", "").subset(torch.arange(16))


def train(config, killed_at=None):
    """A whole run, or one until its checkpoint after this epoch and step."""
    config.check()
    config, accelerator = start(config)
    run = Run.open(config, METHOD, accelerator)
    run.pin_images("images.json", {"classes": list(DIGITS.classes), "sha256": DIGITS.sha256()})
    genotype = genotype_of(run, config.genotype)
    pin_genotype(run, genotype)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(network.parameters(), config.learning_rate, config.momentum)
    batches = loader.batches(
        DIGITS, accelerator.device, None, config.batch_size, Augmentation(), seed=config.seed,
        stream="train", rank=0, processes=1,
    )
    rate = LearningRate("cosine", optimizer, config.epochs)
    loop = Tiny(config, run, network, optimizer, rate, batches)
    for epoch in loop.epochs():
        for step in loop.steps():
            if (epoch, loop.step) == killed_at:
                raise Killed
            images, labels = loop.train_batches.train(step)
            loss = F.cross_entropy(network(images), labels)
            loop.record(loss, network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loop.validate()
    lines = run.lines("metrics.jsonl")
    run.write("result.json", {
        "genotype": genotype.name, "epochs": len(lines), "norm": lines[-1]["norm"],
        "mean": sum(line["train_loss"] for line in lines) / len(lines),
    })
    run.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, one killed within its last epoch, one killed before its result."""
    folder = tmp_path_factory.mktemp("runs")
    train(TinyConfig(output=str(folder / "finished")))
    with contextlib.suppress(Killed):
        train(TinyConfig(output=str(folder / "half")), killed_at=(2, 1))
    (folder / "half/running.json").unlink()  # see test_lock.py
    shutil.copytree(folder / "finished", folder / "at its end")
    (folder / "at its end/result.json").unlink()
    return folder


def resume(folder):
    """What stopped it, a message; None: it ended."""
    try:
        train(saved(TinyConfig, folder, METHOD))
    except InputError as error:
        return str(error)
    except SystemExit as exit:
        assert exit.code == 0
    return None


def told(folder):
    """All that a run tells, but for its times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "images_per_second", "peak_memory_mib")
    return (
        [{k: v for k, v in line.items() if k not in times} for line in lines],
        *((folder / name).read_bytes() for name in EPOCH_FILES[1:]),
        *((folder / name).read_bytes() for name in ("genotype.json", "images.json", "result.json")),
    )


def replaced(path, data):
    path.unlink()
    if data is not None:
        path.write_bytes(data)


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


def dangling(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere") / "nothing")


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "first line twice": lambda path: replaced(path, b"".join(lines_of(path)[:1] + lines_of(path))),
    "last line twice": lambda path: replaced(path, b"".join(lines_of(path) + lines_of(path)[-1:])),
    "first line lost": lambda path: replaced(path, b"".join(lines_of(path)[1:])),
    "last line lost": lambda path: replaced(path, b"".join(lines_of(path)[:-1])),
    "other digits": lambda path: replaced(path, path.read_bytes().replace(b"1", b"7")),
    "empty": lambda path: os.truncate(path, 0),
    "bytes": lambda path: replaced(path, bytes(range(255, 127, -1)) * 3),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a dangling link": dangling,
    "missing": lambda path: path.unlink(),
}


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


LOST = {"truncated", "first line twice", "first line lost", "other digits", "empty", "bytes"}
LOST |= {"a folder", "a dangling link", "missing"}
# Which damages cannot be restored; a run at its end goes back an epoch where the last line is lost.
REFUSED = {
    "half": {
        "config.json": set(DAMAGES), **dict.fromkeys(EPOCH_FILES, LOST | {"last line lost"}),
        **dict.fromkeys(("genotype.json", "images.json"), {"a folder"}),
    },
    "at its end": dict.fromkeys(EPOCH_FILES, LOST),
    "finished": {"config.json": set(DAMAGES) - {"other digits"}, "result.json": {"a folder"}},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_one_damaged_file(runs, tmp_path, kind, accelerator, monkeypatch):
    """Resumed, the run ends as the whole one did, or one message says why not."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    whole, folder = told(runs / "finished"), tmp_path / "run"
    names = files(runs / kind) if kind == "half" else list(REFUSED[kind])
    assert len(names) == {"half": 10, "at its end": 3, "finished": 2}[kind]
    for name in names:
        refused = set()
        for damage in DAMAGES:
            shutil.copytree(runs / kind, folder)
            DAMAGES[damage](folder / name)
            message = resume(folder)
            if message is not None:
                refused.add(damage)
                assert str(folder) in message and "\n" not in message, (name, damage, message)
                assert resume(folder) == message, (name, damage)  # it damaged nothing more
            elif (name, damage) != ("result.json", "other digits"):
                assert (folder / "result.json").exists(), (name, damage)
                assert kind == "finished" and name != "result.json" or told(folder) == whole
            shutil.rmtree(folder)
        assert refused == REFUSED[kind].get(name, set()), name


CHANGES = {
    "epochs": 99, "learning_rate": 0.5, "channels": 8, "seed": 3, "commit": "another",
    "mixed_precision": "bf16", "method": "other", "dataset": "mnist", "batch_size": "8",
    "flip": 1, "threads": True, "processes": 2, "precision": "unknown",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_config_is_refused(runs, tmp_path, name):
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    edit(folder / "config.json", **{name: CHANGES[name]})
    message = resume(folder)
    expected = {
        "method": "is a run of other", "dataset": "dataset is 'mnist'", "processes": "2 processes",
        "batch_size": "batch_size is '8'", "flip": "flip is 1", "threads": "threads is True",
        "precision": "config.json has precision, unknown to this version",
    }.get(name, "config.json has changed since")
    assert expected in message and str(folder) in message


def test_what_no_result_follows_from_may_change(runs, tmp_path):
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    edit(folder / "config.json", output="moved", data_root="there", workers=3, command="",
         device="", versions={}, machine="")
    assert resume(folder) is None and told(folder) == told(runs / "finished")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_older_run_goes_on(runs, tmp_path, capfd):
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    of_an_older_version(folder, "workers", "crop_padding", "commit")
    (folder / "images.json").write_text(json.dumps({"sha256": DIGITS.sha256()}))
    assert resume(folder) is None
    shutil.copy(runs / "half/images.json", folder)  # it stays as it was
    assert told(folder) == told(runs / "finished")
    said = capfd.readouterr().out
    assert "get their defaults: --workers None, --crop-padding 4" in said and "--seed" not in said


@pytest.mark.parametrize("damage", [
    "first line twice", "first line lost", "last line lost", "bytes", "missing",
])  # fmt: skip
@pytest.mark.parametrize("name", EPOCH_FILES)
def test_an_older_run_with_damaged_lines_is_refused(runs, tmp_path, name, damage):
    folder = of_an_older_version(shutil.copytree(runs / "half", tmp_path / "run"))
    DAMAGES[damage](folder / name)
    message = resume(folder)
    if (name, damage) in {(other, "missing") for other in EPOCH_FILES[1:]}:
        assert message is None  # a retraining has none, and nothing says that this is a search
    else:
        assert name in message and str(folder) in message


def test_lines_of_a_file_that_the_run_did_not_write_go(tmp_path, accelerator):
    run = Run(tmp_path, METHOD, accelerator)
    for epoch in (1, 2):
        run.append("metrics.jsonl", {"epoch": epoch})
    run.save_checkpoint(2, 0, {"epoch": 2})
    again = Run(tmp_path, METHOD, accelerator)
    (tmp_path / "architecture.jsonl").write_bytes((tmp_path / "metrics.jsonl").read_bytes())
    assert again.load_checkpoint()["epoch"] == 2
    again.rewind(2)
    assert len(again.lines("metrics.jsonl")) == 2 and not again.lines("architecture.jsonl")


@pytest.mark.parametrize("damage", ["empty", "a dangling link"])
def test_checkpoints_that_are_no_folder(runs, tmp_path, damage):
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").touch()
    DAMAGES[damage](folder / "checkpoints")
    assert resume(folder) == f"{folder / 'checkpoints'}: not a folder; start a new run"


def test_a_strangers_checkpoint_is_not_loaded(runs, tmp_path):
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    path = checkpoint.save(folder / "checkpoints", "epoch-00009", {"epoch": Killed})
    message = resume(folder)
    assert f"--resume {folder}: a checkpoint holds more than tensors" in message and path.exists()


def test_a_checkpoint_is_held_no_longer_than_needed(runs, tmp_path, accelerator):
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    run = Run.open(saved(TinyConfig, folder, METHOD), METHOD, accelerator)
    assert run.load_checkpoint()["step"] == 1 and run.waiting is None


@pytest.mark.parametrize("content", ["{", "{}", '{"sha256": "another"}', '{"classes": []}'])
def test_an_older_run_of_other_images_is_refused(runs, tmp_path, content):
    folder = of_an_older_version(shutil.copytree(runs / "half", tmp_path / "run"))
    (folder / "images.json").write_text(content)
    message = resume(folder)
    assert "images.json" in message or "has 0 classes" in message


def test_an_older_run_with_damaged_cells_is_refused(runs, tmp_path):
    folder = of_an_older_version(shutil.copytree(runs / "half", tmp_path / "run"))
    (folder / "genotype.json").write_text("{")
    assert "genotype.json: not valid JSON" in resume(folder)


def test_an_older_run_of_another_network_is_refused(runs, tmp_path):
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    of_an_older_version(folder)
    for path in (folder / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        state["network"]["1.weight"] = state["network"]["1.weight"][:5]
        checkpoint.save(path.parent, path.stem, state)
    assert "its checkpoints are of another version, or of other flags" in resume(folder)


@pytest.mark.parametrize("left", [(), (".writable",), ("config.json.tmp",)])
def test_killed_before_its_config_was_written(runs, tmp_path, left):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).write_text("{")
    with pytest.raises(InputError, match=f"killed before the first step.*--output {folder}"):
        saved(TinyConfig, folder, METHOD)
    train(TinyConfig(output=str(folder)))
    assert told(folder) == told(runs / "finished")
    assert not any((folder / name).exists() for name in left)
    with pytest.raises(InputError, match="not empty"):
        train(TinyConfig(output=str(folder)))


def test_what_a_kill_left_among_checkpoints_goes(runs, tmp_path):
    folder = shutil.copytree(runs / "at its end", tmp_path / "run")
    checkpoints = folder / "checkpoints"
    kept = files(checkpoints)
    for name in ("epoch-00001-step-0000001.pt", "epoch-00001-step-0000000.pt.sha256"):
        shutil.copy(checkpoints / kept[0], checkpoints / name)
    (checkpoints / "epoch-00003-step-0000000.pt.tmp").write_text("half")
    assert resume(folder) is None and files(checkpoints) == kept


def test_a_newer_checkpoint_that_is_not_used_goes(runs, tmp_path, capfd):
    """Else the next ones were the oldest, and dropped."""
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    checkpoints = folder / "checkpoints"
    (checkpoints / "epoch-00009-step-0000000.pt").mkdir()
    (checkpoints / "epoch-00009-step-0000000.pt.sha256").symlink_to("nowhere")
    assert resume(folder) is None and told(folder) == told(runs / "finished")
    said = capfd.readouterr().out
    assert "epoch-00009-step-0000000.pt is damaged; resuming from epoch-00002-step-0000001" in said
    assert files(checkpoints) == files(runs / "finished/checkpoints")
    assert (checkpoints / "epoch-00009-step-0000000.pt.damaged").is_dir()  # whatever it holds


def test_other_images_or_cells_than_the_checkpoint_stands_on(runs, tmp_path, monkeypatch):
    folder = shutil.copytree(runs / "half", tmp_path / "run")
    shutil.copy(ROOT / "common/networks/genotypes/darts_v1.json", folder / "genotype.json")
    assert "checkpoints are of another genotype than darts_v1" in resume(folder)
    (folder / "genotype.json").unlink()
    (folder / "images.json").unlink()
    monkeypatch.setattr(f"{__name__}.DIGITS", DIGITS.subset(torch.arange(16).flip(0)))
    assert "are not those of the run (see images.json)" in resume(folder)
    assert not (folder / "images.json").exists()
    other = {"classes": list(DIGITS.classes), "sha256": DIGITS.sha256()}
    (folder / "images.json").write_text(json.dumps(other))  # that fits them, not the checkpoint
    assert "are not those of the run (see images.json)" in resume(folder)


def test_a_run_within_another_is_restored(runs, tmp_path, accelerator):
    """Its result and its config are written again where they are damaged."""
    outer, config = Run(tmp_path, "outer", accelerator), TinyConfig()
    inner = outer.inner("cells/000", config, METHOD)
    inner.write("result.json", {"top1": 1})
    assert outer.inner("cells/000", config, METHOD).result() == {"top1": 1}
    before = (inner.folder / "config.json").read_bytes()
    for name in ("config.json", "result.json"):
        (inner.folder / name).write_text("{")
    again = outer.inner("cells/000", config, METHOD)
    assert again.result() is None and (inner.folder / "config.json").read_bytes() == before
    with pytest.raises(InputError, match="result.json is damaged"):
        again.read("result.json")
    edit(inner.folder / "config.json", command="of its own")
    again.pin_images("images.json", {"classes": ["a"]})
    again.save_checkpoint(0, 0, {"epoch": 0})
    (inner.folder / "images.json").write_text("{")
    last = outer.inner("cells/000", config, METHOD)
    last.pin_images("images.json", {"classes": ["a"]})
    assert last.read("images.json") == {"classes": ["a"]}
    assert last.read("config.json")["command"] == "of its own"


def test_a_config_tells_of_its_own_run(tmp_path):
    outer = Run(tmp_path, "outer", Accelerator(cpu=True, mixed_precision="bf16"))
    inner = outer.inner("cells/000", TinyConfig(resume="that of its outer run"), METHOD)
    description = inner.read("config.json")
    assert description["resume"] is None and description["output"] == str(inner.folder)
    assert (description["method"], description["mixed_precision"]) == (METHOD, "bf16")


def test_a_line_is_on_the_disk_before_its_checkpoint(tmp_path, accelerator, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    Run(tmp_path, METHOD, accelerator).append("metrics.jsonl", {"epoch": 0})
    assert len(synced) == 1


# --------------------------------------------------------------- a finished retraining, as used


def use(folder):
    """All that a user of a trained network gets."""
    trained = load_trained(folder)
    weights = {name: value.tolist() for name, value in trained.network.state_dict().items()}
    config = {name: trained.config[name] for name in ("channels", "cells", "auxiliary_weight")}
    return weights, trained.genotype.cells, config, trained.classes, trained.mean, trained.std


def test_one_damaged_file_of_a_trained_network(trained_run, tmp_path):
    """It is used as it was, or one message says why not."""
    whole, folder = use(trained_run), tmp_path / "run"
    names = [name for name in files(trained_run) if name.endswith(".json")]
    last = max(name for name in files(trained_run) if name.endswith(".pt"))
    for name in (*names, last, f"{last}.sha256"):
        for damage in DAMAGES:
            shutil.copytree(trained_run, folder)
            DAMAGES[damage](folder / name)
            try:
                assert use(folder) == whole, (name, damage)
            except InputError as error:
                assert str(folder) in str(error), (name, damage)
            shutil.rmtree(folder)


@pytest.mark.parametrize(("name", "changes"), [
    ("config.json", {"batch_size": 32}), ("config.json", {"dataset": "cifar10"}),
    ("images.json", {"mean": [0.5]}), ("images.json", {"classes": list("9876543210")}),
])  # fmt: skip
def test_a_trained_networks_files_do_not_change_in_silence(trained_run, tmp_path, name, changes):
    folder = shutil.copytree(trained_run, tmp_path / "run")
    edit(folder / name, **changes)
    with pytest.raises(InputError, match=f"its {name} was changed since"):
        load_trained(folder)


def test_a_trained_network_of_an_older_version(trained_run, tmp_path):
    """As the first ones were left: without the flags that came later, and without digests."""
    folder = shutil.copytree(trained_run, tmp_path / "run")
    of_an_older_version(
        folder, "accumulate", "color_jitter", "compile", "held_out", "held_out_share",
        "label_smoothing", "learning_rate_warmup", "recipe", "schedule", "workers",
    )  # fmt: skip
    assert use(folder)[0] == use(trained_run)[0]
