"""The verbs of a search: what each step changes, and that it computes nothing else."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from common.data.images import Images
from common.data.split import Split
from common.errors import NotFinite
from common.run.config import SearchConfig
from common.run.folder import Run
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from pc_darts.supernet import PCDARTSSuperNet

CONFIG = SearchConfig(
    epochs=2, batch_size=8, channels=4, cells=3, nodes=4, crop_padding=1, learning_rate=0.1,
    weight_decay=0.01, arch_learning_rate=0.01, grad_clip=0.5, dataset="digits",
)


@pytest.fixture
def trainer(tmp_path, accelerator):
    return make(tmp_path, accelerator, SuperNet)


def make(folder, accelerator, kind, trainer=BilevelTrainer, **how):
    """A trainer on random images; `kind` is a class of supernets, or one that is made already."""
    torch.manual_seed(0)
    pixels = torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8)
    images = Images(pixels, torch.arange(40) % 3, ("a", "b", "c"), (0.5,) * 3, (0.3,) * 3)
    config, split = how.pop("config", CONFIG), how.pop("split", Split.halves(40, 0))
    ready = isinstance(kind, torch.nn.Module)
    supernet = kind if ready else kind(channels=4, cells=3, nodes=2, classes=3, **how)
    run = Run(folder, "test", accelerator)
    return trainer(config, supernet, run, images, split)


def snapshot(parameters):
    return [p.detach().clone() for p in parameters]


def equal(parameters, before):
    return all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


def batch(trainer, step=0):
    return trainer.train_batches.train(step)


def test_arch_step_is_adam_on_the_validation_gradient(trainer):
    weights, arch = snapshot(trainer.weights), snapshot(trainer.arch)
    images, labels = trainer.valid_batches.train(0)
    loss = F.cross_entropy(trainer.supernet(images), labels)
    gradients = torch.autograd.grad(loss, trainer.arch)
    expected = [p.clone().requires_grad_() for p in arch]
    adam = torch.optim.Adam(expected, lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
    for parameter, gradient in zip(expected, gradients, strict=True):
        parameter.grad = gradient
    adam.step()
    trainer.arch_step((images, labels))
    assert equal(trainer.weights, weights)
    for got, want in zip(trainer.arch, expected, strict=True):
        torch.testing.assert_close(got, want)
    assert not equal(trainer.arch, arch)


def test_weight_step_is_clipped_sgd_on_the_training_gradient(trainer):
    arch = snapshot(trainer.arch)
    expected = [p.detach().clone().requires_grad_() for p in trainer.weights]
    sgd = torch.optim.SGD(expected, lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(2):
        images, labels = batch(trainer, step)
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
    assert equal(trainer.arch, arch)


class Backward(TorchDispatchMode):
    """Which of its three gradients each convolution's backward was asked for; also products."""

    def __init__(self):
        super().__init__()
        self.masks = []
        self.scales = []
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(args[-1])
        if func is torch.ops.aten.native_batch_norm_backward.default:
            self.scales.append((args[2] is not None, args[-1]))
        self.products += func is torch.ops.aten.mm.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [SuperNet, PCDARTSSuperNet])
def test_no_gradient_is_computed_that_a_step_does_not_use(tmp_path, accelerator, kind):
    trainer = make(tmp_path, accelerator, kind)
    sums = sum(len(cell.steps) for cell in trainer.supernet.cells)
    sums *= 2 if kind is PCDARTSSuperNet else 1  # of pools and identities, and of the bypass
    with Backward() as arch:
        trainer.arch_step(batch(trainer))
    assert arch.masks and not any(mask[1] for mask in arch.masks)
    with Backward() as weight:
        trainer.weight_step(batch(trainer))
    assert all(mask[1] for mask in weight.masks)
    # A weighted sum, whose kernel is of mixing weights, is a product forward and one backward; the
    # classifier is two backward.
    assert weight.products == 2 * sums + 2
    mixing = [mask[1] for scaled, mask in weight.scales if scaled]
    affine = sum(isinstance(m, torch.nn.BatchNorm2d) and m.affine
                 for m in trainer.supernet.modules())
    assert sum(mixing) == affine  # of scales, only the stem's own are trained, not the mix


def test_nothing_is_kept_for_the_gradients_of_what_rests(trainer, monkeypatch):
    """While the loss is computed, the graph knows only the parameters of the step."""
    seen = []
    original = trainer.supernet.loss

    def loss(*batch):
        seen.append([any(p.requires_grad for p in group)
                     for group in (trainer.weights, trainer.arch)])
        return original(*batch)

    monkeypatch.setattr(trainer.supernet, "loss", loss)
    trainer.arch_step(batch(trainer))
    trainer.weight_step(batch(trainer))
    assert seen == [[False, True], [True, False]]


