"""Genotype files: the published cells, reading and writing, refusals."""

import json
import os
from dataclasses import replace

import pytest

from common.errors import InputError
from common.networks.genotype import (
    CANDIDATES,
    OWN_OPS,
    RECURRENT_OPS,
    Cell,
    Edge,
    FixedCell,
    Genotype,
    Op,
    cell_from_pairs,
    load,
    parse,
    published,
    save,
)

# From the authors' files: operation and input state, two for each node, of the normal and the
# reduction cell. Of PR-DARTS: kernel[expansions] of an undilated separable convolution.
GDAS = "id 0, id 1, id 0, s5 2, s3 3, id 0, s5 4, s3 3"
GDAS_REDUCTION = "s5 0, s3 1, s5 2, s5 1, d5 2, s3 1, s5 0, s5 1"
FRC = "id 0, id 1, id 0, s3 2, id 0, s3 2, id 0, s3 2"
PUBLISHED = {
    "darts_v1": (
        "s3 1, s3 0, id 0, s3 1, id 0, s3 1, s3 0, id 2",
        "max 0, max 1, id 2, max 0, max 0, id 2, id 2, avg 0",
    ),
    "darts_v2": (
        "s3 0, s3 1, s3 0, s3 1, s3 1, id 0, id 0, d3 2",
        "max 0, max 1, id 2, max 1, max 0, id 2, id 2, max 1",
    ),
    "pc_darts_cifar10": (
        "s3 1, id 0, s3 0, d3 1, s5 0, s3 1, avg 0, d3 1",
        "s5 1, max 0, s5 1, s5 2, s3 0, s3 3, s3 1, s3 2",
    ),
    "pc_darts_imagenet": (
        "id 1, s3 0, s3 0, id 1, s3 1, s3 3, s3 1, d5 4",
        "s3 0, id 1, d5 2, max 1, s3 2, s3 1, s5 0, s3 3",
    ),
    "p_darts": (
        "id 0, d3 1, id 0, s3 1, s3 1, s3 3, s3 0, d5 4",
        "avg 0, s5 1, s3 0, d5 2, max 0, d3 1, d3 1, d5 3",
    ),
    "gdas": (GDAS, GDAS_REDUCTION),
    "gdas_frc": (FRC, "gdas_frc"),
    "gdas_normal_frc_reduction": (GDAS, "gdas_frc"),
    "frc_normal_gdas_reduction": (FRC, GDAS_REDUCTION),
    "pr_darts_dl1": (
        "5[1] 0, 3[1] 1, 3[1] 1, id 2, 3[1] 1, id 2, id 0, id 2",
        "3[1] 0, id 1, max 0, 5[1] 2, 3[1] 0, 3[1] 1, max 1, 3[1] 4",
    ),
    "pr_darts_dl2": (
        "3[1] 0, 3[] 1, 3[] 1, 7[1] 2, id 0, 5[1] 1, 3[1] 1, 7[1] 4",
        "3[] 0, 3[1] 1, 3[1] 1, id 2, max 0, 3[] 3, 3[] 0, id 3",
    ),
    "pr_darts_dr": (
        "3[] 0, 3[3] 1, 7[1] 1, 5[2] 2, id 1, id 3, id 0, id 2",
        "5[2] 0, max 1, max 1, 3[1] 2, max 0, 3[3] 2, max 0, 1[1] 3",
    ),
    "pr_darts_ur": (
        "3[2] 0, 1[] 1, 3[1-1-1] 1, 5[] 2, 1[1] 1, 3[1-1] 2, 1[1] 3, 5[1-1] 4",
        "7[1] 0, 3[] 1, 3[1-1] 0, 3[1] 2, id 0, id 2, 7[1-1] 1, id 2",
    ),
}
NAMES = {
    "s3": "sep_conv_3x3", "s5": "sep_conv_5x5", "d3": "dil_conv_3x3", "d5": "dil_conv_5x5",
    "max": "max_pool_3x3", "avg": "avg_pool_3x3", "id": "skip_connect",
}  # fmt: skip


