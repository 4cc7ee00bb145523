"""The bilevel trainer: its steps, batches, and what it records."""

import copy
import dataclasses
import functools
import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from builders import (
    SEARCH_CONFIG,
    identical,
    make_search_trainer,
    snapshot,
    train_batch,
    unchanged,
)
from common.data.batches import Augmentation
from common.data.images import Images
from common.data.split import Split
from common.errors import InputError, NotFinite
from common.supernet.supernet import SuperNet
from common.training import opening
from common.training.bilevel import BilevelTrainer
from common.training.hessian import dominant_eigenvalue
from gdas.supernet import GDASSuperNet
from pc_darts.supernet import PCDARTSSuperNet


@pytest.fixture
def trainer(tmp_path, accelerator):
    return make_search_trainer(tmp_path, accelerator, SuperNet)


@pytest.mark.parametrize("betas", [(0.5, 0.999), (0.9, 0.99)])
def test_arch_step_is_adam_on_the_validation_gradient(tmp_path, accelerator, betas):
    config = dataclasses.replace(SEARCH_CONFIG, arch_beta1=betas[0], arch_beta2=betas[1])
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet, config=config)
    weights, arch = snapshot(trainer.weights), snapshot(trainer.arch)
    expected = [p.clone().requires_grad_() for p in arch]
    adam = torch.optim.Adam(expected, lr=0.01, betas=betas, weight_decay=1e-3)
    for step in range(3):  # the first one is the same for all betas
        images, labels = trainer.valid_batches.train(step)
        loss = F.cross_entropy(trainer.supernet(images), labels)
        gradients = torch.autograd.grad(loss, trainer.arch)
        for parameter, gradient in zip(expected, gradients, strict=True):
            parameter.grad = gradient
        adam.step()
        trainer.arch_step((images, labels))
        for got, want in zip(trainer.arch, expected, strict=True):
            torch.testing.assert_close(got, want)
    assert unchanged(trainer.weights, weights)
    assert not unchanged(trainer.arch, arch)


