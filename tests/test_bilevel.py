"""The verbs of a search: what each step changes, and that it computes nothing else."""

import copy
import dataclasses
import functools
import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from common.data.batches import Augmentation
from common.data.images import Images
from common.data.split import Split
from common.errors import InputError, NotFinite
from common.run.config import SearchConfig
from common.run.folder import Run
from common.supernet.supernet import SuperNet
from common.training import bilevel
from common.training.bilevel import BilevelTrainer
from gdas.supernet import GDASSuperNet
from pc_darts.supernet import PCDARTSSuperNet
from test_resume import identical

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


# ---------------------------------------------------------------------------------- batches, splits


def test_an_epoch_over_the_second_part_is_all_of_it_and_the_next_has_another_order(
    tmp_path, accelerator
):
    """Also where the last batch ends with the last image, and across epochs of the first part."""
    config = dataclasses.replace(CONFIG, crop_padding=0, flip=False)
    split = Split(torch.arange(24), torch.arange(24, 40))
    trainer, seen = make(tmp_path, accelerator, SuperNet, config=config, split=split), []
    for _ in trainer.epochs():
        for _, (images, _labels) in trainer.batches():
            seen.append([tuple(image.flatten().tolist()) for image in images])
        trainer.validated = True
    assert len(seen) == 6
    passes = [seen[k] + seen[k + 1] for k in (0, 2, 4)]
    for one in passes:
        assert len(set(one)) == 16 and set(one) == set(passes[0])
    assert passes[0] != passes[1] != passes[2]


def test_parts_of_the_same_images_are_in_orders_of_their_own(tmp_path, accelerator):
    """And whatever images undergo, they undergo in both parts."""
    config = dataclasses.replace(CONFIG, flip=True, cutout=2)
    split = Split(torch.arange(20), torch.arange(20))
    trainer = make(tmp_path, accelerator, SuperNet, config=config, split=split)
    parts = trainer.train_batches, trainer.valid_batches
    assert not torch.equal(*(part.train(0)[0] for part in parts))
    assert [part.augmentation for part in parts] == [Augmentation(1, True, 2)] * 2


def test_each_process_has_its_share_of_both_parts(tmp_path, accelerator, monkeypatch):
    monkeypatch.setattr(type(accelerator), "process_index", 1)
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    trainer = make(tmp_path, accelerator, SuperNet)
    for part in (trainer.train_batches, trainer.valid_batches):
        assert (part.rank, part.processes, len(part.train(0)[1])) == (1, 2, 4)


def opened(folder, monkeypatch, batch_size, **changes):
    """The parts of a search of forty images."""
    images = Images(
        torch.zeros(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40) % 2, ("a", "b"), (0.5,), (1,)
    )
    monkeypatch.setattr(bilevel, "training_images", lambda *_: images)
    config = dataclasses.replace(CONFIG, batch_size=batch_size, output=str(folder), **changes)
    return bilevel.open_search(config, "m")[3]


@pytest.mark.parametrize(("shares", "parts"), [((None, None), (20, 20)), ((0.6, 0.2), (24, 8))])
def test_the_smaller_part_is_at_least_one_batch(tmp_path, monkeypatch, shares, parts):
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


def test_the_rate_rises_in_the_epochs_that_a_search_asks_for(tmp_path, accelerator):
    rising = functools.partial(BilevelTrainer, rate_warmup=2)
    trainer = make(tmp_path, accelerator, SuperNet, rising)
    rates = []
    for epoch in range(2):
        trainer.schedule.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.05, 0.1])


# ------------------------------------------------------------------------- what did not take part


@pytest.mark.parametrize("move_idle", [False, True])
def test_weights_of_operations_that_did_not_run_move_only_where_asked(
    tmp_path, accelerator, move_idle
):
    trainer = make(tmp_path, accelerator, GDASSuperNet)
    with torch.no_grad():
        for weight in trainer.weights:
            weight.add_(1)  # so that a decay moves each
    before = snapshot(trainer.weights)
    trainer.weight_step(batch(trainer), move_idle=move_idle, tau=1.0)
    rest = [torch.equal(p, b) for p, b in zip(trainer.weights, before, strict=True)]
    assert any(rest) != move_idle


@pytest.mark.parametrize("move_idle", [False, True])
def test_a_loss_that_depends_on_nothing_leaves_an_architecture_to_its_decay(
    tmp_path, accelerator, move_idle
):
    class Cut(SuperNet):
        def loss(self, *given):
            loss, logits = super().loss(*given)
            return loss.detach(), logits

    trainer = make(tmp_path, accelerator, Cut)
    before = snapshot(trainer.arch)
    trainer.arch_step(batch(trainer), move_idle)
    assert equal(trainer.arch, before) != move_idle


# ---------------------------------------------------------------------------- what an epoch leaves


def test_a_loaded_state_is_the_saved_one(tmp_path, accelerator):
    """With the place in the second part and the operations that changes are counted from."""
    saved, loaded = (make(tmp_path, accelerator, SuperNet) for _ in range(2))
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


def test_a_validation_is_the_epochs_whatever_was_drawn_before(tmp_path, accelerator):
    trainer, losses = make(tmp_path, accelerator, GDASSuperNet), []
    for trainer.epoch, drawn in ((0, 0), (0, 1), (1, 1)):
        trainer.generator.manual_seed(drawn)
        losses.append(trainer.held_out_metrics(tau=1.0)["valid_loss"])
    assert losses[0] == losses[1] != losses[2]
    assert [line["epoch"] for line in trainer.run.lines("genotypes.jsonl")] == [0, 0, 1]


def test_the_curvature_is_that_of_validation_images_normalised_by_themselves(
    tmp_path, accelerator, monkeypatch
):
    config, seen = dataclasses.replace(CONFIG, hessian=True), []

    def look(loss, arch, seed, averaged):
        assert not any(p.requires_grad for p in trainer.weights)
        seen.append((loss.item(), averaged([torch.ones(())])[0].item()))
        return 0.0

    monkeypatch.setattr(bilevel, "dominant_eigenvalue", look)
    monkeypatch.setattr(bilevel, "average", lambda _, tensors: [3 * t for t in tensors])
    trainer = make(tmp_path, accelerator, SuperNet, config=config)
    trainer.held_out_metrics()
    images, labels = next(trainer.valid_batches.evaluate())
    wanted = F.cross_entropy(trainer.supernet.train()(images), labels).item()
    assert seen == [(pytest.approx(wanted, rel=1e-5), 3)]


def test_a_genotype_says_how_it_was_found(tmp_path, accelerator, capfd):
    """And a cell that fills with skip connections is said."""
    trainer = make(tmp_path, accelerator, SuperNet)
    assert trainer.genotype().provenance["epochs"] == CONFIG.epochs
    skip = trainer.supernet.candidates.index("skip_connect")
    for name in ("alpha_normal", "alpha_reduction"):
        capfd.readouterr()
        trainer.supernet.arch[name].data[:, skip] = 9
        trainer.held_out_metrics()
        assert name.removeprefix("alpha_") in capfd.readouterr().out


def test_a_methods_own_pictures_are_drawn_of_its_folder(tmp_path, accelerator, monkeypatch):
    trainer, drawn = make(tmp_path, accelerator, SuperNet), []
    monkeypatch.setattr(bilevel.pictures, "run", lambda folder: None)
    line = {"valid_loss": 1.0, "valid_top1": 1.0, "seconds": 1.0, "peak_memory_mib": 1.0}
    trainer.run.append("metrics.jsonl", line)
    trainer.finish(drawn.append)
    assert drawn == [tmp_path]
