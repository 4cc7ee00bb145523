"""evaluate/export.py: files that compute what the network does."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from builders import assert_refused
from common.networks.genotype import load
from common.networks.network import Network
from common.networks.trained import Trained, load_trained
from exporting import exported

EXPORT = "evaluate/export.py"
REPOSITORY = Path(__file__).parents[1]
QUICK = ["--batch-sizes", 1, 5, "--threads", 1]
WRITTEN = ("network.onnx", "network.pt2", "export.json")


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "run")


def read(path):
    return json.loads(path.read_text())


def images_of(trained, count):
    return torch.randn(count, *trained.shape, generator=torch.Generator().manual_seed(count))


def assert_described(run, out, formats):
    """export.json and the terminal describe each file."""
    about, trained = read(run / "export.json"), load_trained(run)
    for key in ("classes", "shape", "mean", "std"):
        assert about[key] == list(getattr(trained, key))
    assert set(about["files"]) == {f"network.{name}" for name in formats}
    for name, file in about["files"].items():
        data = (run / name).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest() and file["bytes"] == len(data)
        assert 0 <= file["max_difference"] < 1e-4
        assert name in out and "largest difference from the network" in out


def test_torch_export_alone(run, command, monkeypatch):
    """It needs none of the extra's packages."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    status, out, err = command(EXPORT, run, "--formats", "pt2", *QUICK)
    assert status == 0, err
    assert not (run / "network.onnx").exists()
    assert_described(run, out, ["pt2"])
    about = {"about.json": ""}
    program = torch.export.load(run / "network.pt2", extra_files=about)
    trained = load_trained(run)
    for count in (1, 2, 7, 40):
        images = images_of(trained, count)
        torch.testing.assert_close(
            program.module()(images), trained.network(images), rtol=0, atol=1e-5
        )
    about = json.loads(about["about.json"])
    assert about["mean"] == list(trained.mean) and about["classes"] == list("0123456789")


def test_onnx(run, command):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    status, out, err = command(EXPORT, run, *QUICK)
    assert status == 0, err
    assert_described(run, out, ["onnx", "pt2"])
    model = onnx.load(run / "network.onnx")
    onnx.checker.check_model(model)
    about = {prop.key: prop.value for prop in model.metadata_props}
    trained = load_trained(run)
    assert json.loads(about["std"]) == list(trained.std)
    assert json.loads(about["classes"]) == list("0123456789") and about["genotype"] == "gdas_frc"
    session = onnxruntime.InferenceSession(run / "network.onnx")
    (takes,), (gives,) = session.get_inputs(), session.get_outputs()
    assert takes.name == "images" and takes.shape[1:] == [1, 8, 8] and gives.name == "logits"
    for count in (1, 2, 7, 40):
        images = images_of(trained, count)
        logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        torch.testing.assert_close(logits, trained.network(images), rtol=0, atol=1e-4)
    assert "test" not in sys.modules  # see test_tested.py


