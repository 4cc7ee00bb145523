"""Derived networks as timm models.

    import timm, common.networks.timm_models

    timm.create_model("nas_pc_darts_cifar10", num_classes=7, in_chans=1)   # CIFAR's size: 20 cells
    timm.create_model("nas_gdas", img_size=224, features_only=True)        # ImageNet's size
    timm.create_model("retrained_nas", folder="runs/...")                  # with a run's weights
    timm.create_model("local-dir:runs/.../timm", pretrained=True)          # written by export.py

There is a `nas_<name>` for every published image genotype, with random weights. `img_size` (default
32) chooses the stem and the paper's network: CIFAR's, or from 128 pixels on ImageNet's; `channels`
and `cells` change it. Images may have any size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import create_classifier, to_2tuple
from timm.models import build_model_with_cfg, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.data.datasets import STATISTICS
from common.data.images import large
from common.networks import zoo
from common.networks.genotype import Genotype, load, parse
from common.networks.macro import check_size
from common.networks.network import Network
from common.networks.trained import Trained, load_trained

__all__ = ["TimmNetwork", "derived_nas", "retrained_nas"]  # timm adds the names of its entry points


class TimmNetwork(Network):
    """A derived network with the methods and arguments of timm's models.

    Args:
        genotype, channels, cells, large_images: see `Network`.
        num_classes: outputs of the classifier; 0: no classifier.
        in_chans: channels of the images.
        drop_rate: of a dropout before the classifier.
        drop_path_rate: probability to drop an edge. It is constant; the papers' training
            (`evaluate/train.py`) increases it with the epochs.
        global_pool: timm's name of a pooling; "": none.

    Attributes:
        feature_info: describes the last map of each resolution.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        cells: int,
        num_classes: int = 10,
        in_chans: int = 3,
        large_images: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__(
            genotype, channels, cells, classes=0, image_channels=in_chans,
            large_images=large_images,
        )
        self.in_chans = in_chans
        self.num_features = self.widths[-1]
        self.feature_info = self._feature_info()
        self.grad_checkpointing = False
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        self.set_drop_path(drop_path_rate)

    def _feature_info(self) -> list[dict[str, Any]]:
        """timm's description of each feature map; `cell` is ours, -1 for the stem's first map."""
        info, reduction = [], 1
        if self.stem.after_reduction:
            info = [{"module": "stem.quarter", "cell": -1, "reduction": 4,
                     "num_chs": self.stem.outputs[0]}]  # fmt: skip
            reduction = 8
        for place, width in zip(self.places, self.widths, strict=True):
            reduction *= 2 if place.reduction else 1
            last = place.index == len(self.places) - 1
            if last or self.places[place.index + 1].reduction:
                info.append({"module": f"cells.{place.index}", "cell": place.index,
                             "reduction": reduction, "num_chs": width})  # fmt: skip
        return info

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> logits [B, num_classes]."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> the last cell's output [B, num_features, H', W']."""
        *earlier, out = self.stem(images)
        states = [self.handed_on(s) for s in earlier]
        for cell in self.cells:
            states.append(self.handed_on(out))
            out = self._run(cell, *states)
            del states[0]
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """From the map of `forward_features` to logits, or to the classifier's input."""
        x = self.head_drop(self.global_pool(self.head(x)))
        return x if pre_logits else self.classifier(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of `feature_info`, before the ReLU of the next cell.

        Args:
            x: images [B, in_chans, H, W].
            indices: of the maps, in this order; an int: the last ones; None: all.
            norm: no effect, as there is no last normalisation.
            stop_early: skip cells that the maps do not need.
            output_fmt: only NCHW.
            intermediates_only: return the maps without the last output.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt {output_fmt}: the maps are NCHW")
        taken, _ = feature_take_indices(len(self.feature_info), indices)
        wanted = [self.feature_info[index]["cell"] for index in taken]
        *earlier, out = stem = self.stem(x)
        maps = {-1: stem[0]}
        states = [self.handed_on(s) for s in earlier]
        for index, cell in enumerate(self.cells):
            if stop_early and index > max(wanted):
                break
            states.append(self.handed_on(out))
            out = self._run(cell, *states)
            del states[0]
            if index in wanted:
                maps[index] = out
        intermediates = [maps[index] for index in wanted]
        return intermediates if intermediates_only else (out, intermediates)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove the cells and the head that these features do not need; return their indices."""
        taken, last = feature_take_indices(len(self.feature_info), indices)
        self.cells = self.cells[: self.feature_info[last]["cell"] + 1]
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def _run(self, cell: nn.Module, *states: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training:
            return checkpoint(cell, *states, use_reentrant=False)
        return cell(*states)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute cells in the backward pass instead of keeping their activations.

        This updates running statistics twice per step.
        """
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier (0: none), and the pooling unless it is None."""
        if global_pool is None:
            global_pool = self.global_pool.pool_type
        self.num_classes = num_classes
        self.global_pool, classifier = create_classifier(
            self.num_features, num_classes, pool_type=global_pool
        )
        self.classifier = classifier.to(next(self.parameters()).device)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Parameter groups by depth: the stem, then each cell."""
        return {"stem": r"^stem", "blocks": r"^cells\.(\d+)"}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay: none."""
        return set()


# ------------------------------------------------------------------------------------ entry points


def default_cfg(shape: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    """timm's description of a model: images [C, H, W], their normalisation, first and last layer.

    Images have CIFAR's statistics, from 128 pixels on ImageNet's.
    """
    big = large(shape)
    mean, std = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if big else STATISTICS["cifar10"]
    reduced = 32 if big else 4
    if shape[0] != 3:  # unknown statistics: the average of the three colours
        mean, std = ((sum(values) / 3,) * shape[0] for values in (mean, std))
    return {
        "input_size": shape, "mean": mean, "std": std,
        "num_classes": 1000 if big else 10,
        "pool_size": tuple(-(-side // reduced) for side in shape[1:]),
        "interpolation": "bilinear", "crop_pct": 0.875 if big else 1.0,
        "first_conv": "stem.quarter.0" if big else "stem.0", "classifier": "classifier",
        **more,
    }  # fmt: skip


def build(
    variant: str, genotype: Genotype, shape: tuple[int, int, int], pretrained: bool, **kwargs: Any
) -> nn.Module:
    """Build a model with timm: the network, or with `features_only` a feature extractor.

    Args:
        variant: name of the model.
        genotype: its cells.
        shape: of its images, [C, H, W].
        pretrained: load the weights of its description.
        **kwargs: of `TimmNetwork` and of `timm.models.build_model_with_cfg`.

    Raises:
        InputError: images or channels are too small, or the genotype has no such network.
    """
    check_size(shape, kwargs["channels"])
    features = 4 if large(shape) else 3
    return build_model_with_cfg(
        TimmNetwork, variant, pretrained,
        feature_cfg={"feature_cls": "getter", "out_indices": tuple(range(features))},
        genotype=genotype, in_chans=shape[0], large_images=large(shape), **kwargs,
    )  # fmt: skip


def retrained_nas(pretrained: bool = True, *, folder: str | Path, **kwargs: Any) -> nn.Module:
    """The network of a finished retraining, always with its weights.

    Another `num_classes` replaces the last layer, another `in_chans` adapts the first, as timm does
    (only recent versions adapt weights of other than three channels).

    Args:
        pretrained: ignored.
        folder: of a run of `evaluate/train.py`.
        **kwargs: see `derived_nas`.

    Raises:
        InputError: the folder is not a finished retraining.
    """
    trained = load_trained(Path(folder))
    cfg = {**cfg_of(trained), "state_dict": trained.network.state_dict()}
    model = derived_nas(True, **{**arguments_of(trained), **kwargs, "pretrained_cfg": cfg})
    for part in model.modules():  # do not keep a second copy of the weights
        getattr(part, "pretrained_cfg", {}).pop("state_dict", None)
    return model


def cfg_of(trained: Trained) -> dict[str, Any]:
    """timm's description of a retrained network, without the place of its weights."""
    return default_cfg(
        trained.shape, num_classes=len(trained.classes), label_names=trained.classes,
        mean=trained.mean, std=trained.std,
    )  # fmt: skip


def arguments_of(trained: Trained) -> dict[str, Any]:
    """The arguments of `derived_nas` for a retrained network, as plain values."""
    channels, *size = trained.shape
    return {
        "genotype": trained.genotype.to_json(),
        "channels": trained.config["channels"], "cells": trained.config["cells"],
        "img_size": size, "in_chans": channels,
    }  # fmt: skip


def derived_nas(
    pretrained: bool = False,
    *,
    genotype: Mapping[str, Any],
    channels: int,
    cells: int,
    img_size: int | Sequence[int] = 32,
    in_chans: int = 3,
    **kwargs: Any,
) -> nn.Module:
    """The network of any image genotype.

    Args:
        pretrained: needs a `pretrained_cfg` with the location of weights; a `local-dir:` has one.
        genotype: the content of a genotype.json.
        channels: in the first cell; doubled at each reduction cell.
        cells: number of cells.
        img_size: pixels, or height and width.
        in_chans: channels of the images.
        **kwargs: see `build`.

    Raises:
        InputError: see `build`, or the genotype is not valid.
    """
    shape = (in_chans, *to_2tuple(img_size))
    if not kwargs.get("pretrained_cfg"):
        kwargs["pretrained_cfg"] = default_cfg(shape)
    return build(
        "derived_nas", parse(json.dumps(genotype)), shape, pretrained,
        channels=channels, cells=cells, **kwargs,
    )  # fmt: skip


def published_nas(
    name: str,
    pretrained: bool = False,
    img_size: int | tuple[int, int] = 32,
    in_chans: int = 3,
    **kwargs: Any,
) -> nn.Module:
    """The network of a published genotype, in the paper's size.

    Args:
        name: of the genotype.
        pretrained: needs a `pretrained_cfg` with the location of weights.
        img_size: pixels, or height and width.
        in_chans: channels of the images.
        **kwargs: see `build`; `channels` and `cells` change the size.

    Raises:
        InputError: see `build`.
    """
    shape = (in_chans, *to_2tuple(img_size))
    setting = zoo.setting(name, "imagenet" if large(shape) else "cifar10")
    genotype = load(name)
    if not kwargs.get("pretrained_cfg"):
        kwargs["pretrained_cfg"] = default_cfg(shape, paper_name=genotype.provenance["paper"])
    size = {"channels": setting.channels, "cells": setting.cells}
    return build(f"nas_{name}", genotype, shape, pretrained, **{**size, **kwargs})


def entry_point(name: str) -> Callable[..., nn.Module]:
    """timm's function for a published genotype: `nas_<name>`."""

    def make(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return published_nas(name, pretrained, **kwargs)

    make.__name__ = f"nas_{name}"
    return make


default_cfgs = {f"nas_{name}": default_cfg((3, 32, 32)) for name in zoo.image_names()}
for _name in zoo.image_names():
    globals()[f"nas_{_name}"] = register_model(entry_point(_name))
register_model(derived_nas)
register_model(retrained_nas)
