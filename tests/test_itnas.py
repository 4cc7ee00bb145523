"""ITNAS against its equations, Algorithm 1 and Table 2."""

import dataclasses
import json
import math

import pytest
import torch

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
from test_bilevel import CONFIG, batch, equal, make, snapshot
from test_gdas import Calls

SMALL = {"channels": 4, "cells": 3, "nodes": 3, "classes": 3}
OFF = {"gumbel": False, "transition": False, "pruning": False}
PARTS = ({}, {"pruning": False}, {"transition": False, "pruning": False}, OFF, {"gumbel": False})
OPS = CANDIDATES[1:]


def spread(net, factor=1000):
    """Architecture parameters far from zero, so that an error in mixing would show."""
    for parameter in net.arch_parameters():
        parameter.data.mul_(factor)
    return net


def net_and_batch(kind=ITNASSuperNet, **how):
    torch.manual_seed(0)
    net = spread(kind(**{**SMALL, **how}).double())
    return net, torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])


def pair(**how):
    """The fast form, and the slow one with the same parameters."""
    fast, images, labels = net_and_batch(**how)
    slow, *_ = net_and_batch(EquationITNAS, **how)
    slow.load_state_dict(fast.state_dict())
    return fast, slow, images, labels


@pytest.fixture
def on_no_device():
    """Modules without memory."""
    with torch.device("meta"):
        yield


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


@pytest.mark.usefixtures("on_no_device")
def test_counts():
    """1,712 logits; the paper's 1,376 counts free entries of P and scores only (README)."""
    net, K = ITNASSuperNet(), 7
    shapes = {name.split("_")[0]: p.shape for name, p in net.arch.items()}
    assert shapes == {"alpha": (8, K), "P": (16, K, K), "beta": (16,)}
    assert sum(p.numel() for p in net.arch_parameters()) == 1712
    assert 2 * 16 * (K * (K - 1) + 1) == 2 * 16 * (K * K + 1) - 2 * 14 * 8 == 1376
    dense = ITNASSuperNet(**OFF)
    assert sum(p.numel() for p in dense.arch_parameters()) == 196
    weights = sum(p.numel() for p in dense.weight_parameters())
    assert sum(p.numel() for p in net.weight_parameters()) == weights
    # DARTS' `none` has no weights
    assert weights == sum(p.numel() for p in SuperNet().weight_parameters())


def test_sixteen_triples():
    """A predecessor, an inner edge: 2, 2, 2, 3, 3 and 4 of them (Fig. 2)."""
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
@pytest.mark.parametrize("nodes", [2, 4])
def test_logits_and_all_gradients_are_those_of_the_equations(how, nodes):
    """alpha, P, beta and the weights, for one and the same noise."""
    fast, slow, images, labels = pair(nodes=nodes, **how)
    logits, found = [], []
    for net in (fast, slow):
        mixes = net.mixes(torch.Generator().manual_seed(5), tau=0.7)
        loss, out = net.loss(images, labels, mixes)
        loss.backward()
        logits.append(out)
        found.append({name: p.grad for name, p in net.named_parameters()})
    torch.testing.assert_close(*logits, rtol=0, atol=1e-11)
    shared = found[0].keys() & found[1].keys()  # those that are not stacked
    assert {f"arch.{name}" for name in fast.arch} <= shared
    for name in shared:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=1e-10)
        assert found[0][name].abs().max() > 1e-7, name
    assert len(fast.arch) == (2 if how.get("transition") is False else 6)


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_every_row_is_a_distribution(nodes):
    net, *_ = net_and_batch(nodes=nodes)
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
    """All weight of both predecessors on s = 1; p_1t sends it to t = 4, and p_41 nowhere."""
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


def test_equation_8():
    """dZ_k0 / dalpha_k = (delta(k - k0) - Z_k) Z_k0 / (tau alpha_k), summed over k0 by the loss."""
    torch.manual_seed(0)
    tau, alpha = 0.7, torch.rand(7).double().requires_grad_()
    G, slope = gumbel(7, generator=torch.Generator().manual_seed(1)), torch.randn(7).double()
    net = ITNASSuperNet(**{**SMALL, "nodes": 2}).double()
    Z = ((alpha.log() + G) / tau).softmax(0)  # scale does not matter (Eq. 6)
    (found,) = torch.autograd.grad(slope @ Z, alpha)
    for k in range(7):
        terms = [(float(k == n) - Z[k]) * Z[n] / (tau * alpha[k]) * slope[n] for n in range(7)]
        torch.testing.assert_close(found[k], sum(terms).detach())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("itnas.supernet.gumbel", lambda *shape, generator: G.expand(*shape))
        net.arch["alpha_normal"].data = alpha.detach().log().expand(4, 7)
        torch.testing.assert_close(net.sample("normal", None, tau)[2], Z)


