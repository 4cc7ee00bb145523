"""The recurrent cell over time, against loops written from the equations."""

import copy

import pytest
import torch

from common.errors import InputError
from common.language.cell import RecurrentCell, recurrent_cell
from common.language.fused import Plan
from common.language.lstm import LSTM
from common.language.model import Dropouts, LanguageModel
from common.networks.genotype import Cell, Edge, FixedCell, Genotype, Op, load

T, B, D = 6, 3, 5
PUBLISHED = {  # activation, predecessor; which nodes are averaged
    "gdas_rnn": (
        "relu 0 relu 0 identity 1 relu 1 tanh 0 relu 2 identity 4 identity 2", range(1, 9)
    ),
    "darts_v1_rnn": (
        "relu 0 relu 1 tanh 2 relu 3 relu 4 identity 1 relu 5 relu 1", range(1, 9)
    ),
    "darts_v2_rnn": (
        "sigmoid 0 relu 1 relu 1 identity 1 tanh 2 sigmoid 5 tanh 3 relu 5", range(1, 9)
    ),
    "enas_rnn": (
        "tanh 0 tanh 1 relu 1 tanh 3 tanh 3 relu 3 relu 4 relu 7 relu 8 relu 8 relu 8",
        (2, 5, 6, 9, 10, 11),
    ),
}  # fmt: skip
FUNCTIONS = {
    "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda v: v,
}


def listed(name):
    words = PUBLISHED[name][0].split()
    return list(zip(words[::2], map(int, words[1::2]), strict=True))


def made(name):
    torch.manual_seed(0)
    cell = RecurrentCell(load(name).cells["recurrent"], D).double()
    with torch.no_grad():
        for weight in cell.parameters():
            weight.mul_(15)  # far from where every activation is linear
    return cell


def inputs(masked):
    torch.manual_seed(1)
    x, hidden = torch.randn(T, B, D).double(), torch.randn(1, B, D).double()
    masks = [(torch.rand(B, D) < 0.6).double() / 0.6 if masked else None for _ in "xh"]
    return x.requires_grad_(), hidden.requires_grad_(), masks


def by_the_equations(name, cell, x, hidden, masks):
    """Scalar by scalar in the batch, node by node: nothing of the cell's own code."""
    x_mask, h_mask = (torch.ones(B, D).double() if mask is None else mask for mask in masks)
    rows = []
    for b in range(B):
        h, outputs = hidden[0, b], []
        for t in range(T):
            W_x, W_h = cell.W0[:D], cell.W0[D:]
            both = (x[t, b] * x_mask[b]) @ W_x + (h * h_mask[b]) @ W_h
            c, a = both[:D].sigmoid(), both[D:].tanh()
            states = [h + c * (a - h)]
            for (activation, source), W in zip(listed(name), cell.W, strict=True):
                s = states[source]
                both = (s * h_mask[b]) @ W
                c, a = both[:D].sigmoid(), FUNCTIONS[activation](both[D:])
                states.append(s + c * (a - s))
            h = torch.stack([states[n] for n in PUBLISHED[name][1]]).mean(0)
            outputs.append(h)
        rows.append(torch.stack(outputs))
    return torch.stack(rows, 1)


