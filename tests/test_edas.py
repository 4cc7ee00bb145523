"""EDAS against its equations."""

import dataclasses
import importlib.util
import itertools
import sys
from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from common.bilevel import BilevelTrainer
from common.data import load_train
from common.distributed import generator_of
from common.genotype import CANDIDATES
from common.measures import cut_to_best
from conftest import ROOT
from edas.search import PRESETS, EDASConfig, decay_unsampled, iteration, sign
from edas.supernet import EDASSuperNet
from test_bilevel import CONFIG, batch, make, snapshot
from test_gdas import Calls
from test_resume import identical

SMALL = {"channels": 4, "cells": 3, "nodes": 2, "classes": 3}
EDGES = 5  # of a cell with two nodes
VARIANTS = ("alpha-max", "edas", "edas-inv")


def net_and_batch(**how):
    torch.manual_seed(0)
    net = EDASSuperNet(**{**SMALL, **how}).double()
    for alpha in net.arch_parameters():
        alpha.data.mul_(1000)
    return net, torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])


def configured(variant="edas", **changes):
    """Small, and as a command line would settle it."""
    fields = {field.name for field in dataclasses.fields(CONFIG)} - {"arch_weight_decay"}
    small = {name: getattr(CONFIG, name) for name in fields}
    return EDASConfig(**{**small, "variant": variant, **changes}).resolved()


def searcher(folder, accelerator, variant, **changes):
    """Its config, and a trainer whose alphas are well apart."""
    config = configured(variant, **changes)
    trainer = make(folder, accelerator, EDASSuperNet, config=config)
    for alpha in trainer.arch:
        alpha.data.mul_(100)
    return config, trainer


def adam_state(trainer, alpha):
    return {k: v.clone() for k, v in trainer.arch_optimizer.state.get(alpha, {}).items()}


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("preset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_defaults_are_section_4_1(preset, variant):
    inverts = variant == "edas-inv"
    paper = {
        "dataset": preset, "cells": 20, "channels": 16, "nodes": 6, "epochs": 25,
        "batch_size": 64, "learning_rate": 0.025, "learning_rate_min": 0.001, "momentum": 0.9,
        "weight_decay": 3e-4, "grad_clip": 5.0, "arch_learning_rate": 0.025, "arch_beta1": 0.5,
        "arch_beta2": 0.999, "arch_weight_decay": 1e-3 if inverts else 0,
        "inversion_epochs": 10 if inverts else 0, "decayed": "all", "candidates": 7,
        "move_idle": False, "cutout": 0,
    }  # fmt: skip
    config = dataclasses.replace(PRESETS[preset], variant=variant).resolved()
    config.check()
    assert {key: getattr(config, key) for key in paper} == paper
    assert PRESETS[preset].variant == "edas"


def test_digits_are_deep_and_take_enough_steps():
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


def slow_form(net, images, sampled, sigma):
    """Eq. 2 (sigma = +1) and Eq. 3 (-1), edge by edge as printed; alpha clamped by hand."""
    s0, s1 = net.stem(images)
    for cell, place in zip(net.cells, net.places, strict=True):
        x = list(cell.inputs(s0, s1))
        for j in range(2, 2 + net.nodes):
            f = []
            for i in range(j):
                name = f"alpha_{place.kind}_{i}-{j}"
                alpha = dict(zip(net.candidates, net.arch[name].unbind(), strict=True))
                o = cell.edges[f"{i}-{j}"]
                if name == sampled:
                    total = sum((sigma * alpha[n]).exp() for n in net.candidates)
                    f.append(
                        sum((sigma * alpha[n]).exp() / total * o[n](x[i]) for n in net.candidates)
                    )
                else:
                    known = [n for n in net.candidates if n != "none"]
                    f.append(o[max(known, key=lambda n: sigma * alpha[n].item())](x[i]))
            x.append(sum(f))
        s0, s1 = s1, torch.cat(x[2:], 1)
    return net.classifier(s1.mean((2, 3)))


@pytest.mark.parametrize("candidates", [7, 8])
@pytest.mark.parametrize("sigma", [1, -1])
def test_equations_2_and_3(candidates, sigma):
    """Every edge in turn is the sampled one: logits, and all gradients."""
    net, images, labels = net_and_batch(candidates=candidates)
    net.sigma = sigma
    parameters = list(net.parameters())
    for sampled, name in [*enumerate(net.arch), (None, None)]:
        net.sampled = sampled
        loss, logits = net.loss(images, labels)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        expected = slow_form(net, images, name, sigma)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)
        slow = torch.autograd.grad(
            F.cross_entropy(expected, labels), parameters, allow_unused=True
        )
        for gradient, wanted in zip(found, slow, strict=True):
            assert (gradient is None) == (wanted is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-11)


