"""The published cells have the sizes that their papers print, but for the slips that are named."""

import functools

import pytest
import torch

from common.language.cell import RecurrentCell
from common.language.model import Dropouts
from common.language.model import LanguageModel as Model
from common.networks import zoo
from common.networks.complexity import (
    LANGUAGE_MODELS,
    SETTINGS,
    LanguageModel,
    parameters,
    recurrent_parameters,
)
from common.networks.genotype import Cell, Edge, Op, load, published
from common.networks.zoo import PRINTED

count = functools.lru_cache(zoo.count)
ROWS = [
    pytest.param(name, row, id=f"{name}-{row.where}-{row.params}")
    for name, rows in PRINTED.items() if name in published() for row in rows
]  # fmt: skip


def test_every_published_cell_says_where_it_is_from_and_what_is_printed_of_it():
    assert [name for name in published() if name not in PRINTED] == []
    for name in published():
        assert {"paper", "source"} <= load(name).provenance.keys()


def disagreeing(counted, row):
    """Which of the printed figures are not the counted ones, rounded to as many digits."""
    wrong = [] if rounded(counted["params"], row.params) == row.params else ["params"]
    conventions = [row.convention] if row.convention else [zoo.PRODUCTS, zoo.ALL]
    if row.multiply_adds and row.multiply_adds not in [
        rounded(counted[convention], row.multiply_adds) for convention in conventions
    ]:
        wrong.append("multiply_adds")
    return wrong


def rounded(value, printed):
    digits = len(printed.partition(".")[2])
    return f"{value / 1e6:.{digits}f}"


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_printed_figures(name, row):
    assert bool(disagreeing(count(name, row.dataset), row)) is (row.slip is not None)


def test_574_m_of_darts_is_the_slip_not_its_parameters():
    imagenet = PRINTED["darts_v2"][1]
    assert disagreeing(count("darts_v2", "imagenet"), imagenet) == ["multiply_adds"]


def test_the_width_of_a_papers_network():
    assert [zoo.setting(name, "imagenet").channels for name in ("gdas", "gdas_frc")] == [50, 52]
    assert zoo.setting("gdas", "cifar10") == SETTINGS["cifar10"]
    assert zoo.setting("darts_v1", "imagenet") == zoo.setting("mine", "imagenet")
    assert zoo.setting("mine", "imagenet") == SETTINGS["imagenet"]


def test_image_names_leave_out_what_is_recurrent():
    names = zoo.image_names()
    assert set(names) == {name for name in published() if not name.endswith("_rnn")}


@pytest.mark.parametrize(
    ("text", "nodes", "expected"), [("ptb", 8, 22_960_000), ("wikitext2", 8, 33_127_878)]
)
def test_language_models_of_eight_nodes(text, nodes, expected):
    assert recurrent_parameters(recurrent(nodes), LANGUAGE_MODELS[text]) == expected


def test_a_language_model_by_hand():
    # 5 words of 3 units and as many biases; [6, 6] for state 0, [3, 6] for each of two nodes
    model = LanguageModel(words=5, units=3)
    assert recurrent_parameters(recurrent(2), model) == 15 + 5 + 36 + 2 * 18


@pytest.mark.parametrize("name", sorted(set(published()) - set(zoo.image_names())))
def test_a_language_model_is_counted_as_it_is_built(name):
    """Word vectors, the decoder's biases and the cell's matrices: nothing else, and no less."""
    size = LANGUAGE_MODELS["ptb"]
    with torch.device("meta"):
        cell = RecurrentCell(load(name).cells["recurrent"], size.units)
        model = Model(size.words, size.units, cell, Dropouts())
    assert count(name, "ptb")["params"] == parameters(model)


def recurrent(nodes):
    edges = tuple(Edge(0, node, Op("tanh")) for node in range(1, nodes + 1))
    return Cell(1, edges, tuple(range(1, nodes + 1)))
