"""GDAS: its equations, what a pass computes, and the fixed reduction cell."""

import pytest
import torch
from torch.nn import functional as F

from builders import SMALL, Calls, make_search_trainer, net_and_batch, train_batch
from common.networks.genotype import CANDIDATES, FixedCell
from common.networks.network import FixedReductionCell
from common.supernet.cell import Mix
from common.supernet.equation_form import EquationSuperNet
from common.supernet.gumbel import gumbel, linear
from common.supernet.sampled import Sample
from common.supernet.supernet import SuperNet
from gdas.config import PRESETS
from gdas.supernet import GDASSuperNet

NONE, CONV = CANDIDATES.index("none"), CANDIDATES.index("sep_conv_3x3")


def always_draw(net, column):
    for alpha in net.arch_parameters():
        alpha.data[:, column] = 1e4
    return net


def test_the_default_is_section_4_2():
    paper = {
        "dataset": "cifar10", "cells": 8, "channels": 16, "nodes": 6, "epochs": 240,
        "batch_size": 128, "learning_rate": 0.025, "learning_rate_min": 0.001, "momentum": 0.9,
        "weight_decay": 3e-4, "grad_clip": 5.0, "arch_learning_rate": 3e-4, "arch_beta1": 0.5,
        "arch_beta2": 0.999, "arch_weight_decay": 1e-3, "tau_max": 10, "tau_min": 0.1,
        "draw": "cell", "reduction": "searched", "move_idle": False, "cutout": 0,
    }  # fmt: skip
    assert {key: getattr(PRESETS["cifar10"], key) for key in paper} == paper


def test_counts():
    searched, fixed = GDASSuperNet(), GDASSuperNet(reduction="fixed")
    assert sum(p.numel() for p in searched.arch_parameters()) == 224  # facts, section 7
    assert sum(p.numel() for p in fixed.arch_parameters()) == 112
    darts = sum(p.numel() for p in SuperNet().weight_parameters())
    assert sum(p.numel() for p in searched.weight_parameters()) == darts


# ------------------------------------------------------------------------------------ the equations


@pytest.mark.parametrize("tau", [0.7, 5.0])
def test_equations_4_to_7(tau):
    """dL/dA^m = <g, F_s(x)> h~^s (delta_sm - h~^m) / tau for the drawn s, by the dense network."""
    torch.manual_seed(0)
    shape = {"channels": 4, "cells": 3, "nodes": 1, "classes": 3}
    net, slow = GDASSuperNet(**shape).double(), EquationSuperNet(**shape).double()
    slow.load_state_dict(net.state_dict())
    images, labels = torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])
    drawn = set()
    for seed in range(24):
        generator = torch.Generator().manual_seed(seed)
        loss, logits = net.loss(images, labels, net.mixes(generator, tau))
        found = torch.autograd.grad(loss, net.arch_parameters(), materialize_grads=True)

        generator.manual_seed(seed)
        noise = [gumbel(2, 8, generator=generator) for _ in net.places]
        log_pr = {
            kind: a - a.exp().sum(1, keepdim=True).log()  # Eq. 4
            for kind, a in ((kind, net.arch[f"alpha_{kind}"].detach()) for kind in net.kinds)
        }
        scores = [log_pr[place.kind] + o for place, o in zip(net.places, noise, strict=True)]
        h = [F.one_hot(s.argmax(1), 8).double().requires_grad_() for s in scores]  # Eq. 6
        expected_logits = slow(images, [Mix(one_hot) for one_hot in h])  # Eq. 5
        torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-12)

        terms = torch.autograd.grad(F.cross_entropy(expected_logits, labels), h)
        expected = {kind: torch.zeros(2, 8).double() for kind in net.kinds}
        for place, score, term in zip(net.places, scores, terms, strict=True):
            for e, s in enumerate(score.argmax(1).tolist()):
                drawn.add(s)
                relaxed = (score[e] / tau).exp() / (score[e] / tau).exp().sum()  # Eq. 7
                for m in range(8):
                    slope = relaxed[s] * (float(s == m) - relaxed[m]) / tau
                    expected[place.kind][e, m] += term[e, s] * slope
        for kind, gradient in zip(net.kinds, found, strict=True):
            torch.testing.assert_close(gradient, expected[kind], rtol=0, atol=1e-10)
    assert len(drawn) == 8


def test_the_forward_value_is_the_operations_to_the_bit():
    """With and without alpha's gradient in the graph."""
    net, images, labels = net_and_batch(GDASSuperNet)
    losses = []
    for wanted in (True, False):
        for alpha in net.arch_parameters():
            alpha.requires_grad_(wanted)
        mixes = net.mixes(torch.Generator().manual_seed(5))
        losses.append(net.loss(images, labels, mixes)[0].item())
    assert losses[0] == losses[1]


def test_draws_follow_the_softmax_of_alpha():
    net, _, _ = net_and_batch(GDASSuperNet, cells=8)
    count, total = torch.zeros(5, 8), 0
    for _ in range(600):
        for place, sample in zip(net.places, net.mixes(), strict=True):
            if place.kind == "normal":
                count += F.one_hot(torch.tensor(sample.active).flatten(), 8)
                total += 1
    p = net.arch["alpha_normal"].softmax(-1)
    assert ((count / total - p).abs() <= 5 * (p * (1 - p) / total).sqrt() + 1e-9).all()


def test_gumbel_noise_is_gumbel():
    o = gumbel(200_000, generator=torch.Generator().manual_seed(0))
    assert o.isfinite().all()
    assert o.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert o.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.03)
    for x in (-1.0, 0.0, 1.0):  # P(o <= x) = exp(-exp(-x))
        expected = torch.tensor(-x).exp().neg().exp().item()
        assert (o <= x).double().mean().item() == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("draw", ["cell", "kind"])
