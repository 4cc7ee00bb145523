"""The second-order gradient, compared with the exact one by double backward."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from builders import make_search_trainer, snapshot, unchanged
from common.supernet.supernet import SuperNet
from common.training import unrolled

XI, MOMENTUM, DECAY = 0.1, 0.9, 0.01


def tiny(seed=0):
    torch.manual_seed(seed)
    net = SuperNet(channels=2, cells=3, nodes=2, classes=3).double()
    for alpha in net.arch.values():
        alpha.data.mul_(300)
    train, valid = (
        (torch.randn(6, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1, 0, 2])) for _ in range(2)
    )
    return net, train, valid


def sgd_with_velocity(net):
    """An optimizer with momentum buffers."""
    sgd = torch.optim.SGD(net.weight_parameters(), XI, MOMENTUM, weight_decay=DECAY)
    for weight in net.weight_parameters():
        sgd.state[weight]["momentum_buffer"] = 0.1 * torch.randn_like(weight)
    return sgd


def approximate(net, train, valid, sgd):
    @torch.enable_grad()
    def gradients(batch, of):
        return torch.autograd.grad(net.loss(*batch)[0], of)

    losses = (functools.partial(gradients, batch) for batch in (train, valid))
    weights, arch = net.weight_parameters(), net.arch_parameters()
    return unrolled.second_order(*losses, weights, arch, sgd)


def exact(net, train, valid, sgd):
    """d/d alpha L_val(w - xi (momentum v + grad_w L_train(w, alpha) + decay w), alpha)."""
    xi = sgd.param_groups[0]["lr"]
    names = [name for name, _ in net.named_parameters() if not name.startswith("arch.")]
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    weights, arch = net.weight_parameters(), net.arch_parameters()
    loss, _ = net.loss(*train)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    moved = {}
    for name, w, g in zip(names, weights, gradients, strict=True):
        moved[name] = w - xi * (MOMENTUM * sgd.state[w]["momentum_buffer"] + g + DECAY * w)
    logits = functional_call(net, {**moved, **buffers}, valid[0])
    return torch.autograd.grad(F.cross_entropy(logits, valid[1]), arch)


def distance(found, wanted):
    found, wanted = (torch.cat([g.flatten() for g in gs]) for gs in (found, wanted))
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("seed", range(3))
def test_in_the_limit_it_is_the_exact_gradient(seed, monkeypatch):
    """ReLUs have kinks closer than 0.01, which the difference must not cross."""
    monkeypatch.setattr(unrolled, "PERTURBATION", 1e-6)
    net, train, valid = tiny(seed)
    sgd = sgd_with_velocity(net)
    wanted = exact(net, train, valid, sgd)
    assert distance(approximate(net, train, valid, sgd), wanted) < 1e-6
    first_order = torch.autograd.grad(net.loss(*valid)[0], net.arch_parameters())
    assert distance(first_order, wanted) > 0.1  # so the second-order term matters


class Smooth(nn.Module):
    """A mixture of three smooth layers, without kinks."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 8) for _ in range(3))
        self.out = nn.Linear(8, 3)
        self.arch = nn.ParameterDict({"alpha": nn.Parameter(torch.randn(3))})

    def weight_parameters(self):
        return [*self.layers.parameters(), *self.out.parameters()]

    def arch_parameters(self):
        return list(self.arch.values())

    def forward(self, x):
        alpha = self.arch["alpha"].softmax(0)
        return self.out(sum(a * layer(x).tanh() for a, layer in zip(alpha, self.layers)))  # noqa: B905

    def loss(self, x, y):
        return F.cross_entropy(self(x), y), None


@pytest.mark.parametrize("seed", range(3))
def test_at_the_published_perturbation(seed):
    """0.01 / ||v||, and twice that in the denominator."""
    assert unrolled.PERTURBATION == 0.01
    torch.manual_seed(seed)
    net = Smooth().double()
    train, valid = (
        (torch.randn(9, 5).double(), torch.arange(9) % 3) for _ in range(2)
    )
    sgd = sgd_with_velocity(net)
    wanted = exact(net, train, valid, sgd)
    assert distance(approximate(net, train, valid, sgd), wanted) < 1e-5


def test_the_weights_move_by_0_01_in_norm_in_both_directions():
    torch.manual_seed(0)
    net = Smooth().double()
    batches = [(torch.randn(9, 5).double(), torch.arange(9) % 3) for _ in range(2)]
    start, moved = torch.cat([w.detach().flatten() for w in net.weight_parameters()]), []
    sgd = sgd_with_velocity(net)

    def gradients(batch, of):
        moved.append(torch.cat([w.detach().flatten() for w in net.weight_parameters()]) - start)
        with torch.enable_grad():
            return torch.autograd.grad(net.loss(*batch)[0], of)

    losses = (functools.partial(gradients, batch) for batch in batches)
    unrolled.second_order(*losses, net.weight_parameters(), net.arch_parameters(), sgd)
    assert len(moved) == 4 and not moved[0].any()
    torch.testing.assert_close(moved[2], -moved[3])
    assert moved[2].norm().item() == pytest.approx(0.01, rel=1e-9)


def test_weights_and_statistics_are_restored_exactly(tmp_path, accelerator):
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet)
    train, valid = trainer.train_batches.train(0), trainer.valid_batches.train(0)
    trainer.weight_step(train)  # momentum buffers
    weights, arch = snapshot(trainer.weights), snapshot(trainer.arch)
    buffers = snapshot(trainer.supernet.buffers())
    optimizer = copy.deepcopy(trainer.optimizer.state_dict())
    trainer.unrolled_arch_step(train, valid)
    assert unchanged(trainer.weights, weights)
    assert unchanged(list(trainer.supernet.buffers()), buffers)
    assert not unchanged(trainer.arch, arch)
    after = trainer.optimizer.state_dict()
    for key, state in optimizer["state"].items():
        assert torch.equal(state["momentum_buffer"], after["state"][key]["momentum_buffer"])


def test_the_step_is_adam_on_that_gradient(tmp_path, accelerator, monkeypatch):
    """With the right batches, and the optimizer's current rate and velocity."""
    monkeypatch.setattr(unrolled, "PERTURBATION", 1e-6)
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet)
    trainer.supernet.double()
    for state in trainer.optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].double()
    train, valid = (
        (images.double(), labels)
        for images, labels in (trainer.train_batches.train(0), trainer.valid_batches.train(0))
    )
    trainer.weight_step(train)
    trainer.optimizer.param_groups[0]["lr"] = 0.05  # an epoch's rate is not the first one
    expected = [p.detach().clone().requires_grad_() for p in trainer.arch]
    adam = torch.optim.Adam(expected, lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
    wanted = exact(trainer.supernet, train, valid, trainer.optimizer)
    for parameter, gradient in zip(expected, wanted, strict=True):
        parameter.grad = gradient
    adam.step()
    trainer.unrolled_arch_step(train, valid)
    for got, want in zip(trainer.arch, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_the_first_step_has_no_velocity(tmp_path, accelerator):
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet)
    assert all(not s["momentum_buffer"].any() for s in trainer.optimizer.state.values())
    trainer.unrolled_arch_step(trainer.train_batches.train(0), trainer.valid_batches.train(0))
    assert all(p.isfinite().all() for p in trainer.arch)