def test_sigma_turns_softmax_and_argmax_alike_and_not_the_genotype():
    net, images, _ = net_and_batch()
    net.sampled = 2
    up, derived, op = net.mixes()[0], net.derive(), net.mix("normal").op
    net.sigma = -1
    down = net.mixes()[0]
    alphas = torch.stack(net.arch_parameters())[:EDGES].detach()
    for n, alpha in enumerate(alphas):
        if n == 2:
            torch.testing.assert_close(up.weight[n], alpha.softmax(0))
            torch.testing.assert_close(down.weight[n], (-alpha).softmax(0))
        else:
            assert up.active[n] == [alpha.argmax()] and down.active[n] == [alpha.argmin()]
            assert up.weight[n] is None and down.weight[n] is None
    assert net.derive() == derived and torch.equal(net.mix("normal").op, op)


def test_zero_weighs_in_the_relaxed_edge_and_is_never_an_argmax():
    net, images, labels = net_and_batch(candidates=8)
    none = CANDIDATES.index("none")
    for alpha in net.arch_parameters():
        alpha.data[none] = 9
    net.sampled = 1
    for sample in net.mixes():
        assert all(none not in row for n, row in enumerate(sample.active) if len(row) == 1)
    relaxed = net.mixes()[0]
    assert len(relaxed.active[1]) == 8 and relaxed.weight[1][none] > 0.9
    loss, _ = net.loss(images, labels)
    (gradient,) = torch.autograd.grad(loss, [net.arch["alpha_normal_1-2"]])
    assert gradient[none] != 0 and torch.isclose(gradient.sum(), gradient.new_zeros(()))
    assert all(edge.op.name != "none" for cell in net.derive().values() for edge in cell.edges)


def test_nothing_is_lost_by_the_cut_when_no_edge_is_relaxed():
    """The paper's claim: the network of argmax operations is the pruned one, to the bit."""
    net, images, _ = net_and_batch()
    cut = net.per_cell({k: cut_to_best(net.mix(k), net.candidates) for k in net.kinds})
    assert torch.equal(net(images), net(images, cut))
    net.sampled = 0
    assert not torch.equal(net(images), net(images, cut))


# -------------------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("sampled", [1, EDGES + 3])
def test_one_edge_runs_all_candidates_and_every_other_one_operation(sampled):
    net, images, labels = net_and_batch()
    net.sampled = sampled
    ran = Counter()
    for n, cell in enumerate(net.cells):
        for edge, candidates in cell.edges.items():
            for module in candidates.values():
                module.register_forward_hook(lambda *_, key=(n, edge): ran.update([key]))
    loss, _ = net.loss(images, labels)
    for n, place in enumerate(net.places):
        for edge in net.cells[n].edges:
            relaxed = f"alpha_{place.kind}_{edge}" == list(net.arch)[sampled]
            assert ran[n, edge] == (7 if relaxed else 1)
    gradients = torch.autograd.grad(loss, net.arch_parameters(), allow_unused=True)
    assert [n for n, g in enumerate(gradients) if g is not None] == [sampled]


def test_a_pass_reads_once_from_the_device(monkeypatch):
    net, images, labels = net_and_batch(cells=8)
    net.sampled = 3
    reads = []
    original = torch.Tensor.cpu, torch.Tensor.tolist

    def tolist(t):  # of what was computed on the CPU, from the one copy there
        assert t.dtype == torch.int64 and t.shape == (2 * EDGES,)
        return original[1](t)

    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: reads.append(t.shape) or original[0](t))
    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    with Calls() as calls:
        net.loss(images, labels)
    assert reads == [(2 * EDGES, 7)] and calls.reads == 0


