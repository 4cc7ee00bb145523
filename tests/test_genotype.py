import copy
import json
import os
from dataclasses import replace

import pytest

from common.errors import InputError
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
    parse,
    published,
    save,
)


def pairs(text):
    return [(op, int(source)) for op, source in map(str.split, text.split(","))]


# The authors' files in their own notation: (operation, input state), two pairs a node.
GDAS_NORMAL = pairs(
    "skip_connect 0, skip_connect 1, skip_connect 0, sep_conv_5x5 2, "
    "sep_conv_3x3 3, skip_connect 0, sep_conv_5x5 4, sep_conv_3x3 3"
)
GDAS_REDUCTION = pairs(
    "sep_conv_5x5 0, sep_conv_3x3 1, sep_conv_5x5 2, sep_conv_5x5 1, "
    "dil_conv_5x5 2, sep_conv_3x3 1, sep_conv_5x5 0, sep_conv_5x5 1"
)
FRC_NORMAL = pairs(
    "skip_connect 0, skip_connect 1, skip_connect 0, sep_conv_3x3 2, "
    "skip_connect 0, sep_conv_3x3 2, skip_connect 0, sep_conv_3x3 2"
)
FRC_REDUCTION = FixedCell("gdas_frc")
PUBLISHED = {
    "darts_v1": {
        "normal": pairs(
            "sep_conv_3x3 1, sep_conv_3x3 0, skip_connect 0, sep_conv_3x3 1, "
            "skip_connect 0, sep_conv_3x3 1, sep_conv_3x3 0, skip_connect 2"
        ),
        "reduction": pairs(
            "max_pool_3x3 0, max_pool_3x3 1, skip_connect 2, max_pool_3x3 0, "
            "max_pool_3x3 0, skip_connect 2, skip_connect 2, avg_pool_3x3 0"
        ),
    },
    "darts_v2": {
        "normal": pairs(
            "sep_conv_3x3 0, sep_conv_3x3 1, sep_conv_3x3 0, sep_conv_3x3 1, "
            "sep_conv_3x3 1, skip_connect 0, skip_connect 0, dil_conv_3x3 2"
        ),
        "reduction": pairs(
            "max_pool_3x3 0, max_pool_3x3 1, skip_connect 2, max_pool_3x3 1, "
            "max_pool_3x3 0, skip_connect 2, skip_connect 2, max_pool_3x3 1"
        ),
    },
    "pc_darts_cifar10": {
        "normal": pairs(
            "sep_conv_3x3 1, skip_connect 0, sep_conv_3x3 0, dil_conv_3x3 1, "
            "sep_conv_5x5 0, sep_conv_3x3 1, avg_pool_3x3 0, dil_conv_3x3 1"
        ),
        "reduction": pairs(
            "sep_conv_5x5 1, max_pool_3x3 0, sep_conv_5x5 1, sep_conv_5x5 2, "
            "sep_conv_3x3 0, sep_conv_3x3 3, sep_conv_3x3 1, sep_conv_3x3 2"
        ),
    },
    "pc_darts_imagenet": {
        "normal": pairs(
            "skip_connect 1, sep_conv_3x3 0, sep_conv_3x3 0, skip_connect 1, "
            "sep_conv_3x3 1, sep_conv_3x3 3, sep_conv_3x3 1, dil_conv_5x5 4"
        ),
        "reduction": pairs(
            "sep_conv_3x3 0, skip_connect 1, dil_conv_5x5 2, max_pool_3x3 1, "
            "sep_conv_3x3 2, sep_conv_3x3 1, sep_conv_5x5 0, sep_conv_3x3 3"
        ),
    },
    "p_darts": {
        "normal": pairs(
            "skip_connect 0, dil_conv_3x3 1, skip_connect 0, sep_conv_3x3 1, "
            "sep_conv_3x3 1, sep_conv_3x3 3, sep_conv_3x3 0, dil_conv_5x5 4"
        ),
        "reduction": pairs(
            "avg_pool_3x3 0, sep_conv_5x5 1, sep_conv_3x3 0, dil_conv_5x5 2, "
            "max_pool_3x3 0, dil_conv_3x3 1, dil_conv_3x3 1, dil_conv_5x5 3"
        ),
    },
    "gdas": {"normal": GDAS_NORMAL, "reduction": GDAS_REDUCTION},
    "gdas_frc": {"normal": FRC_NORMAL, "reduction": FRC_REDUCTION},
    "gdas_normal_frc_reduction": {"normal": GDAS_NORMAL, "reduction": FRC_REDUCTION},
    "frc_normal_gdas_reduction": {"normal": FRC_NORMAL, "reduction": GDAS_REDUCTION},
}