def test_after_steps_everything_is_trainable_again(trainer):
    trainer.arch_step(batch(trainer))
    trainer.weight_step(batch(trainer))
    assert all(p.requires_grad for p in trainer.supernet.parameters())


def test_batches_pair_the_two_halves(trainer):
    split, epochs = trainer.split, trainer.epochs()
    next(epochs)
    pairs = list(trainer.batches())
    assert len(pairs) == 20 // 8
    for train, valid in pairs:
        assert len(train[1]) == len(valid[1]) == 8
        assert not torch.equal(train[0], valid[0])
    assert trainer.train_batches.indices.tolist() == split.train.tolist()
    assert trainer.valid_batches.indices.tolist() == split.valid.tolist()


def test_batches_for_the_architecture_are_read_only_where_wanted(trainer, monkeypatch):
    monkeypatch.setattr(trainer.valid_batches, "train", lambda step: pytest.fail("read"))
    next(trainer.epochs())
    assert [valid for _, valid in trainer.batches(valid=False)] == [None, None]


def test_parts_of_different_sizes(tmp_path, accelerator):
    """An epoch is a pass over the first; the second is gone through again and again."""
    split = Split(torch.arange(31), torch.arange(32, 40))
    trainer = make(tmp_path, accelerator, SuperNet, split=split)
    next(trainer.epochs())
    pairs = list(trainer.batches())
    assert len(pairs) == 31 // 8
    for _, (_, labels) in pairs:
        assert labels.bincount().tolist() == (torch.arange(32, 40) % 3).bincount().tolist()


@pytest.mark.parametrize("verb", ["arch_step", "unrolled_arch_step"])
def test_the_architectures_gradient_is_clipped_where_asked(tmp_path, accelerator, verb):
    norms = []
    for limit in (0.0, 1e-3):
        config = dataclasses.replace(CONFIG, arch_grad_clip=limit)
        trainer = make(tmp_path, accelerator, SuperNet, config=config)
        valid = trainer.valid_batches.train(0)
        getattr(trainer, verb)(*((valid,) if verb == "arch_step" else (batch(trainer), valid)))
        norms.append(torch.cat([p.grad.flatten() for p in trainer.arch]).norm().item())
    assert norms[0] > 2e-3 and norms[1] == pytest.approx(1e-3, rel=1e-2)


def test_the_learning_rate_is_a_cosine_over_epochs(tmp_path, accelerator):
    config = dataclasses.replace(CONFIG, epochs=5, learning_rate_min=0.01)
    trainer = make(tmp_path, accelerator, SuperNet, config=config)
    rates = []
    for epoch in trainer.epochs():
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        assert trainer.arch_optimizer.param_groups[0]["lr"] == 0.01
        trainer.meters["loss"].update(torch.tensor(1.0), 1)
        trainer.meters["top1"].update(torch.tensor(1.0), 1)
        assert epoch == len(rates) - 1
        trainer.validate()
    expected = [0.01 + 0.09 * (1 + math.cos(math.pi * e / 5)) / 2 for e in range(5)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("verb", ["arch_step", "weight_step", "unrolled_arch_step"])
def test_the_first_step_that_is_not_finite_is_reported_and_not_saved(tmp_path, accelerator, verb):
    trainer = make(tmp_path, accelerator, SuperNet)
    with pytest.raises(NotFinite, match=r"step 3 \(epoch 2, step 2 of it\)"):
        for _ in trainer.epochs():
            for images, _labels in trainer.batches():
                if trainer.global_step >= 3:
                    images[0][:] = torch.nan
                good = [batch(trainer)] if verb == "unrolled_arch_step" else []
                getattr(trainer, verb)(*good, (images[0], images[1]))
                if verb != "weight_step":
                    trainer.weight_step(batch(trainer))
            trainer.validate()
    names = sorted(p.name for p in (tmp_path / "checkpoints").glob("*.pt"))
    assert names == ["epoch-00001-step-0000000.pt"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_an_epoch_leaves_its_figures_architecture_and_genotype(trainer):
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
        "epoch train_loss train_top1 valid_loss valid_top1 "
        "uncut_top1 cut_top1 derived_top1 cut_statistics "
        "entropy_normal skips_normal pools_normal changed_edges_normal "
        "entropy_reduction skips_reduction pools_reduction changed_edges_reduction "
            "hessian_eigenvalue "
        "learning_rate seconds images_per_second peak_memory_mib"
    ).split()
    assert list(metrics[0]) == keys
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
