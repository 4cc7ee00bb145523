"""ITNAS: settings, equations and the rows of Table 2."""

import dataclasses

import pytest
import torch

from builders import net_and_batch, spread
from common.baselines import darts
from common.errors import InputError
from common.networks.genotype import CANDIDATES
from common.supernet.gumbel import gumbel, linear
from common.supernet.measures import Measures
from common.supernet.supernet import SuperNet
from itnas.config import PRESETS, ITNASConfig
from itnas.derive import prune, transit
from itnas.equation_form import EquationITNAS
from itnas.supernet import ITNASSuperNet, triples

SMALL = {"channels": 4, "cells": 3, "nodes": 3, "classes": 3}
OFF = {"gumbel": False, "transition": False, "pruning": False}
PARTS = ({}, {"pruning": False}, {"transition": False, "pruning": False}, OFF, {"gumbel": False})
OPS = CANDIDATES[1:]


def small(kind=ITNASSuperNet, nodes=3, **how):
    return net_and_batch(kind, nodes=nodes, **how)


def pair(**how):
    """The fast and the equation-shaped form with the same parameters."""
    fast, images, labels = small(**how)
    slow, *_ = small(EquationITNAS, **how)
    slow.load_state_dict(fast.state_dict())
    return fast, slow, images, labels


# ---------------------------------------------------------------------------------------- settings


def test_the_default_is_section_4_1_1():
    paper = {
        "dataset": "cifar10", "cells": 8, "channels": 16, "nodes": 6, "epochs": 50,
        "batch_size": 64, "learning_rate": 0.025, "learning_rate_min": 0.001, "momentum": 0.9,
        "weight_decay": 3e-4, "grad_clip": 5.0, "arch_learning_rate": 3e-4, "arch_beta1": 0.5,
        "arch_beta2": 0.999, "arch_weight_decay": 1e-3, "tau_max": 5, "tau_min": 0.5,
        "gumbel": True, "transition": True, "pruning": True, "cutout": 0,
        "derive_tau": 1.0, "reweighting": "logits",
    }  # fmt: skip
    assert {key: getattr(PRESETS["cifar10"], key) for key in paper} == paper
    assert ITNASSuperNet.candidates == OPS and len(OPS) == 7
    taus = [linear(5, 0.5, epoch, 50) for epoch in range(50)]
    assert taus[0] == 5 and taus[-1] == 0.5 and linear(5, 0.5, 0, 1) == 0.5


def test_parameter_counts():
    """1,712 logits; the paper counts 1,376 more than DARTS (README)."""
    with torch.device("meta"):
        net, dense, eight = ITNASSuperNet(), ITNASSuperNet(**OFF), SuperNet()
    K = 7
    shapes = {name.split("_")[0]: p.shape for name, p in net.arch.items()}
    assert shapes == {"alpha": (8, K), "P": (16, K, K), "beta": (16,)}
    assert sum(p.numel() for p in net.arch_parameters()) == 1712
    assert 2 * 16 * (K * (K - 1) + 1) == 2 * 16 * (K * K + 1) - 2 * 14 * 8 == 1376
    assert sum(p.numel() for p in dense.arch_parameters()) == 196
    weights = {sum(p.numel() for p in one.weight_parameters()) for one in (net, dense, eight)}
    assert len(weights) == 1  # `none`, DARTS' eighth candidate, has none


def test_sixteen_triples():
    """The six inner edges have 2, 2, 2, 3, 3 and 4 predecessors (Fig. 2)."""
    found = triples(4)
    assert len(found) == len(set(found)) == 16
    assert all(0 <= m < i < j <= 5 and i >= 2 for m, i, j in found)
    of_edge = {(i, j): [m for m, *edge in found if edge == [i, j]] for _, i, j in found}
    assert of_edge == {
        (2, 3): [0, 1], (2, 4): [0, 1], (2, 5): [0, 1], (3, 4): [0, 1, 2], (3, 5): [0, 1, 2],
        (4, 5): [0, 1, 2, 3],
    }  # fmt: skip
    assert triples(2) == [(0, 2, 3), (1, 2, 3)] and triples(1) == []


# ------------------------------------------------------------------------------------ the equations


