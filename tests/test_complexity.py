import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from builders import ROOT, SLOW
from common.errors import InputError
from common.networks.complexity import SETTINGS, complexity, multiply_adds, parameters
from common.networks.genotype import Cell, Edge, Genotype, Op, load, published, save
from common.networks.network import Network
from published import cells as published_cells

# ------------------------------------------------------------------------------- known networks


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("darts_v1", 3_169_414),  # the papers print 3.3 M, a slip: that is the second order's size
        ("darts_v2", 3_349_342),
        ("pc_darts_cifar10", 3_634_678),
    ],
)
def test_cifar10_parameters(name, expected):
    counts = complexity(load(name), SETTINGS["cifar10"])
    assert counts.params == expected
    assert counts.params_with_auxiliary == expected + 476_426  # 3,825,768 for darts_v2


@pytest.mark.parametrize(
    ("name", "params", "products"),
    [
        ("darts_v2", 4_718_752, 529_911_552),  # DARTS' 574 M is reproduced by no convention
        ("pc_darts_cifar10", 5_270_560, 571_137_408),
    ],
)
def test_imagenet(name, params, products):
    counts = complexity(load(name), SETTINGS["imagenet"])
    assert (counts.params, counts.multiply_adds) == (params, products)
    assert counts.params_with_auxiliary > params


@pytest.mark.parametrize(
    ("name", "dataset", "channels", "exact", "printed"),
    [
        ("gdas", "cifar10", 36, (3_368_782, 519_428_736), "3.4"),  # Table 1; Table 5: 3.3
        ("gdas_frc", "cifar10", 36, (2_543_014, 402_781_824), "2.5"),
        ("gdas_normal_frc_reduction", "cifar10", 36, (2_999_638, 482_297_472), "3.0"),
        ("frc_normal_gdas_reduction", "cifar10", 36, (2_912_158, 439_913_088), "2.9"),
        ("gdas", "imagenet", 50, (5_345_075, 581_009_000), "5.3 581"),
        ("gdas_frc", "imagenet", 52, (4_430_386, 496_733_952), "4.4 497"),
    ],
)
def test_gdas_published_sizes(name, dataset, channels, exact, printed):
    setting = replace(SETTINGS[dataset], channels=channels)
    counts = complexity(load(name), setting)
    assert (counts.params, counts.multiply_adds) == exact
    text = f"{counts.params / 1e6:.1f} {counts.multiply_adds / 1e6:.0f}"
    assert text.startswith(printed)


def test_only_the_classifier_grows_with_the_classes():
    ten, hundred = (complexity(load("darts_v2"), SETTINGS[d]) for d in ("cifar10", "cifar100"))
    grown = 90 * 4 * 144
    assert hundred.params - ten.params == grown + 90
    assert hundred.multiply_adds - ten.multiply_adds == grown


def test_each_layer_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),  # 4 x 8 x 8 elements of 27 products
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 1, stride=2, groups=2, bias=False),  # 8 x 4 x 4 elements of 2 products
        nn.MaxPool2d(2),
        nn.Identity(),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    products = 256 * 27 + 128 * 2 + 40
    others = 2 * 256 + 256 + (8 * 4 + 8 + 8)
    assert multiply_adds(network, (3, 8, 8)) == (products, products + others, ())
    assert parameters(network) == 108 + 8 + 16 + 45


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("name", "dataset", "change", "named"),
    [
        ("darts_v2", "cifar10", {"channels": 0}, "--channels 0: .* at least 1"),
        ("darts_v2", "imagenet", {"channels": 1}, "--channels 1: .* at least 2"),
        ("darts_v2", "cifar10", {"cells": -1}, "--cells -1: .* at least 3"),
        ("darts_v2", "cifar10", {"cells": 2}, "--cells 2: .* at least 3"),
        ("gdas_frc", "imagenet", {"channels": 50}, "--channels 50: .* multiple of 4"),
    ],
)
def test_impossible_networks_are_refused(name, dataset, change, named):
    with pytest.raises(InputError, match=named):
        complexity(load(name), replace(SETTINGS[dataset], **change))


@pytest.mark.parametrize(
    ("dataset", "size"),
    [("cifar10", {"channels": 1, "cells": 3}), ("imagenet", {"channels": 2, "cells": 3})],
)
def test_the_smallest_networks(dataset, size):
    assert complexity(load("darts_v2"), replace(SETTINGS[dataset], **size)).params > 0


# ---------------------------------------------------------------------------------- the command


def start(*flags, python=()):
    return subprocess.Popen(
        [sys.executable, *python, "evaluate/complexity.py", *flags],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'evaluate'}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


@pytest.fixture(scope="module")
def runs():
    """A good run, a bad one and the list, side by side: most of it is the import of torch."""
    flags = ("--dataset", "imagenet", "--channels", "12", "--cells", "8", "--json")
    good = start("--genotype", "gdas_frc", *flags, python=("-X", "importtime"))
    bad = start("--genotype", "darts_v3")
    zoo = start("--list", "--json")
    processes = (good, bad, zoo)
    return [(*process.communicate(timeout=120), process.returncode) for process in processes]


def test_command(runs):
    printed, errors, status = runs[0]
    assert status == 0
    counts = complexity(load("gdas_frc"), replace(SETTINGS["imagenet"], channels=12, cells=8))
    assert json.loads(printed) == {
        "genotype": "gdas_frc",
        "dataset": "imagenet",
        "channels": 12,
        "cells": 8,
        "classes": 1000,
        "shape": [3, 224, 224],
        "image_size": 224,
        "params": counts.params,
        "params_with_auxiliary": counts.params_with_auxiliary,
        "multiply_adds": counts.multiply_adds,
        "multiply_adds_paper": counts.multiply_adds_paper,
        "uncounted": [],
    }


