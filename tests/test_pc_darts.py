"""PC-DARTS against its equations."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from common.baselines.darts import DARTSConfig
from common.data.images import Images
from common.data.split import Split
from common.errors import InputError
from common.networks.genotype import CANDIDATES
from common.networks.macro import Place
from common.run.folder import Run
from common.supernet.cell import Mix
from common.supernet.supernet import SuperNet, shape
from common.training.bilevel import BilevelTrainer
from pc_darts.config import PRESETS, PCDARTSConfig
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import MaskedMix, PartialCell, PCDARTSSuperNet, RandomMaskCell, bypass

SMALL = {"channels": 8, "cells": 4, "classes": 5}


class AsTheyAre(torch.nn.Module):
    """In the place of a cell's inputs: its states are what it is given."""

    def past_relu(self, s0, s1):
        return [s0, s1]


def spread(supernet):
    """Architecture parameters far from zero, so that an error in mixing would show."""
    for parameter in supernet.arch_parameters():
        parameter.data.mul_(500)
    return supernet


def batch(size=16):
    return torch.randn(4, 3, size, size).double(), torch.tensor([0, 1, 2, 4])


@pytest.mark.parametrize("last", [False, True])
def test_maps_of_one_pixel_and_channels_last_have_the_right_gradients(last):
    """Batch normalisation on a CPU reads past a scale that is one number, expanded."""
    torch.manual_seed(0)
    how = {"K": 1, "nodes": 2, "channels": 8, "cells": 3, "classes": 5}
    fast, slow = spread(PCDARTSSuperNet(**how)).double(), EquationPCDARTS(**how).double()
    slow.load_state_dict(fast.state_dict())
    images, labels = batch(8 if last else 4)
    if last:
        images = images.to(memory_format=torch.channels_last)
    fast.loss(images, labels)[0].backward()
    slow.loss(images, labels)[0].backward()
    of_slow = dict(slow.named_parameters())
    for name, parameter in fast.named_parameters():
        if name in of_slow:  # those that are not stacked: inputs, stem, classifier, alpha
            torch.testing.assert_close(parameter.grad, of_slow[name].grad, rtol=0, atol=1e-9)


def test_counts_of_the_paper_setting():
    supernet = PCDARTSSuperNet()
    assert sum(p.numel() for p in supernet.weight_parameters()) == 299_578  # facts, section 7
    assert sum(p.numel() for p in supernet.arch_parameters()) == 252


@pytest.mark.parametrize("edge_normalization", [True, False])
@pytest.mark.parametrize(("K", "nodes", "size"), [(4, 4, 16), (2, 3, 10), (1, 2, 12), (8, 2, 9)])
def test_logits_and_all_gradients_are_those_of_the_equation_form(
    K, nodes, size, edge_normalization
):
    torch.manual_seed(0)
    how = {"K": K, "nodes": nodes, "edge_normalization": edge_normalization, **SMALL}
    fast, slow = spread(PCDARTSSuperNet(**how)).double(), EquationPCDARTS(**how).double()
    slow.load_state_dict(fast.state_dict())
    images, labels = batch(size)
    logits = []
    for supernet in (fast, slow):
        loss, out = supernet.loss(images, labels)
        loss.backward()
        logits.append(out)
    torch.testing.assert_close(*logits, rtol=0, atol=1e-10)
    names = ["alpha_normal", "alpha_reduction"]
    names += ["beta_normal", "beta_reduction"] if edge_normalization else []
    assert list(fast.arch) == names
    for name in names:
        expected = slow.arch[name].grad
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(fast.arch[name].grad, expected, rtol=0, atol=1e-10)
    with torch.no_grad():
        for supernet in (fast, slow):
            for parameter in supernet.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None
                                else parameter.grad)
    expected = slow.state_dict()
    for name, value in fast.state_dict().items():
        if "num_batches_tracked" not in name:
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-10)


