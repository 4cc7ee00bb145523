"""PR-DARTS' trainer: batch size, restarts, checkpoints."""

import copy
import dataclasses

import pytest
import torch

from builders import CYCLE_CONFIG, make_cycle_trainer, snapshot, unchanged
from pr_darts.batch_size import BatchRule, used_memory
from pr_darts.search import prune_and_morph

# --------------------------------------------------------------------------------- the batch size


def test_sizes_are_rounded_down_to_the_grid():
    rule = BatchRule(24, 8, 128, 0.95)
    bounds = {1: 24, 24: 24, 31.9: 24, 32: 32, 39.9: 32, 127: 120, 128: 128, 999: 128}
    assert {bound: rule.largest(bound) for bound in bounds} == bounds
    assert BatchRule(10, 8, 30, 0.95).largest(30) == 26
    assert BatchRule(24, 8, 128, 0.95, processes=3).largest(60) == 48  # shared out equally


def test_the_linear_rule():
    """The largest size with used * new / size up to the threshold, at most doubled."""
    rule = BatchRule(24, 8, 128, 0.95)
    for size in range(24, 129, 8):
        for used in (0.1, 0.3, 0.5, 0.62, 0.8, 0.94):
            new = rule.by_memory(size, used)
            assert (used * new / size <= 0.95 or new == 24) and new <= 2 * size
            larger = new + 8
            assert larger > 128 or larger > 2 * size or used * larger / size > 0.95
    assert rule.by_memory(64, 1.0) == 56  # it can shrink


def test_on_a_cpu_images_times_candidates_stay_constant():
    rule = BatchRule(24, 8, 128, 0.95)
    sizes = [rule.by_candidates(28 * k, 28 * 4) for k in (4, 6, 5, 4, 3, 2, 100)]
    assert sizes == [128, 80, 96, 128, 128, 128, 24]


@pytest.mark.parametrize(("size", "share"), [(None, 0.1), (11, 8 / 11), (100, 0.1)])
def test_memory_gib_limits_the_memory_of_a_gpu(size, share, accelerator, monkeypatch):
    """8 GiB used, of 20 reserved by torch and 60 free; a larger size has no effect."""
    for name, gib in {"max_memory_allocated": 8, "memory_reserved": 20}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, gib=gib: gib * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60 * 2**30, 139 * 2**30))
    assert used_memory(accelerator, size) == pytest.approx(share)
    rule = BatchRule(24, 8, 128, 0.95)
    assert rule.by_memory(64, share) == (80 if size == 11 else 128)


def test_on_a_gpu_the_size_follows_memory_every_five_steps(tmp_path, accelerator, monkeypatch):
    trainer, looked = make_cycle_trainer(tmp_path, accelerator), []

    class Cuda:
        type = "cuda"

    monkeypatch.setattr(type(trainer.accelerator), "device", property(lambda self: Cuda()))
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(
        "pr_darts.trainer.used_memory", lambda *_: looked.append(trainer.step) or 0.475
    )
    trainer.restart()
    assert trainer.batch_size == 4  # a cycle starts at the minimum
    sizes = []
    for trainer.step in range(16):
        trainer.resize_batch()
        sizes.append(trainer.batch_size)
    assert looked == [4, 9, 14] and sizes == [4] * 4 + [8] * 5 + [10] * 7
    assert trainer.valid_batches.batch_size == 10
    trainer.restart()
    assert trainer.batch_size == 4


def test_an_epoch_of_changing_batches_uses_no_image_twice(tmp_path, accelerator):
    config = dataclasses.replace(CYCLE_CONFIG, crop_padding=0, flip=False)
    trainer = make_cycle_trainer(tmp_path, accelerator, config)
    epochs = []
    for _ in trainer.epochs(until=2):
        epochs.append(([], []))
        trainer.set_batch_size(10)
        for pair in trainer.batches():
            for served, (images, _) in zip(epochs[-1], pair, strict=True):
                served.append([tuple(image.flatten().tolist()) for image in images])
            trainer.set_batch_size((4, 8, 6)[trainer.step % 3])
        trainer.validated = True
    for half in range(2):  # 10, 4 and 8 of 25 images; the next 6 do not fit
        orders = []
        for served in (epoch[half] for epoch in epochs):
            assert [len(batch) for batch in served] == [10, 4, 8]
            orders.append(sum(served, []))
            assert len(set(orders[-1])) == 22
        assert orders[0] != orders[1]


# -------------------------------------------------------------------------------------- the trainer


def test_a_restart_resets_the_optimisers_only(tmp_path, accelerator):
    trainer = make_cycle_trainer(tmp_path, accelerator)
    batch = trainer.train_batches.train(0)
    for _ in range(2):
        trainer.arch_step(batch)
        trainer.weight_step(batch)
    net, old = trainer.supernet, trainer.optimizers
    stem = snapshot(net.stem.parameters())
    pools, parents = prune_and_morph(CYCLE_CONFIG, net, trainer.cycle)
    net.rebuild(pools, parents)
    trainer.restart()
    assert trainer.cycle.number == 2 and trainer.optimizer is not old[0]
    assert unchanged(net.stem.parameters(), stem)
    for weight in trainer.weights:
        assert not trainer.optimizer.state[weight]["momentum_buffer"].any()
    assert not trainer.arch_optimizer.state
    ours = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert ours == {id(p) for n, p in net.named_parameters() if not n.startswith("arch.")}
    assert {id(p) for p in trainer.arch} == {id(p) for p in net.arch_parameters()}
    before = snapshot(trainer.weights)
    trainer.weight_step(trainer.train_batches.train(1))
    assert not any(map(torch.equal, trainer.weights, before))


def test_the_learning_rate_restarts_with_each_cycle(tmp_path, accelerator):
    trainer, rates = make_cycle_trainer(tmp_path, accelerator), []
    for cycle in trainer.cycles():
        for _ in trainer.epochs(until=cycle.end):
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            trainer.validated = True
        if not cycle.last:
            trainer.restart()
    assert rates == pytest.approx([0.1, 0.055, 0.1, 0.1])


def test_a_state_rebuilds_its_network(tmp_path, accelerator):
    trainer, other = (make_cycle_trainer(tmp_path / name, accelerator) for name in "ab")
    config = dataclasses.replace(CYCLE_CONFIG, space="ur")
    trainer.supernet.rebuild(*prune_and_morph(config, trainer.supernet, trainer.cycle))
    trainer.restart()
    trainer.arch_step(trainer.train_batches.train(0))
    trainer.weight_step(trainer.train_batches.train(0))
    other.load_state(copy.deepcopy(trainer.state()))
    assert other.supernet.pools == trainer.supernet.pools and other.cycle == trainer.cycle
    theirs, ours = trainer.supernet.state_dict(), other.supernet.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    for one in (trainer, other):
        one.weight_step(one.train_batches.train(1))
    assert unchanged(other.weights, snapshot(trainer.weights))
