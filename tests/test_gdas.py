"""GDAS against its equations."""

import itertools

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from common.networks.genotype import CANDIDATES, FixedCell
from common.networks.network import FixedReductionCell
from common.supernet.candidate import run
from common.supernet.cell import Mix
from common.supernet.equation_form import EquationSuperNet
from common.supernet.gumbel import gumbel, linear
from common.supernet.sampled import Sample, SampledCell
from common.supernet.supernet import SuperNet
from gdas.config import PRESETS
from gdas.supernet import GDASSuperNet, straight_through
from test_bilevel import batch, equal, make, snapshot

SMALL = {"channels": 4, "cells": 3, "nodes": 2, "classes": 3}


def net_and_batch(**how):
    torch.manual_seed(0)
    net = GDASSuperNet(**{**SMALL, **how}).double()
    for alpha in net.arch_parameters():
        alpha.data.mul_(1000)
    return net, torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])


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
    whole, frc = GDASSuperNet(), GDASSuperNet(reduction="fixed")
    assert sum(p.numel() for p in whole.arch_parameters()) == 224  # facts, section 7
    assert sum(p.numel() for p in frc.arch_parameters()) == 112
    darts = sum(p.numel() for p in SuperNet().weight_parameters())
    assert sum(p.numel() for p in whole.weight_parameters()) == darts


def test_checkpoints_fit_the_dense_supernet():
    net = GDASSuperNet(**SMALL)
    SuperNet(**SMALL).load_state_dict(net.state_dict())


# ------------------------------------------------------------------------------------ the equations


def test_for_every_draw_the_gradient_is_the_one_of_the_drawn_term_alone(monkeypatch):
    """dL/dA^m = <g, F_s(x)> h~^s (delta_sm - h~^m) / tau, on a cell of two edges: 64 draws."""
    torch.manual_seed(0)
    tau = 0.7
    net = GDASSuperNet(channels=4, cells=3, nodes=1, classes=3).double()
    images, labels = torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])
    slow = EquationSuperNet(channels=4, cells=3, nodes=1, classes=3).double()
    slow.load_state_dict(net.state_dict())
    for draw in itertools.product(range(8), repeat=2):
        noise = []

        def forced(*shape, generator, draw=draw, noise=noise):
            o = torch.rand(*shape, dtype=torch.float64)
            o[range(2), draw] += 1.1  # the largest, but not by much
            noise.append(o)
            return o

        monkeypatch.setattr("gdas.supernet.gumbel", forced)
        loss, logits = net.loss(images, labels, net.mixes(tau=tau))
        found = torch.autograd.grad(loss, net.arch_parameters(), materialize_grads=True)

        h = [F.one_hot(torch.tensor(draw), 8).double().requires_grad_() for _ in net.places]
        expected_logits = slow(images, [Mix(one_hot) for one_hot in h])
        torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-12)
        terms = torch.autograd.grad(F.cross_entropy(expected_logits, labels), h)
        for kind, gradient in zip(net.kinds, found, strict=True):
            expected = torch.zeros(2, 8).double()
            for place, o, term in zip(net.places, noise, terms, strict=True):
                if place.kind != kind:
                    continue
                a = net.arch[f"alpha_{kind}"].detach()
                for e, s in enumerate(draw):
                    log_pr = a[e] - a[e].exp().sum().log()  # Eq. 4
                    scaled = ((log_pr + o[e]) / tau).exp()
                    relaxed = scaled / scaled.sum()  # Eq. 7
                    for m in range(8):
                        delta = float(m == s)
                        expected[e, m] += term[e, s] * relaxed[s] * (delta - relaxed[m]) / tau
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)


def test_the_forward_value_is_exactly_the_operations(accelerator):
    """With and without alpha's gradient in the graph: the same bits."""
    net, images, labels = net_and_batch()
    losses = []
    for wanted in (True, False):
        for alpha in net.arch_parameters():
            alpha.requires_grad_(wanted)
        mixes = net.mixes(torch.Generator().manual_seed(5))
        losses.append(net.loss(images, labels, mixes)[0].item())
    assert losses[0] == losses[1]


def test_draws_follow_the_softmax_of_alpha():
    net, _, _ = net_and_batch(cells=8)
    probabilities = net.arch["alpha_normal"].softmax(-1)
    count = torch.zeros(5, 8)
    passes = 600
    for _ in range(passes):
        samples = net.mixes()
        for place, sample in zip(net.places, samples, strict=True):
            if place.kind == "normal":
                for e, (k,) in enumerate(sample.active):
                    count[e, k] += 1
    total = passes * 6  # normal cells, each by its own draw
    deviation = (probabilities * (1 - probabilities) / total).sqrt()
    assert ((count / total - probabilities).abs() <= 5 * deviation + 1e-9).all()


