"""EDAS: its equations, settings, and what a pass computes."""

import dataclasses

import pytest
import torch

from benchmarking.timing import saved_mib
from builders import EDAS_VARIANTS, EDGES, SMALL, Calls, net_and_batch
from common.data.datasets import load_train
from common.networks.genotype import CANDIDATES
from common.supernet.measures import cut_to_best
from edas.config import PRESETS
from edas.equation_form import EquationEDAS
from edas.supernet import EDASSuperNet
from edas_networks import NETWORKS

# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("preset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("variant", EDAS_VARIANTS)
def test_the_defaults_are_section_4_1(preset, variant):
    inverts = variant == "edas-inv"
    paper = {
        "dataset": preset, "cells": 20, "channels": 16, "nodes": 6, "epochs": 25,
        "batch_size": 64, "learning_rate": 0.025, "learning_rate_min": 0.001, "momentum": 0.9,
        "weight_decay": 3e-4, "grad_clip": 5.0, "arch_learning_rate": 0.025, "arch_beta1": 0.5,
        "arch_beta2": 0.999, "arch_weight_decay": 1e-3 if inverts else 0,
        "inversion_epochs": 10 if inverts else 0, "decayed": "all", "candidates": 7,
        "decay_epochs": 10 if inverts else 0, "edge_per_kind": False,
        "move_idle": False, "cutout": 0,
    }  # fmt: skip
    config = dataclasses.replace(PRESETS[preset], variant=variant).resolved()
    config.check()
    assert {key: getattr(config, key) for key in paper} == paper
    assert PRESETS[preset].variant == "edas"


def test_the_digits_preset_is_deep_and_takes_140_steps():
    config = PRESETS["digits"]
    images = load_train("digits", "data", None)
    assert config.cells >= 8
    assert config.epochs * (len(images) // 2 // config.batch_size) >= 140
    inverted = dataclasses.replace(config, variant="edas-inv").resolved()
    assert 0 < inverted.inversion_epochs < inverted.epochs


def test_counts():
    net = EDASSuperNet(cells=20)
    assert [p.shape for p in net.arch_parameters()] == [(7,)] * 28
    assert list(net.arch)[:2] == ["alpha_normal_0-2", "alpha_normal_1-2"]
    assert list(net.arch)[14] == "alpha_reduction_0-2"
    weights = sum(p.numel() for p in net.weight_parameters())
    assert weights == 4_548_730  # facts, section 7
    assert sum(p.numel() for p in EDASSuperNet(candidates=8).arch_parameters()) == 224


# ------------------------------------------------------------------------------------ the equations


@pytest.mark.parametrize("candidates", [7, 8])
@pytest.mark.parametrize("sigma", [1, -1])
def test_equations_2_and_3(candidates, sigma):
    """With no edge and with each edge sampled: logits and all gradients of the equation form."""
    net, images, labels = net_and_batch(EDASSuperNet, candidates=candidates)
    slow = EquationEDAS(candidates, **SMALL).double()
    slow.load_state_dict(net.state_dict())
    for sampled in [(), *((n,) for n in range(len(net.arch)))]:
        logits, gradients = [], []
        for form in (net, slow):
            loss, out = form.loss(images, labels, form.mixes(sampled=sampled, sigma=sigma))
            found = torch.autograd.grad(loss, list(form.parameters()), allow_unused=True)
            names = [name for name, _ in form.named_parameters()]
            gradients.append(dict(zip(names, found, strict=True)))
            logits.append(out)
        torch.testing.assert_close(*logits, rtol=0, atol=1e-11)
        for name, gradient in gradients[0].items():
            wanted = gradients[1][name]
            assert (gradient is None) == (wanted is None), name
            if gradient is not None:
                torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-11)


def test_sigma_inverts_softmax_and_argmax_but_not_the_genotype():
    net, images, _ = net_and_batch(EDASSuperNet)
    up, derived, op = net.mixes(sampled=(2,))[0], net.derive(), net.mix("normal").op
    down = net.mixes(sampled=(2,), sigma=-1)[0]
    alphas = torch.stack(net.arch_parameters())[:EDGES].detach()
    for n, alpha in enumerate(alphas):
        if n == 2:
            torch.testing.assert_close(up.weight[n], alpha.softmax(0))
            torch.testing.assert_close(down.weight[n], (-alpha).softmax(0))
        else:
            assert up.active[n] == [alpha.argmax()] and down.active[n] == [alpha.argmin()]
            assert up.weight[n] is None and down.weight[n] is None
    assert net.derive() == derived and torch.equal(net.mix("normal").op, op)


