"""The recurrent cell and the LSTM against loops written from their equations."""

import copy

import pytest
import torch

from common.errors import InputError
from common.language.cell import RecurrentCell, recurrent_cell
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
    """One column, one word, one node at a time; shares no code with the cell."""
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


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_cell_matches_its_equations(name, masked):
    cell = made(name)
    x, hidden, masks = inputs(masked)
    of = [x, hidden, *cell.parameters()]
    expected = by_the_equations(name, cell, x, hidden, masks)
    expected = outputs_and_gradients(expected, expected[-1:], of)
    assert_same(outputs_and_gradients(*cell(x, hidden, *masks), of), expected)


def test_a_none_node_has_state_zero():
    """Also as the source of node 3; nodes 1 and 4 compute as without it."""
    ops = (Edge(0, 1, Op("tanh")), Edge(1, 2, Op("none")), Edge(2, 3, Op("sigmoid")),
           Edge(1, 4, Op("relu")), Edge(0, 5, Op("none")))  # fmt: skip
    without = (Edge(0, 1, Op("tanh")), Edge(1, 2, Op("relu")))
    torch.manual_seed(0)
    cell = RecurrentCell(Cell(1, ops, (1, 2, 4, 5)), D).double()
    other = RecurrentCell(Cell(1, without, (1, 2)), D).double()
    with torch.no_grad():
        for own, copied in ((other.W0, cell.W0), (other.W[0], cell.W[0]), (other.W[1], cell.W[3])):
            own.copy_(copied)
    x, hidden, masks = inputs(True)
    one_word = x[:1], hidden, *masks
    assert_same([cell(*one_word)[0]], [other(*one_word)[0] / 2])
    silent = Cell(1, (*ops[:2], Edge(2, 3, Op("sigmoid"))), (2,))
    assert (RecurrentCell(silent, D).double()(x, hidden, *masks)[0] == 0).all()


def test_compiled_training_is_one_graph_for_all_chunks():
    cell, eager = made("gdas_rnn"), made("gdas_rnn")
    cell.compile_step(backend="aot_eager")
    x, hidden, masks = inputs(True)
    counters = pytest.importorskip("torch._dynamo.utils").counters
    counters.clear()
    for length in (T, 2, 4):
        given = x[:length], hidden.detach(), *masks
        expected = outputs_and_gradients(*eager(*given), [x, *eager.parameters()])
        assert_same(outputs_and_gradients(*cell(*given), [x, *cell.parameters()]), expected)
    copy.deepcopy(cell).eval()(x[:, :1], hidden[:, :1])  # an average, evaluated at another width
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def test_chunks_equal_one_pass():
    cell = made("darts_v2_rnn")
    x, hidden, masks = inputs(True)
    whole, _ = cell(x, hidden, *masks)
    first, middle = cell(x[:2], hidden, *masks)
    second, _ = cell(x[2:], middle, *masks)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_match_the_papers(name):
    cell = load(name).cells["recurrent"]
    assert [(edge.op.name, edge.source) for edge in cell.edges] == listed(name)
    assert cell.output == tuple(PUBLISHED[name][1]) and cell.inputs == 1
    assert {"paper", "source"} <= load(name).provenance.keys()


@pytest.mark.parametrize(
    ("words", "units", "count"), [(10_000, 850, 22_960_000), (33_278, 700, 33_127_878)]
)
@pytest.mark.parametrize("name", ["gdas_rnn", "darts_v1_rnn", "darts_v2_rnn"])
def test_parameter_counts_match_the_papers(name, words, units, count):
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
def test_rejects_cells_that_are_not_recurrent(genotype, named):
    with pytest.raises(InputError, match=named):
        recurrent_cell(genotype)


def test_lstm_matches_its_equations():
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
    assert_same(found, expected)
    assert torch.equal(cell(x, hidden)[0], cell.lstm(x, (hidden[:1], hidden[1:]))[0])
    for p_input, p_hidden in ((0.5, 0), (0, 0.5)):
        masks = cell.masks(B, p_input, p_hidden)
        assert [mask is None for mask in masks] == [p_input == 0, p_hidden == 0]
