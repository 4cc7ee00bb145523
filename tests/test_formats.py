"""Genotypes in the forms of other programs: real texts, round trips, refusals.

The texts are facts, from the programs that each one names.
"""

import json
import os
import random
from dataclasses import replace

import pytest
import torch

from builders import assert_refused
from common.draw import pictures
from common.errors import InputError
from common.networks import formats
from common.networks.complexity import SETTINGS, complexity
from common.networks.genotype import (
    CANDIDATES,
    RECURRENT_OPS,
    Cell,
    Edge,
    FixedCell,
    Genotype,
    Op,
    cell_from_pairs,
    load,
    published,
    save,
)
from common.networks.network import Network
from retraining.config import chosen_preset

CONVERT = "evaluate/convert.py"
WRITERS = {
    "darts": formats.namedtuple_text,
    "nasbench301": formats.numbered_text,
    "naslib": formats.compact_text,
    "fairdarts": formats.triples_text,
}
OF_PAIRS = [form for form in WRITERS if form != "fairdarts"]

# DrNAS on CIFAR-10, as its authors print it (xiangning-chen/DrNAS).
DARTS = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 2), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2), "
    "('dil_conv_5x5', 3)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('sep_conv_5x5', 1), ('dil_conv_5x5', 2), ('sep_conv_5x5', 1), ('sep_conv_5x5', 1), "
    "('dil_conv_5x5', 3), ('skip_connect', 4), ('sep_conv_5x5', 1)], reduce_concat=range(2, 6))"
)
# The same cell by pt.darts, ...
PT_DARTS = """
Genotype(normal=[[('sep_conv_3x3', 0), ('sep_conv_5x5', 1)], [('sep_conv_3x3', 1), ('sep_conv_3x3',
2)], [('skip_connect', 0), ('sep_conv_3x3', 1)], [('sep_conv_3x3', 2), ('dil_conv_5x5', 3)]],
normal_concat=range(2, 6), reduce=[[('max_pool_3x3', 0), ('sep_conv_5x5', 1)], [('dil_conv_5x5', 2),
('sep_conv_5x5', 1)], [('sep_conv_5x5', 1), ('dil_conv_5x5', 3)], [('skip_connect', 4),
('sep_conv_5x5', 1)]], reduce_concat=range(2, 6))
"""
# ... by AutoDL-Projects, with weights, ...
AUTODL = """
{'normal': [(('sep_conv_3x3', 0, 0.21), ('sep_conv_5x5', 1, 0.19)), (('sep_conv_3x3', 1, 0.2),
('sep_conv_3x3', 2, 0.2)), (('skip_connect', 0, 0.2), ('sep_conv_3x3', 1, 0.2)), (('sep_conv_3x3',
2, 0.2), ('dil_conv_5x5', 3, 0.2))], 'normal_concat': [2, 3, 4, 5], 'reduce': [(('max_pool_3x3', 0,
0.2), ('sep_conv_5x5', 1, 0.2)), (('dil_conv_5x5', 2, 0.2), ('sep_conv_5x5', 1, 0.2)),
(('sep_conv_5x5', 1, 0.2), ('dil_conv_5x5', 3, 0.2)), (('skip_connect', 4, 0.2), ('sep_conv_5x5', 1,
0.2))], 'reduce_concat': [2, 3, 4, 5]}
"""
# ... and by NAS-Bench-301.
NASBENCH301 = """
{
 "NetworkSelectorDatasetInfo:darts:edge_normal_0": "sep_conv_3x3",
 "NetworkSelectorDatasetInfo:darts:edge_normal_1": "sep_conv_5x5",
 "NetworkSelectorDatasetInfo:darts:edge_normal_3": "sep_conv_3x3",
 "NetworkSelectorDatasetInfo:darts:edge_normal_4": "sep_conv_3x3",
 "NetworkSelectorDatasetInfo:darts:inputs_node_normal_3": "1_2",
 "NetworkSelectorDatasetInfo:darts:edge_normal_5": "skip_connect",
 "NetworkSelectorDatasetInfo:darts:edge_normal_6": "sep_conv_3x3",
 "NetworkSelectorDatasetInfo:darts:inputs_node_normal_4": "0_1",
 "NetworkSelectorDatasetInfo:darts:edge_normal_11": "sep_conv_3x3",
 "NetworkSelectorDatasetInfo:darts:edge_normal_12": "dil_conv_5x5",
 "NetworkSelectorDatasetInfo:darts:inputs_node_normal_5": "2_3",
 "NetworkSelectorDatasetInfo:darts:edge_reduce_0": "max_pool_3x3",
 "NetworkSelectorDatasetInfo:darts:edge_reduce_1": "sep_conv_5x5",
 "NetworkSelectorDatasetInfo:darts:edge_reduce_4": "dil_conv_5x5",
 "NetworkSelectorDatasetInfo:darts:edge_reduce_3": "sep_conv_5x5",
 "NetworkSelectorDatasetInfo:darts:inputs_node_reduce_3": "1_2",
 "NetworkSelectorDatasetInfo:darts:edge_reduce_6": "sep_conv_5x5",
 "NetworkSelectorDatasetInfo:darts:edge_reduce_8": "dil_conv_5x5",
 "NetworkSelectorDatasetInfo:darts:inputs_node_reduce_4": "1_3",
 "NetworkSelectorDatasetInfo:darts:edge_reduce_13": "skip_connect",
 "NetworkSelectorDatasetInfo:darts:edge_reduce_10": "sep_conv_5x5",
 "NetworkSelectorDatasetInfo:darts:inputs_node_reduce_5": "1_4"
}
"""
# FairDARTS' a and g (xiaomi-automl/FairDARTS): no edge enters node 3 of the normal cells, and in g
# one leaves it. The authors print 2.83 and 3.375 M parameters (with the auxiliary head).
FAIRDARTS = """
FairDARTS_a = Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4,
0), ('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0),
('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1), ('avg_pool_3x3', 4, 0),
('sep_conv_5x5', 4, 1), ('skip_connect', 5, 0), ('skip_connect', 5, 1)], reduce_concat=range(2, 6))

FairDARTS_g = Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('skip_connect', 4,
3), ('sep_conv_5x5', 4, 1), ('dil_conv_3x3', 5, 0), ('sep_conv_3x3', 5, 1)],
normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 2, 1), ('skip_connect', 2, 0), ('skip_connect',
3, 2), ('max_pool_3x3', 3, 1), ('sep_conv_5x5', 4, 3), ('max_pool_3x3', 4, 0), ('dil_conv_3x3', 5,
1), ('dil_conv_3x3', 5, 4)], reduce_concat=range(2, 6))
"""
NASLIB = """
(((0, 6), (1, 4), (0, 0), (1, 5), (1, 4), (3, 2), (0, 6), (3, 2)),
 ((0, 1), (1, 4), (0, 1), (1, 4), (2, 6), (3, 4), (1, 5), (2, 1)))
"""
# From PR-DARTS' genotypes.py (cogsys-tuebingen/prdarts).
PR_DARTS = """
from collections import namedtuple
Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')
DARTS_PRIMITIVES = [('none', {}), ('pool', {'k': 3, 'type_': 'max'})]

PR_DARTS_DL2 = Genotype(
    normal=[
        ('conv', {'c_mul': [1], 'dil': 1, 'k': 3}, 0),
        ('conv', {'c_mul': [], 'dil': 1, 'k': 3}, 1),
        ('conv', {'c_mul': [], 'dil': 1, 'k': 3}, 1),
        ('conv', {'c_mul': [1], 'dil': 1, 'k': 7}, 2),
        ('skip', {}, 0),
        ('conv', {'c_mul': [1], 'dil': 1, 'k': 5}, 1),
        ('conv', {'c_mul': [1], 'dil': 1, 'k': 3}, 1),
        ('conv', {'c_mul': [1], 'dil': 1, 'k': 7}, 4)],
    normal_concat=list(range(2, 6)),
    reduce=[
        ('conv', {'c_mul': [], 'dil': 1, 'k': 3}, 0),
        ('conv', {'c_mul': [1], 'dil': 1, 'k': 3}, 1),
        ('conv', {'c_mul': [1], 'dil': 1, 'k': 3}, 1),
        ('skip', {}, 2),
        ('pool', {'k': 3, 'type_': 'max'}, 0),
        ('conv', {'c_mul': [], 'dil': 1, 'k': 3}, 3),
        ('conv', {'c_mul': [], 'dil': 1, 'k': 3}, 0),
        ('skip', {}, 3)],
    reduce_concat=[2, 3, 4, 5])
"""
# NASNet and AmoebaNet as DARTS' genotypes.py has them.
NASNET = """
NASNet = Genotype(
  normal = [('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0),
    ('avg_pool_3x3', 1), ('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0),
    ('sep_conv_3x3', 1), ('skip_connect', 1),],
  normal_concat = [2, 3, 4, 5, 6],
  reduce = [('sep_conv_5x5', 1), ('sep_conv_7x7', 0), ('max_pool_3x3', 1), ('sep_conv_7x7', 0),
    ('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), ('avg_pool_3x3', 2),
    ('sep_conv_3x3', 2), ('max_pool_3x3', 1),],
  reduce_concat = [4, 5, 6],
)
AmoebaNet = Genotype(
  normal = [('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 2),
    ('sep_conv_3x3', 0), ('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1),
    ('skip_connect', 0), ('avg_pool_3x3', 1),],
  normal_concat = [4, 5, 6],
  reduce = [('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_7x7', 2),
    ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), ('max_pool_3x3', 1),
    ('conv_7x1_1x7', 0), ('sep_conv_3x3', 5),],
  reduce_concat = [3, 4, 6]
)
DARTS = NASNet
"""
DRNAS = {
    "normal": cell_from_pairs([
        ("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2),
        ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2), ("dil_conv_5x5", 3)]),
    "reduction": cell_from_pairs([
        ("max_pool_3x3", 0), ("sep_conv_5x5", 1), ("dil_conv_5x5", 2), ("sep_conv_5x5", 1),
        ("sep_conv_5x5", 1), ("dil_conv_5x5", 3), ("skip_connect", 4), ("sep_conv_5x5", 1)]),
}  # fmt: skip


