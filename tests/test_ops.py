import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from builders import ROOT
from common.errors import InputError
from common.networks.genotype import IMAGE_OPS, Op
from common.networks.ops import FactorizedReduce, build, register
from common.supernet.candidate import run

PARAMETRISED = [Op("sep_conv", 3, 2, ()), Op("sep_conv", 5, 1, (2, 3)), Op("sep_conv", 1, 1, (1,))]
EVERY_OP = [*map(Op, IMAGE_OPS), *PARAMETRISED]


def image(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("op", EVERY_OP, ids=str)
def test_shapes(op, search):
    sizes = [(1, (7, 6), (7, 6)), (2, (8, 6), (4, 3)), (2, (7, 5), (4, 3)), (2, (1, 1), (1, 1))]
    for stride, size, halved in sizes:
        out = build(op, 4, stride, search=search)(image(2, 4, *size))
        assert out.shape == (2, 4, *halved)


def test_none_is_zero_and_identity_is_the_input():
    x = image(1, 2, 4, 4)
    assert build(Op("none"), 2, 2, search=True)(x).abs().sum() == 0
    assert torch.equal(build(Op("skip_connect"), 2, 1, search=True)(x), x)


# --------------------------------------------------------------------- convolutions, written out


def slow_depthwise(x, weight, stride, dilation):
    """A depthwise convolution as loops over the output; what lies outside the map is zero."""
    batch, channels, height, width = x.shape
    kernel = weight.shape[-1]
    out = torch.zeros(batch, channels, -(-height // stride), -(-width // stride))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for a in range(kernel):
                for b in range(kernel):
                    row = i * stride + (a - kernel // 2) * dilation
                    column = j * stride + (b - kernel // 2) * dilation
                    if 0 <= row < height and 0 <= column < width:
                        out[:, :, i, j] += x[:, :, row, column] * weight[:, 0, a, b]
    return out


def slow_norm(x):
    mean = x.mean((0, 2, 3), keepdim=True)
    return (x - mean) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()


def slow_pointwise(x, weight):
    return torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x)


# name: (kernel, dilation, how often the unit is stacked)
SEPARABLE = {
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "sep_conv_7x7": (7, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", SEPARABLE)
def test_separable_convolutions_written_out(name, stride):
    kernel, dilation, stacked = SEPARABLE[name]
    module = build(Op(name), 3, stride, search=True)
    weights = list(module.parameters())
    assert len(weights) == 2 * stacked
    x = image(2, 3, 7, 6)
    expected = x
    for k in range(stacked):
        depthwise, pointwise = weights[2 * k : 2 * k + 2]
        assert depthwise.shape == (3, 1, kernel, kernel)
        expected = slow_depthwise(expected.relu(), depthwise, stride if k == 0 else 1, dilation)
        expected = slow_norm(slow_pointwise(expected, pointwise))
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("sep_conv_5x5", Op("sep_conv", 5, 1, (1,))),
        ("dil_conv_3x3", Op("sep_conv", 3, 2, ())),
        ("dil_conv_5x5", Op("sep_conv", 5, 2, ())),
    ],
)
def test_parametrised_convolution_equals_the_plain_one(name, same):
    plain, parametrised = (build(op, 4, 2, search=False) for op in (Op(name), same))
    parametrised.load_state_dict(plain.state_dict())
    x = image(2, 4, 8, 8)
    torch.testing.assert_close(parametrised(x), plain(x))


def test_expansions_are_the_inner_widths():
    module = build(Op("sep_conv", 3, 2, (2, 3)), 4, 2, search=False)
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    widths = [(conv.in_channels, conv.out_channels) for conv in convolutions]
    assert widths == [(4, 4), (4, 8), (8, 8), (8, 12), (12, 12), (12, 4)]
    assert [conv.groups for conv in convolutions] == [4, 1, 8, 1, 12, 1]
    assert [conv.stride[0] for conv in convolutions] == [2, 1, 1, 1, 1, 1]
    assert all(conv.dilation == (2, 2) for conv in convolutions[::2])


@pytest.mark.parametrize("size", [6, 7])
def test_factorized_reduce_written_out(size):
    module = FactorizedReduce(3, 5, affine=False)
    x = image(2, 3, size, size)
    padded = torch.zeros(2, 3, 8, 8)  # more zeros than the last window of either size looks at
    padded[:, :, :size, :size] = x.relu()
    half = -(-size // 2)
    maps = torch.zeros(2, 5, half, half)
    for i in range(half):
        for j in range(half):
            maps[:, :2, i, j] = padded[:, :, 2 * i, 2 * j] @ module.even.weight[:, :, 0, 0].T
            maps[:, 2:, i, j] = padded[:, :, 2 * i + 1, 2 * j + 1] @ module.odd.weight[:, :, 0, 0].T
    torch.testing.assert_close(module(x), slow_norm(maps), rtol=1e-4, atol=1e-5)
    assert isinstance(build(Op("skip_connect"), 4, 2, search=True), FactorizedReduce)


# -------------------------------------------------------------------- pools and normalisations


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("name", "reduce"), [("avg", torch.mean), ("max", torch.amax)])
def test_pools_count_no_padding(name, reduce, stride):
    x = image(2, 2, 5, 5) - 3  # negative, so that a zero of the padding would be the maximum
    out = build(Op(f"{name}_pool_3x3"), 2, stride, search=False)(x)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            top, left = max(i * stride - 1, 0), max(j * stride - 1, 0)
            window = x[:, :, top : i * stride + 2, left : j * stride + 2]
            torch.testing.assert_close(out[:, :, i, j], reduce(window, (2, 3)))


@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_pools_are_normalised_in_a_search_only(name):
    x = image(4, 2, 6, 6)
    derived, search = (build(Op(name), 2, 1, search=search) for search in (False, True))
    torch.testing.assert_close(search(x), slow_norm(derived(x)), rtol=1e-4, atol=1e-5)
    assert not list(search.parameters())
    assert not list(derived.buffers())


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("op", EVERY_OP, ids=str)
def test_scale_and_shift_in_a_derived_network_only(op, search):
    for stride in (1, 2):
        module = build(op, 4, stride, search=search)
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert all(norm.affine is not search for norm in norms)
        convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
        assert all(conv.bias is None for conv in convolutions)
        assert bool(norms) or not convolutions


def test_no_operation_changes_its_input():
    x = image(1, 4, 6, 6)
    kept = x.clone()
    for op in EVERY_OP:
        build(op, 4, 2, search=False)(x)
    assert torch.equal(x, kept)


# ------------------------------------------------------------- a bug of PyTorch's backward pass

STRIDED_1X1 = """
import torch
from common.supernet.candidate import run
from common.networks.genotype import Op
from common.networks.ops import FactorizedReduce, build, register

torch.set_num_threads(1)
last = torch.channels_last
for _ in range(3):
    for channels in (8, 10, 12):
        for size in (56, 64):
            x = torch.randn(4, channels, size, size).to(memory_format=last).requires_grad_()
            for outputs in (4, 8):
                module = FactorizedReduce(channels, outputs, affine=True).to(memory_format=last)
                module(x).square().sum().backward()
            pointwise = build(Op("sep_conv", 1, 1, ()), channels, 2, search=True)
            run(pointwise, x, x.relu()).square().sum().backward()
print("survived")
"""


def test_strided_1x1_convolutions_do_not_corrupt_memory():
    """In a process of its own, whose allocator checks what it frees."""
    env = {**os.environ, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", STRIDED_1X1], env=env, capture_output=True)
    assert (done.returncode, done.stdout.strip()) == (0, b"survived"), done.stderr[-500:]


@pytest.mark.parametrize("size", [37, 38])
@pytest.mark.parametrize("channels", [6, 12, 20])
def test_avoiding_strided_1x1_convolutions_changes_no_result(channels, size):
    """They are avoided only if a gradient is needed."""
    x = image(2, channels, 38, size).double().to(memory_format=torch.channels_last)
    reduce = FactorizedReduce(channels, 6, affine=False).double()
    pointwise = build(Op("sep_conv", 1, 1, ()), channels, 2, search=True).double()
    with torch.no_grad():
        expected = [reduce(x), run(pointwise, x, x.relu())]
    found = [reduce(x), run(pointwise, x, x.relu())]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------- own operations


class View(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1).view(x.shape)  # not of channels-last maps


class InPlace(nn.Module):
    def forward(self, x):
        return x.relu_()


@pytest.mark.parametrize("name, builder, message", [
    ("sep_conv_3x3", None, "sep_conv_3x3: that name is taken"),
    ("a.b", None, "'a.b': not usable as a name"),
    ("pop", None, "'pop': not usable as a name"),
    ("even", lambda c, s, affine: nn.Conv2d(c, c, 2, s), r"even with 4 .* give \[2, 4, 7, 7\]"),
    ("wide", lambda c, s, affine: nn.Conv2d(c, 2 * c, 1, s), "wide with 4 channels and stride 1"),
    ("groups", lambda c, s, affine: nn.Conv2d(c, c, 1, s, groups=3), "groups with .*ValueError"),
    ("missing", lambda c, s, affine: None, "missing with .*AttributeError"),
    ("relu", lambda c, s, affine: InPlace(), "relu with .* changes its input; use inplace=False"),
    ("drop", lambda c, s, affine: nn.Dropout2d(0.2, inplace=True), "drop with .* changes its inp"),
    ("view", lambda c, s, affine: View(), "view with .*RuntimeError: view size"),
])  # fmt: skip
def test_an_operation_that_cannot_run_is_an_error_that_names_it(
    name, builder, message, monkeypatch
):
    monkeypatch.setattr("common.networks.ops.OWN_OPS", {})
    with pytest.raises(InputError, match=f"operation {message}"):
        register(name, builder)
        build(Op(name), 4, 1, search=True)


@pytest.mark.parametrize("op", [Op("full_conv_3x3"), Op("full_conv_3x3", 3, 1, ()), Op("sep_conv")])
def test_an_unknown_operation_is_an_error_that_names_it(op):
    with pytest.raises(InputError, match=f"operation {op.name}: unknown; known: none, .*register"):
        build(op, 4, 1, search=True)


def test_an_own_operation_has_normalisations_with_a_scale_in_a_derived_network(monkeypatch):
    monkeypatch.setattr("common.networks.ops.OWN_OPS", {})
    register("norm", lambda c, s, affine: nn.BatchNorm2d(c, affine=affine))
    state = torch.get_rng_state()
    for search in (True, False):
        module = build(Op("norm"), 4, 1, search=search)
        assert module.training and len(list(module.parameters())) == (0 if search else 2)
        assert all(b.eq(b.flatten()[0]).all() for b in module.buffers())  # as at the start
    assert torch.equal(torch.get_rng_state(), state)