def test_a_count_loads_nothing_heavy_but_torch(runs):
    """Nor torch's compiler, which any operation on the meta device loads."""
    lines = [line.split("|") for line in runs[0][1].splitlines()]
    assert {line[0].split(":")[0] for line in lines} == {"import time"}  # no warnings among them
    loaded = {line[-1].strip() for line in lines}
    assert "torch" in loaded and not loaded & {*SLOW, "torch._dynamo", "sympy"}


def test_command_on_an_unknown_name(runs):
    printed, errors, status = runs[1]
    assert (status, printed) == (2, "")
    assert "Traceback" not in errors
    assert [name for name in ["darts_v3", *published()] if name not in errors] == []


def test_command_lists_the_zoo(runs):
    printed, errors, status = runs[2]
    assert (status, errors) == (0, "")
    listed = {cell["name"]: cell for cell in json.loads(printed)}
    assert list(listed) == published()
    gdas = listed["gdas"]
    assert gdas["kind"] == "image" and gdas["params"] == 3_368_782
    assert "GDAS_V1" in gdas["provenance"]["source"]
    assert [network["printed"]["params"] for network in gdas["networks"]] == ["3.4", "3.3", "5.3"]
    assert "Table 1 is right" in gdas["networks"][1]["printed"]["slip"]
    large = listed["pc_darts_imagenet"]  # its paper prints figures of ImageNet alone
    assert [network["dataset"] for network in large["networks"]] == ["cifar10", "imagenet"]
    assert large["params"] == 3_721_510 and large["networks"][0]["printed"] is None


def test_the_printed_list(command, monkeypatch):
    monkeypatch.setattr(published_cells, "published", lambda: ["darts_v1", "pc_darts_cifar10"])
    status, out, err = command("evaluate/complexity.py", "--list")
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if "prints 5.3 M and 586 M" in line]
    assert "586 M multiply-adds, PC-DARTS' convention" in line
    assert "darts_v1  (Liu et al., DARTS (ICLR 2019), first order; quark0/darts, " in out


def test_nothing_to_count(command, tmp_path):
    status, _, err = command("evaluate/complexity.py")
    assert status == 2 and "--genotype: give" in err
    cell = Cell(1, (Edge(0, 1, Op("tanh")),), (1,))
    save(Genotype("words", {"recurrent": cell}), tmp_path / "words.json")
    status, _, err = command("evaluate/complexity.py", "--genotype", tmp_path / "words.json")
    assert status == 2 and "recurrent cell" in err


def test_gdas_widths_on_imagenet_are_its_papers(command):
    for words, channels in (([], 50), (["--channels", 48], 48)):
        status, out, err = command(
            "evaluate/complexity.py", "--genotype", "gdas", "--dataset", "imagenet", "--json",
            "--cells", 3, *words,
        )  # fmt: skip
        assert status == 0 and json.loads(out)["channels"] == channels, err


@pytest.fixture
def grey(tmp_path):
    """A folder of three classes of grey images."""
    for name in "abc":
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("L", (12, 9)).save(tmp_path / "train" / name / "0.png")
    return tmp_path


def test_a_folder_is_counted_as_its_retraining_builds_it(grey, command):
    words = ("--dataset", "folder", "--data-root", grey, "--genotype", "gdas", "--json")
    for more, shape, channels in (
        ((), (1, 9, 12), 36), (("--image-size", 16), (1, 16, 16), 36),
        (("--image-size", 128), (1, 128, 128), 50),  # as on ImageNet
    ):  # fmt: skip
        status, out, err = command("evaluate/complexity.py", *words, *more, "--cells", 5)
        assert status == 0, err
        counts = json.loads(out)
        assert counts["shape"] == list(shape) and counts["classes"] == 3
        with torch.device("meta"):
            network = Network(
                load("gdas"), channels, 5, 3, image_channels=1, large_images=shape[1] == 128
            )
        found = [counts[name] for name in ("params", "multiply_adds", "multiply_adds_paper")]
        assert found == [parameters(network), *multiply_adds(network, shape)[:2]]


@pytest.mark.parametrize(("size", "paper"), [(30, 9_667_280), (31, 10_401_408)])
def test_a_shared_relu_counts_once_for_each_operation_of_odd_maps_too(size, paper):
    """As counted when each operation still computed its own (commit 6ccc4b8)."""
    network = Network(load("darts_v2"), 8, 6, 10)
    assert multiply_adds(network, (3, size, size)).paper == paper


def test_classes_and_image_size_are_flags(command):
    words = ("--genotype", "darts_v2", "--classes", 7, "--image-size", 64)
    status, out, _ = command("evaluate/complexity.py", *words)
    counts = complexity(load("darts_v2"), replace(SETTINGS["cifar10"], classes=7, image_size=64))
    assert status == 0 and f"{counts.multiply_adds:,}" in out and f"{counts.params:,}" in out
    assert "64 x 64 pixels, 7 classes" in out.splitlines()[0]


@pytest.mark.parametrize(("words", "message"), [
    (("--dataset", "folder"), "--dataset folder: add --data-root"),
    (("--data-root", "x"), "--data-root: only for --dataset folder"),
    (("--dataset", "folder", "--data-root", "no_such"), "--data-root"),
    (("--classes", 0), "--classes 0: must be 1"), (("--image-size", 3), "--image-size 3: must be"),
    (("--classes", 10**30), "--classes 10000"),
])  # fmt: skip
def test_bad_flags_are_one_message(words, message, command):
    status, out, err = command("evaluate/complexity.py", "--genotype", "gdas", *words)
    assert (status, out) == (2, "") and message in err and "Traceback" not in err
