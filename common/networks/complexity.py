"""Parameters of a derived network, and multiply-adds of one image by two conventions.

The papers count differently:

* `multiply_adds`: Conv2d and Linear layers only (GDAS' 581 and 497 M on ImageNet).
* `multiply_adds_paper`: PC-DARTS' numbers (586 and 597 M on ImageNet), which add one for each
  output element of a ReLU or pool, and two for each element of a batch normalisation. All layers
  count, including the stem and the global pool; identities, sums and concatenations are free.
  (Pools are 0.3 M or less, so the printed numbers do not show whether they count.)

No convention known here gives DARTS' 574 M for its second-order cells.

In operations of a user's own every product counts, also of matrices and other convolutions. An
operator whose products are not known here is named in `uncounted`.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from common.data.images import large
from common.errors import InputError
from common.networks.genotype import OWN_OPS, Cell, Genotype
from common.networks.macro import check_size
from common.networks.network import Network, weightless
from common.networks.spaces import space_of


@dataclass(frozen=True)
class Setting:
    """Images of a data set, and the network size that the papers use for it.

    Attributes:
        classes: number of classes.
        image_size: height and width in pixels.
        channels: of the first cell.
        cells: number of cells.
        own: shape [C, H, W] of a user's images; None: colour images of `image_size`.
    """

    classes: int
    image_size: int
    channels: int
    cells: int
    own: tuple[int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, [C, H, W]."""
        return self.own or (3, self.image_size, self.image_size)

    @property
    def large_images(self) -> bool:
        """Whether the network has ImageNet's stem."""
        return large(self.shape)


SETTINGS = {
    "cifar10": Setting(classes=10, image_size=32, channels=36, cells=20),
    "cifar100": Setting(classes=100, image_size=32, channels=36, cells=20),
    "imagenet": Setting(classes=1000, image_size=224, channels=48, cells=14),
}


@dataclass(frozen=True)
class LanguageModel:
    """Vocabulary of a text, and the units of DARTS' and GDAS' model for it."""

    words: int
    units: int


LANGUAGE_MODELS = {
    "ptb": LanguageModel(words=10_000, units=850),
    "wikitext2": LanguageModel(words=33_278, units=700),
}


@dataclass(frozen=True)
class Complexity:
    """Counts of a network; multiply-adds are per image, without the auxiliary head.

    Attributes:
        uncounted: operators of unknown products, which are not in the multiply-adds.
    """

    params: int
    params_with_auxiliary: int
    multiply_adds: int
    multiply_adds_paper: int
    uncounted: tuple[str, ...]


def complexity(genotype: Genotype, setting: Setting) -> Complexity:
    """Count the network of a genotype, without allocating weights.

    Raises:
        InputError: the genotype has no image network, or the network is too small.
    """
    network = to_count(genotype, setting, auxiliary=True)
    every, counted = parameters(network), multiply_adds(network, setting.shape)
    return Complexity(every - parameters(network.auxiliary), every, *counted)


def to_count(genotype: Genotype, setting: Setting, *, auxiliary: bool = False) -> Network:
    """The network, if possible without weight values (`weightless`).

    Raises:
        InputError: the genotype has no image network, or there would be no channels or no normal
            cells.
    """
    check_size(setting.shape, setting.channels)
    if setting.cells < space_of(genotype).least_cells:
        raise InputError(
            f"--cells {setting.cells}: must be at least 3; with reduction cells at a third and at "
            "two thirds, a smaller network has no normal cell"
        )
    with weightless(genotype):
        return Network(
            genotype, setting.channels, setting.cells, setting.classes,
            image_channels=setting.shape[0], large_images=setting.large_images,
            auxiliary=auxiliary,
        )


def recurrent_parameters(cell: Cell, model: LanguageModel) -> int:
    """Parameters of a language model with a recurrent cell.

    The embedding, which the decoder shares, and the decoder's bias; one matrix for state 0 (from
    a word and the previous state) and one per node (from an earlier state), each with a gate and a
    candidate.
    """
    words, units = model.words, model.units
    return words * units + words + 2 * units * 2 * units + cell.nodes * units * 2 * units