def test_gumbel_noise_is_gumbel():
    o = gumbel(200_000, generator=torch.Generator().manual_seed(0))
    assert o.isfinite().all()
    assert o.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert o.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.03)
    for x in (-1.0, 0.0, 1.0):  # P(o <= x) = exp(-exp(-x))
        expected = torch.tensor(-x).exp().neg().exp().item()
        assert (o <= x).double().mean().item() == pytest.approx(expected, abs=0.005)


def test_cells_draw_for_themselves_or_share_by_kind():
    net, _, _ = net_and_batch(cells=8)
    per_cell = {str(s.active) for s, p in zip(net.mixes(), net.places, strict=True)
                if p.kind == "normal"}
    assert len(per_cell) > 1
    net, _, _ = net_and_batch(cells=8, draw="kind")
    samples = net.mixes()
    by_kind = {p.kind: [] for p in net.places}
    for sample, place in zip(samples, net.places, strict=True):
        by_kind[place.kind].append(sample)
    assert all(all(s is group[0] for s in group) for group in by_kind.values())
    assert by_kind["normal"][0].active != by_kind["reduction"][0].active
    assert net.mixes()[0].active != samples[0].active  # anew in each pass


def test_tau_is_linear_and_reaches_its_end():
    assert [linear(10, 0.1, e, 4) for e in range(4)] == pytest.approx([10, 6.7, 3.4, 0.1])
    assert linear(10, 0.1, 0, 1) == 0.1


def test_tau_changes_the_gradient_and_not_the_draw():
    log_pr = torch.randn(2, 8).log_softmax(-1).requires_grad_()
    o, h = torch.rand(2, 8).double(), torch.tensor([3, 1])
    gradients = []
    for tau in (10.0, 0.1):
        weights = straight_through(log_pr, o, h, tau)
        assert all(w.item() == 1 for w in weights)
        gradients.append(torch.autograd.grad(sum(weights), log_pr)[0])
    assert not torch.allclose(*gradients)


def test_a_node_into_which_nothing_is_drawn_is_zero():
    net, images, _ = net_and_batch()
    cell = net.cells[0]
    none = CANDIDATES.index("none")
    state = torch.randn(2, 12, 6, 6).double()
    out = cell(state, state, Sample([[none]] * 5))
    assert out.shape == (2, 8, 6, 6) and not out.any()
    reduction = net.cells[1]
    states = [torch.randn(2, c, 6, 6).double() for c in net.places[1].inputs]
    assert reduction(*states, Sample([[none]] * 5)).shape == (2, 16, 3, 3)


# -------------------------------------------------------------------------------- what is computed


def test_only_the_drawn_candidate_runs(monkeypatch):
    net, images, labels = net_and_batch()
    key = {
        module: (n, edge, name)
        for n, cell in enumerate(net.cells)
        for edge, candidates in cell.edges.items()
        for name, module in candidates.items()
    }
    ran = []
    monkeypatch.setattr(
        "common.supernet.sampled.run",
        lambda module, *rest: ran.append(key[module]) or run(module, *rest),
    )
    samples = net.mixes()
    loss, _ = net.loss(images, labels, samples)
    drawn = {
        (n, f"{i}-{j}", CANDIDATES[sample.active[e][0]])
        for n, sample in enumerate(samples)
        for e, (i, j) in enumerate(net.edges)
    }
    assert sorted(ran) == sorted(key for key in drawn if key[2] != "none")
    gradients = torch.autograd.grad(loss, net.weight_parameters(), allow_unused=True)
    names = [name for name, _ in net.named_parameters() if not name.startswith("arch.")]
    for name, gradient in zip(names, gradients, strict=True):
        if ".edges." in name:
            _, n, _, edge, candidate, *_ = name.split(".")
            assert (gradient is not None) == ((int(n), edge, candidate) in drawn), name


class Calls(TorchDispatchMode):
    """How many operations run, and how many wait for a value."""

    def __init__(self):
        super().__init__()
        self.all = self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.all += 1
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_pass_reads_once_from_the_device(monkeypatch):
    net, images, labels = net_and_batch(cells=8)
    reads = []
    original = torch.Tensor.cpu, torch.Tensor.tolist

    def cpu(t):
        reads.append(t.shape)
        return original[0](t).clone()

    def tolist(t):  # of what was computed on the CPU, from the one copy there
        assert t.dtype == torch.int64 and t.shape == (5, 1)
        return original[1](t)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    with Calls() as calls:
        net.loss(images, labels)
    assert reads == [(2, 5, 8)] and calls.reads == 0


def test_the_cost_does_not_grow_with_the_candidates(monkeypatch):
    """The same draw among eight and among nine: as many operations."""
    counts = []
    monkeypatch.setattr(
        "gdas.supernet.gumbel",
        lambda *shape, generator: F.one_hot(torch.full(shape[:1], 4), shape[1]).double() * 100,
    )
    for candidates in (CANDIDATES, (*CANDIDATES, *["sep_conv_7x7"])):
        class Wider(GDASSuperNet):
            pass

        Wider.candidates = candidates
        torch.manual_seed(0)
        net = Wider(**SMALL)
        with Calls() as calls:
            loss, _ = net.loss(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1]))
            torch.autograd.grad(loss, net.arch_parameters())
        counts.append(calls.all)
    assert counts[0] == counts[1]


