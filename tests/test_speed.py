"""What makes a step fast, where a clock would not tell: waits, graphs, counts; the benchmark."""

import gc
import importlib.util
import itertools
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from benchmarking.timing import saved_mib
from builders import FIRST, ROOT, SEARCH_CONFIG, SMALL, make_search_trainer, random_images
from common.data.split import Split
from common.errors import InputError
from common.networks.genotype import Op
from common.networks.macro import Place
from common.networks.ops import build
from common.run.folder import Run
from common.supernet.candidate import run
from common.supernet.cell import MixedEdges, weighted_sums
from common.supernet.separable import Separable, joined, phases
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from edas.supernet import EDASSuperNet
from gdas.supernet import GDASSuperNet
from itnas.supernet import ITNASSuperNet
from pc_darts.supernet import PCDARTSSuperNet
from pr_darts.supernet import PRDARTSSuperNet

DENSE = {
    "darts": SuperNet, "pc_darts": PCDARTSSuperNet, "itnas": ITNASSuperNet,
    "pr_darts": lambda **shape: PRDARTSSuperNet(FIRST, **shape),
}  # fmt: skip
SAMPLED = {"gdas": GDASSuperNet, "edas": EDASSuperNet}


def trainer_of(kind, folder, accelerator):
    torch.manual_seed(0)
    images = random_images(48)
    run = Run(folder, "t", accelerator)
    return BilevelTrainer(SEARCH_CONFIG, kind(**SMALL), run, images, Split.halves(48, 0))


@pytest.fixture
def long_steps(monkeypatch):
    """Steps take more than the half second after which a loop shows its progress."""
    seconds = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(seconds))
    monkeypatch.setattr("common.training.loop.time", clock)


def test_progress_shows_what_had_arrived_the_time_before(tmp_path, accelerator, long_steps):
    trainer, shown = trainer_of(SuperNet, tmp_path, accelerator), []
    trainer.bar = SimpleNamespace(
        set_postfix_str=lambda text, **_: shown.append(text), update=lambda items: None
    )
    for _, loss in zip(trainer.steps(), (1.0, 2.0, 3.0), strict=True):
        for name, value in {"loss": loss, "top1": 50.0}.items():
            trainer.meters[name].reset()
            trainer.meters[name].update(torch.tensor(value))
    assert shown == ["loss 1.000 top-1 50.00 %", "loss 2.000 top-1 50.00 %"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", [*DENSE, *SAMPLED])
def test_no_step_waits_for_the_gpu(method, tmp_path, long_steps):
    """But for `common.supernet.to_cpu.read`; without a GPU see `test_rehearsal.py`."""
    trainer = trainer_of({**DENSE, **SAMPLED}[method], tmp_path, Accelerator())
    next(trainer.epochs())
    steps = trainer.batches()
    for number in range(3):
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        try:
            train, valid = next(steps)
            trainer.arch_step(valid)
            trainer.weight_step(train)
        finally:
            torch.cuda.set_sync_debug_mode("default")


# -------------------------------------------------------------------------------- fewer, faster


def test_phases_are_every_nth_pixel_and_come_back():
    x = torch.randn(2, 3, 4, 6)
    split = phases(x, 2)
    assert torch.equal(split[1], x[0, :, 0::2, 1::2]) and torch.equal(split[6], x[1, :, 1::2, 0::2])
    assert torch.equal(joined(split, 2), x)


@pytest.mark.parametrize("channels", [4, 12])  # composed, not composed
@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "skip_connect"])
def test_an_operation_by_itself_is_the_operation(name, stride, size, channels):
    torch.manual_seed(0)
    operation = build(Op(name), channels, stride, search=True).double()
    x = torch.randn(3, channels, size, size).double()
    weight = torch.rand(1).double()
    expected = weight * operation(x)
    torch.testing.assert_close(run(operation, x, x.relu(), weight), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "size"), [(3, 6), (5, 6), (5, 7), (5, 16), (7, 17), (9, 19)])