def cell(listed):
    if listed == "gdas_frc":
        return FixedCell(listed)
    edges = []
    for n, pair in enumerate(listed.split(", ")):
        word, source = pair.split()
        kernel, bracket, widths = word.rstrip("]").partition("[")
        expansions = tuple(int(width) for width in widths.split("-") if width)
        op = Op("sep_conv", int(kernel), 1, expansions) if bracket else Op(NAMES[word])
        edges.append(Edge(int(source), 2 + n // 2, op))
    return Cell(2, tuple(edges), (2, 3, 4, 5))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_are_the_authors(name):
    genotype = load(name)
    assert genotype.name == name
    normal, reduction = map(cell, PUBLISHED[name])
    assert genotype.cells == {"normal": normal, "reduction": reduction}


def test_every_published_genotype_is_tested():
    recurrent = [f"{name}_rnn" for name in ("darts_v1", "darts_v2", "enas", "gdas")]
    assert published() == sorted([*PUBLISHED, *recurrent])  # see test_recurrent


def test_cell_from_darts_notation():
    pairs = [("skip_connect", 1), ("sep_conv_3x3", 0), ("none", 2), ("max_pool_3x3", 0)]
    edges = (Edge(1, 2, Op("skip_connect")), Edge(0, 2, Op("sep_conv_3x3")), Edge(2, 3, Op("none")),
             Edge(0, 3, Op("max_pool_3x3")))  # fmt: skip
    assert cell_from_pairs(pairs) == Cell(2, edges, (2, 3))


# ------------------------------------------------------------------------------ good files

EDGES = (
    Edge(0, 2, Op("sep_conv", 5, 2, (2, 1))),
    Edge(1, 2, Op("sep_conv", 1, 1, ())),
    Edge(2, 3, Op("sep_conv_7x7")),
)
SEARCHED = Genotype(
    "searched", {"normal": Cell(2, EDGES, (3, 2)), "reduction": FixedCell("gdas_frc")}, {"seed": 3}
)
AVERAGED = Genotype(  # PR-DARTS' cells by the paper's text
    "averaged", {kind: replace(cell, join="mean") for kind, cell in load("gdas").cells.items()}
)
RNN = Cell(1, tuple(Edge(k, k + 1, Op(name)) for k, name in enumerate(RECURRENT_OPS)), (1, 5))
RECURRENT = Genotype("words", {"recurrent": RNN})
NO_EDGES = Cell(2, (), (2,))
SPARSE = Genotype("sparse", {"normal": Cell(2, EDGES[::2], (2, 3, 5)), "reduction": NO_EDGES})


@pytest.mark.parametrize(
    "genotype", [*map(load, PUBLISHED), SEARCHED, AVERAGED, RECURRENT, SPARSE], ids=lambda g: g.name
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
def test_round_trip(genotype, mark, tmp_path):
    """A file has one edge per line, and editors may add a byte-order mark."""
    path = tmp_path / "cells.json"
    save(genotype, path)
    path.write_bytes(mark + path.read_bytes())
    assert load(path) == genotype
    lines = [line for line in path.read_text().splitlines() if '"from"' in line and '"op"' in line]
    assert len(lines) == sum(len(getattr(cell, "edges", ())) for cell in genotype.cells.values())


def test_text_of_a_genotype():
    text = str(SEARCHED)
    assert "sep_conv_5x5(dilation 2, [2,1])(x0)" in text
    assert "x3 = sep_conv_7x7(x2)" in text
    assert "reduction cell: fixed, gdas_frc" in text


def test_edges_are_sorted_by_target_and_provenance_is_optional():
    data = SEARCHED.to_json()
    data["cells"]["normal"]["edges"].reverse()
    del data["provenance"]
    genotype = parse(json.dumps(data))
    assert [edge.target for edge in genotype.cells["normal"].edges] == [2, 2, 3]
    assert genotype.provenance == {}


# ------------------------------------------------------------------------------- bad files


def test_run_folder(tmp_path):
    with pytest.raises(InputError, match=r"holds no genotype\.json"):
        load(tmp_path)
    save(SEARCHED, tmp_path / "genotype.json")
    assert load(tmp_path) == load(str(tmp_path)) == SEARCHED


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="darts_v3") as error:
        load("darts_v3")
    assert all(name in str(error.value) for name in PUBLISHED)


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "genotype.json")
    for what in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match=f"--genotype {what}: no published genotype, file or"):
            load(what)


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"\x80\x02\xff\xfe")
    with pytest.raises(InputError, match=r"weights\.pt: not a text file.*JSON"):
        load(path)


@pytest.mark.parametrize("text", [
    '{"format": "nas-genotype",',
    '{"version": ' + "9" * 5000 + "}",  # more digits than Python reads
    "[" * 100_000,
    json.dumps({**load("darts_v1").to_json(), "name": "\ud800"}),  # a lone surrogate
    json.dumps({**load("darts_v1").to_json(), "provenance": {"source": "\udfff"}}),
])  # fmt: skip
def test_invalid_json_is_refused(text):
    with pytest.raises(InputError, match="^mine: not valid JSON: "):
        parse(text, "mine")


def test_a_registered_operation_is_known(monkeypatch):
    cell = Cell(2, (Edge(0, 2, Op("mine")), Edge(1, 2, Op("skip_connect"))), (2,))
    text = json.dumps(Genotype("found", {"normal": cell}).to_json())
    with pytest.raises(InputError, match='normal: unknown operation "mine"; known: none'):
        parse(text)
    monkeypatch.setitem(OWN_OPS, "mine", None)
    assert parse(text).cells["normal"] == cell


def edge(source, target, op="skip_connect"):
    return {"from": source, "to": target, "op": op}


def data_of(*edges, output=(2,), inputs=2):
    return {"inputs": inputs, "edges": list(edges), "output": list(output)}


def separable(**changes):
    """A cell of one parametrised convolution."""
    op = {"name": "sep_conv", "kernel": 3, "dilation": 1, "expansions": [1], **changes}
    return data_of(edge(0, 2, op))