def test_weight_step_is_clipped_sgd_on_the_training_gradient(trainer):
    arch = snapshot(trainer.arch)
    expected = [p.detach().clone().requires_grad_() for p in trainer.weights]
    sgd = torch.optim.SGD(expected, lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(2):
        images, labels = train_batch(trainer, step)
        loss = F.cross_entropy(trainer.supernet(images), labels)
        gradients = torch.autograd.grad(loss, trainer.weights)
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        assert norm > 0.5  # the limit bites
        for parameter, gradient in zip(expected, gradients, strict=True):
            parameter.grad = gradient * (0.5 / (norm + 1e-6))
        sgd.step()
        trainer.weight_step((images, labels))
        for got, want in zip(trainer.weights, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    assert unchanged(trainer.arch, arch)


class ConvolutionBackward(TorchDispatchMode):
    """Records which gradients (input, weight, bias) each convolution's backward computes."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(args[-1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [SuperNet, PCDARTSSuperNet])
def test_steps_compute_no_gradient_that_they_do_not_use(tmp_path, accelerator, kind):
    trained = []

    class Recording(kind):
        def loss(self, *given):
            of = self.weight_parameters(), self.arch_parameters()
            trained.append([any(p.requires_grad for p in group) for group in of])
            return super().loss(*given)

    trainer = make_search_trainer(tmp_path, accelerator, Recording)
    with ConvolutionBackward() as arch:
        trainer.arch_step(train_batch(trainer))
    with ConvolutionBackward() as weight:
        trainer.weight_step(train_batch(trainer))
    assert trained == [[False, True], [True, False]]
    assert arch.masks and not any(of_weight for _, of_weight, _ in arch.masks)
    # of a weight each, or of an input just before the strips of its wide kernel
    assert weight.masks[-1][1]
    strip = [False, True, False]
    assert all(of[1] or after == strip for of, after in pairwise(weight.masks))
    assert all(p.requires_grad for p in trainer.supernet.parameters())  # afterwards


def test_batches_pair_both_parts(trainer):
    next(trainer.epochs())
    pairs = list(trainer.batches())
    assert len(pairs) == 20 // 8
    for train, valid in pairs:
        assert len(train[1]) == len(valid[1]) == 8
        assert not torch.equal(train[0], valid[0])
    assert trainer.train_batches.indices.tolist() == trainer.split.train.tolist()
    assert trainer.valid_batches.indices.tolist() == trainer.split.valid.tolist()
    trainer.seen = 0
    assert [valid for _, valid in trainer.batches(valid=False)] == [None, None]


@pytest.mark.parametrize("verb", ["arch_step", "unrolled_arch_step"])
def test_arch_gradient_is_clipped_by_its_flag(tmp_path, accelerator, verb):
    norms = []
    for limit in (0.0, 1e-3):
        config = dataclasses.replace(SEARCH_CONFIG, arch_grad_clip=limit)
        trainer = make_search_trainer(tmp_path, accelerator, SuperNet, config=config)
        valid = trainer.valid_batches.train(0)
        batches = (valid,) if verb == "arch_step" else (train_batch(trainer), valid)
        getattr(trainer, verb)(*batches)
        norms.append(torch.cat([p.grad.flatten() for p in trainer.arch]).norm().item())
    assert norms[0] > 2e-3 and norms[1] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_learning_rate_follows_the_epochs(tmp_path, accelerator, warmup):
    """A cosine from its flag to its minimum, after the warm-up; the architecture's is constant."""
    config = dataclasses.replace(SEARCH_CONFIG, epochs=5, learning_rate_min=0.01)
    kind = functools.partial(BilevelTrainer, rate_warmup=warmup)
    trainer, rates = make_search_trainer(tmp_path, accelerator, SuperNet, kind, config=config), []
    for _ in trainer.epochs():
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        assert trainer.arch_optimizer.param_groups[0]["lr"] == 0.01
        trainer.validated = True
    expected = [0.01 + 0.09 * (1 + math.cos(math.pi * e / 5)) / 2 for e in range(5)]
    expected[:warmup] = [0.05, 0.1][:warmup]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("verb", ["arch_step", "weight_step", "unrolled_arch_step"])
def test_a_loss_that_is_not_finite_is_reported_and_not_saved(tmp_path, accelerator, verb):
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet)
    with pytest.raises(NotFinite, match=r"step 3 \(epoch 2, step 2 of it\)"):
        for _ in trainer.epochs():
            for images, _labels in trainer.batches():
                if trainer.global_step >= 3:
                    images[0][:] = torch.nan
                good = [train_batch(trainer)] if verb == "unrolled_arch_step" else []
                getattr(trainer, verb)(*good, (images[0], images[1]))
                if verb != "weight_step":
                    trainer.weight_step(train_batch(trainer))
            trainer.validate()
    names = sorted(p.name for p in (tmp_path / "checkpoints").glob("*.pt"))
    assert names[-1] == "epoch-00001-step-0000000.pt"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_each_epoch_records_metrics_architecture_and_genotype(trainer):
    for _ in trainer.epochs():
        for train, valid in trainer.batches():
            trainer.arch_step(valid)
            trainer.weight_step(train)
        trainer.validate()
    metrics, architecture, genotypes = (
        trainer.run.lines(f"{name}.jsonl") for name in ("metrics", "architecture", "genotypes")
    )
    assert len(metrics) == len(architecture) == len(genotypes) == 2
    keys = (
        "epoch train_loss train_top1 valid_loss valid_top1 hessian_eigenvalue learning_rate "
        "seconds images_per_second peak_memory_mib uncut_top1 cut_top1 derived_top1 cut_statistics"
    ).split()
    kinds = [f"{name}_{kind}" for kind in ("normal", "reduction")
             for name in ("entropy", "skips", "pools", "changed_edges")]  # fmt: skip
    assert metrics[0].keys() == {*keys, *kinds}
    weights = torch.tensor(architecture[1]["weights"]["normal"]["op"])
    alpha = torch.tensor(architecture[1]["parameters"]["alpha_normal"])
    torch.testing.assert_close(weights, alpha.softmax(-1))
    assert architecture[0]["edges"] == [[0, 2], [1, 2], [0, 3], [1, 3], [2, 3]]
    loss, top1, _ = trainer.evaluate(trainer.supernet.eval(), trainer.valid_batches)
    assert (loss, top1) == (metrics[1]["valid_loss"], metrics[1]["valid_top1"])


def test_evaluation_is_the_mean_over_all_images(trainer):
    loss, top1, _ = trainer.evaluate(trainer.supernet.eval(), trainer.valid_batches)
    parts = list(trainer.valid_batches.evaluate())
    with torch.no_grad():
        logits = torch.cat([trainer.supernet(x) for x, _ in parts])
    labels = torch.cat([y for _, y in parts])
    assert len(labels) == 20
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert top1 == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())


