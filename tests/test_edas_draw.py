"""EDAS' pictures: Fig. 5, changes of first rank; Fig. 3, accuracies of several runs."""

import json

import numpy as np
import pytest
from matplotlib import rc_context

from common.draw_cell import STYLE
from common.errors import InputError
from edas import draw
from test_draw import nothing_overlaps

EDGES = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
NAMES = [f"alpha_{kind}_{i}-{j}" for kind in ("normal", "reduction") for i, j in EDGES]
CANDIDATES = ["none", "skip_connect", "sep_conv_3x3"]


def write(folder, alpha, variant="edas", method="edas"):
    """A run folder with alpha [epochs, edges, candidates]."""
    folder.mkdir()
    config = {"method": method} | ({"variant": variant} if method == "edas" else {})
    (folder / "config.json").write_text(json.dumps(config))
    names = NAMES if method == "edas" else ["alpha_normal", "alpha_reduction"]
    for epoch, values in enumerate(alpha):
        top1 = {"valid_top1": 20.0 + epoch, "cut_top1": 10.0 + epoch, "derived_top1": None}
        parameters = dict(zip(names, np.asarray(values).tolist(), strict=False))
        line = {"epoch": epoch, "candidates": CANDIDATES, "parameters": parameters}
        for name, content in (("metrics", {"epoch": epoch} | top1), ("architecture", line)):
            with open(folder / f"{name}.jsonl", "a") as file:
                file.write(json.dumps(content) + "\n")
    return folder


def alphas(leaders):
    """[epochs, edges, candidates] in which `leaders[epoch][edge]` lead, but for `none`."""
    alpha = np.full((len(leaders), len(NAMES), 3), 0.1)
    alpha[..., 0] = 9
    for epoch, row in enumerate(leaders):
        for edge, k in enumerate(row):
            alpha[epoch, edge, k] = 0.2
    return alpha


MOVING = alphas([[1] * 10, [2] + [1] * 9, [1, 2] + [1] * 8])
STILL = alphas([[1] * 10] * 3)


def test_changes_of_first_rank_are_counted_without_none(tmp_path):
    record = draw.Record.of(write(tmp_path / "run", MOVING))
    assert record.changes().tolist() == [[True] + [False] * 9, [True, True] + [False] * 8]
    assert draw.Record.of(write(tmp_path / "still", STILL)).changes().sum() == 0


def test_a_row_a_search_a_column_an_edge_a_mark_a_change(tmp_path):
    runs = [("alpha-max", STILL), ("edas", MOVING)]
    records = [draw.Record.of(write(tmp_path / label, a, label)) for label, a in runs]
    with rc_context(STYLE):
        figure = draw.alphas_figure(records, draw._most_changed(records)[:3])
        nothing_overlaps(figure)
    grid = np.array(figure.axes).reshape(2, 3)
    assert [a.get_title() for a in grid[0]] == [
        "1: normal 0 → 2", "2: normal 1 → 2", "3: normal 0 → 3",
    ]  # fmt: skip
    assert [row[0].get_ylabel() for row in grid] == ["alpha-max\n0 changes", "edas\n3 changes"]
    marks = [[a.lines[-1].get_xdata().tolist() for a in row] for row in grid]
    assert marks == [[[], [], []], [[1, 2], [2], []]]
    for k, line in enumerate(grid[1, 0].lines[:3]):
        assert line.get_ydata().tolist() == MOVING[:, 0, k].tolist()


def test_edges_with_most_changes_are_chosen(tmp_path):
    leaders = np.ones((4, 10), int)
    leaders[1::2, 7] = leaders[3, 4] = 2
    record = draw.Record.of(write(tmp_path / "run", alphas(leaders)))
    assert draw._most_changed([record]) == [1, 2, 3, 4, 5, 8]


def test_several_runs_stand_in_one_picture(tmp_path):
    ours, darts = write(tmp_path / "a", MOVING), write(tmp_path / "d", STILL, method="darts_1")
    draw.run((ours,))
    assert {p.name for p in (ours / "pictures").iterdir()} == {"alphas.svg", "alphas.png"}
    draw.run((darts, ours), output=tmp_path / "out")
    text = (tmp_path / "out" / "cuts.svg").read_text()
    assert all(f">{word}</text>" in text for word in ("darts_1", "edas", "supernet"))
    records = [draw.Record.of(folder) for folder in (ours, darts)]
    with rc_context(STYLE):
        figure = draw.cuts_figure(records)
        nothing_overlaps(figure)
    assert figure.axes[1].lines[0].get_ydata().tolist() == [10, 11, 12]


@pytest.mark.parametrize(("folders", "edges", "named"), [
    (["nowhere"], (), "nowhere: is not the folder of a search"),
    ([], (), "name one run folder"),
    (["run", "run"], (), "--output"),
    (["run"], (0,), "--edges 0: there are edges 1 to 10"),
])  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, folders, edges, named):
    write(tmp_path / "run", MOVING)
    with pytest.raises(InputError, match=named):
        draw.run(tuple(tmp_path / name for name in folders), edges=edges)
    assert not (tmp_path / "run" / "pictures").exists()