def test_samples_follow_alpha_and_sharpen_with_tau():
    """Eq. 6: near temperature 0 a sample is a corner, k as often as alpha_k; at infinity even."""
    net, *_ = net_and_batch(nodes=2)
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
    """And inner ones have no noise of their own: given the outer rows, they are determined."""
    net, *_ = net_and_batch(nodes=4)
    op = net.mixes(tau=0.5)[0].op
    outer = torch.stack([row for (i, _), row in zip(net.edges, op, strict=True) if i < 2])
    assert torch.equal(net.rows("normal", outer), op)
    assert not torch.allclose(op, net.mix("normal").op, atol=1e-2)


def test_one_sample_a_kind_and_pass():
    net, *_ = net_and_batch(cells=8)
    generator = torch.Generator().manual_seed(1)
    mixes = net.mixes(generator)
    by_kind = {
        kind: [mix.op for mix, place in zip(mixes, net.places, strict=True) if place.kind == kind]
        for kind in net.kinds
    }
    assert [len(ops) for ops in by_kind.values()] == [6, 2]
    for ops in by_kind.values():
        assert all(torch.equal(op, ops[0]) for op in ops)
    again = net.mixes(generator)[0].op  # the next pass draws anew
    assert not torch.equal(again, mixes[0].op)
    assert torch.equal(net.mixes(generator.manual_seed(1))[0].op, mixes[0].op)


def test_a_validation_samples_as_training_does():
    net, images, _ = net_and_batch()
    sampled = []
    for training in (True, False):
        mixes = net.train(training).mixes(torch.Generator().manual_seed(3))
        sampled.append(mixes[0].op)
    assert torch.equal(*sampled) and not torch.allclose(sampled[0], net.mix("normal").op)


def test_what_is_derived_and_measured_has_no_noise():
    net, *_ = net_and_batch()
    for kind in net.kinds:
        outer = net.mix(kind).op[[i < 2 for i, _ in net.edges]]
        assert torch.equal(outer, net.arch[f"alpha_{kind}"].softmax(-1))
    before, derived = net.mix("normal").op, net.derive()
    net.mixes(tau=0.01)
    assert torch.equal(net.mix("normal").op, before) and net.derive() == derived


def test_the_temperature_of_the_derivation_is_that_of_the_outer_rows():
    """At 0.5 rows are rescaled squares of those at 1; inner ones follow; samples keep tau."""
    one, half = (net_and_batch(derive_tau=tau)[0] for tau in (1.0, 0.5))
    outer = torch.tensor([i < 2 for i, _ in one.edges])
    square = one.mix("normal").op[outer] ** 2
    found = half.mix("normal").op
    torch.testing.assert_close(found[outer], square / square.sum(1, keepdim=True))
    torch.testing.assert_close(found, half.rows("normal", found[outer]))
    assert one.derive() != half.derive()
    both = [net.mixes(torch.Generator().manual_seed(1), tau=0.7)[0].op for net in (one, half)]
    assert torch.equal(*both)


# ------------------------------------------------------------------------------------------ Table 2


def test_pruning_without_transitions_does_not_exist():
    with pytest.raises(ValueError, match="transitions"):
        ITNASSuperNet(transition=False, **SMALL)


def test_digits_are_searched_as_darts_searches_them():
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
    whole, *_ = net_and_batch(nodes=4)
    state = whole.state_dict()
    unpruned, *_ = net_and_batch(nodes=4, pruning=False)
    still, *_ = net_and_batch(nodes=4, gumbel=False)
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
    alone, *_ = net_and_batch(nodes=4, transition=False, pruning=False)
    assert alone.arch.keys() == {"alpha_normal", "alpha_reduction"}
    assert alone.sample("normal", None, 5.0).shape == (14, 7)
    assert (alone.mixes(tau=1e-3)[0].op.max(-1).values > 0.9).double().mean() > 0.8


# ----------------------------------------------------------------------------------- steps, records


