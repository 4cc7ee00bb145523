"""The fast cell against the equation-shaped one."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.networks.genotype import CANDIDATES
from common.networks.macro import Place
from common.supernet.cell import Mix, SearchCell, cell_edges
from common.supernet.equation_form import EquationCell


def pair(channels, nodes=4, reduction=False, after_reduction=False):
    torch.manual_seed(0)
    place = Place(0, channels, (6, 10), reduction, after_reduction)
    fast, slow = (kind(place, nodes, CANDIDATES).double() for kind in (SearchCell, EquationCell))
    slow.load_state_dict(fast.state_dict())  # strict: their checkpoints have the same names
    return fast, slow


def inputs(size, after_reduction=False):
    first = 2 * size if after_reduction else size
    return torch.randn(3, 6, first, first).double(), torch.randn(3, 10, size, size).double()


def random_mix(nodes, edge_weights):
    edges = len(cell_edges(nodes))
    op = torch.randn(edges, 8).double().softmax(-1).requires_grad_()
    edge = torch.rand(edges).double().requires_grad_() if edge_weights else None
    return Mix(op, edge)


@pytest.mark.parametrize("edge_weights", [False, True])
@pytest.mark.parametrize(
    ("channels", "nodes", "size", "reduction", "after_reduction"),
    [
        (4, 4, 8, False, False),  # composed convolutions
        (4, 4, 7, True, False),  # stride 2 of an odd size
        (18, 3, 6, True, True),  # depthwise and pointwise apart
        (4, 5, 6, False, True),
        (4, 1, 6, False, False),
    ],
)
def test_output_and_gradients_are_those_of_the_equation(
    channels, nodes, size, reduction, after_reduction, edge_weights
):
    fast, slow = pair(channels, nodes, reduction, after_reduction)
    s0, s1 = inputs(size, after_reduction)
    mix = random_mix(nodes, edge_weights)
    parameters = [mix.op] + ([mix.edge] if edge_weights else [])
    results = []
    for cell in (fast, slow):
        for parameter in cell.parameters():
            parameter.grad = None
        out = cell(s0, s1, mix)
        loss = (out * torch.linspace(-1, 1, out.numel()).double().view_as(out)).sum()
        of_mix = torch.autograd.grad(loss, parameters, retain_graph=True)
        loss.backward()
        results.append((out, of_mix))
    (out, of_mix), (expected, expected_of_mix) = results
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    for gradient, other in zip(of_mix, expected_of_mix, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-10)
    # Weight gradients, by the names of a checkpoint: put them where the weights were.
    with torch.no_grad():
        for cell in (fast, slow):
            for parameter in cell.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None
                                else parameter.grad)
    state, expected = fast.state_dict(), slow.state_dict()
    assert state.keys() == expected.keys()
    for name in state:
        if "num_batches_tracked" not in name:  # unused, as the momentum is fixed
            torch.testing.assert_close(state[name], expected[name], rtol=1e-10, atol=1e-10)


def test_evaluation_uses_the_running_statistics():
    fast, slow = pair(4, reduction=True)
    s0, s1 = inputs(8)
    mix = random_mix(4, True)
    for cell in (fast, slow):
        cell(3 * s0 + 1, s1 - 1, mix)
        cell.eval()
    torch.testing.assert_close(fast(s0, s1, mix), slow(s0, s1, mix), rtol=0, atol=1e-10)


def test_checkpoints_name_each_edge_and_load_again():
    fast, _ = pair(4)
    state = fast.state_dict()
    assert "edges.0-2.sep_conv_3x3.units.0.depthwise.weight" in state
    assert state["edges.3-5.dil_conv_5x5.units.0.pointwise.weight"].shape == (4, 4, 1, 1)
    assert not any(name.startswith("steps.") for name in state)
    other, _ = pair(4)
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_missing_edge_is_reported():
    fast, _ = pair(4)
    state = fast.state_dict()
    del state["edges.0-2.sep_conv_3x3.units.0.depthwise.weight"]
    with pytest.raises(RuntimeError, match="sep_conv_3x3"):
        fast.load_state_dict(state)


def test_the_weight_of_none_changes_nothing():
    fast, _ = pair(4)
    s0, s1 = inputs(8)
    op = torch.rand(14, 8).double()
    without = op.clone()
    without[:, CANDIDATES.index("none")] = 0
    assert torch.equal(fast(s0, s1, Mix(op)), fast(s0, s1, Mix(without)))


@pytest.mark.parametrize("channels", [4, 8, 12, 16])
def test_a_normalisations_gradient_has_the_memory_format_of_its_input(channels):
    """It is several times slower otherwise; few channels are normalised in NCHW."""
    orders = (torch.channels_last, torch.contiguous_format)
    seen = set()

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.native_batch_norm_backward.default:
                g, x = args[:2]
                alike = [o for o in orders if all(t.is_contiguous(memory_format=o) for t in (g, x))]
                seen.add((x.shape[1], *alike))
            return func(*args, **(kwargs or {}))

    fast, _ = pair(channels)
    s0, s1 = (s.contiguous(memory_format=torch.channels_last) for s in inputs(8))
    out = fast(s0, s1, random_mix(4, False))
    with Spy():
        out.backward(torch.ones_like(out))
    assert {c for c, *_ in seen} == {n * channels for n in (1, 2, 3, 4)}
    expected = {(c, orders[c < 16 and c % 8 != 0]) for c, *_ in seen}
    assert seen == expected | {(channels, torch.channels_last)}  # the cell's two inputs