def test_zero_is_in_the_relaxed_softmax_and_never_an_argmax():
    net, images, labels = net_and_batch(EDASSuperNet, candidates=8)
    none = CANDIDATES.index("none")
    for alpha in net.arch_parameters():
        alpha.data[none] = 9
    mixes = net.mixes(sampled=(1,))
    for sample in mixes:
        assert all(none not in row for n, row in enumerate(sample.active) if len(row) == 1)
    relaxed = mixes[0]
    assert len(relaxed.active[1]) == 8 and relaxed.weight[1][none] > 0.9
    loss, _ = net.loss(images, labels, mixes)
    (gradient,) = torch.autograd.grad(loss, [net.arch["alpha_normal_1-2"]])
    assert gradient[none] != 0 and torch.isclose(gradient.sum(), gradient.new_zeros(()))
    assert all(edge.op.name != "none" for cell in net.derive().values() for edge in cell.edges)


def test_nothing_is_lost_by_the_cut_when_no_edge_is_relaxed():
    """The network of argmax operations is the pruned one, to the bit (3.2)."""
    net, images, _ = net_and_batch(EDASSuperNet)
    cut = net.per_cell({k: cut_to_best(net.mix(k), net.candidates) for k in net.kinds})
    assert torch.equal(net(images), net(images, cut))
    assert not torch.equal(net(images, net.mixes(sampled=(0,))), net(images, cut))


# -------------------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("sampled", [1, EDGES + 3])
def test_only_the_sampled_edges_alpha_has_a_gradient(sampled):
    net, images, labels = net_and_batch(EDASSuperNet)
    mixes = net.mixes(sampled=(sampled,))
    for place, sample in zip(net.places, mixes, strict=True):
        first = EDGES * net.kinds.index(place.kind)
        counts = [len(row) for row in sample.active]
        assert counts == [7 if first + edge == sampled else 1 for edge in range(EDGES)]
    loss, _ = net.loss(images, labels, mixes)
    gradients = torch.autograd.grad(loss, net.arch_parameters(), allow_unused=True)
    assert [n for n, g in enumerate(gradients) if g is not None] == [sampled]


def test_a_pass_waits_for_the_device_once(monkeypatch):
    """On the meta device any other read than `read` raises."""
    weightless = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")
    reads = []

    def read_max_pools(values):
        reads.append(values)
        return torch.tensor([1.0, 0, 0]).expand(values.shape)

    monkeypatch.setattr("edas.supernet.read", read_max_pools)
    with torch.device("meta"):
        net = EDASSuperNet(weightless, **{**SMALL, "cells": 8})
        images, labels = torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    net.loss(images, labels, net.mixes(sampled=(3,)))[0].backward()
    assert len(reads) == 1


def test_the_cost_is_flat_in_the_candidates_outside_the_sampled_edge():
    """Seven, eight and nine candidates take as many operations, except on the sampled edge."""

    def operations(candidates, sampled):
        net = EDASSuperNet(candidates, **SMALL)
        for alpha in net.arch_parameters():
            alpha.data[net.candidates.index("sep_conv_3x3")] = 1
        batch = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
        with Calls() as calls:
            loss, _ = net.loss(*batch, net.mixes(sampled=sampled))
            torch.autograd.grad(loss, net.weight_parameters(), allow_unused=True)
        return calls.all

    nine = (*CANDIDATES, "sep_conv_7x7")
    assert operations(7, ()) == operations(8, ()) == operations(nine, ())
    assert operations(7, ()) < operations(8, (0,)) < operations(nine, (0,))


def test_memory_is_at_most_1_5_times_the_derived_networks():
    """The derived network has all 14 edges; pools are normalised in the search only."""
    batch = torch.randn(2, 3, 16, 16), torch.tensor([0, 1])
    kept = {}
    for name, kind in NETWORKS.items():
        network = kind(channels=8, cells=8)
        kept[name] = saved_mib(network, batch, network.arch_parameters())
    derived = kept["derived, 14 edges"]
    assert kept["edas, no edge, idle op"] == kept["edas, no edge"] < 1.3 * derived
    assert kept["edas, reduction edge"] < kept["edas, normal edge"] < 1.5 * derived
    assert kept["darts, fast"] > 3 * derived