def parameters(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


class MultiplyAdds(NamedTuple):
    """Multiply-adds by both conventions, and the operators that are in neither."""

    products: int
    paper: int
    uncounted: tuple[str, ...]


def multiply_adds(network: nn.Module, shape: Sequence[int]) -> MultiplyAdds:
    """Multiply-adds of one image [C, H, W].

    An empty batch on the CPU has shapes and costs nothing; a user's operation gets an image. An
    image on the meta device, where the weights may be, would first load torch's compiler, for three
    seconds.
    """
    network.eval()
    with torch.no_grad(), CallCounter() as counter, WeightsOnCPU():
        network(torch.zeros(1 if OWN_OPS else 0, *shape, device="cpu"))
    counts = counter.counts
    products = counts["product"]
    paper = products + 2 * counts["norm"] + counts["relu"] + counts["pool"]
    return MultiplyAdds(products, paper, tuple(sorted(counter.uncounted)))


class CallCounter(TorchFunctionMode):
    """Counts operations per image of torch functions while it is active.

    Module hooks would miss the ReLUs of the candidate operations, which are functions. And torch's
    `FlopCounterMode` counts ATen operators, whose names for one layer depend on device and version.

    A ReLU counts once for each convolution that reads it: in the papers' code each operation
    computes its own, here those that read one map share it. A zero-padded one is the same ReLU.

    Attributes:
        counts: by kind.
        relus: each ReLU's output so far, or such an output padded, and the output; by identity.
        readers: how many convolutions have read each ReLU's output.
        uncounted: operators of a user's operations whose products are not known.
        inside: whether a function runs that `counts` has.
    """

    kinds = {
        torch.conv2d: "product",
        F.linear: "product",
        F.batch_norm: "norm",
        F.relu: "relu",
        torch.relu: "relu",
        Tensor.relu: "relu",
        F.max_pool2d: "pool",
        F.avg_pool2d: "pool",
        F.adaptive_avg_pool2d: "pool",
    }

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.uncounted: set[str] = set()
        self.relus: dict[int, tuple[Tensor, Tensor]] = {}  # kept, so identities stay theirs
        self.readers: Counter[int] = Counter()
        self.inside, self.below = False, contextlib.ExitStack()

    def __enter__(self) -> CallCounter:
        if OWN_OPS:  # others call no further products, and this takes time
            self.below.enter_context(sdpa_kernel(SDPBackend.MATH))  # attention as its products
            self.below.enter_context(OperatorCounter(self))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.below.close()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Call the function; count its output elements, times the products of each."""
        kwargs, kind = kwargs or {}, self.kinds.get(func)
        self.inside = kind == "product"
        result = func(*args, **kwargs)
        self.inside = False
        if kind:
            products = 1
            if kind == "product":  # of an output element; weight [outputs, ...]
                products = (args[1] if len(args) > 1 else kwargs["weight"])[0].numel()
                self.count_shared_relu(args[0] if args else kwargs["input"])
            self.counts[kind] += of_one_image(result) * products
            if kind == "relu":
                self.relus[id(result)] = result, result
        if func is F.pad and id(args[0]) in self.relus and min(args[1]) >= 0:
            _, relu = self.relus[id(args[0])]
            self.relus[id(result)] = result, relu
        return result

    def count_shared_relu(self, x: Tensor) -> None:
        """Count once more the ReLU that gave a convolution's input, from its second reader on."""
        if id(x) in self.relus:
            _, relu = self.relus[id(x)]
            self.counts["relu"] += of_one_image(relu) if self.readers[id(relu)] else 0
            self.readers[id(relu)] += 1


def of_one_image(x: Tensor) -> int:
    """Elements of a batch of one image, or of none."""
    return max(x.numel(), x.shape[1:].numel())


class OperatorCounter(TorchDispatchMode):
    """Adds the products of ATen operators to a `CallCounter`: a user may call any function."""

    # name -> place of the first factor
    matrices = {
        "mm": 0, "bmm": 0, "mv": 0, "dot": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1, "addmv": 1,
    }  # fmt: skip
    unknown = re.compile("fft|dist|rnn|lstm|gru|attention|trilinear|linalg|conv|mm")

    def __init__(self, counter: CallCounter):
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run the operator; count its products, or note that they are not known."""
        result = func(*args, **(kwargs or {}))
        if self.counter.inside:
            return result
        space, name = re.match(r"(\w+)::(\w+)", func.name()).groups()
        if name in self.matrices:
            one, other = args[self.matrices[name] :][:2]
            self.counter.counts["product"] += one.numel() * (other.shape[1:] or [1])[-1]
        elif name == "convolution":
            x, weight, transposed = args[0], args[1], args[6]
            each = x if transposed else result  # meets weight[0].numel() products
            self.counter.counts["product"] += each.numel() * weight[0].numel()
        elif space not in ("aten", "prim", "prims") or self.unknown.search(name):
            self.counter.uncounted.add(f"{space}.{name}")
        return result


class WeightsOnCPU(TorchFunctionMode):
    """For weights on meta, memory on the CPU for one call; an empty batch leaves it untouched."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Call the function with them."""
        given = {name: _allocated(argument) for name, argument in (kwargs or {}).items()}
        return func(*map(_allocated, args), **given)


def _allocated(argument: Any) -> Any:
    if isinstance(argument, Tensor) and argument.is_meta:
        return torch.empty(argument.shape, dtype=argument.dtype, device="cpu")
    return argument