def test_equations_1_and_2_on_one_node_written_out():
    torch.manual_seed(0)
    K, C = 4, 8
    place = Place(0, C, (C, C), False, False)
    cell = PartialCell(place, 1, CANDIDATES, K).double()
    cell.inputs = AsTheyAre()
    x = [torch.randn(2, C, 6, 6).double() for _ in range(2)]
    alpha, beta = torch.randn(2, 8).double(), torch.randn(2).double()
    step = cell.steps[0]

    def o(k, z, e):  # candidate k on edge e, from its own stacked weights
        def norm(y):
            return F.batch_norm(y, None, None, training=True)

        name = CANDIDATES[k]
        if name == "none":
            return torch.zeros_like(z)
        if name == "max_pool_3x3":
            return norm(F.max_pool2d(z, 3, 1, 1))
        if name == "avg_pool_3x3":
            return norm(F.avg_pool2d(z, 3, 1, 1, count_include_pad=False))
        if name == "skip_connect":
            return z
        size, dilation = int(name[-1]), 2 if name.startswith("dil") else 1
        for unit in step.candidates[name].units:
            z = F.conv2d(
                F.relu(z), unit.depthwise.weight[e], padding=dilation * (size - 1) // 2,
                dilation=dilation, groups=C // K,
            )
            z = norm(F.conv2d(z, unit.pointwise.weight[e]))
        return z

    node = 0
    for i in range(2):
        S = torch.arange(C) < C // K  # the first 1/K of the channels
        p = alpha[i].exp() / alpha[i].exp().sum()
        f = torch.empty(2, C, 6, 6).double()
        f[:, S] = sum(p[k] * o(k, x[i][:, S], i) for k in range(8))
        f[:, ~S] = x[i][:, ~S]
        node = node + beta[i].exp() / beta.exp().sum() * f
    order = [g * (C // K) + c for c in range(C // K) for g in range(K)]  # where channels come from
    expected = node[:, order]
    got = cell(*x, Mix(alpha.softmax(-1), beta.softmax(0)))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_shuffle_order_of_the_authors():
    cell = PartialCell(Place(0, 16, (16, 16), False, False), 1, CANDIDATES, 4)
    channels = cell.node(torch.arange(16.0).view(1, 16, 1, 1)).flatten().tolist()
    assert channels == [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]


def test_beta_is_normalised_over_each_nodes_edges():
    supernet = spread(PCDARTSSuperNet(**SMALL))
    mix, beta = supernet.mix("normal"), supernet.arch["beta_normal"]
    for node, rows in {2: (0, 2), 3: (2, 5), 4: (5, 9), 5: (9, 14)}.items():
        part = mix.edge[slice(*rows)]
        assert len(part) == node
        torch.testing.assert_close(part, beta[slice(*rows)].exp() / beta[slice(*rows)].exp().sum())


def test_without_partial_channels_and_edge_normalisation_it_is_darts():
    torch.manual_seed(0)
    ours = spread(PCDARTSSuperNet(K=1, edge_normalization=False, **SMALL)).double()
    darts = SuperNet(**SMALL).double()
    darts.load_state_dict(ours.state_dict())
    images, labels = batch()
    results = []
    for supernet in (ours, darts):
        loss, logits = supernet.loss(images, labels)
        results.append([logits, *torch.autograd.grad(loss, supernet.arch_parameters())])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert ours.derive() == darts.derive()


def test_derivation_multiplies_alpha_and_beta():
    supernet = PCDARTSSuperNet(**SMALL, nodes=2)
    for parameter in supernet.arch_parameters():
        parameter.data.zero_()
    k = CANDIDATES.index
    # into node 3: the strongest alpha is on the edge with the weakest beta
    supernet.arch["alpha_normal"].data[2, k("sep_conv_3x3")] = 3
    supernet.arch["alpha_normal"].data[3, k("max_pool_3x3")] = 1
    supernet.arch["alpha_normal"].data[4, k("none")] = 5
    supernet.arch["alpha_normal"].data[4, k("dil_conv_5x5")] = 4
    supernet.arch["beta_normal"].data[2:] = torch.tensor([-4.0, 1.0, 0.0])
    edges = supernet.derive()["normal"].into(3)
    strength = (supernet.mix("normal").op * supernet.mix("normal").edge[:, None])[2:, 1:].amax(1)
    assert [edge.source for edge in edges] == strength.argsort(descending=True)[:2].tolist()
    assert {edge.source for edge in edges} == {1, 2}
    assert {edge.op.name for edge in edges} == {"max_pool_3x3", "dil_conv_5x5"}


def test_bypass_halves_by_a_max_pool_and_weighs_by_beta():
    x = [torch.randn(2, 3, 5, 5) for _ in range(2)]
    beta = torch.rand(2, 3)
    got = bypass(x, beta, stride=2).unflatten(1, (3, 3))  # [B, T, C, H, W]
    for t in range(3):
        expected = sum(beta[s, t] * F.max_pool2d(x[s], 2, ceil_mode=True) for s in range(2))
        torch.testing.assert_close(got[:, t], expected)


def test_random_mask_selects_anew_and_returns_channels_to_their_places(monkeypatch):
    generator = torch.Generator().manual_seed(5)
    place = Place(0, 8, (8, 8), False, False)
    cell = RandomMaskCell(place, 1, CANDIDATES, 4).double()
    cell.inputs = AsTheyAre()

    def masked(op):
        return MaskedMix(op, order=[torch.randperm(8, generator=generator) for _ in range(2)])

    x = [torch.randn(2, 8, 6, 6).double() for _ in range(2)]
    # skip_connect alone, with edge weight 1: both channels mixed and bypassed come out unchanged
    op = torch.zeros(2, 8).double()
    op[:, CANDIDATES.index("skip_connect")] = 1
    torch.testing.assert_close(cell(*x, masked(op)), x[0] + x[1])
    # none alone: what is missing is the mask, 2 of 8 channels, another one each time
    missing = set()
    for _ in range(20):
        out = cell(x[0], torch.zeros_like(x[1]), masked(torch.zeros(2, 8).double()))
        gone = (out == 0).flatten(2).all(2).all(0).nonzero().flatten().tolist()
        assert len(gone) == 2
        missing.add(tuple(gone))
    assert len(missing) > 5


def test_random_mask_with_one_kth_of_all_channels_is_the_first_mask():
    torch.manual_seed(0)
    first = PCDARTSSuperNet(K=1, **SMALL).double()
    drawn = PCDARTSSuperNet(K=1, mask="random", **SMALL).double()
    drawn.load_state_dict(first.state_dict())
    images, _ = batch()
    identity = torch.arange(1000)
    original = torch.randperm
    torch.randperm = lambda n, generator=None: identity[:n]
    try:
        torch.testing.assert_close(drawn(images), first(images), rtol=0, atol=1e-10)
    finally:
        torch.randperm = original


# ----------------------------------------------------------------------------------- the search


def test_the_default_is_section_4_2():
    config = PRESETS["cifar10"].resolved()
    paper = {
        "dataset": "cifar10", "cells": 8, "channels": 16, "nodes": 6, "epochs": 50, "K": 4,
        "batch_size": 256, "warmup_epochs": 15, "learning_rate": 0.1, "learning_rate_min": 0.0,
        "momentum": 0.9, "weight_decay": 3e-4, "arch_learning_rate": 6e-4, "arch_beta1": 0.5,
        "arch_beta2": 0.999, "arch_weight_decay": 1e-3, "edge_normalization": True,
        "mask": "first", "limit_images": None, "grad_clip": 5.0, "cutout": 0,
    }  # fmt: skip
    assert {key: getattr(config, key) for key in paper} == paper


def test_the_imagenet_preset_is_section_4_3():
    config = PRESETS["imagenet"].resolved()
    config.check()
    paper = {
        "dataset": "imagenet", "cells": 8, "channels": 16, "nodes": 6, "epochs": 50, "K": 2,
        "batch_size": 1024, "warmup_epochs": 35, "learning_rate": 0.5, "learning_rate_min": 0.0,
        "momentum": 0.9, "weight_decay": 3e-5, "arch_learning_rate": 6e-3, "arch_beta1": 0.5,
        "arch_beta2": 0.999, "arch_weight_decay": 1e-3, "train_share": 0.1, "valid_share": 0.025,
        "edge_normalization": True, "mask": "first", "limit_images": None,
    }  # fmt: skip
    code = {"grad_clip": 5.0, "arch_grad_clip": 5.0, "learning_rate_warmup": 5, "cutout": 0,
            "flip": True, "image_size": None}
    assert {key: getattr(config, key) for key in (*paper, *code)} == {**paper, **code}


def test_the_imagenet_supernet_reduces_eightfold_before_its_cells():
    files = SimpleNamespace(classes=range(1000), shape=(3, 224, 224))
    with torch.device("meta"):
        supernet = PCDARTSSuperNet(K=2, **shape(PRESETS["imagenet"], files))
        s0, s1 = supernet.stem(torch.rand(2, 3, 224, 224))
    assert (s0.shape, s1.shape) == ((2, 48, 56, 56), (2, 48, 28, 28))
    widths = [layer.weight.shape[:2] for layer in supernet.stem.modules()
              if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [(24, 3), (48, 24), (48, 48)]  # the authors' supernet
    assert [place.reduction for place in supernet.places] == [k in (2, 5) for k in range(8)]
    assert supernet.classifier.weight.shape == (1000, 4 * 64)


def test_the_learning_rate_of_the_imagenet_search(tmp_path, accelerator):
    """The authors' code: a fifth of it more in each of the first five epochs, then the cosine."""
    torch.manual_seed(0)
    images = Images(torch.zeros(16, 1, 8, 8, dtype=torch.uint8), torch.arange(16) % 2,
                    ("a", "b"), (0.5,), (0.5,))
    config = dataclasses.replace(PRESETS["imagenet"].resolved(), batch_size=4, channels=4, cells=3)
    supernet = PCDARTSSuperNet(K=2, channels=4, cells=3, nodes=2, classes=2, image_channels=1)
    run = Run(tmp_path, "test", accelerator)
    split, warmup, rates = Split.halves(16, 0), config.learning_rate_warmup, []
    trainer = BilevelTrainer(config, supernet, run, images, split, rate_warmup=warmup)
    for epoch in range(50):
        trainer.schedule.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    cosine = [0.25 * (1 + math.cos(math.pi * e / 50)) for e in range(50)]
    assert rates[5:] == pytest.approx(cosine[5:])


@pytest.mark.parametrize(("preset", "K", "size", "rate"), [
    ("cifar10", 1, 64, 0.025), ("cifar10", 2, 128, 0.05), ("cifar10", 8, 512, 0.2),
    ("imagenet", 1, 512, 0.25), ("imagenet", 4, 2048, 1.0),
])  # fmt: skip
def test_batch_and_learning_rate_follow_K(preset, K, size, rate):
    config = dataclasses.replace(PRESETS[preset], K=K).resolved()
    assert (config.batch_size, config.learning_rate) == (size, rate)


@pytest.mark.parametrize("preset", ["cifar10", "imagenet"])
def test_given_batch_size_and_learning_rate_stay(preset):
    config = dataclasses.replace(PRESETS[preset], K=8, batch_size=96, learning_rate=0.3)
    assert (config.resolved().batch_size, config.resolved().learning_rate) == (96, 0.3)


def test_what_makes_a_search_with_K_1_darts():
    """The README's flags; without them warm-up, two rates and edge weights are PC-DARTS'."""
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


def test_the_digits_preset_is_a_whole_search():
    config = PRESETS["digits"].resolved()
    steps = (1437 // 2) // config.batch_size * (config.epochs - config.warmup_epochs)
    assert config.nodes == 6 and config.cells >= 3 and steps >= 60


def test_beta_begins_as_small_noise():
    torch.manual_seed(0)
    arch = PCDARTSSuperNet(K=2, channels=4, cells=3).arch
    betas = torch.stack([arch["beta_normal"], arch["beta_reduction"]]).detach()
    assert 5e-4 < betas.std() < 2e-3 and len(betas.unique()) == betas.numel()