# ------------------------------------------------------------------------ batches, splits


def test_the_second_part_has_epochs_of_its_own(tmp_path, accelerator):
    """They go on across the epochs of the first part, each complete and in its own order."""
    config = dataclasses.replace(SEARCH_CONFIG, crop_padding=0, flip=False)
    split = Split(torch.arange(24), torch.arange(24, 40))
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet, config=config, split=split)
    seen = []
    for _ in trainer.epochs():
        for _, (images, _labels) in trainer.batches():
            seen += [tuple(image.flatten().tolist()) for image in images]
        trainer.validated = True
    passes = [seen[k : k + 16] for k in range(0, 48, 16)]
    assert len(seen) == 48 and all(len(set(one)) == 16 for one in passes)
    assert set(passes[0]) == set(passes[1]) and passes[0] != passes[1] != passes[2]


def test_parts_have_orders_of_their_own_and_the_same_augmentation(tmp_path, accelerator):
    config = dataclasses.replace(SEARCH_CONFIG, flip=True, cutout=2)
    split = Split(torch.arange(20), torch.arange(20))
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet, config=config, split=split)
    parts = trainer.train_batches, trainer.valid_batches
    assert not torch.equal(*(part.train(0)[0] for part in parts))
    assert [part.augmentation for part in parts] == [Augmentation(1, True, 2)] * 2


def test_each_process_has_its_share_of_both_parts(tmp_path, accelerator, monkeypatch):
    monkeypatch.setattr(type(accelerator), "process_index", 1)
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet)
    for part in (trainer.train_batches, trainer.valid_batches):
        assert (part.rank, part.processes, len(part.train(0)[1])) == (1, 2, 4)


def opened(folder, monkeypatch, batch_size, **changes):
    """The parts of a search of forty images."""
    images = Images(
        torch.zeros(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40) % 2, ("a", "b"), (0.5,), (1,)
    )
    monkeypatch.setattr(opening, "training_images", lambda *_: images)
    changes = {"batch_size": batch_size, "output": str(folder), **changes}
    config = dataclasses.replace(SEARCH_CONFIG, **changes)
    return opening.open_search(config, "m")[3]


@pytest.mark.parametrize("names", [("skip_connect", "skip_connect"), ("none",), ("no_such_op",)])
def test_candidates_of_a_method_of_ones_own_are_checked_first(tmp_path, monkeypatch, names):
    with pytest.raises(InputError, match=f"--candidates {' '.join(names)}: "):
        opened(tmp_path / "run", monkeypatch, 4, candidates=names)
    assert not (tmp_path / "run").exists()


def test_shared_images_train_weights_and_architecture(tmp_path, monkeypatch):
    split = opened(tmp_path / "run", monkeypatch, 40, split="shared")
    assert split.images == 40 and torch.equal(split.train, split.valid)


@pytest.mark.parametrize(("shares", "parts"), [((None, None), (20, 20)), ((0.6, 0.2), (24, 8))])
def test_the_smaller_part_has_at_least_one_batch(tmp_path, monkeypatch, shares, parts):
    changes = dict(zip(("train_share", "valid_share"), shares, strict=True))
    with pytest.raises(InputError, match=f"--batch-size {min(parts) + 1}"):
        opened(tmp_path / "no", monkeypatch, min(parts) + 1, **changes)
    assert not (tmp_path / "no").exists()
    splits = [
        opened(tmp_path / str(seed), monkeypatch, min(parts), seed=seed, **changes)
        for seed in (1, 2)
    ]
    assert [(len(split.train), len(split.valid)) for split in splits] == [parts] * 2
    assert not torch.equal(splits[0].train, splits[1].train)


# ------------------------------------------------------------------------ idle parameters


