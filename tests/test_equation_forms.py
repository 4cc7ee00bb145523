"""Each method's fast form against its equation-shaped one: a pass and ten iterations."""

import functools

import pytest
import torch
from torch import nn

from builders import FIRST, assert_same_state, conv, make_search_trainer
from common.networks.genotype import OWN_OPS, Op
from common.networks.ops import register
from common.supernet.equation_form import EquationSuperNet
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from common.training.equation_form import EquationTrainer
from edas.equation_form import EquationEDAS
from edas.supernet import EDASSuperNet
from gdas.equation_form import EquationGDAS
from gdas.supernet import GDASSuperNet
from itnas.equation_form import EquationITNAS
from itnas.supernet import ITNASSuperNet
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import PCDARTSSuperNet
from pr_darts.equation_form import EquationPRDARTS
from pr_darts.pools import Pool
from pr_darts.supernet import PRDARTSSuperNet

POOLS = [FIRST, (FIRST[3], conv(5, 2, 2)), FIRST[:3], (FIRST[1], conv(3, 2)), (conv(3, 2, 1, 1),)]
FORMS = {
    "darts": (SuperNet, EquationSuperNet),
    "pc_darts": (PCDARTSSuperNet, EquationPCDARTS),
    "itnas": (ITNASSuperNet, EquationITNAS),
    "gdas": (GDASSuperNet, EquationGDAS),
    "gdas_frc": tuple(functools.partial(k, "fixed") for k in (GDASSuperNet, EquationGDAS)),
    "edas": (EDASSuperNet, EquationEDAS),
    "pr_darts": tuple(functools.partial(k, FIRST) for k in (PRDARTSSuperNet, EquationPRDARTS)),
}


def pair(method, own=()):
    """Both forms with the same weights, and alphas well apart; sizes odd and even, C above 8.

    `own` operations are added to the candidates of every edge.
    """
    nets = []
    for kind in FORMS[method]:
        torch.manual_seed(0)
        shape = {"channels": 8 if method == "darts" else 12, "cells": 3, "nodes": 2, "classes": 3}
        if own and method != "pr_darts":
            names = kind.func.candidates if method == "gdas_frc" else kind.candidates
            shape["candidates"] = (*names, *own)
        net = kind(**shape).double()
        if method == "pr_darts":
            pools = [Pool.first((*pool, *map(Op, own))) for pool in POOLS]
            net.rebuild(dict.fromkeys(net.kinds, pools))
        nets.append(net)
    fast, slow = nets
    for alpha in fast.arch_parameters():
        alpha.data.normal_()
        if "gdas" in method:
            # Where all edges out of an input draw `none`, the input's weights have no gradient and
            # rest; the equation says 0, and momentum would move them.
            alpha.data[:, 0] = -9
    slow.load_state_dict(fast.state_dict())  # strict: their checkpoints have the same names
    return fast, slow


def mixes(method, net, seed):
    """Of a pass; methods that draw draw alike from one seed."""
    told = {"sampled": (3,)} if method == "edas" else {}
    return net.mixes(torch.Generator().manual_seed(seed), **told)


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        images = torch.randn(3, 3, 10, 10, generator=generator).double()
        yield images, torch.randint(3, (3,), generator=generator)


def check_one_pass(method, nets):
    """Logits, gradients and running statistics of both forms agree; returns the gradients."""
    batch, _ = batches()
    logits, states = [], []
    for net in nets:
        loss, out = net.loss(*batch, mixes(method, net, 5))
        loss.backward()
        with torch.no_grad():  # gradients, by the names of a checkpoint
            for parameter in net.parameters():
                here = parameter.grad
                parameter.copy_(torch.zeros_like(parameter) if here is None else here)
        logits.append(out)
        states.append(net.state_dict())
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-10)
    assert_same_state(*states)
    largest = {k: g.abs().max().item() for k, g in states[0].items() if "arch." in k}
    assert max(largest.values()) > 0
    for name, size in largest.items():  # GDAS' are 1e-4 and less, as temperature 10 divides them
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=1e-10 * size)
    return states[0]


@pytest.mark.parametrize("method", FORMS)
def test_logits_gradients_and_statistics_are_those_of_the_equations(method):
    check_one_pass(method, pair(method))


def convolution(channels, stride, affine):
    """A dense 3x3 convolution, NAS-Bench-201's `nor_conv_3x3`."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


class Gate(nn.Module):
    """x sigmoid(convolution of x), with no normalisation, and parameters of its own."""

    def __init__(self, channels, stride, affine):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 1, stride)
        self.slope = nn.Parameter(torch.ones(()))
        self.stride = stride

    def forward(self, x):
        return self.slope * x[:, :, :: self.stride, :: self.stride] * self.convolution(x).sigmoid()


@pytest.fixture
def own():
    """Two operations that are not in this code, by name."""
    builders = {"nor_conv_3x3": convolution, "gate": Gate}
    for name, builder in builders.items():
        register(name, builder)
    yield tuple(builders)
    for name in builders:
        del OWN_OPS[name]


@pytest.mark.parametrize("method", FORMS)
def test_own_operations_run_as_the_equations_say(method, own):
    nets = pair(method, own)
    for net in nets if method in ("gdas", "gdas_frc", "edas") else ():  # draw and take them often
        for alpha in net.arch_parameters():
            alpha.data[..., -2:] += 2
    gradients = check_one_pass(method, nets)
    for name in own:
        assert any(f".{name}." in key and g.abs().max() > 1e-4 for key, g in gradients.items())


@pytest.mark.parametrize("method", FORMS)
def test_iterations_with_own_operations_agree(method, own, tmp_path, accelerator):
    check_iterations(method, pair(method, own), tmp_path, accelerator)


@pytest.mark.parametrize("method", FORMS)
def test_both_steps_run_in_bf16(method):
    net, _ = pair(method)
    net.float()
    (images, labels), _ = batches()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = net.loss(images.float(), labels, mixes(method, net, 0))
    gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    assert any(g is not None and g.abs().max() > 0 for g in gradients)


def check_iterations(method, nets, tmp_path, accelerator):
    """Ten steps on alpha and ten on the weights end alike."""
    train, valid = batches()
    states = []
    given = {"sampled": (3,)} if method == "edas" else {}
    for net, kind in zip(nets, (BilevelTrainer, EquationTrainer), strict=True):
        trainer = make_search_trainer(tmp_path, accelerator, net, trainer=kind)
        for trainer.global_step in range(10):
            trainer.arch_step(valid, **given)
            trainer.weight_step(train, **given)
        states.append(net.state_dict())
    assert_same_state(*states)


@pytest.mark.parametrize("method", FORMS)
def test_ten_iterations_agree(method, tmp_path, accelerator):
    check_iterations(method, pair(method), tmp_path, accelerator)
