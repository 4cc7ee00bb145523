"""Derived networks as timm models.

    import timm, common.networks.timm_models

    timm.create_model("nas_pc_darts_cifar10", num_classes=7, in_chans=1)   # as on CIFAR: 20 cells
    timm.create_model("nas_gdas", img_size=224, features_only=True)        # as on ImageNet
    timm.create_model("retrained_nas", folder="runs/...")                  # as a run has trained it

There is a `nas_<name>` for every published image genotype. Its weights are random, its size is the
one that its paper evaluates: by `img_size` (32) that of CIFAR, or from 128 pixels on of ImageNet;
`channels` and `cells` say otherwise. The images of a model may have any size: `img_size` chooses
the stem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from common.networks.genotype import Genotype, load
from common.networks.macro import check_size
from common.networks.network import Network

__all__ = ["TimmNetwork", "retrained_nas"]  # timm adds the names of its entry points


class TimmNetwork(Network):
    """A derived network with the methods and arguments of timm's models.

    Args:
        genotype: see `Network`; so are channels and cells.
        channels: of the first cell's nodes.
        cells: how many.
        num_classes: outputs of the classifier; 0: none.
        in_chans: of the images.
        large_images: the ImageNet stem instead of CIFAR's.
        drop_rate: of a dropout before the classifier.
        drop_path_rate: probability to drop an edge; alike everywhere and all the time, where the
            papers' own training (`evaluate/train.py`) lets it grow with the epochs.
        global_pool: a pooling by timm's name; "": none.

    Attributes:
        feature_info: the last map of each resolution, where its size is about to change.
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
        """What timm wants to know of each feature; `cell` is ours, -1 the stem's first output."""
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
        s0, s1 = self.stem(images)
        for cell in self.cells:
            s0, s1 = s1, self._run(cell, s0, s1)
        return s1

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """From `forward_features`' map to logits, or to what the classifier is given."""
        x = self.head_drop(self.global_pool(x))
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
        """The maps of `feature_info`, as outputs of cells (the next one begins with a ReLU).

        Args:
            x: images [B, in_chans, H, W].
            indices: which of them, in this order; the last so many if an int; None: all.
            norm: without effect; there is no last normalisation.
            stop_early: compute no more than they need.
            output_fmt: only NCHW.
            intermediates_only: return them without the last map computed.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt {output_fmt}: the maps are NCHW")
        taken, _ = feature_take_indices(len(self.feature_info), indices)
        wanted = [self.feature_info[index]["cell"] for index in taken]
        s0, s1 = self.stem(x)
        maps = {-1: s0}
        for index, cell in enumerate(self.cells):
            if stop_early and index > max(wanted):
                break
            s0, s1 = s1, self._run(cell, s0, s1)
            if index in wanted:
                maps[index] = s1
        intermediates = [maps[index] for index in wanted]
        return intermediates if intermediates_only else (s1, intermediates)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove the cells and the head that these features do not need; their positive indices."""
        taken, last = feature_take_indices(len(self.feature_info), indices)
        self.cells = self.cells[: self.feature_info[last]["cell"] + 1]
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def _run(self, cell: nn.Module, s0: Tensor, s1: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training:
            return checkpoint(cell, s0, s1, use_reentrant=False)
        return cell(s0, s1)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute a cell's inside anew in the backward pass instead of keeping it.

        Its normalisations' running statistics then move twice a step.
        """
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer (0: none), and another pooling before it unless that is None."""
        if global_pool is None:
            global_pool = self.global_pool.pool_type
        self.num_classes = num_classes
        self.global_pool, classifier = create_classifier(
            self.num_features, num_classes, pool_type=global_pool
        )
        self.classifier = classifier.to(next(self.parameters()).device)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """For learning rates that differ by depth: the stem, then cell by cell."""
        return {"stem": r"^stem", "blocks": r"^cells\.(\d+)"}

    def no_weight_decay(self) -> set[str]:
        """No parameter is exempt by name."""
        return set()


# ------------------------------------------------------------------------------------ entry points


def default_cfg(shape: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    """timm's description of a model: its images [C, H, W] and how they are normalised, its ends.

    Images of CIFAR's statistics, from 128 pixels on of ImageNet's.
    """
    big = large(shape)
    mean, std = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if big else STATISTICS["cifar10"]
    reduced = 32 if big else 4
    if shape[0] != 3:  # nobody knows theirs: the three colours' average
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
    """A model as timm builds it: the network, or with `features_only` what yields its maps.

    Args:
        variant: the model's name.
        genotype: its cells.
        shape: of its images, [C, H, W].
        pretrained: whether its description says where its weights are.
        **kwargs: of `TimmNetwork` and of `timm.models.build_model_with_cfg`.

    Raises:
        InputError: the images or channels are too few, or the genotype has no such network.
    """
    check_size(shape, kwargs["channels"])
    features = 4 if large(shape) else 3
    return build_model_with_cfg(
        TimmNetwork, variant, pretrained,
        feature_cfg={"feature_cls": "getter", "out_indices": tuple(range(features))},
        genotype=genotype, in_chans=shape[0], large_images=large(shape), **kwargs,
    )  # fmt: skip


def retrained_nas(pretrained: bool = True, *, folder: str | Path, **kwargs: Any) -> nn.Module:
    """The network of a finished retraining with its weights, whatever `pretrained` says.

    Other `num_classes` or `in_chans` than the run's replace its last layer or adapt its first, as
    timm does (which learnt only lately to adapt other weights than those of three channels).

    Args:
        pretrained: timm's; a run is.
        folder: of the run, of `evaluate/train.py`.
        **kwargs: see `build`.

    Raises:
        InputError: no finished retraining there.
    """
    from common.networks.trained import load_trained

    trained = load_trained(Path(folder))
    cfg = default_cfg(
        trained.shape, num_classes=len(trained.classes), label_names=trained.classes,
        mean=trained.mean, std=trained.std, state_dict=trained.network.state_dict(),
    )  # fmt: skip
    channels, cells = trained.config["channels"], trained.config["cells"]
    shape = (kwargs.pop("in_chans", trained.shape[0]), *trained.shape[1:])
    model = build(
        "retrained_nas", trained.genotype, shape, True,
        channels=channels, cells=cells, **{**kwargs, "pretrained_cfg": cfg},
    )  # fmt: skip
    for part in model.modules():  # nobody copies the weights with the description from here on
        getattr(part, "pretrained_cfg", {}).pop("state_dict", None)
    return model


def published_nas(
    name: str,
    pretrained: bool = False,
    img_size: int | tuple[int, int] = 32,
    in_chans: int = 3,
    **kwargs: Any,
) -> nn.Module:
    """The network of a published genotype, in the size that its paper evaluates.

    Args:
        name: of the genotype.
        pretrained: only with a `pretrained_cfg` that says where weights are.
        img_size: pixels, or height and width.
        in_chans: of the images.
        **kwargs: see `build`; `channels` and `cells` for another size.

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
register_model(retrained_nas)
