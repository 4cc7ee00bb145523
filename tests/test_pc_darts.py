"""PC-DARTS: its equations, masks and settings."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from builders import assert_same_state
from common.baselines.darts import DARTSConfig
from common.errors import InputError
from common.networks.genotype import CANDIDATES
from common.networks.macro import Place
from common.supernet.cell import Mix
from common.supernet.supernet import SuperNet, shape
from common.training.schedules import LearningRate
from pc_darts.config import PRESETS, PCDARTSConfig
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import MaskedMix, PartialCell, PCDARTSSuperNet, RandomMaskCell

SMALL = {"channels": 8, "cells": 4, "classes": 5}


class Unchanged(torch.nn.Module):
    """Replaces a cell's input convolutions."""

    def past_relu(self, s0, s1):
        return [s0, s1]


def one_node(kind, C, K):
    """A normal cell with one node, whose states are the inputs themselves."""
    cell = kind(Place(0, C, (C, C), False, False), 1, CANDIDATES, K).double()
    cell.inputs = Unchanged()
    return cell


def decided(supernet):
    """In float64, with architecture parameters far from equal."""
    for parameter in supernet.arch_parameters():
        parameter.data.mul_(500)
    return supernet.double()


def batch(size=16):
    return torch.randn(4, 3, size, size).double(), torch.tensor([0, 1, 2, 4])


# ------------------------------------------------------------------------------------ the equations


def test_counts_at_the_papers_setting():
    supernet = PCDARTSSuperNet()
    assert sum(p.numel() for p in supernet.weight_parameters()) == 299_578  # facts, section 7
    assert sum(p.numel() for p in supernet.arch_parameters()) == 252