def test_the_cost_is_flat_in_the_candidates_outside_the_sampled_edge(monkeypatch):
    """Seven, eight and nine: as many operations, but for the sampled edge's."""

    def operations(candidates, sampled):
        torch.manual_seed(0)
        net = EDASSuperNet(candidates, **SMALL)
        for alpha in net.arch_parameters():
            alpha.data[net.candidates.index("sep_conv_3x3")] = 1
        net.sampled = sampled
        with Calls() as calls:
            loss, _ = net.loss(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1]))
            torch.autograd.grad(loss, net.weight_parameters(), allow_unused=True)
        return calls.all

    seven, eight, relaxed = operations(7, None), operations(8, None), operations(8, 0)
    monkeypatch.setattr("edas.supernet.CANDIDATES", (*CANDIDATES, "sep_conv_7x7"))
    assert seven == eight == operations(8, None)
    assert seven < relaxed < operations(8, 0)


@pytest.fixture(scope="module")
def benchmark():
    """evaluate/benchmark.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "evaluate" / "benchmark.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_memory_is_at_most_1_5_times_the_derived_networks(benchmark):
    """With all 14 edges of its cells; with an edge relaxed, too. (Pools: see the README.)"""
    images, labels = torch.randn(2, 3, 16, 16), torch.tensor([0, 1])
    kept = {
        name: benchmark.kept_mib(kind(channels=8, cells=8), images, labels)
        for name, (kind, _) in benchmark.weight_forms("edas").items()
        if "equation" not in name
    }
    derived = kept["derived, 14 edges"]
    assert kept["edas, no edge, idle op"] == kept["edas, no edge"] < 1.3 * derived
    assert kept["edas, reduction edge"] < kept["edas, normal edge"] < 1.5 * derived
    assert kept["darts, fast"] > 3 * derived


# ------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize("variant", ["alpha-max", "edas"])
def test_alphas_of_unsampled_edges_do_not_move_by_a_bit(tmp_path, accelerator, variant):
    config, trainer = searcher(tmp_path, accelerator, variant)
    drawn = set()
    for trainer.step in range(12):
        before = snapshot(trainer.arch)
        states = [adam_state(trainer, alpha) for alpha in trainer.arch]
        iteration(config, trainer, batch(trainer), trainer.valid_batches.train(trainer.step))
        sampled = edge_of(config, trainer.step, len(trainer.arch))
        drawn.add(sampled)
        for n, alpha in enumerate(trainer.arch):
            still = torch.equal(alpha, before[n])
            assert still == (n != sampled)
            assert identical(adam_state(trainer, alpha), states[n]) == (n != sampled)
    assert len(drawn) > 4


def edge_of(config, step, edges):
    return int(torch.randint(edges, (), generator=generator_of(config.seed, "edge", step)))


def edas_inv(tmp_path, accelerator, decayed):
    """Iterations of EDAS-inv: the edge, alphas and Adam's states before and after each."""
    config, trainer = searcher(tmp_path, accelerator, "edas-inv", decayed=decayed)
    seen = set()
    for trainer.step in range(12):
        before = snapshot(trainer.arch)
        states = [adam_state(trainer, alpha) for alpha in trainer.arch]
        iteration(config, trainer, batch(trainer), trainer.valid_batches.train(trainer.step))
        sampled = edge_of(config, trainer.step, len(trainer.arch))
        for n, alpha in enumerate(trainer.arch):
            if n != sampled:
                after = adam_state(trainer, alpha)
                yield n in seen, before[n], alpha.detach(), states[n], after
        seen.add(sampled)


def test_alphas_of_unsampled_edges_only_decay_in_edas_inv(tmp_path, accelerator):
    decayed = 0
    for was_sampled, before, after, state, state_after in edas_inv(tmp_path, accelerator, "all"):
        assert identical(state, state_after)
        v = torch.tensor(1.0)  # of an edge that was not sampled yet
        if was_sampled:
            v = state["exp_avg_sq"] / (1 - 0.999 ** state["step"])
        expected = before * (1 - 0.01 * 1e-3 / (v.sqrt() + 1e-8)).clamp_min(0)
        torch.testing.assert_close(after, expected, rtol=1e-6, atol=0)
        assert (after.abs() <= before.abs()).all() and (after * before >= 0).all()
        assert not torch.equal(before, after)
        decayed += was_sampled
    assert decayed > 20