@pytest.mark.parametrize("how", PARTS, ids=str)
def test_logits_and_all_gradients_are_those_of_the_equations(how):
    """Of alpha, P, beta and the weights, for the same noise; all sixteen triples."""
    fast, slow, images, labels = pair(nodes=4, **how)
    logits, found = [], []
    for net in (fast, slow):
        mixes = net.mixes(torch.Generator().manual_seed(5), tau=0.7)
        loss, out = net.loss(images, labels, mixes)
        loss.backward()
        logits.append(out)
        found.append({name: p.grad for name, p in net.named_parameters()})
    torch.testing.assert_close(*logits, rtol=0, atol=1e-11)
    shared = found[0].keys() & found[1].keys()  # parameters that are not stacked
    assert {f"arch.{name}" for name in fast.arch} <= shared
    for name in shared:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=1e-10)
        assert found[0][name].abs().max() > 1e-7, name
    assert len(fast.arch) == (2 if how.get("transition") is False else 6)


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_every_row_is_a_distribution(nodes):
    net, *_ = small(nodes=nodes)
    for mix in (net.mix("normal"), *net.mixes(tau=0.5)):
        assert mix.op.shape == (len(net.edges), 7) and mix.edge is None
        assert (mix.op > 0).all()
        torch.testing.assert_close(mix.op.sum(1), torch.ones(len(net.edges)).double())
    P, beta = net.transitions("reduction")
    assert sum(len(part.flatten(0, 1)) for part in P) == len(triples(nodes))
    for part in P:
        torch.testing.assert_close(part.sum(-1), torch.ones(part.shape[:-1]).double())
    for part in beta:
        torch.testing.assert_close(part.sum(1), torch.ones(len(part)).double())


def test_rows_stay_in_32_bits_under_autocast():
    torch.manual_seed(0)
    net = spread(ITNASSuperNet(**SMALL))
    plain = net.mix("normal").op
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.mix("normal").op, plain)
        assert all(mix.op.dtype is torch.float32 for mix in net.mixes())


def test_the_orientation_of_P_by_hand():
    """Both predecessors have all weight on s = 1; p_1t sends it to t = 4."""
    net = ITNASSuperNet(**SMALL)
    for parameter in net.arch_parameters():
        parameter.data.zero_()
    net.arch["alpha_normal"].data[:, 1] = 50
    net.arch["P_normal"].data[:, 1, 4] = 50
    op = dict(zip(net.edges, net.mix("normal").op, strict=True))
    assert op[2, 3][4] > 0.999 and op[2, 4][4] > 0.999
    torch.testing.assert_close(op[3, 4], 2 / 3 * op[2, 3] + torch.full((7,), 1 / 21))


def test_an_inner_row_of_hand_made_numbers():
    """Eq. 14: (0,2) at [.6, .4], (1,2) at [.1, .9], attention 1 : 3."""
    Z = {(0, 2): torch.tensor([0.6, 0.4]), (1, 2): torch.tensor([0.1, 0.9])}
    P = {
        (0, 2, 3): torch.tensor([[0.9, 0.1], [0.2, 0.8]]),  # .6 * .9 + .4 * .2 = .62
        (1, 2, 3): torch.tensor([[0.5, 0.5], [0.0, 1.0]]),  # .05
    }
    b = {(0, 2, 3): torch.tensor(0.0), (1, 2, 3): torch.tensor(3.0).log()}
    expected = torch.tensor([0.25 * 0.62 + 0.75 * 0.05, 0.25 * 0.38 + 0.75 * 0.95])
    torch.testing.assert_close(transit(Z, P, b, 2, 3, [0, 1]), expected)
    torch.testing.assert_close(transit(Z, P, b, 2, 3, [1]), torch.tensor([0.05, 0.95]))  # Eq. 15


