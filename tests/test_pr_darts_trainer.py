"""PR-DARTS' trainer: the batch size, restarts, states."""

import copy
import dataclasses

import pytest
import torch
from accelerate.utils import tqdm

from pr_darts.batch_size import BatchRule, used_memory
from pr_darts.search import prune_and_morph
from pr_darts.trainer import CycleTrainer
from test_bilevel import equal, snapshot
from test_pr_darts import CONFIG, make

# --------------------------------------------------------------------------------- the batch size


def test_sizes_are_the_least_and_steps_up_to_the_most():
    rule = BatchRule(24, 8, 128, 0.95)
    bounds = {1: 24, 24: 24, 31.9: 24, 32: 32, 127: 120, 128: 128, 999: 128}
    assert {bound: rule.largest(bound) for bound in bounds} == bounds
    assert BatchRule(10, 8, 30, 0.95).largest(30) == 26
    assert BatchRule(24, 8, 128, 0.95, processes=3).largest(60) == 48  # shared out equally


def test_the_linear_rule():
    """Expected memory used * new / size up to the threshold; not more than the double at once."""
    rule = BatchRule(24, 8, 128, 0.95)
    for size in range(24, 129, 8):
        for used in (0.1, 0.3, 0.5, 0.62, 0.8, 0.94):
            new = rule.by_memory(size, used)
            assert (used * new / size <= 0.95 or new == 24) and new <= 2 * size
            larger = new + 8
            assert larger > 128 or larger > 2 * size or used * larger / size > 0.95
    assert rule.by_memory(64, 1.0) == 56  # what does not fit is given back


def test_on_a_cpu_images_times_candidates_stay():
    rule = BatchRule(24, 8, 128, 0.95)
    sizes = [rule.by_candidates(28 * k, 28 * 4) for k in (4, 6, 5, 4, 3, 2, 100)]
    assert sizes == [128, 80, 96, 128, 128, 128, 24]


@pytest.mark.parametrize(("size", "share"), [(None, 0.1), (11, 8 / 11), (100, 0.1)])
def test_the_size_that_a_gpu_is_taken_to_have(size, share, accelerator, monkeypatch):
    """8 GiB used of 20 that torch holds and 60 that are free; a larger size changes nothing."""
    for name, gib in {"max_memory_allocated": 8, "memory_reserved": 20}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, gib=gib: gib * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60 * 2**30, 139 * 2**30))
    assert used_memory(accelerator, size) == pytest.approx(share)
    rule = BatchRule(24, 8, 128, 0.95)
    assert rule.by_memory(64, share) == (80 if size == 11 else 128)


def test_sizes_are_rounded_down():
    rule = BatchRule(24, 8, 128, 0.95)
    assert [rule.largest(bound) for bound in (39.9, 36, 28, 47)] == [32, 32, 24, 40]


def test_on_a_gpu_every_five_steps_by_the_fullest_of_them(tmp_path, accelerator, monkeypatch):
    trainer, looked = make(tmp_path, accelerator), []

    class Cuda:
        type = "cuda"

    monkeypatch.setattr(type(trainer.accelerator), "device", property(lambda self: Cuda()))
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(
        "pr_darts.trainer.used_memory", lambda *_: looked.append(trainer.step) or 0.475
    )
    trainer._begin_cycle()
    assert trainer.batch_size == 4  # a cycle begins with the least
    sizes = []
    for trainer.step in range(16):
        trainer.resize_batch()
        sizes.append(trainer.batch_size)
    assert looked == [4, 9, 14] and sizes == [4] * 4 + [8] * 5 + [10] * 7
    assert trainer.valid_batches.batch_size == 10
    monkeypatch.setattr(CycleTrainer, "_renew_optimizers", lambda self: None)
    trainer.restart()
    assert trainer.batch_size == 4


def test_batches_of_changing_size_pass_over_the_images_once(tmp_path, accelerator):
    trainer = make(tmp_path, accelerator)
    served = {"train": [], "valid": []}
    for name in served:
        one = getattr(trainer, f"{name}_batches")
        original = one._augmented
        one._augmented = lambda b, *d, name=name, to=original: served[name].append(b) or to(b, *d)
    trainer.bar = tqdm(disable=True)
    for trainer.epoch in range(2):
        trainer.step = trainer.seen = 0
        trainer._set_batch_size(10)
        for _ in trainer.batches():
            trainer._set_batch_size((4, 8, 6)[trainer.step % 3])
    # Of 25 images 10, 4 and 8; 6 more are not left, of this pass over either half.
    sizes = {name: [len(batch) for batch in batches] for name, batches in served.items()}
    assert sizes == dict.fromkeys(("train", "valid"), [10, 4, 8] * 2)
    for batches in served.values():
        passes = [torch.cat(batches[n : n + 3]) for n in (0, 3)]
        assert [len(one.unique()) for one in passes] == [22, 22]
        assert not torch.equal(*passes)
    trainer._set_batch_size(3)
    trainer.step = trainer.seen = 0
    next(trainer.batches())
    assert trainer.valid_at == (1, 25)  # a pass goes on into the next epoch


# -------------------------------------------------------------------------------------- the trainer


def test_a_restart_forgets_the_optimisers_and_nothing_else(tmp_path, accelerator):
    trainer = make(tmp_path, accelerator)
    batch = trainer.train_batches.train(0)
    for _ in range(2):
        trainer.arch_step(batch)
        trainer.weight_step(batch)
    net, old = trainer.supernet, trainer.optimizers
    stem = snapshot(net.stem.parameters())
    pools, parents = prune_and_morph(CONFIG, net, trainer.cycle)
    net.rebuild(pools, parents)
    trainer.restart()
    assert trainer.cycle.number == 2 and trainer.optimizer is not old[0]
    assert equal(net.stem.parameters(), stem)
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
    trainer, rates = make(tmp_path, accelerator), []
    for cycle in trainer.table:
        trainer.cycle = cycle
        trainer._renew_optimizers()
        for epoch in range(cycle.start, cycle.end):
            trainer.schedule.step(epoch)
            rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.055, 0.1, 0.1])


def test_a_state_rebuilds_its_network(tmp_path, accelerator):
    trainer, other = (make(tmp_path / name, accelerator) for name in "ab")
    config = dataclasses.replace(CONFIG, space="ur")
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
    assert equal(other.weights, snapshot(trainer.weights))
