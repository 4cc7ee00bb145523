"""Derived networks as timm models."""

import pytest
import timm
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, create_transform, resolve_data_config
from timm.models import FeatureHookNet, FeatureListNet
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn

import common.networks.timm_models
from common.errors import InputError
from common.networks import zoo
from common.networks.genotype import load
from common.networks.network import Network
from common.networks.trained import load_trained

TINY = {"channels": 4, "cells": 5}  # reductions at 1 and 3
NAMES = [f"nas_{name}" for name in zoo.image_names()]


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def tiny(name="nas_darts_v2", **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **{**TINY, **kwargs})


def params(model):
    return sum(parameter.numel() for parameter in model.parameters())


# ---------------------------------------------------------------------------------------- by name


def test_timm_lists_all_published_image_genotypes():
    assert timm.list_models("nas_*") == sorted(NAMES)
    assert not any(name.endswith("_rnn") for name in NAMES)
    for name in NAMES:
        assert getattr(common.networks.timm_models, name).__name__ == name
        assert timm.get_pretrained_cfg(name).input_size == (3, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_with_other_classes_and_channels(name):
    model = tiny(name, num_classes=7, in_chans=1)
    assert model(noise(2, 1, 33, 30)).shape == (2, 7)
    assert model.num_classes == 7 and model.in_chans == 1


@pytest.mark.parametrize(
    ("name", "img_size", "classes", "cells", "expected"),
    [
        ("nas_pc_darts_cifar10", {}, 10, 20, 3_634_678),
        ("nas_pc_darts_imagenet", {"img_size": 224}, 1000, 14, 5_342_464),
        ("nas_gdas", {"img_size": 224}, 1000, 14, 5_345_075),  # 50 channels
    ],
)
def test_the_default_size_is_the_papers(name, img_size, classes, cells, expected):
    with torch.device("meta"):
        model = timm.create_model(name, **img_size)
    assert (model.num_classes, len(model.cells), params(model)) == (classes, cells, expected)


def test_channels_and_cells_change_the_size():
    with torch.device("meta"):
        model = timm.create_model("nas_gdas", img_size=(224, 160), channels=48, cells=8)
    assert len(model.cells) == 8 and model.places[0].channels == 48
    assert model.pretrained_cfg["input_size"] == (3, 224, 160)


def test_checkpoints_are_those_of_the_network():
    network = Network(load("darts_v2"), **TINY, classes=10).eval()
    model = tiny().eval()
    model.load_state_dict(network.state_dict())
    x = noise(2, 3, 16, 16)
    torch.testing.assert_close(model(x), network(x), rtol=0, atol=0)


def test_impossible_models_are_refused():
    with pytest.raises(InputError, match="images of 3x3 pixels are too small"):
        tiny(img_size=3)
    with pytest.raises(InputError, match="multiple of 4"):
        tiny("nas_gdas_frc", channels=6)
    with pytest.raises(RuntimeError, match="No pretrained weights"):
        tiny(pretrained=True)


# --------------------------------------------------------------------------------------- the head


def test_forward_is_features_then_head():
    model = tiny().eval()
    x = noise(2, 3, 16, 16)
    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, 4, 4) and model.num_features == 64
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    torch.testing.assert_close(model(x), model.get_classifier()(pooled))


def test_reset_classifier():
    model = tiny()
    model.reset_classifier(3)
    assert model(noise(2, 3, 16, 16)).shape == (2, 3) and model.num_classes == 3
    model.reset_classifier(5, "catavgmax")
    assert model.get_classifier().in_features == model.head_hidden_size == 2 * 64
    assert model(noise(2, 3, 16, 16)).shape == (2, 5)
    model.reset_classifier(0)
    assert model(noise(2, 3, 16, 16)).shape == (2, 128)
    model.reset_classifier(0, "")
    assert model(noise(2, 3, 16, 16)).shape == (2, 64, 4, 4)
    assert isinstance(tiny(num_classes=0).get_classifier(), nn.Identity)
    assert tiny(global_pool="max").global_pool.pool_type == "max"


def test_drop_rate_drops_the_classifiers_input():
    model = tiny(drop_rate=0.5)
    ones = torch.ones(2, 64, 4, 4)
    dropped = model.forward_head(ones, pre_logits=True)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (model.eval().forward_head(ones, pre_logits=True) == 1).all()


