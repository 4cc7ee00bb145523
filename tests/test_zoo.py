"""The published cells have the sizes that their papers print, except for the named slips."""

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
from published import cells
from published.tables import table

count = functools.lru_cache(cells.count)
ROWS = [
    pytest.param(name, row, id=f"{name}-{row['where']}-{row['params']}")
    for name, rows in cells.PRINTED.items() for row in rows
]  # fmt: skip


def test_every_published_cell_has_its_source_and_printed_sizes():
    assert sorted(cells.PRINTED) == published()
    for name in published():
        assert {"paper", "source"} <= load(name).provenance.keys()


@pytest.mark.parametrize(("paper", "name", "row", "printed"), [
    ("pc_darts", "table1", "PC-DARTS + cutout", "2.57 ± 0.07 3.6 0.1 gradient-based"),
    ("pc_darts", "table2", "PC-DARTS (ImageNet)", "24.2 7.3 5.3 597 3.8 gradient-based"),
    ("pc_darts", "table3", "ImageNet, PC, EN", "25.8 ± 0.1 % 3.8 GPU-days"),
    ("pc_darts", "table4", "DARTS-v2(%)",
     "3.11 2.68 2.77 3.14 3.06 ± 0.21 2.76 2.93 3.51 3.18 2.82 2.76 3.02"),
    ("gdas", "table1", "GDAS (FRC) [C=36,N=6] + CutOut", "1 0.17 2.5 2.82 18.13"),
    ("gdas", "table2", "GDAS [C=50,N=4]", "1 0.21 26.0 8.5 5.3 581"),
    ("gdas", "table3", "GDAS", "59.8 57.5 23 0.4"), ("gdas", "table4", "GDAS", "71.0 69.4 33 0.4"),
    ("edas", "table1", "Test acc. (%)", "96.87 97.15 97.14 97.15 97.22 97.21"),
    ("edas", "table2", "EDAS CIFAR100 warmup + cutout", "- 17.16 4.06 0.125 gradient-based"),
    ("itnas", "table3", "ITNAS", "24.04 7.29 5.5 627 0.30 gradient"),
    ("itnas", "table4", "ITNAS", "6.72 15.5 1.78"),
    ("pr_darts", "table3", "PR-DARTS DL2", "4.0 2.51 ± 0.09 15.53 ± 0.29 0.82 15/15 grad"),
])  # fmt: skip
def test_the_papers_own_results_as_printed(paper, name, row, printed):
    assert " ".join(table(paper, name).rows[row].values()) == printed


def disagreeing(counted, row):
    """The printed figures that are not the counted ones, rounded to as many digits."""
    wrong = [] if rounded(counted["params"], row["params"]) == row["params"] else ["params"]
    known = ("multiply_adds", "multiply_adds_paper")
    if row["multiply_adds"] and row["multiply_adds"] not in [
        rounded(counted[convention], row["multiply_adds"])
        for convention in ([row["convention"]] if row["convention"] else known)
    ]:
        wrong.append("multiply_adds")
    return wrong


def rounded(value, printed):
    digits = len(printed.partition(".")[2])
    return f"{value / 1e6:.{digits}f}"


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_counted_sizes_are_the_printed_ones(name, row):
    assert bool(disagreeing(count(name, row["dataset"]), row)) is (row["slip"] is not None)


def test_574_m_of_darts_is_the_slip_not_its_parameters():
    imagenet = cells.PRINTED["darts_v2"][1]
    assert disagreeing(count("darts_v2", "imagenet"), imagenet) == ["multiply_adds"]


def test_the_width_of_a_papers_network():
    assert [zoo.setting(name, "imagenet").channels for name in ("gdas", "gdas_frc")] == [50, 52]
    assert zoo.setting("gdas", "cifar10") == SETTINGS["cifar10"]
    assert zoo.setting("darts_v1", "imagenet") == zoo.setting("mine", "imagenet")
    assert zoo.setting("mine", "imagenet") == SETTINGS["imagenet"]


def test_image_names_leave_out_recurrent_cells():
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