def test_alpha_P_and_attention_move_in_the_arch_step_and_rest_in_the_other(tmp_path, accelerator):
    trainer = make(tmp_path, accelerator, ITNASSuperNet)
    arch, weights = snapshot(trainer.arch), snapshot(trainer.weights)
    trainer.arch_step(trainer.valid_batches.train(0))
    assert equal(trainer.weights, weights)
    assert not any(torch.equal(p, old) for p, old in zip(trainer.arch, arch, strict=True))
    arch = snapshot(trainer.arch)
    trainer.weight_step(batch(trainer))
    assert equal(trainer.arch, arch) and not equal(trainer.weights, weights)


def test_both_steps_of_an_iteration_and_every_iteration_have_noise_of_their_own(
    tmp_path, accelerator, monkeypatch
):
    trainer, drawn = make(tmp_path, accelerator, ITNASSuperNet), []
    monkeypatch.setattr(
        "itnas.supernet.gumbel",
        lambda *shape, generator: drawn.append(gumbel(*shape, generator=generator)) or drawn[-1],
    )
    for trainer.global_step in (0, 1, 0):
        trainer.arch_step(trainer.valid_batches.train(0))
        trainer.weight_step(batch(trainer))
    normal = drawn[::2]  # the reduction cell's between them
    assert len(drawn) == 12
    first, again = normal[:4], normal[4:]
    for n, noise in enumerate(first):
        assert not any(torch.equal(noise, other) for other in first[:n])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=False))  # seed and step


def test_the_epochs_line_holds_P_and_attention(tmp_path, accelerator):
    trainer = make(tmp_path, accelerator, ITNASSuperNet, config=dataclasses.replace(CONFIG, seed=3))
    spread(trainer.supernet, 300)
    line = json.loads(json.dumps(trainer.architecture()))
    for kind in ("normal", "reduction"):
        weights = line["weights"][kind]
        assert [tuple(triple) for triple in weights["triples"]] == triples(2)
        logits = torch.tensor(line["parameters"][f"P_{kind}"])
        torch.testing.assert_close(torch.tensor(weights["P"]), logits.softmax(-1))
        logits = torch.tensor(line["parameters"][f"beta_{kind}"])
        torch.testing.assert_close(torch.tensor(weights["beta"]), logits.softmax(-1))
        Z = dict(zip(map(tuple, line["edges"]), torch.tensor(weights["op"]), strict=True))
        P, beta = torch.tensor(weights["P"]), weights["beta"]
        row = sum(beta[m] * Z[m, 2] @ P[m] for m in (0, 1))
        torch.testing.assert_close(Z[2, 3], row)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_recorded_is_what_runs_and_what_is_pruned(seed):
    """All sixteen triples, each with P and beta of its own: Eq. 11 and Algorithm 1 from these."""
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


def test_the_hot_path_does_not_grow_with_the_triples():
    """Three products for sixteen triples; the slow form has one an operation."""
    net = ITNASSuperNet(channels=4, cells=3)
    outer = net.arch["alpha_normal"].softmax(-1)
    with Calls() as calls:
        net.rows("normal", outer)
    assert calls.reads == 0
    with Calls() as slowly:
        EquationITNAS.rows(net, "normal", outer)
    assert calls.all * 10 < slowly.all


@pytest.mark.parametrize(("change", "message"), [
    ({"transition": False}, "--no-transition: pruning .*add --no-pruning"),
    ({"nodes": 3}, "--nodes 3: .*use 4 or more, or add --no-transition --no-pruning"),
    ({"tau_min": 0.0}, "--tau-min 0.0: must be 0.001 or more"),
    ({"tau_max": math.inf}, "--tau-max inf"),
    ({"derive_tau": 0.0}, "--derive-tau 0.0: must be 0.001 or more"),
    ({"gumbel": False, "derive_tau": 0.5}, "--derive-tau 0.5: --no-gumbel has no temperature"),
    ({"pruning": False, "reweighting": "scores"}, "--reweighting scores: nothing is pruned"),
    ({"gumbel": False, "tau_max": 3.0}, "--tau-max 3.0: --no-gumbel has no temperature"),
    ({"gumbel": False, "tau_min": 0.1}, "--tau-min 0.1: --no-gumbel has no temperature"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(ITNASConfig(), **change).check()
    fine = dict.fromkeys(("gumbel", "transition", "pruning"), False)
    dataclasses.replace(ITNASConfig(), **fine, nodes=3).check()