def test_timm_loads_the_folder_by_the_printed_lines(run, command):
    """In a fresh process, and fine-tuned: another last layer, colour images, feature maps."""
    status, out, err = command(EXPORT, run, "--formats", "timm", *QUICK)
    assert status == 0, err
    files = sorted(path.name for path in (run / "timm").iterdir())
    assert files == ["config.json", "model.safetensors"]
    config, trained = read(run / "timm" / "config.json"), load_trained(run)
    assert config["model_args"]["genotype"] == trained.genotype.to_json()
    assert read(run / "export.json")["files"]["timm/model.safetensors"]["max_difference"] < 1e-4
    images = images_of(trained, 3)
    torch.save(images, run / "images.pt")
    lines = out[out.index("import timm") :].splitlines()[:2]
    place = re.search("local-dir:[^\"]*", lines[1])[0]
    program = f"""
{lines[0]}
{lines[1]}
import json, torch
from timm.data import resolve_data_config
images = torch.load("images.pt")
about = resolve_data_config(model=network)
print(json.dumps([network.eval()(images).tolist(), about, network.pretrained_cfg["label_names"]]))
network = timm.create_model({place!r}, pretrained=True, num_classes=3, in_chans=3)
print(list(network(images.expand(-1, 3, -1, -1)).shape))
features = timm.create_model({place!r}, pretrained=True, features_only=True)
print([list(map_.shape[1:]) for map_ in features(images)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=run, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (logits, about, labels), shape, maps = map(json.loads, done.stdout.splitlines())
    torch.testing.assert_close(torch.tensor(logits), trained.network(images), rtol=0, atol=1e-6)
    assert about["input_size"] == list(trained.shape)
    assert about["mean"] == list(trained.mean) and about["std"] == list(trained.std)
    assert labels == list(trained.classes) and shape == [3, 3]
    assert maps == [[16, 8, 8], [32, 4, 4], [64, 2, 2]]


def test_pools_skips_and_dilations_at_an_odd_size():
    genotype = load("darts_v2")
    network = Network(genotype, 4, 3, 3).eval()
    trained = Trained(network, genotype, None, tuple("abc"), (3, 9, 9), (), ())
    data = exported.to_pt2(exported.trace(trained), trained)
    form = exported.from_pt2(data)
    for count in (1, 3):
        images = images_of(trained, count)
        torch.testing.assert_close(form(images), network(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [pytest.param((3, 8, 8), marks=pytest.mark.slow), (1, 130, 150)])
def test_with_any_size_both_formats_take_images_of_other_sizes(shape):
    """From the least size on that is told, odd ones and others high than wide."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    genotype = load("gdas_frc")
    size = {"image_channels": shape[0], "large_images": shape[1] > 100}
    network = Network(genotype, 4, 3, 3, **size).eval()
    trained = Trained(network, genotype, None, tuple("abc"), shape, (0.5,), (0.5,))
    program = exported.trace(trained, any_size=True)
    forms = [
        exported.from_pt2(exported.to_pt2(program, trained, True)),
        exported.from_onnx(exported.to_onnx(program, trained, True)),
    ]
    least = exported.describe(trained, any_size=True)["least_size"]
    for batch, height, width in ((1, least, least), (2, least + 2, least + 9), (1, 70, 64)):
        generator = torch.Generator().manual_seed(height)
        images = torch.randn(batch, shape[0], height, width, generator=generator)
        for form in forms:
            torch.testing.assert_close(form(images), network(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("by", "agrees"), [(5e-5, True), (2e-4, False), (float("nan"), False)])
def test_what_differs_is_not_written(run, command, monkeypatch, by, agrees):
    network = load_trained(run).network

    def spoilt(data):
        return lambda images: network(images) + by * (len(images) == 3)

    monkeypatch.setattr(exported, "trace", lambda trained, any_size: None)
    monkeypatch.setattr(exported, "to_pt2", lambda program, trained, any_size: b"program")
    monkeypatch.setattr(exported, "from_pt2", spoilt)
    status, out, err = command(EXPORT, run, "--formats", "pt2", *QUICK)
    assert [(run / name).exists() for name in WRITTEN[1:]] == [agrees] * 2
    assert status == (0 if agrees else "error: network.pt2 must be within 0.0001 of the network; "
                      "nothing was written. --formats without it exports the rest")


BAD = {
    "no run": (["no", "--formats", "pt2"], "no: no run there"),
    "no format": (["RUN", "--formats"], "--formats: name one"),
    "format": (["RUN", "--formats", "tflite"], "tflite"),
    "batch": (["RUN", "--formats", "pt2", "--batch-sizes", 0], "--batch-sizes: .* each 1 or more"),
    "no batch": (["RUN", "--formats", "pt2", "--batch-sizes"], "--batch-sizes: give one"),
    "threads": (["RUN", "--formats", "pt2", "--threads", 0], "--threads 0: must be 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_it_refuses(trained_run, command, case):
    arguments, message = BAD[case]
    words = [trained_run if word == "RUN" else word for word in arguments]
    assert_refused(command(EXPORT, *words), message)
    assert not any((trained_run / name).exists() for name in WRITTEN)


def test_without_the_extra_it_is_named(trained_run, command, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name, *rest: None if name == "onnxruntime" else find(name, *rest),
    )
    result = command(EXPORT, trained_run)
    assert_refused(result, r"onnxruntime not installed; pip install -e '\.\[export\]'.*\n?.*pt2")
    assert not any((trained_run / name).exists() for name in WRITTEN)
