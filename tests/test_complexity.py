import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from common.complexity import SETTINGS, complexity, multiply_adds, parameters
from common.errors import InputError
from common.genotype import FixedCell, Genotype, cell_from_pairs, load, published

ROOT = Path(__file__).parent.parent
GDAS_F1 = Genotype(
    "gdas_f1",
    {
        "normal": cell_from_pairs(
            [("skip_connect", 0), ("skip_connect", 1)]
            + [("skip_connect", 0), ("sep_conv_3x3", 2)] * 3
        ),
        "reduction": FixedCell("gdas_frc"),
    },
)

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
    ("name", "params", "products"),
    [("pc_darts_cifar10", "5.3", "586"), ("pc_darts_imagenet", "5.3", "597")],
)
def test_figures_that_pc_darts_prints(name, params, products):
    counts = complexity(load(name), SETTINGS["imagenet"])
    assert f"{counts.params / 1e6:.1f}" == params
    assert f"{counts.multiply_adds_paper / 1e6:.0f}" == products


def test_figures_that_gdas_prints_for_its_fixed_reduction_cell():
    small = complexity(GDAS_F1, SETTINGS["cifar10"])
    large = complexity(GDAS_F1, replace(SETTINGS["imagenet"], channels=52))
    assert f"{small.params / 1e6:.1f}" == "2.5"
    assert f"{large.params / 1e6:.1f}" == "4.4"
    assert f"{large.multiply_adds / 1e6:.0f}" == "497"


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
    assert multiply_adds(network, torch.ones(1, 3, 8, 8)) == (products, products + others)
    assert parameters(network) == 108 + 8 + 16 + 45


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("dataset", "change", "named"),
    [
        ("cifar10", {"channels": 0}, "--channels 0: .* at least 1"),
        ("imagenet", {"channels": 1}, "--channels 1: .* at least 2"),
        ("cifar10", {"cells": -1}, "--cells -1: .* at least 3"),
        ("cifar10", {"cells": 2}, "--cells 2: .* at least 3"),
    ],
)
def test_networks_that_make_no_sense(dataset, change, named):
    with pytest.raises(InputError, match=named):
        complexity(load("darts_v2"), replace(SETTINGS[dataset], **change))


@pytest.mark.parametrize(
    ("dataset", "size"),
    [("cifar10", {"channels": 1, "cells": 3}), ("imagenet", {"channels": 2, "cells": 3})],
)
def test_the_smallest_networks(dataset, size):
    assert complexity(load("darts_v2"), replace(SETTINGS[dataset], **size)).params > 0


# ---------------------------------------------------------------------------------- the command


def start(*flags):
    return subprocess.Popen(
        [sys.executable, "evaluate/complexity.py", *flags],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


@pytest.fixture(scope="module")
def runs():
    """A good run and a bad one, side by side: most of their time is the import of torch."""
    good = start("--genotype", "darts_v2", "--channels", "4", "--cells", "8", "--json")
    bad = start("--genotype", "darts_v3")
    return [(*process.communicate(timeout=120), process.returncode) for process in (good, bad)]


def test_command(runs):
    printed, errors, status = runs[0]
    assert (status, errors) == (0, "")
    counts = complexity(load("darts_v2"), replace(SETTINGS["cifar10"], channels=4, cells=8))
    assert json.loads(printed) == {
        "genotype": "darts_v2",
        "dataset": "cifar10",
        "channels": 4,
        "cells": 8,
        "image_size": 32,
        "params": counts.params,
        "params_with_auxiliary": counts.params_with_auxiliary,
        "multiply_adds": counts.multiply_adds,
        "multiply_adds_paper": counts.multiply_adds_paper,
    }


def test_command_on_an_unknown_name(runs):
    printed, errors, status = runs[1]
    assert (status, printed) == (2, "")
    assert "Traceback" not in errors
    assert [name for name in ["darts_v3", *published()] if name not in errors] == []
