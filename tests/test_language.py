"""The language model: its dropouts, and perplexity that depends on nothing but text and weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from common.language.cell import RecurrentCell, recurrent_cell
from common.language.lstm import LSTM
from common.language.model import Dropouts, LanguageModel, chunk_loss, exact_loss, slowness
from common.networks.genotype import load
from gdas.rnn_supernet import RecurrentSuperNet

WORDS, D = 11, 6


def made(dropouts=None, cell=None):
    torch.manual_seed(0)
    cell = cell or RecurrentCell(recurrent_cell(load("darts_v1_rnn")), D)
    model = LanguageModel(WORDS, D, cell, dropouts or Dropouts()).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20)
        model.bias.copy_(torch.randn(WORDS))
    return model


def word_by_word(model, text):
    """Sum of NLL over the text, one column, one word a time, from an empty state."""
    hidden, total = model.initial(1), 0.0
    for word, target in zip(text[:-1], text[1:], strict=True):
        logits, hidden, _ = model(word.view(1, 1), hidden)
        total += F.cross_entropy(logits[0], target.view(1)).item()
    return total


@pytest.mark.parametrize("kind", ["recurrent", "lstm"])
def test_perplexity_depends_on_neither_columns_nor_chunks(accelerator, kind):
    model = made(cell=LSTM(D) if kind == "lstm" else None).eval()
    text = torch.randint(WORDS, (101,), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = word_by_word(model, text) / 100
        alone = sum(word_by_word(model, part) for part in text[:-1].split(20))
    assert abs(alone / 95 - expected) > 1e-3  # columns that forget would be noticed
    for columns in (1, 2, 7, 16, 99, 150):
        for chunk in (1, 9, 200):
            found = exact_loss(accelerator, model, text, columns, chunk)
            assert found == pytest.approx(expected, rel=1e-10), (columns, chunk)


def test_columns_are_read_again_only_until_nothing_changes(accelerator):
    model = made().eval()
    read = []
    model.register_forward_hook(lambda module, given, found: read.append(len(given[0])))
    text = torch.randint(WORDS, (4001,), generator=torch.Generator().manual_seed(3))
    exact_loss(accelerator, model, text, columns=4, chunk=20)
    assert 1000 < sum(read) < 1300


def test_states_that_overflow_end_in_a_loss_that_is_not_finite(accelerator):
    model = made().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1e30)
    allowed = iter(range(100))

    def count(module, given):
        next(allowed)  # StopIteration where it would read chunks for ever

    model.register_forward_pre_hook(count)
    text = torch.randint(WORDS, (101,), generator=torch.Generator().manual_seed(3))
    assert math.isnan(exact_loss(accelerator, model, text, columns=4, chunk=9))


def test_loss_and_slowness():
    model = made().eval()
    words = torch.randint(WORDS, (4, 3))
    reading = model(words, model.initial(3))
    assert reading.hidden.shape == (1, 3, D) and reading.logits.shape == (4, 3, WORDS)
    expected = -reading.logits.log_softmax(-1).gather(2, words[..., None]).mean()
    torch.testing.assert_close(chunk_loss(reading, words), expected)
    moves = [(reading.states[t] - reading.states[t - 1]) ** 2 for t in (1, 2, 3)]
    torch.testing.assert_close(slowness(reading.states), torch.stack(moves).mean())
    assert slowness(reading.states[:1]) == 0
    torch.testing.assert_close(  # the decoder's weights are the word vectors
        reading.logits, reading.states @ model.vectors.t() + model.bias
    )


@pytest.mark.parametrize("kind", ["derived", "lstm", "searched"])
def test_initial_weights_are_uniform_between_plus_and_minus_four_hundredths(kind):
    """As in the authors' code; the decoder begins without a bias."""
    torch.manual_seed(0)
    model = {
        "derived": lambda: LanguageModel(
            WORDS, 64, RecurrentCell(recurrent_cell(load("gdas_rnn")), 64), Dropouts()
        ),
        "lstm": lambda: LanguageModel(WORDS, 64, LSTM(64), Dropouts()),
        "searched": lambda: RecurrentSuperNet(WORDS, 64, 3, Dropouts()),
    }[kind]()
    for name, weight in model.named_parameters():
        if name == "bias":
            assert not weight.any()
        elif not name.startswith("arch"):
            assert 0.035 < weight.abs().max() <= 0.04 and weight.mean().abs() < 0.006, name


def seen_by(model, where):
    """What reaches the cell (x and its masks) or the decoder in a training pass over one word."""
    seen = []
    module = model.cell if where == "cell" else model
    module.register_forward_hook(lambda module, given, found: seen.append((given, found)))
    torch.manual_seed(1)
    words = torch.tensor([[3, 3, 4], [3, 5, 3], [3, 3, 3]])
    model.train()(words, model.initial(3))
    return words, *seen[0]


def zero_rows(tensor):
    return (tensor == 0).all(-1)


def test_dropout_of_words():
    words, (x, *_), _ = seen_by(made(Dropouts(word=0.5)), "cell")
    model = made()
    dropped = zero_rows(x)
    assert 0 < dropped.sum() < dropped.numel()
    for word in (3, 4, 5):  # all its places alike
        assert len(set(dropped[words == word].tolist())) == 1
    torch.testing.assert_close(x[~dropped], 2 * model.vectors[words][~dropped])


def test_dropout_of_embeddings_is_locked():
    words, (x, *_), _ = seen_by(made(Dropouts(embedding=0.5)), "cell")
    zeros = x == 0
    assert 0 < zeros.sum() < zeros.numel()
    assert (zeros == zeros[:1]).all()  # at every time step
    assert not (zeros[0, 0] == zeros[0, 1]).all()  # each column its own
    torch.testing.assert_close(x[~zeros], 2 * made().vectors[words][~zeros])


@pytest.mark.parametrize(("kind", "place"), [("input", 2), ("hidden", 3)])
def test_dropout_within_the_cell_is_locked(kind, place):
    _, given, _ = seen_by(made(Dropouts(**{kind: 0.4})), "cell")
    masks = {2: given[2], 3: given[3]}
    mask = masks.pop(place)
    assert list(masks.values()) == [None]
    assert mask.shape == (3, D)
    values = mask.unique()
    torch.testing.assert_close(values, torch.tensor([0, 1 / 0.6]).double())


def test_dropout_of_outputs_is_locked_and_spares_the_states():
    model = made(Dropouts(output=0.5))
    _, _, (logits, hidden, states) = seen_by(model, "model")
    plain = made().train()
    torch.testing.assert_close(states, plain(*seen_by(plain, "model")[1]).states)
    read = (logits - model.bias) @ torch.linalg.pinv(model.vectors.t())  # what the decoder read
    mask = read / states
    torch.testing.assert_close(mask, mask[:1].expand_as(mask), rtol=1e-6, atol=1e-6)
    assert {round(value, 6) for value in mask.flatten().tolist()} <= {0, -0, 2}
    torch.testing.assert_close(hidden, states[-1:])


def test_nothing_is_dropped_when_evaluated():
    model = made(Dropouts(*(0.5,) * 5)).eval()
    words = torch.randint(WORDS, (4, 3))
    expected = made().eval()(words, model.initial(3)).logits
    assert torch.equal(model(words, model.initial(3)).logits, expected)