def outputs_and_gradients(states, last, of):
    weights = torch.arange(states.numel()).view_as(states).double().cos()
    gradients = torch.autograd.grad((weights * states).sum() + last.square().sum(), of)
    return [states, last, *gradients]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_both_loops_are_the_equations(name, masked):
    cell = made(name)
    x, hidden, masks = inputs(masked)
    of = [x, hidden, *cell.parameters()]
    expected = by_the_equations(name, cell, x, hidden, masks)
    expected = outputs_and_gradients(expected, expected[-1:], of)
    for loop in (cell, cell.plain_loop):
        found = outputs_and_gradients(*loop(x, hidden, *masks), of)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_large_states_have_the_gradients_of_the_equations_too():
    """They take another way back, whose operations are those within a step."""
    columns, units = 130, 130
    torch.manual_seed(0)
    cell = RecurrentCell(load("darts_v2_rnn").cells["recurrent"], units).double()
    x, hidden = torch.randn(3, columns, units).double(), torch.randn(1, columns, units).double()
    mask = (torch.rand(columns, units) < 0.6).double() / 0.6
    of = [x.requires_grad_(), hidden.requires_grad_(), *cell.parameters()]
    expected = outputs_and_gradients(*cell.plain_loop(x, hidden, None, mask), of)
    for a, b in zip(outputs_and_gradients(*cell(x, hidden, None, mask), of), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_node_of_none_has_the_state_0():
    ops = (Edge(0, 1, Op("tanh")), Edge(1, 2, Op("none")), Edge(2, 3, Op("sigmoid")),
           Edge(1, 4, Op("relu")), Edge(0, 5, Op("none")))  # fmt: skip
    torch.manual_seed(0)
    genotype = Genotype("n", {"recurrent": Cell(1, ops, (1, 2, 3, 4))})
    cell = RecurrentCell(recurrent_cell(genotype), D).double()
    x, hidden, masks = inputs(True)
    silent = [cell.W[1], cell.W[2], cell.W[4]]  # of `none`, and of a node whose source is 0
    of = [x, hidden, cell.W0, cell.W[0], cell.W[3]]
    expected = outputs_and_gradients(*cell.plain_loop(x, hidden, *masks), of)
    states, last = cell(x, hidden, *masks)
    for a, b in zip(outputs_and_gradients(states, last, of), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    states, _ = cell(x, hidden, *masks)
    for gradient in torch.autograd.grad(states.sum(), silent):
        assert torch.equal(gradient, torch.zeros_like(gradient))
    nothing = Cell(1, (Edge(0, 1, Op("tanh")), Edge(1, 2, Op("none"))), (2,))
    for loop in ((empty := RecurrentCell(nothing, D).double()), empty.plain_loop):
        assert (loop(x, hidden, *masks)[0] == 0).all()


def test_the_compiled_step_is_one_graph_whatever_the_chunk():
    cell = made("gdas_rnn")
    cell.compile_steps(backend="aot_eager")
    x, hidden, masks = inputs(True)
    of = [x, hidden, *cell.parameters()]
    counters = pytest.importorskip("torch._dynamo.utils").counters
    counters.clear()
    for length in (T, 2, 4):
        expected = outputs_and_gradients(*cell.plain_loop(x[:length], hidden, *masks), of)
        found = outputs_and_gradients(*cell(x[:length], hidden, *masks), of)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert counters["stats"]["unique_graphs"] == 2  # a step forwards, a step backwards
    assert not counters["graph_break"]
    copy.deepcopy(cell).eval()(x[:, :1], hidden[:, :1])  # an average, scored in another width
    assert counters["stats"]["unique_graphs"] == 2


def test_a_chunk_may_be_cut_anywhere():
    cell = made("darts_v2_rnn")
    x, hidden, masks = inputs(True)
    whole, _ = cell(x, hidden, *masks)
    first, middle = cell(x[:2], hidden, *masks)
    second, _ = cell(x[2:], middle, *masks)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)


def test_the_fused_loop_leaves_its_inputs_alone():
    cell = made("gdas_rnn")
    x, hidden, masks = inputs(True)
    before = [v.detach().clone() for v in (x, hidden, *masks, *cell.parameters())]
    states, _ = cell(x, hidden, *masks)
    kept = states.detach().clone()
    states.sum().backward()
    for a, b in zip((x, hidden, *masks, *cell.parameters()), before, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(states, kept)


def test_sources_share_a_product():
    plan = Plan.of(load("gdas_rnn").cells["recurrent"])
    assert [sorted(group.nodes) for group in plan.groups] == [[0, 1, 4], [2, 3], [5, 7], [6]]
    assert plan.output == tuple(range(8))
    assert len(Plan.of(load("enas_rnn").cells["recurrent"]).output) == 6


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells(name):
    cell = load(name).cells["recurrent"]
    assert [(edge.op.name, edge.source) for edge in cell.edges] == listed(name)
    assert cell.output == tuple(PUBLISHED[name][1]) and cell.inputs == 1
    assert {"paper", "source"} <= load(name).provenance.keys()


@pytest.mark.parametrize(
    ("words", "units", "count"), [(10_000, 850, 22_960_000), (33_278, 700, 33_127_878)]
)
@pytest.mark.parametrize("name", ["gdas_rnn", "darts_v1_rnn", "darts_v2_rnn"])
def test_counts(name, words, units, count):
    with torch.device("meta"):
        cell = RecurrentCell(recurrent_cell(load(name)), units)
        model = LanguageModel(words, units, cell, Dropouts())
    assert sum(weight.numel() for weight in model.parameters()) == count


def of(*edges):
    return Genotype("mine", {"recurrent": Cell(1, edges, (1,))})


@pytest.mark.parametrize(("genotype", "named"), [
    (load("darts_v2"), "needs a recurrent cell, and it has only normal and reduction"),
    (
        Genotype("mine", {"recurrent": FixedCell("gdas_frc")}),
        "must have edges; gdas_frc is a cell of image networks",
    ),
    (of(Edge(0, 1, Op("tanh")), Edge(0, 1, Op("relu"))), "node 1 .* more than one edge"),
])  # fmt: skip
def test_cells_that_make_no_model(genotype, named):
    with pytest.raises(InputError, match=named):
        recurrent_cell(genotype)


def test_lstm():
    torch.manual_seed(0)
    cell = LSTM(D).double()
    x = torch.randn(T, B, D).double()
    hidden = torch.randn(2, B, D).double().requires_grad_()
    x_mask, w_mask = cell.masks(B, 0.5, 0.5)
    assert x_mask.shape == (B, D) and w_mask.shape == (4 * D, D)
    states, after = cell(x, hidden, x_mask, w_mask)
    of = [hidden, *cell.parameters()]
    found = outputs_and_gradients(states, after, of)
    W_x, W_h, b, b_2 = cell.lstm.parameters()
    (h, c), outputs = hidden, []
    for word in x:
        i, f, g, o = ((word * x_mask) @ W_x.t() + h @ (W_h * w_mask).t() + b + b_2).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    expected = outputs_and_gradients(torch.stack(outputs), torch.stack([h, c]), of)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert cell(x, hidden)[0].shape == (T, B, D)
    of_x, of_weights = cell.masks(B, 0.5, 0)
    assert of_x is not None and of_weights is None
    of_x, of_weights = cell.masks(B, 0, 0.5)
    assert of_x is None and of_weights is not None