def rnn(op="tanh", output=(1,), inputs=1, **more):
    return {**data_of(edge(0, 1, op), output=output, inputs=inputs), **more}


GOOD = {
    "format": "nas-genotype", "version": 1, "name": "mine",
    "cells": {"normal": data_of(edge(0, 2), edge(1, 2))},
}  # fmt: skip
BAD_TOP = [  # changes to a good file, and what the message names; None: the key is missing
    ({"format": "darts"}, ['"format"', "nas-genotype"]),
    ({"format": None}, ['"format"']),
    ({"version": 2}, ['"version" is 2', "version 1"]),
    ({"version": True}, ['"version" is True']),
    ({"version": None}, ['"version"']),
    ({"name": ""}, ['"name"']),
    ({"name": 3}, ['"name"']),
    ({"name": None}, ['"name"']),
    ({"cells": {}}, ['"cells"', "normal", "reduction", "recurrent"]),
    ({"cells": None}, ['"cells"']),
    ({"cells": {"upward": {}}}, ['"upward"', "normal", "reduction", "recurrent"]),
    ({"provenance": "a run"}, ['"provenance"']),
]
BAD_CELLS = [
    ([], ["object"]),
    ({"fixed": "mine"}, ['"mine"', "gdas_frc"]),
    ({"fixed": []}, ["fixed cell", "gdas_frc"]),
    (data_of(edge(0, 2), inputs=3), ['"inputs" must be 2']),
    (data_of(), ['"edges"']),
    (data_of(["skip_connect", 0]), ['"from", "to" and "op"', "['skip_connect', 0]"]),
    (data_of(edge(3, 2)), ["from 3 to 2"]),
    (data_of(edge(2, 2)), ["from 2 to 2"]),
    (data_of(edge(-1, 2)), ["-1"]),
    (data_of(edge(0, 1)), ["at least 2", "'to': 1"]),
    (data_of(edge(True, 2)), ["state numbers", "True"]),
    (data_of(edge(0, 2.0)), ["state numbers", "2.0"]),
    (data_of(edge(0, 3), output=[3]), ["no edge ends in node 2", '"zero": [2]']),
    ({**data_of(edge(0, 2)), "zero": [2]}, ['node 2 is in "zero"']),
    ({**data_of(edge(0, 2)), "zero": [1]}, ['"zero" must list']),
    ({**data_of(edge(0, 2)), "zero": 4}, ['"zero" must list']),
    ({**data_of(edge(0, 2)), "zero": [4]}, ["no edge ends in node 3"]),
    (data_of(edge(0, 10**4000), output=[3]), ["no edge ends in node 2"]),
    (data_of(edge(0, 2), output=[1]), ['"output"', "(2 to 2)"]),
    (data_of(edge(0, 2), output=[2, 2]), ['"output"', "once"]),
    (data_of(edge(0, 2), output=[]), ['"output"']),
    (data_of(edge(0, 2), output=[2.0]), ['"output"']),
    (data_of(edge(0, 2), output=[[2]]), ['"output"']),
    (data_of(edge(0, 2, "conv_9x9")), ['"conv_9x9"', *CANDIDATES]),
    (data_of(edge(0, 2, "tanh")), ['"tanh"', *CANDIDATES]),
    (data_of(edge(0, 2, 4)), ["operation 4", "kernel"]),
    (separable(name="conv"), ["'conv'", "sep_conv"]),
    (separable(kernel=4), ['"kernel" must be odd']),
    (separable(kernel=True), ['"kernel"']),
    (separable(dilation=0), ['"dilation" positive']),
    (separable(expansions=[0]), ['"expansions"']),
    (separable(expansions=1), ['"expansions"']),
]
BAD_RECURRENT = [
    (rnn("skip_connect"), ['"skip_connect"', *RECURRENT_OPS]),
    ({**separable(), "inputs": 1}, ["sep_conv", *RECURRENT_OPS]),
    (rnn(inputs=2), ['"inputs" must be 1']),
    (rnn(inputs=True), ['"inputs" must be 1']),
    (rnn(output=[True]), ['"output"', "(1 to 1)"]),
    (rnn(join="mean"), ['"join"', "concat, mean"]),
    (rnn(zero=[2]), ['"zero"', "image cell"]),
    (rnn(join="sum"), ['"join"', "concat, mean"]),
]
BAD = [
    ([], ["JSON object"]),
    *(({k: v for k, v in {**GOOD, **top}.items() if v is not None}, named)
      for top, named in BAD_TOP),
    *(({**GOOD, "cells": {"normal": bad}}, ["normal", *named]) for bad, named in BAD_CELLS),
    *(({**GOOD, "cells": {"recurrent": bad}}, ["recurrent", *named])
      for bad, named in BAD_RECURRENT),
]  # fmt: skip


@pytest.mark.parametrize(("data", "named"), BAD)
def test_bad_file(data, named):
    assert parse(json.dumps(GOOD)).name == "mine"
    with pytest.raises(InputError, match=r"^mine\.json: ") as error:
        parse(json.dumps(data), "mine.json")
    assert [word for word in named if word not in str(error.value)] == []
