"""Modules of the candidate operations.

All map [B, C, H, W] to [B, C, ceil(H / stride), ceil(W / stride)]. Convolutions have no bias. In a
search, normalisations have no scale and shift (`affine=False`), and one follows each pool; in a
derived network they have both, and pools have none (DARTS' code; not in the papers).

`register` adds an operation of your own, `load_file` those of a file; every search and derived
network runs them.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterable

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import InputError
from common.networks.genotype import IMAGE_OPS, OWN_OPS, PARAMETRISED_OPS, Op
from common.networks.layout import breaks_a_strided_1x1, memory_format_of
from common.run.operations import file_of
from common.run.operations import load_file as load_file  # beside `register`, for users

# torch 2.6 does not tell export and compilation apart.
is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)

# name -> (kernel, dilation, expansions) of the separable convolutions with a plain name
SEPARABLE = {
    "sep_conv_3x3": (3, 1, (1,)),
    "sep_conv_5x5": (5, 1, (1,)),
    "sep_conv_7x7": (7, 1, (1,)),
    "dil_conv_3x3": (3, 2, ()),
    "dil_conv_5x5": (5, 2, ()),
}
POOLS = ("max_pool_3x3", "avg_pool_3x3")
DENSE = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}  # NAS-Bench-201's convolutions and their kernels

Builder = Callable[[int, int, bool], nn.Module]  # (channels, stride, affine) -> module


def register(name: str, builder: Builder) -> None:
    """Add an image operation, for `build` and for genotypes; a second call replaces the first.

    Args:
        name: letters, digits and underscores.
        builder: called as builder(channels, stride, affine) for each edge. Returns a new module
            that maps [B, C, H, W] to [B, C, ceil(H / stride), ceil(W / stride)] and leaves its
            input unchanged. `affine`: whether its normalisations have a scale and shift.

    Raises:
        InputError: the name is not free, or has other characters.
    """
    if name in (*IMAGE_OPS, *PARAMETRISED_OPS):
        raise InputError(f"operation {name}: that name is taken; use another")
    if not re.fullmatch(r"[A-Za-z0-9_]+", name) or hasattr(nn.ModuleDict, name):
        raise InputError(
            f"operation {name!r}: not usable as a name; use letters, digits and underscores, and "
            "no method of nn.ModuleDict"
        )
    OWN_OPS[name] = builder


def build(op: Op, channels: int, stride: int, *, search: bool) -> nn.Module:
    """The module of `op`; `search`: for a supernet (see above).

    Raises:
        InputError: naming the operation: it is unknown, or a user's cannot be built or run.
    """
    affine = not search
    if op.name in OWN_OPS:
        return _own(op.name, channels, stride, affine)
    if op.name == "none":
        return Zero(stride)
    if op.name in POOLS:
        pool = pooling(op.name, stride)
        return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False)) if search else pool
    if op.name in DENSE:
        return ReluConvNorm(channels, channels, affine, DENSE[op.name], stride)
    if op.name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
    if op.name not in SEPARABLE and (op.name not in PARAMETRISED_OPS or op.kernel is None):
        raise InputError(
            f"operation {op.name}: unknown; known: {', '.join((*IMAGE_OPS, *OWN_OPS))}; register "
            "your own by common.networks.ops.register, or --operations FILE"
        )
    kernel, dilation, expansions = SEPARABLE.get(op.name, (op.kernel, op.dilation, op.expansions))
    return SeparableConv(channels, stride, kernel, dilation, expansions, affine)


def try_own(names: Iterable[str], channels: int, *, search: bool) -> None:
    """Build those of the operations that a user registered, with both strides.

    Raises:
        InputError: see `build`.
    """
    own = sorted(OWN_OPS.keys() & set(names))
    with torch.random.fork_rng(devices=[], enabled=bool(own)):
        for name in own:
            for stride in (1, 2):
                build(Op(name), channels, stride, search=search)


def _own(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """A registered operation, tried once on odd and even sizes, in both modes and formats."""
    wrong = f"operation {name} with {channels} channels and stride {stride}: "
    if (file := file_of(name)) is not None:
        wrong = f"--operations {file}: {wrong}"
    try:
        module = OWN_OPS[name](channels, stride, affine)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for side, training in itertools.product((7, 8), (False, True)):
                tried = copy.deepcopy(module).train(training)  # the module keeps its statistics
                x = torch.zeros(2, channels, side, side)
                if training:
                    x = x.to(memory_format=torch.channels_last)
                version, end = x._version, -(-side // stride)
                y = tried(x)
                if y.shape != (2, channels, end, end):
                    raise InputError(
                        f"{wrong}maps {[*x.shape]} to {[*y.shape]}; "
                        f"must give {[2, channels, end, end]}"
                    )
                if x._version != version:
                    raise InputError(f"{wrong}changes its input; use inplace=False")
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{wrong}{type(error).__name__}: {error}") from error
    # Even a module of a class in this file has no special form: the user may have changed it.
    return nn.Sequential(module.train())


def pooling(name: str, stride: int) -> nn.Module:
    """A 3x3 pool; averages exclude the padding."""
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


class Zero(nn.Module):
    """`none`: zeros of the right shape."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros with a gradient, so that the input stays in the graph."""
        return x[:, :, :: self.stride, :: self.stride] * 0