@pytest.mark.parametrize("move_idle", [False, True])
def test_weights_of_operations_that_did_not_run_move_only_by_flag(
    tmp_path, accelerator, move_idle
):
    trainer = make_search_trainer(tmp_path, accelerator, GDASSuperNet)
    with torch.no_grad():
        for weight in trainer.weights:
            weight.add_(1)  # so that a decay moves each
    before = snapshot(trainer.weights)
    trainer.weight_step(train_batch(trainer), move_idle=move_idle, tau=1.0)
    rest = [torch.equal(p, b) for p, b in zip(trainer.weights, before, strict=True)]
    assert any(rest) != move_idle


@pytest.mark.parametrize("move_idle", [False, True])
def test_an_architecture_without_gradient_moves_only_by_decay(
    tmp_path, accelerator, move_idle
):
    class Cut(SuperNet):
        def loss(self, *given):
            loss, logits = super().loss(*given)
            return loss.detach(), logits

    trainer = make_search_trainer(tmp_path, accelerator, Cut)
    before = snapshot(trainer.arch)
    trainer.arch_step(train_batch(trainer), move_idle)
    assert unchanged(trainer.arch, before) != move_idle


# ------------------------------------------------------------------------ state and records


def test_a_loaded_state_is_the_saved_one(tmp_path, accelerator):
    saved, loaded = (make_search_trainer(tmp_path, accelerator, SuperNet) for _ in range(2))
    next(saved.epochs())
    for train, valid in saved.batches():
        saved.arch_step(valid)
        saved.weight_step(train)
        break
    saved.held_out_metrics()
    state = copy.deepcopy(saved.state())
    assert not identical(state, loaded.state())
    loaded.load_state(state)
    assert identical(state, loaded.state())


def test_validations_sample_by_the_epoch(tmp_path, accelerator):
    """All metrics of an epoch depend on its number, not on what was sampled before."""
    config = dataclasses.replace(SEARCH_CONFIG, cut_accuracy="batch")
    trainer, found = make_search_trainer(tmp_path, accelerator, GDASSuperNet, config=config), []
    for trainer.epoch, seed in ((0, 0), (0, 1), (1, 1)):
        trainer.generator.manual_seed(seed)
        found.append(trainer.held_out_metrics(tau=1.0))
    assert found[0] == found[1] and found[0]["valid_loss"] != found[2]["valid_loss"]
    assert [line["epoch"] for line in trainer.run.lines("genotypes.jsonl")] == [1, 1, 2]


@pytest.mark.parametrize(("kind", "given"), [(SuperNet, {}), (GDASSuperNet, {"tau": 1.0})])
def test_the_hessian_is_of_the_relaxed_network(tmp_path, accelerator, monkeypatch, kind, given):
    """On the first validation batch, normalised by its own statistics."""
    monkeypatch.setattr("common.training.hessian.ITERATIONS", 3)
    config = dataclasses.replace(SEARCH_CONFIG, hessian=True)
    trainer = make_search_trainer(tmp_path, accelerator, kind, config=config)
    found = trainer.held_out_metrics(**given)["hessian_eigenvalue"]
    images, labels = next(trainer.valid_batches.evaluate())
    net = trainer.supernet.train()
    loss = F.cross_entropy(net(images, net.relaxed(trainer.generator)), labels)
    expected = dominant_eigenvalue(loss, trainer.arch, config.seed)
    assert found == pytest.approx(expected, rel=1e-3) and found != 0


def test_cells_of_skip_connections_are_reported(tmp_path, accelerator, capfd):
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet)
    skip = trainer.supernet.candidates.index("skip_connect")
    for name in ("alpha_normal", "alpha_reduction"):
        capfd.readouterr()
        trainer.supernet.arch[name].data[:, skip] = 9
        trainer.held_out_metrics()
        assert name.removeprefix("alpha_") in capfd.readouterr().out


def test_finish_draws_the_pictures_of_a_method(tmp_path, accelerator, monkeypatch):
    trainer, drawn = make_search_trainer(tmp_path, accelerator, SuperNet), []
    monkeypatch.setattr("common.draw.pictures.run", lambda folder: None)
    line = {"valid_loss": 1.0, "valid_top1": 1.0, "seconds": 1.0, "peak_memory_mib": 1.0}
    trainer.run.append("metrics.jsonl", line)
    trainer.finish(drawn.append)
    assert drawn == [tmp_path]