SEARCHED = Genotype(
    "searched",
    {
        "normal": Cell(
            2,
            (
                Edge(0, 2, Op("sep_conv", 5, 2, (2, 1))),
                Edge(1, 2, Op("sep_conv", 1, 1, ())),
                Edge(2, 3, Op("sep_conv_7x7")),
            ),
            (3, 2),
        ),
        "reduction": FixedCell("gdas_frc"),
    },
    {"seed": 3},
)
AVERAGED = Genotype(  # PR-DARTS' cells by the paper's text
    "averaged", {kind: replace(cell, join="mean") for kind, cell in load("gdas").cells.items()}
)
RECURRENT = Genotype(
    "words",
    {
        "recurrent": Cell(
            1, tuple(Edge(k, k + 1, Op(name)) for k, name in enumerate(RECURRENT_OPS)), (1, 5)
        )
    },
)


# PR-DARTS' files: kernel[expansions] of a separable convolution, none of them dilated.
PARAMETRISED = {
    "pr_darts_dl1": {
        "normal": (
            "5[1] 0, 3[1] 1, 3[1] 1, skip_connect 2, "
            "3[1] 1, skip_connect 2, skip_connect 0, skip_connect 2"
        ),
        "reduction": (
            "3[1] 0, skip_connect 1, max_pool_3x3 0, 5[1] 2, "
            "3[1] 0, 3[1] 1, max_pool_3x3 1, 3[1] 4"
        ),
    },
    "pr_darts_dl2": {
        "normal": (
            "3[1] 0, 3[] 1, 3[] 1, 7[1] 2, "
            "skip_connect 0, 5[1] 1, 3[1] 1, 7[1] 4"
        ),
        "reduction": (
            "3[] 0, 3[1] 1, 3[1] 1, skip_connect 2, "
            "max_pool_3x3 0, 3[] 3, 3[] 0, skip_connect 3"
        ),
    },
    "pr_darts_dr": {
        "normal": (
            "3[] 0, 3[3] 1, 7[1] 1, 5[2] 2, "
            "skip_connect 1, skip_connect 3, skip_connect 0, skip_connect 2"
        ),
        "reduction": (
            "5[2] 0, max_pool_3x3 1, max_pool_3x3 1, 3[1] 2, "
            "max_pool_3x3 0, 3[3] 2, max_pool_3x3 0, 1[1] 3"
        ),
    },
    "pr_darts_ur": {
        "normal": (
            "3[2] 0, 1[] 1, 3[1-1-1] 1, 5[] 2, "
            "1[1] 1, 3[1-1] 2, 1[1] 3, 5[1-1] 4"
        ),
        "reduction": (
            "7[1] 0, 3[] 1, 3[1-1] 0, 3[1] 2, "
            "skip_connect 0, skip_connect 2, 7[1-1] 1, skip_connect 2"
        ),
    },
}


