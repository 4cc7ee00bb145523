"""--operations: a user's own operations from a file, in every command, and what is refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from builders import ROOT, assert_refused
from common.draw import pictures
from common.draw.cell import OTHER, Arrow
from common.errors import InputError
from common.files import digest
from common.networks import timm_models  # noqa: F401  registers derived_nas
from common.networks.complexity import SETTINGS, complexity, multiply_adds
from common.networks.genotype import Cell, Edge, Genotype, Op, load
from common.networks.ops import OWN_OPS, load_file, register
from common.run.operations import recorded
from comparison.planned import jobs_of
from comparison.run_folders import found, results_of
from comparison.settings import CompareConfig

README = (ROOT / "common/README.md").read_text().partition("## Your own operation")[2]
FILE = re.search(r"```python\n(.*?)```", README, re.S)[1]
NAME = "relu_conv_norm_3x3"
SEARCH, TRAIN, TEST = "gdas/search.py", "evaluate/train.py", "evaluate/test.py"
PRUNING, RANDOM = "pr_darts/search.py", "evaluate/random_search.py"
TINY = ("--limit-images 40 --batch-size 10 --channels 4 --cells 3 --epochs 1 --threads 1").split()
CHOICE = ("--candidates", NAME, "skip_connect")
# The same operation with a tensor that no checkpoint has.
UNSAVED = FILE.replace("nn.Sequential(", "Scaled(") + """