def test_gradients_of_a_separable_convolution(kernel, size, stride):
    x = torch.randn(2, 4, size, size).double().requires_grad_()
    depthwise = torch.randn(4, 1, kernel, kernel).double().requires_grad_()
    pointwise = torch.randn(4, 2, 1, 1).double().requires_grad_()
    of = (x, depthwise, pointwise)
    found = Separable.apply(*of, stride, kernel // 2, 1, 2)
    middle = torch.nn.functional.conv2d(x, depthwise, None, stride, kernel // 2, 1, 4)
    expected = torch.nn.functional.conv2d(middle, pointwise, groups=2)
    assert torch.equal(found, expected)
    up = torch.randn_like(found).requires_grad_()
    once = [torch.autograd.grad(y, of, up, create_graph=True) for y in (found, expected)]
    twice = [torch.autograd.grad(sum(g.square().sum() for g in gs), (*of, up)) for gs in once]
    for a, b in zip(once[0] + twice[0], once[1] + twice[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_map_between_two_convolutions_is_not_kept():
    kept = []
    operation = build(Op("dil_conv_3x3"), 16, 1, search=True)  # too many to be composed
    x = torch.randn(2, 16, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        run(operation, x, x.relu())
    maps = {t.data_ptr() for t in kept if t.numel() == x.numel()}
    assert len(maps) == 2  # the input's four images and what is normalised


def test_convolutions_of_one_dilation_keep_one_copy_of_their_input():
    candidates, channels = ("sep_conv_3x3", "sep_conv_5x5"), 16  # too many to be composed
    place = Place(0, channels, (16, 16), False, False)
    step = MixedEdges((0,), (1, 2), [(0, 1), (0, 2)], candidates, channels, place)
    x, kept = torch.randn(2, channels, 8, 8).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        step([x], torch.rand(1, 2, 2))
    of_edges = [t for t in kept if t.numel() == 2 * x.numel()]
    read = {t.data_ptr() for t in of_edges if t.grad_fn.name() != "SeparableBackward"}
    assert len(read) == 3  # by both, and by the second unit of each


@pytest.mark.parametrize("searched", [False, True])
def test_weighted_sums_keep_their_maps_only_for_gradients_of_weights(searched):
    memory_format = torch.channels_last
    maps = [torch.randn(2, 3, 4, 5).contiguous(memory_format=memory_format) for _ in range(4)]
    maps[1] = torch.randn(2, 7, 4, 5).contiguous(memory_format=memory_format)[:, 2:5]  # a slice
    maps, weight = [x.requires_grad_() for x in maps], torch.rand(4, 2, requires_grad=searched)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        sums = weighted_sums(maps, weight)
    assert any(t.numel() >= maps[0].numel() for t in kept) == searched
    for t, y in enumerate(sums):
        assert y.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(y, sum(w * x for w, x in zip(weight[:, t], maps, strict=True)))


def test_maps_lie_channels_last():
    net, seen = SuperNet(**SMALL), []
    for cell in net.cells:
        cell.register_forward_hook(lambda _, inputs, out: seen.extend([*inputs[:2], out]))
    net(torch.randn(2, 3, 8, 8))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


# ------------------------------------------------------------------------------------ compiling


class Few(PCDARTSSuperNet):
    candidates = ("none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")


@pytest.mark.slow
def test_a_compiled_supernet_is_one_graph_a_step_and_computes_the_same(tmp_path, accelerator):
    counters = pytest.importorskip("torch._dynamo.utils").counters
    states = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = Few(K=2, channels=4, cells=3, nodes=1, classes=3)
        if compiled:
            torch._dynamo.reset()
            counters.clear()
            net.compile(backend="aot_eager")
        batch = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(2)
        trainer = make_search_trainer(tmp_path, accelerator, net)
        trainer.arch_step(batch)
        trainer.weight_step(batch)
        states.append(net.state_dict())
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------- the benchmark


@pytest.fixture
def benchmark(monkeypatch):
    """evaluate/benchmark.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "evaluate" / "benchmark.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


SIZE = {"batch_size": 2, "rounds": 1, "channels": 4, "cells": 3, "threads": 1}


def test_the_table(benchmark, tmp_path, capsys):
    options = benchmark.Options(
        methods=("gdas_frc", "pc_darts"), output=tmp_path / "rows.json", **SIZE
    )
    benchmark.main(options)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["method"] for row in rows] == list(options.methods)
    for row in rows:
        assert list(row) == [
            "method", "milliseconds_per_iteration", "images_per_second", "ratio_to_equation_form",
            "peak_memory_mib", "saved_for_backward_mib", "data_wait_share",
        ]  # fmt: skip
        assert (row["peak_memory_mib"] is None) == (not torch.cuda.is_available())
        assert 0 < row["data_wait_share"] < 1
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 3 and ", 1)" in printed


@pytest.mark.parametrize(("changes", "named"), [
    ({"batch_size": 0}, "--batch-size 0: must be 1"), ({"rounds": 0}, "--rounds 0: must be 1"),
    ({"cells": 0}, "--cells 0: must be 1"), ({"threads": 0}, "--threads 0: must be 1"),
    ({"channels": 5}, "--channels 5: must be a multiple of 4"), ({"channels": 0}, "--channels 0"),
    ({"channels": -4}, "--channels -4"), ({"methods": ()}, "--methods: name one"),
    ({"genotypes": ()}, "--genotypes: name one"), ({"genotypes": ("gdas",)}, "give --retraining"),
    ({"retraining": True, "genotypes": ("gdas_rnn",)}, "gdas_rnn: an image network needs a normal"),
    ({"output": "no/such/rows.json"}, "--output .*rows.json"),
    ({"output": "folder"}, "--output .*folder"),
    ({"output": "file/rows.json"}, "--output .*rows.json"),
])  # fmt: skip
def test_flags_that_cannot_be_timed_or_written_are_refused(benchmark, tmp_path, changes, named):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    if "output" in changes:
        changes = {"output": tmp_path / changes["output"]}
    with pytest.raises(InputError, match=named):
        benchmark.main(benchmark.Options(**{**SIZE, **changes}))
    benchmark.Options(**SIZE, output=tmp_path / "rows.json").check()


def test_every_method_is_timed_by_default_and_both_forms_start_alike(benchmark):
    """Other alphas would sample, and time, other operations."""
    methods = benchmark.Options().methods
    assert len(methods) == 7
    for method in methods:
        fast, slow = (form.state_dict() for form in benchmark.forms(method, channels=8, cells=3))
        assert fast.keys() == slow.keys()
        assert all(torch.equal(value, slow[name]) for name, value in fast.items())


@pytest.mark.parametrize("method", ["gdas", "edas", "pr_darts"])
def test_what_runs_otherwise_each_step_is_not_compiled(method, command):
    status, _, error = command(f"{method}/search.py", "--preset", "digits", "--compile")
    assert status != 0 and "--compile" in error


def test_measuring_what_a_pass_keeps_leaves_nothing_behind():
    """A benchmark's methods would otherwise add up, and the last ones find no memory."""
    torch.manual_seed(0)
    network, batch = SuperNet(**SMALL), (torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    alive = []
    for _ in range(2):
        saved_mib(network, batch, network.arch_parameters())
        gc.collect()
        alive.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
    assert alive[1] <= alive[0]