class SeparableUnit(nn.Module):
    """ReLU, depthwise convolution, pointwise convolution, normalisation."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, kernel: int, dilation: int, affine: bool
    ):
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.depthwise = nn.Conv2d(
            inputs, inputs, kernel, stride, padding, dilation, groups=inputs, bias=False
        )
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H', W']."""
        return self.past_relu(F.relu(x))

    def past_relu(self, x: Tensor) -> Tensor:
        """`forward` of a map after its ReLU."""
        return self.norm(self.pointwise(self.depthwise(x)))


class SeparableConv(nn.Module):
    """`len(expansions) + 1` separable units; the first has the stride."""

    def __init__(
        self,
        channels: int,
        stride: int,
        kernel: int,
        dilation: int,
        expansions: tuple[int, ...],
        affine: bool,
    ):
        super().__init__()
        widths = [channels, *(e * channels for e in expansions), channels]
        self.units = nn.Sequential(
            *(
                SeparableUnit(inputs, outputs, stride if k == 0 else 1, kernel, dilation, affine)
                for k, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False))
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H', W']."""
        return self.units(x)

    def past_relu(self, x: Tensor) -> Tensor:
        """`forward` of a map after its ReLU."""
        first, *rest = self.units
        x = first.past_relu(x)
        for unit in rest:
            x = unit(x)
        return x


class FactorizedReduce(nn.Module):
    """Halves the resolution: ReLU, two 1x1 convolutions one pixel apart, normalisation.

    Deviation: odd sizes get a zero row and column at the end, so that all image sizes work; DARTS'
    and PC-DARTS' code fails.
    """

    def __init__(self, inputs: int, outputs: int, affine: bool):
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / 2), ceil(W / 2)]."""
        return self.past_relu(F.relu(x))

    def past_relu(self, x: Tensor) -> Tensor:
        """`forward` of a map after its ReLU."""
        return self.norm(halves(x, self.even.weight, self.odd.weight))


@torch.fx.wrap  # one call in a graph, which does not record its branches
def halves(x: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """Convolve the pixels (0, 0) and (1, 1) of each 2x2 block; odd sizes are zero-padded."""
    height, width = x.shape[-2:]
    if is_exporting():  # for all sizes: even ones never read the zeros
        shifted = F.pad(x, (-1, 1, -1, 1))
    else:
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        shifted = F.pad(x, (-1, 0, -1, 0))  # a slice; its gradient has x's memory format
    return torch.cat([halved(x, even), halved(shifted, odd)], 1)


def halved(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution of stride 2, of sliced pixels where PyTorch's would corrupt memory."""
    if breaks_a_strided_1x1(x, weight.shape[1]):
        x = x[:, :, ::2, ::2].contiguous(memory_format=memory_format_of(x))
        return F.conv2d(x, weight)
    return F.conv2d(x, weight, stride=2)


class ReluConvNorm(nn.Sequential):
    """ReLU, convolution, normalisation; a 1x1 adapts the width of a cell's input."""

    def __init__(
        self, inputs: int, outputs: int, affine: bool, kernel: int = 1, stride: int = 1
    ):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        return self.past_relu(F.relu(x))

    def past_relu(self, x: Tensor) -> Tensor:
        """`forward` of a map after its ReLU."""
        return self[2](self.convolve(x, self[1].weight))

    def convolve(self, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        """Its convolution with these weights, of one edge or of several."""
        (stride, _), (padding, _) = self[1].stride, self[1].padding
        if padding == 0 and stride > 1:  # PyTorch's strided 1x1 could corrupt memory
            x, stride = x[:, :, ::stride, ::stride], 1
        return F.conv2d(x, weight, None, stride, padding, groups=groups)