def test_the_other_readings_of_the_decay(tmp_path, accelerator):
    for _, before, after, state, state_after in edas_inv(tmp_path / "s", accelerator, "sampled"):
        assert torch.equal(before, after) and identical(state, state_after)
    for _, before, after, state, _ in edas_inv(tmp_path / "a", accelerator, "adam"):
        expected = before.clone().requires_grad_()
        adam = torch.optim.Adam([expected], lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
        if state:
            adam.state[expected] = state
        expected.grad = torch.zeros_like(expected)
        adam.step()
        torch.testing.assert_close(after, expected.detach())
        assert not torch.equal(before, after)


def test_a_decay_halves_at_most():
    alpha, fresh, sampled = (torch.nn.Parameter(torch.tensor([0.5, -0.5])) for _ in range(3))
    adam = torch.optim.Adam([alpha, fresh, sampled], lr=0.025, weight_decay=1e-3)
    for parameter in (alpha, sampled):
        adam.state[parameter] = {
            "step": torch.tensor(1.0), "exp_avg": torch.ones(2),
            "exp_avg_sq": torch.tensor([1e-14, 1e-3]),  # of one almost no gradient ever came
        }
    sampled.grad = torch.ones(2)
    decay_unsampled(adam)
    assert alpha[0] == 0.25 and -0.5 < alpha[1] < -0.49
    assert sampled.tolist() == [0.5, -0.5]
    torch.testing.assert_close(fresh.detach(), (1 - 0.025 * 1e-3) * sampled.detach())


def test_a_decay_of_all_alphas_holds_them_back_much_more_than_one_of_the_sampled():
    """28 edges under noisy gradients, one a step: the spread of each edge (README, reading 5)."""

    def spread(decayed, decay):
        torch.manual_seed(0)
        alphas = [torch.nn.Parameter(1e-3 * torch.randn(7)) for _ in range(28)]
        slopes = [-0.3 * torch.randn(7) for _ in alphas]
        adam = torch.optim.Adam(alphas, 0.025, (0.5, 0.999), weight_decay=decay)
        for step in range(1000):
            sampled = int(torch.randint(28, ()))
            for alpha in alphas:
                alpha.grad = torch.zeros_like(alpha) if decayed == "adam" else None
            alphas[sampled].grad = 1e-3 * (slopes[sampled] + torch.randn(7))
            adam.step()
            if decayed == "all":
                decay_unsampled(adam)
            if step == 0 and decayed == "adam":  # a full step of 0.025 on noise of 0.001
                assert min(a.detach().abs().max() for a in alphas) > 0.02
        return sum((alpha.max() - alpha.min()).item() for alpha in alphas) / 28

    free, sampled, all_, adam = (
        spread(how, decay)
        for how, decay in (("sampled", 0), ("sampled", 1e-3), ("all", 1e-3), ("adam", 1e-3))
    )
    assert max(all_, adam) < 0.3 * sampled and sampled < 0.9 * free
    assert 0.3 < all_ / adam < 3


def test_the_sampled_edges_decay_is_adams(tmp_path, accelerator):
    config, trainer = searcher(tmp_path, accelerator, "edas-inv")
    sampled = edge_of(config, 0, len(trainer.arch))
    expected = trainer.arch[sampled].detach().clone().requires_grad_()
    iteration(config, trainer, batch(trainer), trainer.valid_batches.train(0))
    adam = torch.optim.Adam([expected], lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
    expected.grad = trainer.arch[sampled].grad
    adam.step()
    torch.testing.assert_close(trainer.arch[sampled], expected)


def test_the_sign_alternates_in_the_first_epochs_only():
    assert [sign(0, step, 2) for step in range(5)] == [1, -1, 1, -1, 1]
    assert [sign(1, step, 2) for step in range(5, 10)] == [-1, 1, -1, 1, -1]  # across epochs, too
    assert {sign(2, step, 2) for step in range(10, 15)} == {1}
    assert {sign(0, step, 0) for step in range(5)} == {1}


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_steps_of_an_iteration_see_one_edge_and_one_sign(
    tmp_path, accelerator, monkeypatch, variant
):
    """The edge anew in every iteration of all epochs, the sign to the end of the inversion."""
    inversion = {"inversion_epochs": 2} if variant == "edas-inv" else {}
    config, trainer = searcher(tmp_path, accelerator, variant, batch_size=6, **inversion)
    net, seen = trainer.supernet, []
    assert trainer.steps_per_epoch == 3  # odd: the sign goes on alternating across epochs
    for step in ("arch_step", "weight_step"):
        monkeypatch.setattr(
            BilevelTrainer, step,
            lambda self, half, move_idle, step=step: seen.append(
                (step, half, net.sampled, net.sigma, move_idle)
            ),
        )
    for trainer.epoch, trainer.step in itertools.product(range(3), range(3)):
        iteration(config, trainer, "train", "valid")
    for step in range(9):
        sigma = -1 if variant == "edas-inv" and step % 2 and step < 6 else 1
        edge = edge_of(config, step, 2 * EDGES)
        then = None if variant == "alpha-max" else edge
        assert seen[2 * step : 2 * step + 2] == [
            ("arch_step", "valid", edge, sigma, False),
            ("weight_step", "train", then, sigma, False),
        ]
    seen.clear()
    iteration(dataclasses.replace(config, move_idle=True), trainer, "train", "valid")
    assert seen[1][-1] is True


def test_a_validation_sees_the_network_of_the_last_weight_step(tmp_path, accelerator):
    for variant in ("edas", "alpha-max"):
        config, trainer = searcher(tmp_path / variant, accelerator, variant)
        iteration(config, trainer, batch(trainer), trainer.valid_batches.train(0))
        most = max(len(row) for sample in trainer.supernet.mixes() for row in sample.active)
        assert most == (7 if variant == "edas" else 1)


def test_alpha_max_loses_nothing_by_the_cut_and_its_figures_say_so(tmp_path, accelerator):
    """The paper's claim (3.2): the search's network is the one cut to its best operations."""
    config, trainer = searcher(tmp_path, accelerator, "alpha-max", cut_accuracy="batch")
    iteration(config, trainer, batch(trainer), trainer.valid_batches.train(0))
    figures = trainer.report()
    assert figures["uncut_top1"] == figures["cut_top1"]


def test_edges_are_drawn_uniformly_from_both_kinds_of_cell():
    net = EDASSuperNet(channels=4, cells=3)
    count = Counter()
    for step in range(2800):
        net.sample(generator_of(0, "edge", step))
        count[net.sampled] += 1
    assert sorted(count) == list(range(28))
    assert all(50 < times < 155 for times in count.values())  # 100 expected, sd 9.8


def test_in_the_weight_step_all_operations_of_the_sampled_edge_are_trained(tmp_path, accelerator):
    """By EDAS; by alpha-max the best one only (3.2, 5.3). What did not run rests."""
    for variant in ("edas", "alpha-max"):
        config, trainer = searcher(tmp_path / variant, accelerator, variant)
        names = {id(p): n for n, p in trainer.supernet.named_parameters()}
        before = snapshot(trainer.weights)
        iteration(config, trainer, batch(trainer), trainer.valid_batches.train(0))
        moved = {
            tuple(names[id(p)].split(".")[1:5])  # cell, "edges", edge, operation
            for p, was in zip(trainer.weights, before, strict=True)
            if ".edges." in names[id(p)] and not torch.equal(p, was)
        }
        net, ran = trainer.supernet, set()
        for n, sample in enumerate(net.mixes()):  # alpha has not moved since the weight step
            for (i, j), row in zip(net.edges, sample.active, strict=True):
                ran |= {(str(n), "edges", f"{i}-{j}", net.candidates[k]) for k in row}
        with_weights = {tuple(n.split(".")[1:5]) for n in names.values() if ".edges." in n}
        assert moved == ran & with_weights
        most = max(len(row) for sample in net.mixes() for row in sample.active)
        assert most == (7 if variant == "edas" else 1)
