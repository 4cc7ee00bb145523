"""Learning rates of each epoch against the papers' formulas."""

import math

import pytest
import torch
from torch import nn

from common.training.schedules import LearningRate


def rates(name, rate, epochs, lowest=0.0, warmup=0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], rate)
    along = LearningRate(name, optimizer, epochs, lowest, warmup)
    found = []
    for epoch in range(epochs):
        along.step(epoch)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(("epochs", "lowest"), [(600, 0), (600, 0.001), (20, 0), (1, 0)])
def test_cosine(epochs, lowest):
    expected = [
        lowest + (0.025 - lowest) * (1 + math.cos(math.pi * e / epochs)) / 2 for e in range(epochs)
    ]
    assert rates("cosine", 0.025, epochs, lowest) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_exponential():
    found = rates("exponential", 0.1, 250)
    assert found == pytest.approx([0.1 * 0.97**e for e in range(250)], rel=1e-9)


@pytest.mark.parametrize("epochs", [250, 100, 12, 6])
def test_linear_with_five_epochs_of_warm_up(epochs):
    expected = [0.1, 0.2, 0.3, 0.4, 0.5]
    for e in range(5, epochs):
        if epochs - e > 5:
            expected.append(0.5 * (epochs - 5 - e) / (epochs - 5))
        else:
            expected.append(0.5 * (epochs - e) / (5 * (epochs - 5)))
    assert rates("linear", 0.5, epochs, warmup=5) == pytest.approx(expected, rel=1e-9)
    if epochs == 250:
        assert expected[5] == pytest.approx(0.48980, abs=1e-5)
        assert expected[-1] == pytest.approx(0.5 / 1225)


def test_a_warm_up_does_not_stretch_with_the_epochs():
    assert rates("linear", 0.5, 3, warmup=5) == pytest.approx([0.1, 0.2, 0.3])
    assert rates("cosine", 0.5, 40, warmup=2)[:2] == pytest.approx([0.25, 0.5])
    assert all(rate > 0 for rate in rates("linear", 0.5, 4))


@pytest.mark.parametrize("name", ["cosine", "linear", "exponential"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_each_parameter_group_follows_the_schedule_from_its_own_rate(name, warmup):
    """In the warm-up, on the line and in its tail."""
    groups = [{"params": [nn.Parameter(torch.zeros(()))], "lr": rate} for rate in (0.1, 0.4)]
    optimizer = torch.optim.SGD(groups)
    along, alone = LearningRate(name, optimizer, 12, warmup=warmup), rates(name, 0.1, 12, 0, warmup)
    for epoch in range(12):
        along.step(epoch)
        found = [group["lr"] for group in optimizer.param_groups]
        assert found == pytest.approx([alone[epoch], 4 * alone[epoch]])
