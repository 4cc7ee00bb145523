"""EDAS' iteration: what moves, what rests, what decays."""

import dataclasses
from collections import Counter

import pytest
import torch

from common.distributed import generator_of
from common.training.bilevel import BilevelTrainer
from edas.search import decay_unsampled, iteration, sign
from edas.supernet import EDASSuperNet
from test_bilevel import batch, snapshot
from test_edas import EDGES, VARIANTS, adam_state, searcher
from test_resume import identical


@pytest.mark.parametrize("variant", ["alpha-max", "edas"])
def test_alphas_of_unsampled_edges_do_not_move_by_a_bit(tmp_path, accelerator, variant):
    config, trainer = searcher(tmp_path, accelerator, variant)
    drawn = set()
    for trainer.global_step in range(12):
        before = snapshot(trainer.arch)
        states = [adam_state(trainer, alpha) for alpha in trainer.arch]
        iteration(config, trainer, batch(trainer), trainer.valid_batches.train(trainer.global_step))
        sampled = edge_of(config, trainer.global_step, len(trainer.arch))
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
    for trainer.global_step in range(12):
        before = snapshot(trainer.arch)
        states = [adam_state(trainer, alpha) for alpha in trainer.arch]
        iteration(config, trainer, batch(trainer), trainer.valid_batches.train(trainer.global_step))
        sampled = edge_of(config, trainer.global_step, len(trainer.arch))
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


@pytest.mark.parametrize("decayed", ["all", "adam", "sampled"])
def test_alphas_decay_in_the_first_epochs_only(tmp_path, accelerator, decayed):
    """After them a sampled edge moves by its gradient alone, and every other edge rests."""
    config, trainer = searcher(tmp_path, accelerator, "edas-inv", decayed=decayed, decay_epochs=1)
    iteration(config, trainer, batch(trainer), trainer.valid_batches.train(0))
    assert trainer.arch_optimizer.param_groups[0]["weight_decay"] == 1e-3
    trainer.epoch, before = 1, snapshot(trainer.arch)
    iteration(config, trainer, batch(trainer), trainer.valid_batches.train(1))
    assert trainer.arch_optimizer.param_groups[0]["weight_decay"] == 0
    moved = [n for n, (p, was) in enumerate(zip(trainer.arch, before, strict=True))
             if not torch.equal(p, was)]
    assert moved == [edge_of(config, trainer.global_step, len(trainer.arch))]


def test_an_edge_of_each_kind_can_be_relaxed(tmp_path, accelerator):
    config, trainer = searcher(tmp_path, accelerator, "edas", edge_per_kind=True)
    pairs = set()
    for trainer.global_step in range(4):
        before, valid = snapshot(trainer.arch), trainer.valid_batches.train(trainer.global_step)
        normal, reduction = iteration(config, trainer, batch(trainer), valid)
        assert normal < EDGES <= reduction < 2 * EDGES
        moved = [n for n, (p, was) in enumerate(zip(trainer.arch, before, strict=True))
                 if not torch.equal(p, was)]
        assert moved == [normal, reduction]
        pairs.add((normal, reduction))
    assert len(pairs) > 1 and any(normal + EDGES != reduction for normal, reduction in pairs)


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
    seen = []
    assert len(trainer.train_batches) == 3  # odd: the sign goes on alternating across epochs
    for step in ("arch_step", "weight_step"):
        monkeypatch.setattr(
            BilevelTrainer, step,
            lambda self, half, move_idle, sampled, sigma, step=step: seen.append(
                (step, half, sampled, sigma, move_idle)
            ),
        )
    for trainer.global_step in range(9):
        trainer.epoch = trainer.global_step // 3
        iteration(config, trainer, "train", "valid")
    for step in range(9):
        sigma = -1 if variant == "edas-inv" and step % 2 and step < 6 else 1
        edge = edge_of(config, step, 2 * EDGES)
        then = () if variant == "alpha-max" else (edge,)
        assert seen[2 * step : 2 * step + 2] == [
            ("arch_step", "valid", (edge,), sigma, False),
            ("weight_step", "train", then, sigma, False),
        ]
    seen.clear()
    iteration(dataclasses.replace(config, move_idle=True), trainer, "train", "valid")
    assert seen[1][-1] is True


def test_a_validation_sees_the_network_of_the_last_weight_step(tmp_path, accelerator):
    for variant in ("edas", "alpha-max"):
        config, trainer = searcher(tmp_path / variant, accelerator, variant)
        relaxed = iteration(config, trainer, batch(trainer), trainer.valid_batches.train(0))
        mixes = trainer.supernet.mixes(sampled=relaxed)
        most = max(len(row) for sample in mixes for row in sample.active)
        assert most == (7 if variant == "edas" else 1)


def test_alpha_max_loses_nothing_by_the_cut_and_its_figures_say_so(tmp_path, accelerator):
    """The paper's claim (3.2): the search's network is the one cut to its best operations."""
    config, trainer = searcher(tmp_path, accelerator, "alpha-max", cut_accuracy="batch")
    relaxed = iteration(config, trainer, batch(trainer), trainer.valid_batches.train(0))
    figures = trainer.held_out_metrics(sampled=relaxed)
    assert figures["uncut_top1"] == figures["cut_top1"]


def test_edges_are_drawn_uniformly_from_both_kinds_of_cell():
    net = EDASSuperNet(channels=4, cells=3)
    count = Counter()
    for step in range(2800):
        count.update(net.sample(generator_of(0, "edge", step)))
    assert sorted(count) == list(range(28))
    assert all(50 < times < 155 for times in count.values())  # 100 expected, sd 9.8


def test_in_the_weight_step_all_operations_of_the_sampled_edge_are_trained(tmp_path, accelerator):
    """By EDAS; by alpha-max the best one only (3.2, 5.3). What did not run rests."""
    for variant in ("edas", "alpha-max"):
        config, trainer = searcher(tmp_path / variant, accelerator, variant)
        names = {id(p): n for n, p in trainer.supernet.named_parameters()}
        before = snapshot(trainer.weights)
        relaxed = iteration(config, trainer, batch(trainer), trainer.valid_batches.train(0))
        moved = {
            tuple(names[id(p)].split(".")[1:5])  # cell, "edges", edge, operation
            for p, was in zip(trainer.weights, before, strict=True)
            if ".edges." in names[id(p)] and not torch.equal(p, was)
        }
        net, ran = trainer.supernet, set()
        mixes = net.mixes(sampled=relaxed)
        for n, sample in enumerate(mixes):  # alpha has not moved since the weight step
            for (i, j), row in zip(net.edges, sample.active, strict=True):
                ran |= {(str(n), "edges", f"{i}-{j}", net.candidates[k]) for k in row}
        with_weights = {tuple(n.split(".")[1:5]) for n in names.values() if ".edges." in n}
        assert moved == ran & with_weights
        most = max(len(row) for sample in mixes for row in sample.active)
        assert most == (7 if variant == "edas" else 1)