def test_equations_5_and_8():
    """dZ_k0 / dalpha_k = (delta(k - k0) - Z_k) Z_k0 / (tau alpha_k), summed over k0 by the loss."""
    net, *_ = small()
    tau, logits = 0.7, net.arch["alpha_normal"]
    Z = net.sample("normal", torch.Generator().manual_seed(1), tau)
    G = gumbel(*logits.shape, generator=torch.Generator().manual_seed(1))
    alpha = logits.softmax(-1).detach()
    torch.testing.assert_close(Z, ((alpha.log() + G) / tau).softmax(-1))
    slope = torch.randn_like(Z)
    (found,) = torch.autograd.grad((slope * Z).sum(), logits)
    Z, K = Z.detach(), 7
    for k in range(K):
        terms = [(float(k == n) - Z[:, k]) * Z[:, n] / tau * slope[:, n] for n in range(K)]
        torch.testing.assert_close(found[:, k], sum(terms))  # by a logit: alpha_k cancels


def test_samples_follow_alpha_and_sharpen_with_tau():
    """Eq. 6: near temperature 0 a sample is a corner, k as often as alpha_k; at infinity even."""
    net, *_ = small(nodes=2)
    probabilities = net.arch["alpha_normal"].softmax(-1).detach()
    draws = [net.sample("normal", None, 1e-3).detach() for _ in range(2000)]
    samples = torch.stack(draws)
    assert (samples.max(-1).values > 0.99).double().mean() > 0.99
    error = (samples.mean(0) - probabilities).abs()
    assert (error < 4.5 * (probabilities * (1 - probabilities) / 2000).sqrt() + 1e-3).all()
    torch.testing.assert_close(
        net.sample("normal", None, 1e6), torch.full((4, 7), 1 / 7).double(), rtol=0, atol=1e-4
    )


def test_the_sampled_outer_rows_feed_the_inner_ones():
    """Inner rows have no noise of their own: they follow from the outer ones."""
    net, *_ = small(nodes=4)
    op = net.mixes(tau=0.5)[0].op
    outer = torch.stack([row for (i, _), row in zip(net.edges, op, strict=True) if i < 2])
    assert torch.equal(net.rows("normal", outer), op)
    assert not torch.allclose(op, net.mix("normal").op, atol=1e-2)


def test_one_sample_per_kind_of_cell_and_pass():
    net, *_ = small(cells=8)
    generator = torch.Generator().manual_seed(1)
    mixes = net.mixes(generator)
    for kind, count in (("normal", 6), ("reduction", 2)):
        ops = [mix.op for mix, place in zip(mixes, net.places, strict=True) if place.kind == kind]
        assert len(ops) == count and all(torch.equal(op, ops[0]) for op in ops)
    assert not torch.equal(net.mixes(generator)[0].op, mixes[0].op)  # the next pass
    net.eval()  # validation samples as training does
    assert torch.equal(net.mixes(generator.manual_seed(1))[0].op, mixes[0].op)


def test_derived_and_measured_cells_have_no_noise():
    net, *_ = small()
    for kind in net.kinds:
        outer = net.mix(kind).op[[i < 2 for i, _ in net.edges]]
        assert torch.equal(outer, net.arch[f"alpha_{kind}"].softmax(-1))
    before, derived = net.mix("normal").op, net.derive()
    net.mixes(tau=0.01)
    assert torch.equal(net.mix("normal").op, before) and net.derive() == derived


def test_derive_tau_is_the_temperature_of_the_outer_rows():
    """At 0.5 rows are the normalised squares of those at 1; inner ones follow; samples keep tau."""
    one, half = (small(derive_tau=tau)[0] for tau in (1.0, 0.5))
    outer = torch.tensor([i < 2 for i, _ in one.edges])
    square = one.mix("normal").op[outer] ** 2
    found = half.mix("normal").op
    torch.testing.assert_close(found[outer], square / square.sum(1, keepdim=True))
    torch.testing.assert_close(found, half.rows("normal", found[outer]))
    assert one.derive() != half.derive()
    both = [net.mixes(torch.Generator().manual_seed(1), tau=0.7)[0].op for net in (one, half)]
    assert torch.equal(*both)


# ------------------------------------------------------------------------------------------ Table 2


def test_the_digits_preset_is_that_of_darts():
    ours, theirs = (vars(one["digits"]) for one in (PRESETS, darts.PRESETS))
    shared = ours.keys() & theirs.keys()
    assert {k: ours[k] for k in shared} == {k: theirs[k] for k in shared}


