"""Each method's fast form against its equation-shaped one: a pass and ten iterations."""

import functools

import pytest
import torch

from builders import FIRST, assert_same_state, conv, make_search_trainer
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


def pair(method):
    """Both forms with the same weights, and alphas well apart; sizes odd and even, C above 8."""
    nets = []
    for kind in FORMS[method]:
        torch.manual_seed(0)
        channels = 8 if method == "darts" else 12
        net = kind(channels=channels, cells=3, nodes=2, classes=3).double()
        if method == "pr_darts":
            net.rebuild({kind: [Pool.first(pool) for pool in POOLS] for kind in net.kinds})
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


@pytest.mark.parametrize("method", FORMS)
def test_logits_gradients_and_statistics_are_those_of_the_equations(method):
    batch, _ = batches()
    logits, states = [], []
    for net in pair(method):
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
    assert any(value.abs().max() > 1e-4 for name, value in states[0].items() if "arch." in name)


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


@pytest.mark.parametrize("method", FORMS)
def test_ten_iterations_agree(method, tmp_path, accelerator):
    train, valid = batches()
    states = []
    given = {"sampled": (3,)} if method == "edas" else {}
    for net, kind in zip(pair(method), (BilevelTrainer, EquationTrainer), strict=True):
        trainer = make_search_trainer(tmp_path, accelerator, net, trainer=kind)
        for trainer.global_step in range(10):
            trainer.arch_step(valid, **given)
            trainer.weight_step(train, **given)
        states.append(net.state_dict())
    assert_same_state(*states)