def test_cells_draw_for_themselves_or_share_by_kind(draw):
    net, _, _ = net_and_batch(GDASSuperNet, cells=8, draw=draw)
    samples = net.mixes()
    draws = {
        kind: {str(s.active) for s, p in zip(samples, net.places, strict=True) if p.kind == kind}
        for kind in net.kinds
    }
    assert (len(draws["normal"]) == len(draws["reduction"]) == 1) == (draw == "kind")
    assert draws["normal"] != draws["reduction"]
    assert net.mixes()[0].active != samples[0].active  # anew in each pass


def test_tau_is_linear_and_reaches_its_end():
    assert [linear(10, 0.1, e, 4) for e in range(4)] == pytest.approx([10, 6.7, 3.4, 0.1])
    assert linear(10, 0.1, 0, 1) == 0.1


# -------------------------------------------------------------------------------- what is computed


def test_only_drawn_operations_have_a_gradient():
    net, images, labels = net_and_batch(GDASSuperNet)
    samples = net.mixes()
    loss, _ = net.loss(images, labels, samples)
    drawn = {
        (str(n), f"{i}-{j}", CANDIDATES[k])
        for n, sample in enumerate(samples)
        for (i, j), (k,) in zip(net.edges, sample.active, strict=True)
    }
    loss.backward()
    for name, parameter in net.named_parameters():
        if ".edges." in name:
            _, n, _, edge, candidate, *_ = name.split(".")
            assert (parameter.grad is not None) == ((n, edge, candidate) in drawn), name


def test_the_cost_does_not_grow_with_the_candidates():
    """The same draw among eight and among nine takes as many operations."""

    class Wider(GDASSuperNet):
        candidates = (*CANDIDATES, "sep_conv_7x7")

    counts = []
    for kind in (GDASSuperNet, Wider):
        net = always_draw(kind(**SMALL), CONV)
        with Calls() as calls:
            loss, _ = net.loss(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1]))
            torch.autograd.grad(loss, net.arch_parameters())
        counts.append(calls.all)
    assert counts[0] == counts[1]


def test_a_pass_waits_for_the_device_once(monkeypatch):
    """On the meta device any other read than `read` raises."""
    reads = []

    def read_max_pools(values):
        reads.append(values)
        return F.one_hot(torch.full(values.shape[:-1], CANDIDATES.index("max_pool_3x3")), 8) * 1e4

    monkeypatch.setattr("gdas.supernet.read", read_max_pools)
    with torch.device("meta"):
        net = GDASSuperNet(**{**SMALL, "cells": 8})
        images, labels = torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    net.loss(images, labels)[0].backward()
    assert len(reads) == 1


def test_a_node_with_only_none_is_zero():
    net, _, _ = net_and_batch(GDASSuperNet)
    nothing = Sample([[NONE]] * 5)
    for cell, place, size in zip(net.cells[:2], net.places[:2], (6, 3), strict=True):
        out = cell(*(torch.randn(2, c, 6, 6).double() for c in place.inputs), nothing)
        assert out.shape == (2, 2 * place.channels, size, size) and not out.any()


@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_a_draw_of_nothing_leaves_alpha_to_its_decay(tmp_path, accelerator, reduction):
    """Every edge draws `none`: the loss does not depend on alpha."""
    trainer = make_search_trainer(tmp_path, accelerator, GDASSuperNet, reduction=reduction)
    always_draw(trainer.supernet, NONE)
    expected = [p.detach().clone().requires_grad_() for p in trainer.arch]
    adam = torch.optim.Adam(expected, lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
    for parameter in expected:
        parameter.grad = torch.zeros_like(parameter)
    adam.step()
    trainer.arch_step(train_batch(trainer))
    torch.testing.assert_close(trainer.arch, expected)
    trainer.weight_step(train_batch(trainer))  # trains the classifier


# --------------------------------------------------------------------------------- GDAS (FRC), cuts


def test_the_fixed_reduction_cell_is_between_searched_normal_cells():
    net, images, labels = net_and_batch(GDASSuperNet, reduction="fixed", cells=8)
    fixed = [isinstance(cell, FixedReductionCell) for cell in net.cells]
    assert fixed == [place.reduction for place in net.places]
    assert list(net.arch) == ["alpha_normal"]
    loss, logits = net.loss(images, labels)
    (gradient,) = torch.autograd.grad(loss, net.arch_parameters())
    assert logits.shape == (4, 3) and gradient.any()
    always_draw(net, NONE)
    cells = net.derive()
    assert cells["reduction"] == FixedCell("gdas_frc")
    assert all(edge.op.name != "none" for edge in cells["normal"].edges)


def test_a_network_may_end_with_the_fixed_cell():
    net = GDASSuperNet(channels=4, cells=3, nodes=3, classes=3, reduction="fixed")
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 3)


def test_a_cut_is_what_the_dense_supernet_computes():
    net, images, _ = net_and_batch(GDASSuperNet)
    dense = SuperNet(**SMALL).double()
    dense.load_state_dict(net.state_dict())
    ops = {k: F.one_hot(torch.randint(1, 8, (5,)), 8).double() for k in net.kinds}
    ops["normal"][4] = 0  # an edge that was cut
    cuts = {kind: Mix(op) for kind, op in ops.items()}
    found = net(images, net.per_cell(cuts))
    torch.testing.assert_close(found, dense(images, dense.per_cell(cuts)))