def test_drop_path_rate_drops_edges_in_training():
    x = noise(4, 3, 16, 16)
    for rate, differs in ((0.0, False), (0.4, True)):
        model = tiny(drop_path_rate=rate)
        outputs = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            outputs.append(model(x))
        assert torch.equal(*outputs) is not differs
        model.eval()
        assert torch.equal(model(x), model(x))


def test_gradient_checkpointing_changes_no_gradient():
    x, gradients = noise(2, 3, 8, 8), []
    for enable in (False, True):
        model = tiny(drop_path_rate=0.3)
        model.set_grad_checkpointing(enable)
        calls = []
        model.cells[2].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(1)  # the recomputation drops the same edges
        model(x).square().sum().backward()
        assert len(calls) == 1 + enable
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


# --------------------------------------------------------------------------------------- features


def every_map(model, x):
    """Outputs of the stem's first part and of each cell."""
    maps = {}
    parts = {f"cells.{k}": cell for k, cell in enumerate(model.cells)}
    if hasattr(model.stem, "quarter"):
        parts["stem.quarter"] = model.stem.quarter
    for name, part in parts.items():
        part.register_forward_hook(lambda *args, name=name: maps.update({name: args[-1]}))
    model(x)
    return maps


@pytest.mark.parametrize(
    ("size", "names", "reductions", "channels"),
    [
        (32, ["cells.0", "cells.2", "cells.4"], [1, 2, 4], [16, 32, 64]),
        (128, ["stem.quarter", "cells.0", "cells.2", "cells.4"], [4, 8, 16, 32], [4, 16, 32, 64]),
    ],
)
def test_features_are_the_last_maps_of_each_resolution(size, names, reductions, channels):
    x = noise(2, 3, size + 1, size)
    model = tiny(img_size=size).eval()
    maps = every_map(model, x)
    for extractor in ("getter", "hook"):
        features = tiny(img_size=size, features_only=True, feature_cls=extractor).eval()
        assert features.feature_info.channels() == channels
        assert features.feature_info.reduction() == reductions
        assert features.feature_info.module_name() == names
        for map_, name, reduction in zip(features(x), names, reductions, strict=True):
            torch.testing.assert_close(map_, maps[name])
            assert map_.shape[2:] == tuple(-(-side // reduction) for side in x.shape[2:])
    assert isinstance(features, FeatureHookNet) and not isinstance(features, FeatureListNet)


@pytest.mark.parametrize("cells", [3, 4, 5, 6])
@pytest.mark.parametrize("size", [32, 128])
def test_reductions_are_those_of_the_maps(size, cells):
    """Also if a small network ends in a reduction cell, or has two in a row."""
    x = noise(2, 3, size, size)
    features = tiny(cells=cells, img_size=size, features_only=True).eval()
    with torch.no_grad():
        sides = [map_.shape[-1] for map_ in features(x)]
    assert features.feature_info.reduction() == [size // side for side in sides]


def test_out_indices_remove_unneeded_cells():
    x = noise(2, 3, 32, 32)
    first, second, last = tiny(features_only=True).eval()(x)
    middle = tiny(features_only=True, out_indices=(1,)).eval()
    assert len(middle.model.cells) == 3 and middle.feature_info.channels() == [32]
    assert torch.equal(middle(x)[0], second)
    ends = tiny(features_only=True, out_indices=[-1, 0]).eval()
    assert ends.feature_info.channels() == [64, 16]
    assert [torch.equal(*pair) for pair in zip(ends(x), (last, first), strict=True)] == [True] * 2
    stem = tiny(features_only=True, img_size=128, out_indices=(0,))
    assert len(stem.model.cells) == 0 and stem(noise(2, 3, 128, 128))[0].shape == (2, 4, 32, 32)


@pytest.mark.parametrize(("name", "img_size"), [("nas_darts_v2", 32), ("nas_gdas_frc", 224)])
def test_torch_fx_traces_models_for_any_size(name, img_size):
    """timm's third feature extractor needs it."""
    model = tiny(name, img_size=img_size, channels=8).eval()
    graph = torch.fx.symbolic_trace(model)
    for height, width in ((64, 64), (33, 70)):
        x = noise(2, 3, height, width)
        torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)
    x = noise(2, 3, 64, 64)
    features = tiny(name, img_size=img_size, channels=8, features_only=True, feature_cls="fx")
    getter = tiny(name, img_size=img_size, channels=8, features_only=True)
    for one, other in zip(features.eval()(x), getter.eval()(x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_forward_intermediates():
    model, x = tiny().eval(), noise(2, 3, 16, 16)
    last, maps = model.forward_intermediates(x)
    assert [m.shape[1] for m in maps] == [16, 32, 64] and torch.equal(last, maps[-1])
    assert torch.equal(last, model.forward_features(x))
    ran = []
    model.cells[3].register_forward_hook(lambda *_: ran.append(1))
    (only,) = model.forward_intermediates(x, [1], stop_early=True, intermediates_only=True)
    assert torch.equal(only, maps[1]) and ran == []
    assert len(model.forward_intermediates(x, 2, intermediates_only=True)) == 2
    with pytest.raises(ValueError, match="NLC"):
        model.forward_intermediates(x, output_fmt="NLC")


# ------------------------------------------------------------------------ data and training


def test_data_config():
    config = resolve_data_config(model=tiny())
    assert config["input_size"] == (3, 32, 32) and config["crop_pct"] == 1.0
    assert config["mean"] == (0.4914, 0.4822, 0.4465)
    image = Image.new("RGB", (40, 50))
    assert create_transform(**config)(image).shape == (3, 32, 32)
    config = resolve_data_config(model=tiny(img_size=224))
    assert config["input_size"] == (3, 224, 224) and config["mean"] == IMAGENET_DEFAULT_MEAN
    config = resolve_data_config(model=tiny(in_chans=1))
    assert config["input_size"] == (1, 32, 32) and len(config["mean"]) == len(config["std"]) == 1


@pytest.mark.parametrize("size", [32, 33, 224, 225])
def test_description_of_first_and_last_layer_and_pool_size(size):
    """Reductions round odd sizes up."""
    model = tiny(img_size=size)
    cfg = model.default_cfg
    first = model.get_submodule(cfg["first_conv"])
    assert isinstance(first, nn.Conv2d) and first.in_channels == 3
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    assert model.num_classes == cfg["num_classes"] == (10 if size < 128 else 1000)
    with torch.no_grad():
        assert model.forward_features(noise(2, 3, size, size)).shape[2:] == cfg["pool_size"]


def test_timm_trains_a_model():
    model = tiny(num_classes=2)
    ema = ModelEmaV3(model, decay=0.5)
    optimizer = create_optimizer_v2(model, "adamw", lr=0.1, weight_decay=0.05, layer_decay=0.5)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert len(set(scales)) == 1 + 5 + 1  # stem, cells, classifier
    schedule, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=4, warmup_epochs=1)
    x, y = noise(8, 3, 8, 8), torch.arange(8) % 2
    losses = []
    for epoch in range(4):
        loss = nn.functional.cross_entropy(model(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(model)
        schedule.step(epoch + 1)
    assert losses[-1] < losses[0]
    assert not torch.equal(ema.module.classifier.weight, model.classifier.weight)
    assert ema(x).shape == (8, 2)


# ------------------------------------------------------------------------------ a retrained run


def test_a_run_folder(trained_run, tmp_path):
    trained = load_trained(trained_run)
    model = timm.create_model("retrained_nas", folder=trained_run).eval()
    x = noise(2, 1, 9, 8)
    assert torch.equal(model(x), trained.network(x))
    config = resolve_data_config(model=model)
    assert config["input_size"] == trained.shape and config["mean"] == trained.mean
    assert model.pretrained_cfg["label_names"] == trained.classes
    assert "state_dict" not in model.pretrained_cfg and model.num_classes == 10
    with pytest.raises(InputError, match="no run there"):
        timm.create_model("retrained_nas", folder=tmp_path / "other")


def test_a_run_folder_fine_tuned(trained_run):
    """With another last layer, and as a backbone."""
    network = load_trained(trained_run).network
    network.classifier = nn.Identity()
    model = timm.create_model("retrained_nas", folder=trained_run, num_classes=8).eval()
    x = noise(2, 1, 9, 8)
    assert model(x).shape == (2, 8)
    torch.testing.assert_close(model.forward_head(model.forward_features(x), True), network(x))
    features = timm.create_model("retrained_nas", folder=trained_run, features_only=True).eval()
    assert torch.equal(features(x)[-1], model.forward_features(x))
    assert "state_dict" not in features.pretrained_cfg
    assert "state_dict" not in features.model.pretrained_cfg
