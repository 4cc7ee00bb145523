"""EDAS' iteration: which parameters move, which stay, which decay."""

import dataclasses
from collections import Counter

import pytest
import torch

from builders import (
    EDAS_VARIANTS,
    EDGES,
    adam_state,
    identical,
    make_edas_trainer,
    snapshot,
    train_batch,
)
from common.distributed import generator_of
from common.training.bilevel import BilevelTrainer
from edas.search import decay_unsampled, iteration, sign
from edas.supernet import EDASSuperNet


def edge_of(config, step, edges=2 * EDGES):
    """The edge that is sampled in this step."""
    return int(torch.randint(edges, (), generator=generator_of(config.seed, "edge", step)))


def iterate(config, trainer):
    valid = trainer.valid_batches.train(trainer.global_step)
    return iteration(config, trainer, train_batch(trainer), valid)


def moved(parameters, before):
    return [n for n, (p, b) in enumerate(zip(parameters, before, strict=True))
            if not torch.equal(p, b)]  # fmt: skip


def adam_step(alpha, gradient, state=None):
    """alpha after one step of Adam, with the search's settings and decay."""
    alpha = alpha.detach().clone().requires_grad_()
    adam = torch.optim.Adam([alpha], lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
    if state:
        adam.state[alpha] = state
    alpha.grad = gradient
    adam.step()
    return alpha.detach()


# ----------------------------------------------------------------------------- alphas of one edge


@pytest.mark.parametrize("variant", ["alpha-max", "edas"])
def test_alphas_and_adams_state_of_unsampled_edges_stay_to_the_bit(tmp_path, accelerator, variant):
    config, trainer = make_edas_trainer(tmp_path, accelerator, variant)
    drawn = set()
    for trainer.global_step in range(12):
        before = snapshot(trainer.arch)
        states = [adam_state(trainer, alpha) for alpha in trainer.arch]
        iterate(config, trainer)
        sampled = edge_of(config, trainer.global_step)
        drawn.add(sampled)
        assert moved(trainer.arch, before) == [sampled]
        for n, alpha in enumerate(trainer.arch):
            assert identical(adam_state(trainer, alpha), states[n]) == (n != sampled)
    assert len(drawn) > 4


def test_an_edge_of_each_kind_can_be_relaxed(tmp_path, accelerator):
    config, trainer = make_edas_trainer(tmp_path, accelerator, "edas", edge_per_kind=True)
    pairs = set()
    for trainer.global_step in range(4):
        before = snapshot(trainer.arch)
        normal, reduction = iterate(config, trainer)
        assert normal < EDGES <= reduction < 2 * EDGES
        assert moved(trainer.arch, before) == [normal, reduction]
        pairs.add((normal, reduction))
    assert len(pairs) > 1 and any(normal + EDGES != reduction for normal, reduction in pairs)


def test_edges_are_drawn_uniformly_from_both_kinds_of_cell():
    net = EDASSuperNet(channels=4, cells=3)
    count = Counter()
    for step in range(2800):
        count.update(net.sample(generator_of(0, "edge", step)))
    assert sorted(count) == list(range(28))
    assert all(50 < times < 155 for times in count.values())  # 100 expected, sd 9.8


# ------------------------------------------------------------------------------- decay in EDAS-inv


def unsampled_edges(tmp_path, accelerator, decayed):
    """Of 12 iterations: sampled before?, alpha before and after, Adam's state before and after."""
    config, trainer = make_edas_trainer(tmp_path, accelerator, "edas-inv", decayed=decayed)
    seen = set()
    for trainer.global_step in range(12):
        before = snapshot(trainer.arch)
        states = [adam_state(trainer, alpha) for alpha in trainer.arch]
        iterate(config, trainer)
        sampled = edge_of(config, trainer.global_step)
        for n, alpha in enumerate(trainer.arch):
            if n != sampled:
                yield n in seen, before[n], alpha.detach(), states[n], adam_state(trainer, alpha)
        seen.add(sampled)


def test_unsampled_alphas_decay_scaled_by_their_second_moment(tmp_path, accelerator):
    decayed = 0
    for was_sampled, before, after, state, now in unsampled_edges(tmp_path, accelerator, "all"):
        assert identical(state, now)
        v = torch.tensor(1.0)
        if was_sampled:
            v = state["exp_avg_sq"] / (1 - 0.999 ** state["step"])
        expected = before * (1 - 0.01 * 1e-3 / (v.sqrt() + 1e-8)).clamp_min(0.5)
        torch.testing.assert_close(after, expected, rtol=1e-6, atol=0)
        assert not torch.equal(before, after)
        decayed += was_sampled
    assert decayed > 20


def test_the_other_readings_of_the_decay(tmp_path, accelerator):
    for _, before, after, state, now in unsampled_edges(tmp_path / "s", accelerator, "sampled"):
        assert torch.equal(before, after) and identical(state, now)
    for _, before, after, state, _ in unsampled_edges(tmp_path / "a", accelerator, "adam"):
        torch.testing.assert_close(after, adam_step(before, torch.zeros_like(before), state))
        assert not torch.equal(before, after)


def test_the_sampled_edges_decay_is_adams(tmp_path, accelerator):
    config, trainer = make_edas_trainer(tmp_path, accelerator, "edas-inv")
    alpha = trainer.arch[edge_of(config, 0)]
    before = alpha.detach().clone()
    iterate(config, trainer)
    torch.testing.assert_close(alpha.detach(), adam_step(before, alpha.grad))


def test_a_decay_halves_alpha_at_most():
    alpha, fresh, sampled = (torch.nn.Parameter(torch.tensor([0.5, -0.5])) for _ in range(3))
    adam = torch.optim.Adam([alpha, fresh, sampled], lr=0.025, weight_decay=1e-3)
    for parameter in (alpha, sampled):
        adam.state[parameter] = {
            "step": torch.tensor(1.0), "exp_avg": torch.ones(2),
            "exp_avg_sq": torch.tensor([1e-14, 1e-3]),  # the first has had almost no gradient
        }
    sampled.grad = torch.ones(2)
    decay_unsampled(adam)
    assert alpha[0] == 0.25 and -0.5 < alpha[1] < -0.49
    assert sampled.tolist() == [0.5, -0.5]
    torch.testing.assert_close(fresh.detach(), (1 - 0.025 * 1e-3) * sampled.detach())


@pytest.mark.parametrize("decayed", ["all", "adam", "sampled"])
def test_alphas_decay_in_the_first_epochs_only(tmp_path, accelerator, decayed):
    how = {"decayed": decayed, "decay_epochs": 1}
    config, trainer = make_edas_trainer(tmp_path, accelerator, "edas-inv", **how)
    iterate(config, trainer)
    assert trainer.arch_optimizer.param_groups[0]["weight_decay"] == 1e-3
    trainer.epoch = trainer.global_step = 1
    before = snapshot(trainer.arch)
    iterate(config, trainer)
    assert trainer.arch_optimizer.param_groups[0]["weight_decay"] == 0
    assert moved(trainer.arch, before) == [edge_of(config, 1)]


# --------------------------------------------------------------------------- both steps of one edge


def test_the_sign_alternates_in_the_first_epochs_only():
    assert [sign(0, step, 2) for step in range(5)] == [1, -1, 1, -1, 1]
    assert [sign(1, step, 2) for step in range(5, 10)] == [-1, 1, -1, 1, -1]  # across epochs
    assert {sign(2, step, 2) for step in range(10, 15)} == {1}
    assert {sign(0, step, 0) for step in range(5)} == {1}


@pytest.mark.parametrize("variant", EDAS_VARIANTS)
def test_both_steps_of_an_iteration_use_one_edge_and_one_sign(
    tmp_path, accelerator, monkeypatch, variant
):
    """Nine iterations of three epochs; EDAS-inv inverts in the first two. alpha-max trains
    weights without a relaxed edge (5.3)."""
    inversion = {"inversion_epochs": 2} if variant == "edas-inv" else {}
    config, trainer = make_edas_trainer(tmp_path, accelerator, variant, **inversion)
    seen = []
    for step in ("arch_step", "weight_step"):
        monkeypatch.setattr(
            BilevelTrainer, step,
            lambda self, half, step=step, **given: seen.append((step, half, given)),
        )
    for trainer.global_step in range(9):
        n, trainer.epoch = trainer.global_step, trainer.global_step // 3
        relaxed = iteration(config, trainer, "train", "valid")
        sigma = -1 if variant == "edas-inv" and n % 2 and n < 6 else 1
        edge = (edge_of(config, n),)
        assert relaxed == (() if variant == "alpha-max" else edge)
        given = {"move_idle": False, "sigma": sigma}
        assert seen[-2:] == [
            ("arch_step", "valid", {"sampled": edge, **given}),
            ("weight_step", "train", {"sampled": relaxed, **given}),
        ]
    iteration(dataclasses.replace(config, move_idle=True), trainer, "train", "valid")
    assert seen[-1][2]["move_idle"] and not seen[-2][2]["move_idle"]


@pytest.mark.parametrize(("variant", "most"), [("edas", 7), ("alpha-max", 1)])
def test_the_weight_step_trains_the_operations_that_run(tmp_path, accelerator, variant, most):
    """All of the sampled edge by EDAS, the best one by alpha-max (3.2, 5.3)."""
    config, trainer = make_edas_trainer(tmp_path, accelerator, variant)
    net, before = trainer.supernet, snapshot(trainer.weights)
    relaxed = iterate(config, trainer)
    mixes = net.mixes(sampled=relaxed)  # alpha has not moved since the weight step
    ran = {
        f"cells.{n}.edges.{i}-{j}.{net.candidates[k]}."
        for n, sample in enumerate(mixes)
        for (i, j), row in zip(net.edges, sample.active, strict=True) for k in row
    }  # fmt: skip
    assert max(len(row) for sample in mixes for row in sample.active) == most
    names = [name for name, _ in net.named_parameters() if not name.startswith("arch.")]
    trained = {names[n] for n in moved(trainer.weights, before)}
    for name in names:
        if ".edges." in name:
            assert (name in trained) == any(name.startswith(prefix) for prefix in ran), name


def test_alpha_max_loses_nothing_by_the_cut_and_its_metrics_show_it(tmp_path, accelerator):
    """The search's network is the one cut to its best operations (3.2)."""
    config, trainer = make_edas_trainer(tmp_path, accelerator, "alpha-max", cut_accuracy="batch")
    metrics = trainer.held_out_metrics(sampled=iterate(config, trainer))
    assert metrics["uncut_top1"] == metrics["cut_top1"]