def test_equations_1_and_2_on_one_node_written_out():
    torch.manual_seed(0)
    K, C = 4, 8
    cell = one_node(PartialCell, C, K)
    x = [torch.randn(2, C, 6, 6).double() for _ in range(2)]
    alpha, beta = torch.randn(2, 8).double(), torch.randn(2).double()

    def norm(y):
        return F.batch_norm(y, None, None, training=True)

    def o(name, z, e):  # a candidate on edge e, from its stacked weights
        if "conv" not in name:
            return {
                "none": torch.zeros_like(z),
                "max_pool_3x3": norm(F.max_pool2d(z, 3, 1, 1)),
                "avg_pool_3x3": norm(F.avg_pool2d(z, 3, 1, 1, count_include_pad=False)),
                "skip_connect": z,
            }[name]
        size, dilation = int(name[-1]), 2 if name.startswith("dil") else 1
        for unit in cell.steps[0].candidates[name].units:
            z = F.conv2d(
                F.relu(z), unit.depthwise.weight[e], padding=dilation * (size - 1) // 2,
                dilation=dilation, groups=C // K,
            )
            z = norm(F.conv2d(z, unit.pointwise.weight[e]))
        return z

    S = torch.arange(C) < C // K  # the first 1/K of the channels
    node = 0
    for i in range(2):
        p = alpha[i].exp() / alpha[i].exp().sum()
        f = x[i].clone()
        f[:, S] = sum(p[k] * o(name, x[i][:, S], i) for k, name in enumerate(CANDIDATES))
        node = node + beta[i].exp() / beta.exp().sum() * f
    order = [g * (C // K) + c for c in range(C // K) for g in range(K)]  # the authors' shuffle
    found = cell(*x, Mix(alpha.softmax(-1), beta.softmax(0)))
    torch.testing.assert_close(found, node[:, order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("edge_normalization", [True, False])
@pytest.mark.parametrize(
    ("K", "nodes", "size"), [(4, 4, 16), (2, 3, 10), (1, 2, 12), (8, 2, 9), (1, 2, 4)]
)
def test_the_fast_form_is_the_equation_form_for_every_K(K, nodes, size, edge_normalization):
    """Odd sizes, and maps of one pixel at the end (4 pixels at the start)."""
    torch.manual_seed(0)
    how = {"K": K, "nodes": nodes, "edge_normalization": edge_normalization, **SMALL}
    fast, slow = decided(PCDARTSSuperNet(**how)), EquationPCDARTS(**how).double()
    slow.load_state_dict(fast.state_dict())
    data, logits = batch(size), []
    for supernet in (fast, slow):
        loss, out = supernet.loss(*data)
        loss.backward()
        logits.append(out)
    torch.testing.assert_close(*logits, rtol=0, atol=1e-10)
    assert any(name.startswith("beta") for name in fast.arch) == edge_normalization
    for supernet in (fast, slow):
        assert all(p.grad.abs().max() > 1e-4 for p in supernet.arch_parameters())
        for p in supernet.parameters():  # gradients, by the names of a checkpoint
            p.data = torch.zeros_like(p) if p.grad is None else p.grad
    assert_same_state(fast.state_dict(), slow.state_dict())


def test_beta_is_normalised_over_each_nodes_edges():
    supernet = decided(PCDARTSSuperNet(**SMALL))
    weight, beta = supernet.mix("normal").edge, supernet.arch["beta_normal"]
    for rows in (slice(0, 2), slice(2, 5), slice(5, 9), slice(9, 14)):  # nodes 2 to 5
        torch.testing.assert_close(weight[rows], beta[rows].exp() / beta[rows].exp().sum())


def test_beta_begins_as_small_noise():
    torch.manual_seed(0)
    arch = PCDARTSSuperNet(K=2, channels=4, cells=3).arch
    betas = torch.stack([arch["beta_normal"], arch["beta_reduction"]]).detach()
    assert 5e-4 < betas.std() < 2e-3 and len(betas.unique()) == betas.numel()


def test_without_partial_channels_and_edge_normalisation_it_is_darts():
    torch.manual_seed(0)
    ours = decided(PCDARTSSuperNet(K=1, edge_normalization=False, **SMALL))
    darts = SuperNet(**SMALL).double()
    darts.load_state_dict(ours.state_dict())
    data = batch()
    torch.testing.assert_close(ours.loss(*data), darts.loss(*data), rtol=0, atol=1e-12)
    assert ours.derive() == darts.derive()


def test_derivation_ranks_by_alpha_times_beta():
    """Into node 3, the edge with the strongest alpha has the weakest beta."""
    supernet = PCDARTSSuperNet(**SMALL, nodes=2)
    for parameter in supernet.arch_parameters():
        parameter.data.zero_()
    alpha, beta = supernet.arch["alpha_normal"].data, supernet.arch["beta_normal"].data
    alpha[2, CANDIDATES.index("sep_conv_3x3")] = 3
    alpha[3, CANDIDATES.index("max_pool_3x3")] = 1
    alpha[4, CANDIDATES.index("none")] = 5
    alpha[4, CANDIDATES.index("dil_conv_5x5")] = 4
    beta[2:] = torch.tensor([-4.0, 1.0, 0.0])
    edges = supernet.derive()["normal"].into(3)
    found = [(edge.source, edge.op.name) for edge in edges]
    # softmax(alpha) of these operations: 0.74, 0.28, 0.26; softmax(beta): 0.005, 0.73, 0.27
    assert found == [(1, "max_pool_3x3"), (2, "dil_conv_5x5")]


# --------------------------------------------------------------------------------- the random mask


def test_a_random_mask_selects_C_over_K_channels_and_keeps_all_in_place():
    generator = torch.Generator().manual_seed(5)
    cell = one_node(RandomMaskCell, 8, 4)
    x = [torch.randn(2, 8, 6, 6).double() for _ in range(2)]

    def out(weights, states):
        order = [torch.randperm(8, generator=generator) for _ in range(2)]
        return cell(*states, MaskedMix(weights, order=order))

    identity = F.one_hot(torch.tensor(CANDIDATES.index("skip_connect")), 8).double().expand(2, 8)
    torch.testing.assert_close(out(identity, x), x[0] + x[1])
    masks = set()
    for _ in range(20):  # the selected channels get weight 0, the others bypass
        zero = (out(torch.zeros(2, 8).double(), [x[0], 0 * x[1]]) == 0).all(0).flatten(1).all(1)
        masks.add(tuple(zero.nonzero().flatten().tolist()))
    assert {len(mask) for mask in masks} == {2} and len(masks) > 5


def test_masks_are_drawn_for_every_edge_and_pass():
    supernet = PCDARTSSuperNet(mask="random", **SMALL)
    generator = torch.Generator().manual_seed(0)
    passes = [supernet.mixes(generator) for _ in range(2)]
    orders = [tuple(order.tolist()) for mixes in passes for mix in mixes for order in mix.order]
    assert len(set(orders)) == len(orders) == 2 * SMALL["cells"] * 14


def test_a_random_mask_of_all_channels_is_the_first_mask():
    torch.manual_seed(0)
    first = PCDARTSSuperNet(K=1, **SMALL).double()
    drawn = PCDARTSSuperNet(K=1, mask="random", **SMALL).double()
    drawn.load_state_dict(first.state_dict())
    images, _ = batch()
    in_order = [
        MaskedMix(mix.op, mix.edge, [torch.arange(place.channels)] * 14)
        for mix, place in zip(first.mixes(), first.places, strict=True)
    ]
    torch.testing.assert_close(drawn(images, in_order), first(images), rtol=0, atol=1e-10)


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(("preset", "differs"), [
    ("cifar10", {  # section 4.2
        "dataset": "cifar10", "K": 4, "batch_size": 256, "warmup_epochs": 15, "learning_rate": 0.1,
        "weight_decay": 3e-4, "arch_learning_rate": 6e-4, "arch_grad_clip": 0,
        "learning_rate_warmup": 0, "train_share": None, "valid_share": None,
    }),
    ("imagenet", {  # section 4.3; the rate's warm-up and alpha's clipping are the authors' code
        "dataset": "imagenet", "K": 2, "batch_size": 1024, "warmup_epochs": 35,
        "learning_rate": 0.5, "weight_decay": 3e-5, "arch_learning_rate": 6e-3,
        "arch_grad_clip": 5.0, "learning_rate_warmup": 5, "train_share": 0.1, "valid_share": 0.025,
    }),
])  # fmt: skip
def test_presets_are_the_papers_settings(preset, differs):
    config = PRESETS[preset].resolved()
    config.check()
    paper = {
        "cells": 8, "channels": 16, "nodes": 6, "epochs": 50, "learning_rate_min": 0.0,
        "momentum": 0.9, "arch_beta1": 0.5, "arch_beta2": 0.999, "arch_weight_decay": 1e-3,
        "edge_normalization": True, "mask": "first", "limit_images": None, "grad_clip": 5.0,
        "cutout": 0, "flip": True, "image_size": None, **differs,
    }  # fmt: skip
    assert {key: getattr(config, key) for key in paper} == paper


def test_the_imagenet_supernet_reduces_eightfold_before_its_cells():
    images = SimpleNamespace(classes=range(1000), shape=(3, 224, 224))
    with torch.device("meta"):
        supernet = PCDARTSSuperNet(K=2, **shape(PRESETS["imagenet"], images))
        s0, s1 = supernet.stem(torch.rand(2, 3, 224, 224))
    assert (s0.shape, s1.shape) == ((2, 48, 56, 56), (2, 48, 28, 28))
    widths = [m.weight.shape[:2] for m in supernet.stem.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [(24, 3), (48, 24), (48, 48)]  # the authors' supernet
    assert supernet.classifier.weight.shape == (1000, 4 * 64)


def test_the_learning_rate_of_the_imagenet_search():
    """0.1 more in each of the first five epochs (authors' code), then the cosine."""
    config = PRESETS["imagenet"].resolved()
    sgd = torch.optim.SGD([torch.zeros(1)], config.learning_rate)
    schedule = LearningRate(
        "cosine", sgd, config.epochs, config.learning_rate_min, config.learning_rate_warmup
    )
    rates = []
    for epoch in range(50):
        schedule.step(epoch)
        rates.append(sgd.param_groups[0]["lr"])
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    cosine = [0.25 * (1 + math.cos(math.pi * epoch / 50)) for epoch in range(5, 50)]
    assert rates[5:] == pytest.approx(cosine)


@pytest.mark.parametrize(("preset", "given", "size", "rate"), [
    ("cifar10", {"K": 1}, 64, 0.025), ("cifar10", {"K": 2}, 128, 0.05),
    ("cifar10", {"K": 8}, 512, 0.2), ("imagenet", {"K": 1}, 512, 0.25),
    ("imagenet", {"K": 4}, 2048, 1.0),
    ("cifar10", {"K": 8, "batch_size": 96, "learning_rate": 0.3}, 96, 0.3),
    ("imagenet", {"K": 8, "batch_size": 96, "learning_rate": 0.3}, 96, 0.3),
])  # fmt: skip
def test_batch_and_learning_rate_follow_K_unless_given(preset, given, size, rate):
    config = dataclasses.replace(PRESETS[preset], **given).resolved()
    assert (config.batch_size, config.learning_rate) == (size, rate)


def test_the_readmes_flags_for_darts_are_darts_settings():
    flags = {"K": 1, "edge_normalization": False, "warmup_epochs": 0, "learning_rate_min": 0.001,
             "arch_learning_rate": 3e-4}  # fmt: skip
    config = PCDARTSConfig(**flags).resolved()
    assert config.learning_rate_warmup == 0
    for field in dataclasses.fields(DARTSConfig):
        if field.name not in ("order", "preset"):
            expected = getattr(DARTSConfig(), field.name)
            assert getattr(config, field.name) == expected, field.name


def test_K_must_divide_the_channels():
    with pytest.raises(InputError, match=r"--K 3.*\[1, 2, 4, 8, 16\]"):
        dataclasses.replace(PCDARTSConfig(), K=3).resolved().check()


def test_the_digits_preset_searches_the_papers_cell_for_60_steps():
    config = PRESETS["digits"].resolved()
    steps = (1437 // 2) // config.batch_size * (config.epochs - config.warmup_epochs)
    assert config.nodes == 6 and config.cells >= 3 and steps >= 60