def pairs(cell):
    return [(edge.op.name, edge.source) for edge in cell.edges]


@pytest.mark.parametrize("text", [DARTS, PT_DARTS, AUTODL, NASBENCH301],
                         ids=["darts", "pt.darts", "autodl", "nasbench301"])  # fmt: skip
def test_one_cell_in_four_forms(text, tmp_path):
    """DrNAS' network has 4,099,294 parameters without the auxiliary head."""
    path = tmp_path / "drnas.txt"
    path.write_text(text)
    genotype = load(path)
    assert genotype.name == "drnas" and genotype.provenance == {"source": str(path)}
    assert genotype.cells == load(text).cells == DRNAS
    assert complexity(genotype, SETTINGS["cifar10"]).params == 4_099_294


@pytest.mark.parametrize(
    ("name", "states", "millions"),
    [("FairDARTS_a", [0, 1, 0, 0], 2.83), ("FairDARTS_g", [0, 1, 1, 0, 1], 3.375)],
)
def test_a_node_that_no_edge_enters_is_left_out(tmp_path, name, states, millions):
    path = tmp_path / "genotypes.py"
    path.write_text(FAIRDARTS)
    genotype = load(f"{path}:{name}")
    assert genotype.name == name
    normal = genotype.cells["normal"]
    assert [edge.source for edge in normal.edges] == states
    assert normal.output == (2, 3, 4) and genotype.cells["reduction"].output == (2, 3, 4, 5)
    counted = complexity(genotype, SETTINGS["cifar10"]).params_with_auxiliary
    assert counted / 1e6 == pytest.approx(millions, abs=0.01)
    network = Network(genotype, 4, 3, 10)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_compact_tuples():
    normal, reduction = load(NASLIB).cells.values()
    assert pairs(normal) == [
        ("dil_conv_5x5", 0), ("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("dil_conv_3x3", 1),
        ("sep_conv_5x5", 1), ("skip_connect", 3), ("dil_conv_5x5", 0), ("skip_connect", 3),
    ]  # fmt: skip
    assert pairs(reduction) == [
        ("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("avg_pool_3x3", 0), ("sep_conv_5x5", 1),
        ("dil_conv_5x5", 2), ("sep_conv_5x5", 3), ("dil_conv_3x3", 1), ("avg_pool_3x3", 2),
    ]  # fmt: skip


def test_keyword_dictionaries(tmp_path):
    path = tmp_path / "genotypes.py"
    path.write_text(PR_DARTS)
    genotype = load(path)
    assert genotype.name == "PR_DARTS_DL2"
    assert genotype.cells == load("pr_darts_dl2").cells


def test_names_in_a_python_file(tmp_path):
    """NASNet has doubled edges and concatenates some nodes; AmoebaNet an operation of its own."""
    path = tmp_path / "genotypes.py"
    path.write_text(NASNET)
    genotype = load(f"{path}:NASNet")
    assert load(f"{path}:DARTS").cells == genotype.cells
    normal, reduction = genotype.cells.values()
    assert (normal.output, reduction.output) == ((2, 3, 4, 5, 6), (4, 5, 6))
    assert [edge.source for edge in normal.into(5)] == [0, 0]
    assert reduction.into(2)[1].op == Op("sep_conv_7x7")
    for what, named in ((path, "NASNet, AmoebaNet, DARTS"), (f"{path}:ENAS", "ENAS.*NASNet"),
                        (f"{path}:AmoebaNet", "conv_7x1_1x7")):  # fmt: skip
        with pytest.raises(InputError, match=f"^{path}: .*{named}"):
            load(what)


def test_a_log_holds_the_cells_of_its_last_epoch(tmp_path):
    """As DARTS' and AutoDL-Projects' searches write it."""
    path = tmp_path / "log.txt"
    other = DARTS.replace("sep_conv_5x5", "avg_pool_3x3")
    stamp = "2019-04-04 05:31:32,911 genotype = "
    path.write_text(f"03:31 epoch 0 lr 2.5e-2\n{stamp}{other}\n{stamp}{DARTS}\n08:09 valid_acc 7\n")
    assert load(path).cells == DRNAS and load(path).name == "log"
    assert load(f"{stamp}{DARTS}").cells == DRNAS
    path.write_text(f"<<<--->>> The 49-th epoch : {AUTODL}\n<<<--->>> done\n")
    assert load(path).cells == DRNAS
    path.write_text(f"{stamp}{DARTS}\n{stamp}{other[:-40]}")
    with pytest.raises(InputError, match=f"^{path}: .*bracket"):
        load(path)


@pytest.mark.parametrize("listed", ["[2, 3, 4, 5]", "(2, 3, 4, 5)", "list(range(2, 6))"])
def test_other_notations_of_one_text(listed):
    text = f"NAME = {DARTS}".replace("range(2, 6)", listed)
    assert load(text).name == "NAME"
    weighted = text.replace("', 0)", "', 0, np.float64(0.31))").replace("', 1)", "', 1, -2.5e-3)")
    for same in (text, weighted, text.replace("Genotype(", "gt.Genotype("), f"\n  {text}\n"):
        assert load(same).cells == DRNAS
    fields = ("normal=", "normal_concat=", "reduce=", "reduce_concat=")
    for field in fields:
        text = text.replace(f" {field}", " ").replace(f"({field}", "(")
    assert "=" not in text[6:] and load(text).cells == DRNAS


# ------------------------------------------------------------------------------ published cells

AUTHORS = {  # our name -> the name of the published text
    "darts_v1": "DARTS_V1", "darts_v2": "DARTS_V2", "pc_darts_cifar10": "PC_DARTS_cifar",
    "pc_darts_imagenet": "PC_DARTS_image", "p_darts": "PDARTS", "gdas": "GDAS_V1",
}  # fmt: skip
# As printed in their repositories: quark0/darts, yuhuixu1993/PC-DARTS, chenxin061/pdarts,
# D-X-Y/NAS-Projects at 8985bbe (with weights), and quark0/darts' rnn/genotypes.py.
GENOTYPES = """
DARTS_V1 = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])
DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])
PC_DARTS_cifar = Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], reduce_concat=range(2, 6))
PC_DARTS_image = Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)], normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1), ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)], reduce_concat=range(2, 6))
PDARTS = Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0),('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3',0), ('dil_conv_5x5', 4)], normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2), ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], reduce_concat=range(2, 6))
GDAS_V1 = Genotype(normal=[('skip_connect', 0, 0.13017432391643524), ('skip_connect', 1, 0.12947972118854523), ('skip_connect', 0, 0.13062666356563568), ('sep_conv_5x5', 2, 0.12980839610099792), ('sep_conv_3x3', 3, 0.12923765182495117), ('skip_connect', 0, 0.12901571393013), ('sep_conv_5x5', 4, 0.12938997149467468), ('sep_conv_3x3', 3, 0.1289220005273819)], normal_concat=[2, 3, 4, 5], reduce=[('sep_conv_5x5', 0, 0.12862831354141235), ('sep_conv_3x3', 1, 0.12783904373645782), ('sep_conv_5x5', 2, 0.12725995481014252), ('sep_conv_5x5', 1, 0.12705285847187042), ('dil_conv_5x5', 2, 0.12797553837299347), ('sep_conv_3x3', 1, 0.12737272679805756), ('sep_conv_5x5', 0, 0.12833961844444275), ('sep_conv_5x5', 1, 0.12758426368236542)], reduce_concat=[2, 3, 4, 5])
GDAS_F1 = Genotype(normal=[('skip_connect', 0, 0.16), ('skip_connect', 1, 0.13), ('skip_connect', 0, 0.17), ('sep_conv_3x3', 2, 0.15), ('skip_connect', 0, 0.17), ('sep_conv_3x3', 2, 0.15), ('skip_connect', 0, 0.16), ('sep_conv_3x3', 2, 0.15)], normal_concat=[2, 3, 4, 5], reduce=None, reduce_concat=[2, 3, 4, 5])
"""  # noqa: E501
RECURRENT = """
ENAS = Genotype(
    recurrent = [
        ('tanh', 0),
        ('tanh', 1),
        ('relu', 1),
        ('tanh', 3),
        ('tanh', 3),
        ('relu', 3),
        ('relu', 4),
        ('relu', 7),
        ('relu', 8),
        ('relu', 8),
        ('relu', 8),
    ],
    concat = [2, 5, 6, 9, 10, 11]
)
DARTS_V1 = Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), ('relu', 5), ('relu', 1)], concat=range(1, 9))
DARTS_V2 = Genotype(recurrent=[('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1), ('tanh', 2), ('sigmoid', 5), ('tanh', 3), ('relu', 5)], concat=range(1, 9))
"""  # noqa: E501


def test_published_cells_are_the_texts_as_published(tmp_path):
    path = tmp_path / "genotypes.py"
    path.write_text(GENOTYPES)
    for ours, theirs in {**AUTHORS, "gdas_frc": "GDAS_F1"}.items():
        assert load(f"{path}:{theirs}").cells == load(ours).cells, ours
    path.write_text(RECURRENT)
    for theirs in ("ENAS", "DARTS_V1", "DARTS_V2"):
        assert load(f"{path}:{theirs}").cells == load(f"{theirs.lower()}_rnn").cells


@pytest.mark.parametrize("name", published())
def test_published_cells_make_the_round_trip_or_are_refused_by_name(name, tmp_path):
    genotype = load(name)
    try:
        text = formats.namedtuple_text(genotype.to_json()["cells"])
    except InputError as error:
        named = "parametrised" if name.startswith("pr_darts") else "fixed"
        assert named in str(error)
        return
    assert load(text).cells == genotype.cells


# ----------------------------------------------------------------------------------- round trips


def darts_cell(draw, ops):
    """A random cell of DARTS' space: four nodes, two different inputs each."""
    return cell_from_pairs(
        [(draw.choice(ops), source) for node in range(2, 6)
         for source in draw.sample(range(node), 2)]
    )  # fmt: skip


def any_cell(draw):
    """A random cell with two edges a node: doubled edges, any number of nodes, any outputs."""
    nodes = range(2, 2 + draw.randint(1, 9))
    ops = (*CANDIDATES, "sep_conv_7x7")
    edges = [Edge(draw.randrange(n), n, Op(draw.choice(ops))) for n in nodes for _ in "ab"]
    output = draw.sample(nodes, draw.randint(1, len(nodes)))
    return Cell(2, tuple(edges), tuple(output))


def any_number_of_edges(draw):
    """A random cell whose nodes have none to three edges; all nodes are concatenated."""
    nodes = range(2, 2 + draw.randint(1, 5))
    counts = {n: draw.choice((0, 1, 1, 2, 3)) for n in nodes}
    edges = [Edge(draw.randrange(n), n, Op(draw.choice(CANDIDATES)))
             for n in nodes for _ in range(counts[n])]  # fmt: skip
    return Cell(2, tuple(edges), tuple(nodes))


def round_trips(count, path, seed):
    draw = random.Random(seed)
    for _ in range(count):
        both = {kind: darts_cell(draw, formats.INDEXED) for kind in ("normal", "reduction")}
        for writer in WRITERS.values():
            assert load(writer(Genotype("x", both).to_json()["cells"])).cells == both
        free = {kind: any_cell(draw) for kind in ("normal", "reduction")}
        for writer in (formats.namedtuple_text, formats.triples_text):
            assert load(writer(Genotype("x", free).to_json()["cells"])).cells == free
        free = {kind: any_number_of_edges(draw) for kind in ("normal", "reduction")}
        if not any(cell.zero for cell in free.values()):
            text = formats.triples_text(Genotype("x", free).to_json()["cells"])
            assert load(text).cells == free
        nodes = range(1, 1 + draw.randint(1, 12))
        edges = [Edge(draw.randrange(n), n, Op(draw.choice(RECURRENT_OPS))) for n in nodes]
        rnn = {"recurrent": Cell(1, tuple(edges), tuple(nodes[-draw.randint(1, len(nodes)):]))}
        assert load(formats.namedtuple_text(Genotype("x", rnn).to_json()["cells"])).cells == rnn
        path.write_text(json.dumps(Genotype("x", free).to_json()))
        assert load(path).cells == free


def test_random_cells_make_the_round_trip(tmp_path):
    round_trips(200, tmp_path / "cell.json", 0)


@pytest.mark.slow
def test_ten_thousand_random_cells_make_the_round_trip(tmp_path):
    round_trips(10_000, tmp_path / "cell.json", 1)


def test_written_texts_are_the_programs_own():
    cells = load(DARTS).to_json()["cells"]
    assert formats.namedtuple_text(cells) == DARTS
    assert json.loads(formats.numbered_text(cells)) == json.loads(NASBENCH301)
    naslib = formats.compact_text(load(NASLIB).to_json()["cells"])
    assert naslib == " ".join(NASLIB.split())


# -------------------------------------------------------------------------------------- refusals

EDGE = "('skip_connect', 0)"
NODE = f"{EDGE}, ('none', 1)"


@pytest.mark.parametrize(("text", "named"), [
    ("Genotype(normal=[], normal_concat=[2])", "normal must"),
    ("Genotype(normal=3, normal_concat=[2])", "normal must"),
    ("Genotype(normal=[()], normal_concat=[2])", "normal must"),
    (f"Genotype(normal=[{EDGE}], normal_concat=[2])", "1 edges.*two"),
    (f"Genotype(normal=[{NODE}])", "normal_concat=range"),
    (f"Genotype(normal=[{NODE}], normal_concat=[2.0])", "normal_concat"),
    (f"Genotype(normal=[{NODE}], normal_concat=range(2, 6))", "normal_concat.*2 to 2"),
    (f"Genotype(normal=[{NODE}], normal_concat=range(0, 10**9))", "only literals"),
    (f"Genotype(normal=[{NODE}], normal_concat=range(0, 99999999999))", "normal_concat"),
    (f"Genotype(normal=[{NODE}], normal_concat=[2, 2])", "once"),
    (f"Genotype(normal=[{NODE}], normal_concat=[2], bottleneck=1)", "bottleneck"),
    ("Genotype(normal=None, normal_concat=[2])", "no cells"),
    ("Genotype(normal=[('conv_9x9', 0), ('none', 1)], normal_concat=[2])", "conv_9x9"),
    ("Genotype(normal=[('none', 2), ('none', 1)], normal_concat=[2])", "from 2 to 2"),
    ("Genotype(normal=[('none', -1), ('none', 1)], normal_concat=[2])", "-1"),
    ("Genotype(normal=[('none', '0'), ('none', 1)], normal_concat=[2])", "'0'"),
    ("Genotype(normal=[('none', 0, 'w'), ('none', 1)], normal_concat=[2])", "operation, input"),
    ("Genotype(normal=[('none', 1, 0)], normal_concat=[2])", "to 1 from 0"),
    ("Genotype(normal=[('none', 2, 2)], normal_concat=[2])", "to 2 from 2"),
    ("Genotype(normal=[('none', 4, 3)], normal_concat=[4])", "no edge leaves an input"),
    ("Genotype(normal=[('conv', {'k': 3}, 0)] * 2, normal_concat=[2])", "only literals"),
    ("Genotype(normal=[[('conv', {'k': 3}, 0)]], normal_concat=[2])", "conv.*c_mul"),
    ("Genotype(normal=[[('skip', {'k': 3}, 0)]], normal_concat=[2])", "skip.*known"),
    ("Genotype(normal=[[('pool', {'k': 5, 'type_': 'max'}, 0)]], normal_concat=[2])",
     "max_pool_5x5"),
    (f"Genotype(normal=__import__('os').system('true'), normal_concat=[{EDGE}])", "only literals"),
    (f"Genotype(normal=[{NODE}", "bracket"),
    (f"Genotype(normal=[{NODE} 3], normal_concat=[2])", "syntax"),
    (f"Genotype(recurrent=[{EDGE}], concat=[1])", "recurrent.*skip_connect"),
    ("(((0, 9), (1, 2)), ((0, 1), (1, 1)))", "operations are 0 to 6"),
    ("(((0, 1),), ((0, 1), (1, 1)))", "1 pairs"),
    ("Genotype(**cells)", "unknown field|only literals"),
    ("Genotype(1, 2, 3, 4, 5)", "only literals"),
    ("Genotype()", "no cells"),
    ("[1, 2", "known forms"),
    ("('max_pool_3x3', 0)", "known forms"),
    (NASBENCH301.replace('normal_5": "2_3"', 'normal_5": "2_5"'), "inputs_node_normal_5"),
    (NASBENCH301.replace('normal_5": "2_3"', 'normal_5": "2"'), "inputs_node_normal_5"),
    (NASBENCH301.replace("inputs_node_reduce_4", "x"), "inputs_node_reduce_4"),
    (NASBENCH301.replace("edge_normal_12", "x"), "edge_normal_12"),
    (NASBENCH301.replace("edge_normal_12", "edge_normal_99"), "edge_normal_99 is an edge of no"),
    (NASBENCH301.replace('"skip_connect"', '"hop"'), "hop"),
    ("Genotype(normal=" + "[" * 150 + "]" * 150 + ", normal_concat=[2])", "edge|normal"),
    ("Genotype(normal=" + "-" * 5000 + "1, normal_concat=[2])", "Genotype"),
    ("Genotype(normal=" + "[" * 5000, "Genotype"),
])  # fmt: skip
def test_a_bad_text_is_one_message_that_names_the_flag(text, named):
    with pytest.raises(InputError, match=f"(?s)^--genotype .*({named})") as refused:
        load(text)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("text", ["", "# Title\n", "import torch\n", "x = [1, 2]\n", "a b c"])
def test_a_file_without_a_genotype(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{path}: .*NAS-Bench-301"):
        load(path)


def test_a_file_name_that_is_no_text_ends_in_a_readable_genotype(tmp_path):
    """The genotype goes into a run folder's JSON, where a lone surrogate would not be read."""
    path = tmp_path / os.fsdecode(b"\xff.txt")
    path.write_text(DARTS)
    genotype = load(path)
    save(genotype, tmp_path / "genotype.json")
    assert load(tmp_path) == genotype and genotype.name == "?"


SHORT = replace(DRNAS["normal"], edges=DRNAS["normal"].edges[:6], output=(2, 3, 4))
DOUBLED = cell_from_pairs([("skip_connect", 0), ("skip_connect", 0)] * 4)
SINGLE = replace(DRNAS["normal"], edges=DRNAS["normal"].edges[1:])


@pytest.mark.parametrize(("form", "change", "named"), [
    *((form, {"reduction": FixedCell("gdas_frc")}, "fixed.*gdas_frc") for form in WRITERS),
    *((form, {"normal": load("pr_darts_ur").cells["normal"]}, "normal.*parametrised.*sep_conv")
      for form in WRITERS),
    *((form, {"normal": replace(DRNAS["normal"], join="mean")}, "mean") for form in WRITERS),
    *((form, {"reduction": SINGLE}, "node 2 of the reduction cell has 1 edge")
      for form in OF_PAIRS),
    *((form, {"reduction": replace(DRNAS["normal"], edges=DRNAS["normal"].edges[:n])},
       f"node {2 + n // 2} of the reduction cell has (0|no) edges")
      for form in WRITERS for n in (6, 0)),
    *((form, {"reduction": None}, "no reduction cell") for form in WRITERS),
    *((form, {"normal": SHORT}, "3 nodes") for form in ("naslib", "nasbench301")),
    *((form, {"normal": replace(DRNAS["normal"], output=(3, 4, 5))}, "concatenates")
      for form in ("naslib", "nasbench301")),
    *((form, {"normal": load(DARTS.replace("sep_conv_3x3", "sep_conv_7x7")).cells["normal"]},
       "sep_conv_7x7") for form in ("naslib", "nasbench301")),
    *((form, load("gdas_rnn").cells, "no normal cell") for form in ("naslib", "nasbench301")),
    ("nasbench301", {"normal": DOUBLED}, "two edges from state 0"),
    *((form, {"recurrent": load("gdas_rnn").cells["recurrent"], **DRNAS}, "cell beside the")
      for form in WRITERS),
])  # fmt: skip
def test_what_a_form_cannot_express_is_refused_by_name(form, change, named):
    cells = change if "recurrent" in change else {**DRNAS, **change}
    cells = {kind: cell for kind, cell in cells.items() if cell is not None}
    with pytest.raises(InputError, match=named):
        WRITERS[form](Genotype("x", cells).to_json()["cells"])


# -------------------------------------------------------------------------------------- commands


def test_convert(command, tmp_path):
    assert command(CONVERT, DARTS, "--to", "darts") == (0, f"{DARTS}\n", "")
    path = tmp_path / "cell.json"
    for form in ("nasbench301", "naslib", "fairdarts", "json"):
        status, out, _ = command(CONVERT, DARTS, "--to", form)
        path.write_text(out)
        assert status == 0 and load(path).cells == DRNAS
    assert_refused(command(CONVERT, "gdas_frc", "--to", "darts"), "--to darts: .*fixed.*--to json")
    assert_refused(command(CONVERT, "nothing", "--to", "json"), "error: nothing: no published")
    assert command(CONVERT, "gdas", "--to", "onnx")[0] == 2


def test_commands_take_a_text(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = command("evaluate/complexity.py", "--genotype", DARTS)
    assert status == 0 and "4,099,294" in out
    assert "cifar10" in chosen_preset(["--genotype", DARTS])
    (tmp_path / "g.py").write_text(NASNET)
    for what, name in ((DARTS, "pasted"), (f"X = {DARTS}", "X"), ("g.py:NASNet", "NASNet")):
        pictures.of(what)
        assert {p.name for p in (tmp_path / "pictures" / name).iterdir()} == {
            "normal.svg", "normal.png", "reduction.svg", "reduction.png",
        }  # fmt: skip
    assert_refused(
        command("evaluate/train.py", "--preset", "digits", "--genotype", DARTS[:-60]), "--genotype"
    )
