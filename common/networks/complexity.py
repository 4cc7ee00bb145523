"""Size of a derived network: parameters, and multiply-adds of one image by two conventions.

The papers do not count the same thing, so a figure means little without its convention:

* `multiply_adds`: Conv2d and Linear layers only (GDAS' 581 and 497 M on ImageNet).
* `multiply_adds_paper`: PC-DARTS' figures (586 and 597 M on ImageNet), which add to these one for
  every element that a ReLU or a pool puts out, and two for every element of a batch-normalisation.
  Every layer counts, those of the stem and the global pool too; identities, sums and
  concatenations cost nothing. (Pools are 0.3 M or less: the printed figures do not decide them.)

DARTS' 574 M for its second-order cells is reproduced by no convention known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from common.data.images import large
from common.errors import InputError
from common.networks.genotype import Cell, Genotype
from common.networks.macro import check_size
from common.networks.network import Network


@dataclass(frozen=True)
class Setting:
    """A dataset's images and the size of network that the papers evaluate on it.

    Attributes:
        classes: how many.
        image_size: pixels of both sides.
        channels: of the first cell.
        cells: how many.
        own: of one's own images, [C, H, W]; None: colour ones of `image_size`.
    """

    classes: int
    image_size: int
    channels: int
    cells: int
    own: tuple[int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image, [C, H, W]."""
        return self.own or (3, self.image_size, self.image_size)

    @property
    def large_images(self) -> bool:
        """Whether they get ImageNet's stem."""
        return large(self.shape)


SETTINGS = {
    "cifar10": Setting(classes=10, image_size=32, channels=36, cells=20),
    "cifar100": Setting(classes=100, image_size=32, channels=36, cells=20),
    "imagenet": Setting(classes=1000, image_size=224, channels=48, cells=14),
}


@dataclass(frozen=True)
class LanguageModel:
    """A text's vocabulary, and the size of the model that DARTS and GDAS evaluate on it."""

    words: int
    units: int


LANGUAGE_MODELS = {
    "ptb": LanguageModel(words=10_000, units=850),
    "wikitext2": LanguageModel(words=33_278, units=700),
}


@dataclass(frozen=True)
class Complexity:
    """Counts of one network; multiply-adds are of one image, without the auxiliary head."""

    params: int
    params_with_auxiliary: int
    multiply_adds: int
    multiply_adds_paper: int


def complexity(genotype: Genotype, setting: Setting) -> Complexity:
    """Count the network that `genotype` describes; no weights are allocated.

    Raises:
        InputError: the genotype describes no image network, or the network is too small.
    """
    network = on_meta(genotype, setting, auxiliary=True)
    image = torch.empty(1, *setting.shape, device="meta")
    every = parameters(network)
    return Complexity(every - parameters(network.auxiliary), every, *multiply_adds(network, image))


def on_meta(genotype: Genotype, setting: Setting, *, auxiliary: bool = False) -> Network:
    """The network without values for its weights.

    Raises:
        InputError: the genotype describes no image network, or it would have no channels or no
            normal cells.
    """
    check_size(setting.shape, setting.channels)
    if setting.cells < 3:
        raise InputError(
            f"--cells {setting.cells}: must be at least 3; the reduction cells stand at a third "
            "and at two thirds, which leaves no normal cell in a smaller network"
        )
    with torch.device("meta"):
        return Network(
            genotype, setting.channels, setting.cells, setting.classes,
            image_channels=setting.shape[0], large_images=setting.large_images,
            auxiliary=auxiliary,
        )


def recurrent_parameters(cell: Cell, model: LanguageModel) -> int:
    """Of a language model around a recurrent cell: an embedding and a matrix for each node.

    The decoder's matrix is the embedding, beside which it has a bias; state 0 is made of a word
    and the state before, every other state of one before it; each by a gate and a candidate.
    """
    words, units = model.words, model.units
    return words * units + words + 2 * units * 2 * units + cell.nodes * units * 2 * units


def parameters(module: nn.Module) -> int:
    """The number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """Multiply-adds of one forward pass: convolutions and linear layers, and PC-DARTS' count."""
    network.eval()
    with torch.no_grad(), CallCounter() as counter:
        network(image)
    counts = counter.counts
    products = counts["product"]
    return products, products + 2 * counts["norm"] + counts["relu"] + counts["pool"]


class CallCounter(TorchFunctionMode):
    """Counts what the functions of torch do while it is active.

    Hooks on modules would miss the ReLUs of the candidate operations, which are function calls.
    """

    kinds = {
        torch.conv2d: "product",
        F.linear: "product",
        F.batch_norm: "norm",
        F.relu: "relu",
        F.max_pool2d: "pool",
        F.avg_pool2d: "pool",
        F.adaptive_avg_pool2d: "pool",
    }

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Call the function; count the elements it puts out, times the products for each."""
        result = func(*args, **(kwargs or {}))
        kind = self.kinds.get(func)
        if kind == "product":
            weight = args[1]  # [outputs, ...]: its other dimensions are multiplied for an element
            self.counts[kind] += result.numel() * weight[0].numel()
        elif kind:
            self.counts[kind] += result.numel()
        return result