@pytest.mark.parametrize("name", PARAMETRISED)
def test_published_cells_of_parametrised_operations(name):
    genotype = load(name)
    assert genotype.name == name and genotype.cells.keys() == PARAMETRISED[name].keys()
    for kind, listed in PARAMETRISED[name].items():
        edges = []
        for n, pair in enumerate(listed.split(", ")):
            word, source = pair.split()
            kernel, bracket, widths = word.rstrip("]").partition("[")
            op = Op(word)
            if bracket:
                expansions = tuple(int(width) for width in widths.split("-") if width)
                op = Op("sep_conv", int(kernel), 1, expansions)
            edges.append(Edge(int(source), 2 + n // 2, op))
        assert genotype.cells[kind] == Cell(2, tuple(edges), (2, 3, 4, 5))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_are_the_authors(name):
    genotype = load(name)
    assert genotype.name == name
    assert genotype.cells.keys() == PUBLISHED[name].keys()
    for kind, listed in PUBLISHED[name].items():
        cell = genotype.cells[kind]
        if isinstance(listed, FixedCell):
            assert cell == listed
            continue
        assert cell.inputs == 2
        assert [(edge.op.name, edge.source) for edge in cell.edges] == listed
        assert [edge.target for edge in cell.edges] == [2, 2, 3, 3, 4, 4, 5, 5]
        assert cell.output == (2, 3, 4, 5)
        assert cell == cell_from_pairs(listed)


def test_every_published_name_is_tested():
    recurrent = [f"{name}_rnn" for name in ("darts_v1", "darts_v2", "enas", "gdas")]
    assert published() == sorted([*PUBLISHED, *PARAMETRISED, *recurrent])  # see test_recurrent


@pytest.mark.parametrize(
    "genotype", [*map(load, [*PUBLISHED, *PARAMETRISED]), SEARCHED, AVERAGED, RECURRENT],
    ids=lambda genotype: genotype.name,
)
def test_round_trip(genotype, tmp_path):
    path = tmp_path / "cells.json"
    save(genotype, path)
    assert load(path) == genotype
    assert list(json.loads(path.read_text())) == [
        "format", "version", "name", "cells", "provenance"
    ]
    lines = [line for line in path.read_text().splitlines() if '"from"' in line and '"op"' in line]
    edges = [e for cell in genotype.cells.values() for e in getattr(cell, "edges", ())]
    assert len(lines) == len(edges)  # an edge a line
    assert all(line.strip().rstrip(",").endswith("}") for line in lines)


def test_a_person_can_read_it():
    text = str(SEARCHED)
    assert "sep_conv_5x5(dilation 2, [2,1])(x0)" in text
    assert "x3 = sep_conv_7x7(x2)" in text
    assert "reduction cell: fixed, gdas_frc" in text


def test_edges_are_ordered_by_target():
    data = SEARCHED.to_json()
    data["cells"]["normal"]["edges"].reverse()
    assert [edge.target for edge in parse(json.dumps(data)).cells["normal"].edges] == [2, 2, 3]


def test_provenance_may_be_absent():
    data = SEARCHED.to_json()
    del data["provenance"]
    assert parse(json.dumps(data)).provenance == {}


# ------------------------------------------------------------------------------------- bad files


def test_run_folder(tmp_path):
    with pytest.raises(InputError, match=r"holds no genotype\.json.*--resume"):
        load(tmp_path)
    save(SEARCHED, tmp_path / "genotype.json")
    assert load(tmp_path) == load(str(tmp_path)) == SEARCHED


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError) as error:
        load("darts_v3")
    assert "darts_v3" in str(error.value)
    assert all(name in str(error.value) for name in PUBLISHED)


def test_not_text(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"\x80\x02\xff\xfe")
    with pytest.raises(InputError, match=r"weights\.pt: not a text file.*JSON"):
        load(path)


def test_not_json_names_the_file(tmp_path):
    path = tmp_path / "cells.json"
    path.write_text('{"format": "nas-genotype",')
    with pytest.raises(InputError, match=r"cells\.json: not valid JSON.*line 1"):
        load(path)


def plain_edge(source, target, op="skip_connect"):
    return {"from": source, "to": target, "op": op}


def cell_of(*edges, output=(2,), inputs=2):
    return {"inputs": inputs, "edges": list(edges), "output": list(output)}


def separable(**changes):
    return {"name": "sep_conv", "kernel": 3, "dilation": 1, "expansions": [1], **changes}


GOOD = {
    "format": "nas-genotype",
    "version": 1,
    "name": "mine",
    "cells": {"normal": cell_of(plain_edge(0, 2), plain_edge(1, 2))},
}
BAD_TOP = {
    "list": ([], ["JSON object"]),
    "format": ({"format": "darts"}, ['"format"', "nas-genotype"]),
    "version": ({"version": 2}, ['"version" is 2', "version 1"]),
    "boolean version": ({"version": True}, ['"version" is True', "version 1"]),
    "name": ({"name": ""}, ['"name"', "non-empty"]),
    "numeric name": ({"name": 3}, ['"name"', "string"]),
    "no cells": ({"cells": {}}, ['"cells"', "normal", "reduction", "recurrent"]),
    "kind": ({"cells": {"upward": {}}}, ['"upward"', "normal", "reduction", "recurrent"]),
    "provenance": ({"provenance": "a run"}, ['"provenance"', "object"]),
}
BAD_CELL = {
    "not an object": ([], ["normal", "object"]),
    "fixed": ({"fixed": "mine"}, ['"mine"', "gdas_frc"]),
    "unhashable fixed": ({"fixed": []}, ["fixed cell", "gdas_frc"]),
    "inputs": (cell_of(plain_edge(0, 2), inputs=3), ['"inputs" must be 2']),
    "no edges": (cell_of(), ['"edges"', "non-empty"]),
    "edge": (cell_of(["skip_connect", 0]), ['"from", "to" and "op"', "['skip_connect', 0]"]),
    "later": (cell_of(plain_edge(3, 2)), ["from 3 to 2", "later node"]),
    "itself": (cell_of(plain_edge(2, 2)), ["from 2 to 2", "later node"]),
    "negative": (cell_of(plain_edge(-1, 2)), ["-1"]),
    "into an input": (cell_of(plain_edge(0, 1)), ["at least 2", "'to': 1"]),
    "boolean": (cell_of(plain_edge(True, 2)), ["state numbers", "True"]),
    "fraction": (cell_of(plain_edge(0, 2.0)), ["state numbers", "2.0"]),
    "missing node": (cell_of(plain_edge(0, 3), output=[3]), ["no edge ends in node 2"]),
    "output of an input": (cell_of(plain_edge(0, 2), output=[1]), ['"output"', "(2 to 2)"]),
    "output twice": (cell_of(plain_edge(0, 2), output=[2, 2]), ['"output"', "once"]),
    "empty output": (cell_of(plain_edge(0, 2), output=[]), ['"output"']),
    "fractional output": (cell_of(plain_edge(0, 2), output=[2.0]), ['"output"']),
    "unhashable output": (cell_of(plain_edge(0, 2), output=[[2]]), ['"output"']),
    "op": (cell_of(plain_edge(0, 2, "conv_9x9")), ['"conv_9x9"', *CANDIDATES]),
    "recurrent op": (cell_of(plain_edge(0, 2, "tanh")), ['"tanh"', *CANDIDATES]),
    "numeric op": (cell_of(plain_edge(0, 2, 4)), ["operation 4", "kernel"]),
    "parametrised op": (cell_of(plain_edge(0, 2, separable(name="conv"))), ["'conv'", "sep_conv"]),
    "even kernel": (cell_of(plain_edge(0, 2, separable(kernel=4))), ['"kernel" must be odd']),
    "boolean kernel": (cell_of(plain_edge(0, 2, separable(kernel=True))), ['"kernel" must be']),
    "dilation": (cell_of(plain_edge(0, 2, separable(dilation=0))), ['"dilation" positive']),
    "expansions": (cell_of(plain_edge(0, 2, separable(expansions=[0]))), ['"expansions" a list']),
    "single expansion": (cell_of(plain_edge(0, 2, separable(expansions=1))), ['"expansions"']),
}
BAD_RECURRENT = {
    "image op": (cell_of(plain_edge(0, 1), inputs=1), ['"skip_connect"', *RECURRENT_OPS]),
    "object": (cell_of(plain_edge(0, 1, separable()), inputs=1), ["sep_conv", *RECURRENT_OPS]),
    "inputs": (cell_of(plain_edge(0, 2, "tanh"), inputs=2), ['"inputs" must be 1']),
    "boolean inputs": (
        cell_of(plain_edge(0, 1, "tanh"), output=[1], inputs=True), ['"inputs" must be 1']
    ),
    "boolean output": (
        cell_of(plain_edge(0, 1, "tanh"), output=[True], inputs=1), ['"output"', "(1 to 1)"]
    ),
}


def check_refused(data, named):
    with pytest.raises(InputError) as error:
        parse(json.dumps(data), "mine.json")
    message = str(error.value)
    assert message.startswith("mine.json: ")
    assert [word for word in named if word not in message] == []


def test_the_good_file_of_these_tests_is_good():
    assert parse(json.dumps(GOOD)).cells["normal"] == cell_from_pairs([("skip_connect", 0),
                                                                       ("skip_connect", 1)])


@pytest.mark.parametrize(("changes", "named"), BAD_TOP.values(), ids=BAD_TOP)
def test_bad_file(changes, named):
    check_refused({**GOOD, **changes} if isinstance(changes, dict) else changes, named)


@pytest.mark.parametrize("key", ["format", "version", "name", "cells"])
def test_missing_key(key):
    data = copy.deepcopy(GOOD)
    del data[key]
    check_refused(data, [f'"{key}"'])


@pytest.mark.parametrize(("cell", "named"), BAD_CELL.values(), ids=BAD_CELL)
def test_bad_cell(cell, named):
    check_refused({**GOOD, "cells": {"normal": cell}}, [*named, "normal"])


@pytest.mark.parametrize(("cell", "named"), BAD_RECURRENT.values(), ids=BAD_RECURRENT)
def test_bad_recurrent_cell(cell, named):
    check_refused({**GOOD, "cells": {"recurrent": cell}}, [*named, "recurrent"])


def sep_conv(**changes):
    return {"name": "sep_conv", "kernel": 3, "dilation": 1, "expansions": [1], **changes}


@pytest.mark.parametrize(("op", "named"), [
    (sep_conv(kernel=10**9 + 1), '"kernel" 1000000001: must be 99 or less'),
    (sep_conv(kernel=101), '"kernel" 101'),
    (sep_conv(dilation=100), '"dilation" 100: must be 99'),
    (sep_conv(expansions=[1, 100]), '"expansions" 100: must be 99'),
    (sep_conv(expansions=[1] * 21), '"number of expansions" 21: must be 20'),
])  # fmt: skip
def test_an_operation_that_no_machine_could_build(op, named):
    data = load("darts_v1").to_json()
    data["cells"]["normal"]["edges"][0]["op"] = op
    with pytest.raises(InputError, match=f"^mine: normal: {named}"):
        parse(json.dumps(data), "mine")
    most = sep_conv(kernel=99, dilation=99, expansions=[99] * 20)
    data["cells"]["normal"]["edges"][0]["op"] = most
    assert parse(json.dumps(data)).to_json() == data


def test_a_cell_that_no_machine_could_build():
    data = load("darts_v1").to_json()
    edges = data["cells"]["normal"]["edges"]
    chain = [{"from": k - 1, "to": k, "op": "skip_connect"} for k in range(6, 66)]
    data["cells"]["normal"]["edges"] = edges + chain  # 64 computed nodes
    assert parse(json.dumps(data)).cells["normal"].nodes == 64
    for target in (66, 10**5, 10**4000):
        chain[-1]["to"] = target
        data["cells"]["normal"]["edges"] = edges + chain
        with pytest.raises(InputError, match='"to" is .* 64 computed nodes at the most') as refused:
            parse(json.dumps(data))
        assert len(str(refused.value)) < 150
    data["cells"]["normal"]["edges"] = edges * 125
    assert len(parse(json.dumps(data)).cells["normal"].edges) == 1000
    data["cells"]["normal"]["edges"] = [*edges * 125, edges[0]]
    with pytest.raises(InputError, match='"edges" has 1001; 1000 are the most'):
        parse(json.dumps(data))


@pytest.mark.parametrize("text", [
    '{"version": ' + "9" * 5000 + "}",  # more digits than Python reads
    "[" * 100_000,
    json.dumps({**load("darts_v1").to_json(), "name": "\ud800"}),  # half of a character
    json.dumps({**load("darts_v1").to_json(), "provenance": {"source": "\udfff"}}),
    '"\ud800"',
])  # fmt: skip
def test_what_is_no_json_or_no_text_is_one_message(text):
    with pytest.raises(InputError, match="^mine: not valid JSON: "):
        parse(text, "mine")


def test_a_pipe_or_a_device_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "genotype.json")
    for what in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match=f"--genotype {what}: no published genotype, file or"):
            load(what)


def test_a_recurrent_cell_says_no_join():
    data = load("gdas_rnn").to_json()
    for join in ("mean", "sum"):
        data["cells"]["recurrent"]["join"] = join
        with pytest.raises(InputError, match='recurrent: "join" must be one of concat, mean'):
            parse(json.dumps(data))


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path):
    file = tmp_path / "mine.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(load("gdas").to_json()).encode())
    assert load(file) == load("gdas")