class Scaled(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        return super().forward(x) * self.scale
""".replace("\n\nclass", "\n\nimport torch\n\n\nclass")


@pytest.fixture(autouse=True)
def registered():
    """What a test registers ends with it."""
    before = dict(OWN_OPS)
    yield
    OWN_OPS.clear()
    OWN_OPS.update(before)


@pytest.fixture
def fresh(command):
    """`command` in a process that has no operations yet."""
    def run(*words):
        OWN_OPS.clear()
        return command(*words)

    return run


def written(path, text):
    path.write_text(text)
    return path


def test_an_edited_file_changes_nothing_of_a_run_that_goes_on(tmp_path):
    file = written(tmp_path / "my_ops.py", FILE)
    record, builder = load_file(file), OWN_OPS[NAME]
    file.write_text(f"{FILE}\nraise ValueError\n")
    assert recorded(str(file)) == {"operations": record} and OWN_OPS[NAME] is builder


def test_the_readmes_file_from_search_to_export(fresh, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "confusion", lambda *_: None)
    file = written(tmp_path / "my_ops.py", FILE)
    other = written(tmp_path / "other.py", UNSAVED)
    record = {"file": "my_ops.py", "sha256": digest(file.read_bytes())}
    given, run, trained = ("--operations", file), tmp_path / "run", tmp_path / "trained"

    words = (SEARCH, "--preset", "digits", *TINY, "--nodes", 4, *CHOICE, "--output", run)
    status, out, err = fresh(*words, *given)
    assert status == 0, err
    assert f"next: python {TRAIN} --genotype {run} --operations {file} --channels" in out
    assert json.loads((run / "config.json").read_text())["operations"] == record
    searched = json.loads((run / "genotype.json").read_text())
    assert searched["provenance"]["operations"] == record and NAME in str(searched["cells"])

    more = (SEARCH, "--resume", run, "--extend-epochs", 1)
    assert_refused(fresh(*more), r"run: it has operations of my_ops.py .*; add --operations FILE")
    assert_refused(fresh(*more, "--operations", other), "other.py: its SHA-256 .* my_ops.py")
    status, out, err = fresh(*more, *given)
    assert status == 0 and "resuming at epoch 2" in out, err

    words = ("evaluate/complexity.py", "--genotype", run, "--json")
    assert_refused(fresh(*words), rf'unknown operation "{NAME}".* my_ops.py .* add --operations')
    status, out, err = fresh(*words, *given)
    assert status == 0 and json.loads(out)["uncounted"] == [], err
    words = "common/draw/__main__.py", run / "genotype.json", "--output", tmp_path / "pictures"
    assert_refused(fresh(*words), "unknown operation")
    assert fresh(*words, *given)[0] == 0
    assert NAME in (tmp_path / "pictures" / "normal.svg").read_text()
    status, out, err = fresh("evaluate/convert.py", run, "--to", "darts", *given)
    assert f"('{NAME}', 0)" in out and load(out).cells == load(run).cells

    words = (TRAIN, "--genotype", run, *TINY, "--output", trained)
    assert_refused(fresh(*words), "unknown operation")
    status, out, err = fresh(*words, "--operations", other)
    assert status == 0, err
    assert "was found with operations of my_ops.py" in out and "has those of other.py" in out
    assert load(trained).provenance["operations"]["file"] == "other.py"
    assert_refused(fresh(TEST, trained), "trained: it has operations of other.py")
    assert_refused(fresh(TEST, trained, *given), "my_ops.py: its SHA-256")
    one = ("--operations", other, "--threads", 1)
    status, out, err = fresh(TEST, trained, *one, "--batch-size", 90)
    assert status == 0, err
    tested, result = (json.loads((trained / f"{n}.json").read_text()) for n in ("test", "result"))
    assert tested["loss"] == pytest.approx(result["test_loss"], rel=1e-6)

    words = ("evaluate/export.py", trained, "--formats", "timm")
    assert_refused(fresh(*words), "trained: it has operations of other.py")
    status, out, err = fresh(*words, *one, "--batch-sizes", 1)
    assert status == 0 and f"load_file({json.dumps(str(other))})" in out, err
    OWN_OPS.clear()
    with pytest.raises(InputError, match=r"other.py .*common\.networks\.ops\.load_file"):
        timm.create_model(f"local-dir:{trained / 'timm'}", pretrained=True)
    load_file(other)
    timm.create_model(f"local-dir:{trained / 'timm'}", pretrained=True)
    (result,), random, left = results_of(found([str(run), str(trained)])[0])
    assert result.training.folder == trained and not random and not left


def test_a_file_is_run_once_and_again_where_it_changed(tmp_path):
    file = written(tmp_path / "my_ops.py", FILE + "\nprint('runs')\n")
    assert load_file(file) == load_file(str(file))
    first = OWN_OPS[NAME]
    load_file(file)
    assert OWN_OPS[NAME] is first
    file.write_text(FILE)
    load_file(file)
    assert OWN_OPS[NAME] is not first


WIDE = "from torch import nn\nfrom common.networks.ops import register\n" + (
    "register('wide', lambda c, s, affine: nn.Conv2d(c, 2 * c, 1, s))"
)


@pytest.mark.parametrize("script, text, message", [
    (SEARCH, None, ": cannot be read .*name a Python file"),
    (SEARCH, "if True\n", ", line 1: SyntaxError"),
    (RANDOM, "\n1 / 0\n", ", line 2: ZeroDivisionError.*; correct the file"),
    (PRUNING, "x = 1\n", ": registers no operation; it must call common.networks.ops.register"),
    (RANDOM, FILE.replace(f'"{NAME}"', '"skip_connect"'), ": operation skip_connect: that name is"),
    (SEARCH, WIDE, r": operation wide with 4 channels and stride 1: maps .* give \[2, 4, 7, 7\]"),
    (PRUNING, WIDE.replace("2 * c, 1, s", "c, 1"), ": operation wide with 4 .* stride 2: maps"),
    (PRUNING, FILE, f": no candidate is one of its operations; add --candidates .*{NAME}"),
])  # fmt: skip
def test_a_file_that_is_wrong_is_one_message(script, text, message, fresh, tmp_path):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    names = ("skip_connect", "sep_conv_3x3", *(["wide"] if text and "wide" in text else []))
    words = ("--preset", "digits", "--channels", 4, "--operations", file, "--candidates", *names)
    output = tmp_path / "run"
    result = fresh(script, *words, "--output", output)
    assert_refused(result, f"--operations {re.escape(str(file))}{message}", output)


def test_a_genotypes_operation_that_cannot_run_is_refused_before_training(fresh, tmp_path):
    cell = {"inputs": 2, "edges": [{"from": 0, "to": 2, "op": "wide"}], "output": [2]}
    cells = {"normal": cell, "reduction": cell}
    text = json.dumps({"format": "nas-genotype", "version": 1, "name": "mine", "cells": cells})
    file, output = written(tmp_path / "mine.py", WIDE), tmp_path / "run"
    words = ("--operations", file, "--genotype", written(tmp_path / "mine.json", text))
    result = fresh(TRAIN, "--preset", "digits", *words, "--output", output)
    assert_refused(result, "mine.py: operation wide with 16 channels", output)


def test_a_comparison_gives_the_file_and_the_candidates_to_its_runs(tmp_path):
    file = written(tmp_path / "my_ops.py", FILE)
    load_file(file)
    candidates = (NAME, "skip_connect")
    config = CompareConfig(
        methods=("gdas", "random"), output=str(tmp_path), preset="digits", seeds=1,
        operations=str(file), candidates=candidates,
    )  # fmt: skip
    config.check()
    assert config.pinned()["operations"] == load_file(file)
    for job in jobs_of(config, tmp_path):
        job.cells = None  # there are none yet
        words = job.begin_line(1)
        assert words[words.index("--operations") + 1] == str(file)
        if job.is_search:
            assert words[words.index("--candidates") + 1 :][:2] == list(candidates)
        assert "--operations" in job.resume_line()
    drawn = [load(path) for path in (tmp_path / "cells").iterdir()]
    assert {e.op.name for g in drawn for c in g.cells.values() for e in c.edges} == {*candidates}


class Own(nn.Module):
    """An operation of its function f(x, w), with w of a shape."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function, self.w = function, nn.Parameter(torch.ones(shape))

    def forward(self, x):
        return self.function(x, self.w)


def attention(x, w):
    q = x.flatten(2).mT.unsqueeze(1).contiguous()  # [B, 1, 64, 4]
    return F.scaled_dot_product_attention(q, q, q)


@pytest.mark.parametrize("function, shape, products", [
    (lambda x, w: (x.flatten(2).mT @ w).mT.view_as(x), (4, 4), 64 * 16),
    (lambda x, w: torch.einsum("bchw,cd->bdhw", x, w), (4, 4), 64 * 16),
    (lambda x, w: F.linear(x.mT, weight=w).mT, (8, 8), 4 * 8 * 64),
    (lambda x, w: torch.bmm(x[0], w)[None], (4, 8, 8), 4 * 8 * 64),
    (lambda x, w: x * (x.flatten() @ w), (256,), 256),
    (lambda x, w: x + (x[0, 0] @ w), (8,), 64),
    (lambda x, w: F.conv1d(x.flatten(2), w, padding=1).view_as(x), (4, 4, 3), 4 * 64 * 12),
    (lambda x, w: F.conv_transpose2d(x[:, :, ::2, ::2], w, stride=2), (4, 4, 2, 2), 64 * 16),
    (attention, (), 2 * 64 * 64 * 4),
])  # fmt: skip
def test_every_product_of_an_own_operation_counts(function, shape, products):
    register("own", lambda c, s, affine: Own(function, *shape))
    assert multiply_adds(Own(function, *shape), (4, 8, 8)) == (products, products, ())


def test_what_cannot_be_counted_is_said():
    register("own", lambda c, s, affine: nn.Identity())
    counted = multiply_adds(Own(lambda x, w: torch.fft.fft2(x).real + x.relu()), (4, 8, 8))
    assert counted == (0, 256, ("aten._fft_c2c",))


class Values(nn.Module):
    """Reads values, and holds a tensor of NumPy's: neither works on the meta device."""

    def __init__(self, channels, stride):
        super().__init__()
        kernel = torch.from_numpy(np.ones((channels, 1, 3, 3), "float32"))
        self.register_buffer("kernel", kernel, persistent=False)
        self.stride = stride

    def forward(self, x):
        x = x / max(1.0, x.abs().max().item())
        return F.conv2d(x, self.kernel, None, self.stride, 1, groups=len(self.kernel))


def test_an_operation_that_needs_real_tensors_is_counted():
    register("reads", lambda c, s, affine: Values(c, s))
    counts = {}
    for name in ("reads", "max_pool_3x3"):
        cell = Cell(2, (Edge(0, 2, Op(name)),), (2,))
        genotype = Genotype("mine", {"normal": cell, "reduction": cell})
        setting = replace(SETTINGS["cifar10"], channels=4, cells=3)
        counts[name] = complexity(genotype, setting).multiply_adds
    each = 4 * 32 * 32 + 8 * 16 * 16 + 16 * 8 * 8  # outputs of the three cells
    assert counts["reads"] - counts["max_pool_3x3"] == 9 * each


def test_an_own_operation_has_its_own_colour_whatever_its_name():
    register("skip_of_mine", lambda c, s, affine: nn.Identity())
    assert Arrow(0, 2, ["skip_of_mine"]).colour == OTHER != Arrow(0, 2, ["skip_connect"]).colour