def test_with_all_parts_off_it_is_darts_over_seven_candidates():
    class SevenCandidates(SuperNet):
        candidates = OPS

    torch.manual_seed(0)
    darts = SevenCandidates(**SMALL)
    torch.manual_seed(0)
    net = ITNASSuperNet(**SMALL, **OFF)
    assert net.arch.keys() == darts.arch.keys()
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
    for one in (net, darts):
        spread(one)
        one.loss(images, labels)[0].backward()
    for (name, p), (other, q) in zip(
        net.named_parameters(), darts.named_parameters(), strict=True
    ):
        assert name == other and torch.equal(p, q) and torch.equal(p.grad, q.grad)
    assert net.derive() == darts.derive()
    assert net.metrics(tau=5.0) == {} and net.recorded("normal") == {}
    assert Measures(net).epoch(net) == Measures(darts).epoch(darts)


def test_the_parts_switch_off_one_by_one():
    whole, *_ = small(nodes=4)
    state = whole.state_dict()
    unpruned, *_ = small(nodes=4, pruning=False)
    still, *_ = small(nodes=4, gumbel=False)
    for net in (unpruned, still):
        net.load_state_dict(state)
    # Without pruning: the same rows, another rule.
    both = [net.mixes(torch.Generator().manual_seed(7))[0].op for net in (unpruned, whole)]
    assert torch.equal(*both)
    assert unpruned.derive() == super(ITNASSuperNet, whole).derive() != whole.derive()
    # Without Gumbel: no noise and no temperature, the same cell.
    assert torch.equal(still.mixes()[0].op, whole.mix("normal").op)
    assert still.derive() == whole.derive() and still.metrics(tau=5.0) == {}
    # Gumbel alone: all 14 edges are sampled.
    alone, *_ = small(nodes=4, transition=False, pruning=False)
    assert alone.arch.keys() == {"alpha_normal", "alpha_reduction"}
    assert alone.sample("normal", None, 5.0).shape == (14, 7)
    assert (alone.mixes(tau=1e-3)[0].op.max(-1).values > 0.9).double().mean() > 0.8


# ------------------------------------------------------------------------------- records, refusals


@pytest.mark.parametrize("seed", range(3))
def test_recorded_values_give_the_rows_and_the_pruned_cells(seed):
    """Eq. 11 and Algorithm 1 from the recorded P and beta of all sixteen triples."""
    torch.manual_seed(seed)
    net = spread(ITNASSuperNet(channels=4, cells=3))
    cells = net.derive()
    for kind in net.kinds:
        recorded, Z = net.recorded(kind), dict(zip(net.edges, net.mix(kind).op, strict=True))
        P = dict(zip(recorded["triples"], map(torch.tensor, recorded["P"]), strict=True))
        beta = dict(zip(recorded["triples"], map(torch.tensor, recorded["beta"]), strict=True))
        for i, j in net.edges:
            if i >= 2:
                row = sum(beta[m, i, j] * Z[m, i] @ P[m, i, j] for m in range(i))
                torch.testing.assert_close(Z[i, j], row)
        outer = {(i, j): row for (i, j), row in Z.items() if i < 2}
        b = {triple: score.log() for triple, score in beta.items()}
        assert cells[kind] == prune(outer, P, b, net.candidates)


@pytest.mark.parametrize(("change", "message"), [
    ({"transition": False}, "--no-transition: .*--no-pruning"),
    ({"nodes": 3}, "--nodes 3: .*--no-transition --no-pruning"),
    ({"gumbel": False, "derive_tau": 0.5}, "--derive-tau 0.5: --no-gumbel"),
    ({"gumbel": False, "tau_max": 3.0}, "--tau-max 3.0: --no-gumbel"),
    ({"gumbel": False, "tau_min": 0.1}, "--tau-min 0.1: --no-gumbel"),
    ({"pruning": False, "reweighting": "scores"}, "--reweighting scores: .*--no-pruning"),
])  # fmt: skip
def test_flags_that_do_not_fit_together_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(ITNASConfig(), **change).check()


def test_each_part_can_be_switched_off():
    dataclasses.replace(ITNASConfig(), **OFF, nodes=3).check()
    with pytest.raises(ValueError, match="transitions"):
        ITNASSuperNet(transition=False, **SMALL)