# ------------------------------------------------------------------------------------------ steps


@pytest.mark.parametrize("move_idle", [False, True])
def test_what_did_not_run_moves_by_momentum_and_decay_only_if_told_to(
    tmp_path, accelerator, move_idle
):
    trainer = make(tmp_path, accelerator, GDASSuperNet)
    names = {id(p): n for n, p in trainer.supernet.named_parameters()}
    trainer.weight_step(batch(trainer, 0))
    before = snapshot(trainer.weights)
    velocity = [trainer.optimizer.state[p]["momentum_buffer"].clone() for p in trainer.weights]
    trainer.global_step = 1  # another draw
    trainer.weight_step(batch(trainer, 1), move_idle=move_idle)
    idle = moved = 0
    for p, was, v in zip(trainer.weights, before, velocity, strict=True):
        after = trainer.optimizer.state[p]["momentum_buffer"]
        if p.grad is None:
            assert not move_idle and torch.equal(p, was) and torch.equal(v, after)
            idle += 1
        elif not p.grad.any() and ".edges." in names[id(p)]:
            torch.testing.assert_close(after, 0.9 * v + 0.01 * was)
            torch.testing.assert_close(p.detach(), was - 0.1 * after)
            idle += 1
        else:
            moved += 1
    assert idle > 50 and moved > 10


@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_a_draw_of_nothing_is_a_step_with_gradient_zero(
    tmp_path, accelerator, monkeypatch, reduction
):
    """Where every edge draws `none`, the loss does not depend on alpha: only decay moves it."""
    monkeypatch.setattr(
        "gdas.supernet.gumbel",
        lambda *shape, generator: F.one_hot(torch.zeros(shape[0]).long(), shape[1]).double() * 9,
    )
    trainer = make(tmp_path, accelerator, GDASSuperNet, reduction=reduction)
    expected = [p.detach().clone().requires_grad_() for p in trainer.arch]
    adam = torch.optim.Adam(expected, lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
    for parameter in expected:
        parameter.grad = torch.zeros_like(parameter)
    adam.step()
    trainer.arch_step(batch(trainer))
    for found, wanted in zip(trainer.arch, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    trainer.weight_step(batch(trainer))  # the classifier is left


def test_steps_of_one_iteration_draw_apart_and_alphas_move_in_the_arch_step_only(
    tmp_path, accelerator, monkeypatch
):
    trainer = make(tmp_path, accelerator, GDASSuperNet)
    draws = []
    original = GDASSuperNet.mixes
    monkeypatch.setattr(
        GDASSuperNet, "mixes", lambda *given: draws.append(original(*given)) or draws[-1]
    )
    arch, weights = snapshot(trainer.arch), snapshot(trainer.weights)
    trainer.weight_step(batch(trainer))
    assert equal(trainer.arch, arch) and not equal(trainer.weights, weights)
    weights = snapshot(trainer.weights)
    trainer.arch_step(batch(trainer))
    assert not equal(trainer.arch, arch) and equal(trainer.weights, weights)
    assert [s.active for s in draws[0]] != [s.active for s in draws[1]]
    assert draws[0][0].weight is None and draws[1][0].weight is not None


# ----------------------------------------------------------------------------------- fixed and cut


def test_the_fixed_reduction_cell_stands_between_searched_normal_cells():
    net, images, labels = net_and_batch(reduction="fixed", cells=8)
    kinds = [type(cell) for cell in net.cells]
    assert [k is FixedReductionCell for k in kinds] == [p.reduction for p in net.places]
    assert list(net.arch) == ["alpha_normal"]
    loss, logits = net.loss(images, labels)
    (gradient,) = torch.autograd.grad(loss, net.arch_parameters())
    assert logits.shape == (4, 3) and gradient.any()
    assert net.derive()["reduction"] == FixedCell("gdas_frc")
    net.arch["alpha_normal"].data[:, CANDIDATES.index("none")] = 99
    assert all(edge.op.name != "none" for edge in net.derive()["normal"].edges)


def test_a_network_may_end_with_the_fixed_cell():
    net = GDASSuperNet(channels=4, cells=3, nodes=3, classes=3, reduction="fixed")
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 3)


def test_a_cut_is_what_the_dense_supernet_computes():
    net, images, _ = net_and_batch()
    dense = SuperNet(**SMALL).double()
    dense.load_state_dict(net.state_dict())
    ops = {k: F.one_hot(torch.randint(1, 8, (5,)), 8).double() for k in net.kinds}
    ops["normal"][4] = 0  # an edge that is gone
    cuts = {kind: Mix(op) for kind, op in ops.items()}
    found = net(images, net.per_cell(cuts))
    torch.testing.assert_close(found, dense(images, dense.per_cell(cuts)))
    assert isinstance(net.cells[0], SampledCell)
