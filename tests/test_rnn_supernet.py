"""GDAS' recurrent supernet against its equations, its draws, its derivation."""

import pytest
import torch

from common.language.model import Dropouts
from common.networks.genotype import RECURRENT_OPS
from common.supernet.gumbel import gumbel
from gdas.rnn_supernet import Draw, RecurrentSuperNet

T, B, D, N, WORDS = 4, 5, 3, 4, 7
EDGES = [(i, j) for j in range(1, N + 1) for i in range(j)]
FUNCTIONS = {
    "none": torch.zeros_like, "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid,
    "identity": lambda v: v,
}

TAU = 0.8


def made(sample, nodes=N, dropouts=None):
    torch.manual_seed(0)
    net = RecurrentSuperNet(WORDS, D, nodes, dropouts or Dropouts(), sample).double()
    with torch.no_grad():
        for weight in net.weight_parameters():
            weight.mul_(15)
        net.arch["alpha_recurrent"].normal_()
    return net


def drawn(net, seed=4):
    return net.draw(torch.Generator().manual_seed(seed), TAU)


def slow_loop(cell, x, hidden, masks, weights):
    """Every activation of every edge times its weight, in batch normalisation by the formula."""

    def norm(s):
        return (s - s.mean(0)) / (s.var(0, unbiased=False) + 1e-5).sqrt()

    x_mask, h_mask = masks
    h, outputs = hidden[0], []
    for word in x:
        c, a = (torch.cat([word * x_mask, h * h_mask], 1) @ cell.W0).chunk(2, 1)
        states = [norm(h + c.sigmoid() * (a.tanh() - h))]
        for j in range(1, N + 1):
            total = torch.zeros_like(h)
            for i in range(j):
                c, a = ((states[i] * h_mask) @ cell.W[j - 1]).chunk(2, 1)
                for k, name in enumerate(RECURRENT_OPS):
                    if name != "none":
                        one = states[i] + c.sigmoid() * (FUNCTIONS[name](a) - states[i])
                        total = total + weights[EDGES.index((i, j)), k] * one
            states.append(norm(total))
        h = torch.stack(states[1:]).mean(0)
        outputs.append(h)
    return torch.stack(outputs)


def relaxed_draw(net, sample):
    """The weights of Eq. 5 to 7, as a dense matrix with the gradient that the paper gives them."""
    noise = gumbel(len(EDGES), 5, generator=torch.Generator().manual_seed(4))
    alpha = net.arch["alpha_recurrent"]
    soft = ((alpha.log_softmax(-1) + noise) / TAU).softmax(-1)
    if sample == "soft":
        return soft
    hard = torch.nn.functional.one_hot((alpha.detach() + noise).argmax(-1), 5)
    return hard * (1 + soft - soft.detach())  # of the drawn element alone


@pytest.mark.parametrize("sample", ["hard", "soft"])
def test_the_searched_cell_is_its_equations(sample):
    net = made(sample).train()
    x, hidden = torch.randn(T, B, D).double(), torch.randn(1, B, D).double()
    masks = [(torch.rand(B, D) < 0.7).double() / 0.7 for _ in "xh"]
    wanted = [*net.arch_parameters(), *net.cell.W, net.cell.W0]
    target = torch.randn(T, B, D).double()
    states, last = net.cell(x, hidden, *masks, drawn(net))
    expected = slow_loop(net.cell, x, hidden, masks, relaxed_draw(net, sample))
    torch.testing.assert_close(states, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(last[0], states[-1])
    found = torch.autograd.grad((states * target).sum(), wanted, materialize_grads=True)
    right = torch.autograd.grad((expected * target).sum(), wanted, materialize_grads=True)
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert found[0].abs().max() > 1e-3


def test_a_weight_step_costs_no_gradient_of_alpha():
    net = made("hard")
    net.arch["alpha_recurrent"].requires_grad_(False)
    assert net.draw().weight is None


def test_the_first_edge_has_a_gradient_only_if_soft():
    """Node 1 has one edge, and its normalisation takes the edge's weight away."""
    x, hidden = torch.randn(T, B, D).double(), torch.randn(1, B, D).double()
    assert RecurrentSuperNet(WORDS, D, N, Dropouts()).sample == "soft"  # so by default
    assert not RecurrentSuperNet(WORDS, D, N, Dropouts()).derive_none
    for sample in ("hard", "soft"):
        net = made(sample)
        states, _ = net.cell(x, hidden, None, None, drawn(net))
        (gradient,) = torch.autograd.grad(states.square().sum(), net.arch_parameters())
        assert (gradient[0].abs().max() > 1e-3) == (sample == "soft")


def test_nodes_into_which_nothing_flows():
    net = made("hard")
    x, hidden = torch.randn(T, B, D).double(), torch.randn(1, B, D).double()
    draw = Draw([[RECURRENT_OPS.index("none")]] * len(EDGES))
    states, _ = net.cell(x, hidden, None, None, draw)
    assert torch.equal(states, torch.zeros_like(states))


def test_one_draw_a_chunk_and_all_activations_are_drawn():
    net = made("hard", dropouts=Dropouts()).eval()
    generator = torch.Generator().manual_seed(1)
    draws = [net.draw(generator, TAU) for _ in range(30)]
    words = torch.randint(WORDS, (T, B))
    assert net(words, net.initial(B), draws[0]).states.isfinite().all()  # all of its time steps
    assert {k for draw in draws for (k,) in draw.active} == set(range(5))
    assert len({str(draw.active) for draw in draws}) > 20


def test_counts():
    net = RecurrentSuperNet(10_000, 300, 8, Dropouts())
    assert sum(weight.numel() for weight in net.weight_parameters()) == 4_810_000
    assert [tuple(alpha.shape) for alpha in net.arch_parameters()] == [(36, 5)]


@pytest.mark.parametrize("sample", ["hard", "soft"])
def test_states_are_normalised_by_their_own_statistics_when_evaluated_too(sample):
    net, words = made(sample).train(), torch.randint(WORDS, (T, B))
    draw = drawn(net)
    trained = net(words, net.initial(B), draw).states
    assert torch.equal(net.eval()(words, net.initial(B), draw).states, trained)


def test_derivation():
    """One edge a node, by the largest probability of any activation but `none`."""
    net = made("hard", nodes=3)  # edges 0-1; 0-2, 1-2; 0-3, 1-3, 2-3
    none, tanh, relu, sigmoid, identity = range(5)
    with torch.no_grad():
        alpha = net.arch["alpha_recurrent"].zero_()
        alpha[0, none], alpha[0, sigmoid] = 9, 1
        alpha[1, relu], alpha[1, none] = 2, 5  # `none` takes from relu's probability
        alpha[2, tanh] = 1
        alpha[3, identity], alpha[4, identity] = 1, 1  # equal: the first
    net.derive_none = True  # the authors' code for recurrent cells: any activation
    cell = net.derive()
    assert [(e.source, e.target, e.op.name) for e in cell.edges] == [
        (0, 1, "none"), (0, 2, "none"), (0, 3, "identity"),
    ]  # fmt: skip
    net.derive_none = False
    cell = net.derive()
    assert [(e.source, e.target, e.op.name) for e in cell.edges] == [
        (0, 1, "sigmoid"), (1, 2, "tanh"), (0, 3, "identity"),
    ]  # fmt: skip
    assert cell.inputs == 1 and cell.output == (1, 2, 3)
