"""EDAS' pictures: alphas and changes of the best operation (Fig. 5), cut accuracies (Fig. 3)."""

import json

import numpy as np
import pytest

from common.errors import InputError
from common.networks.genotype import CANDIDATES as CANDIDATES8
from edas import figures
from picture_checks import legends_match_lines, nothing_overlaps

EDGES = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
NAMES = [f"alpha_{kind}_{i}-{j}" for kind in ("normal", "reduction") for i, j in EDGES]
CANDIDATES = ["none", "skip_connect", "sep_conv_3x3"]


def write(folder, alpha, variant="edas", method="edas", cut=True, candidates=CANDIDATES):
    """A run folder with alpha [epochs, edges, candidates]."""
    folder.mkdir()
    config = {"method": method, "seed": 2} | ({"variant": variant} if method == "edas" else {})
    (folder / "config.json").write_text(json.dumps(config))
    names = NAMES if method == "edas" else ["alpha_normal", "alpha_reduction"]
    for epoch, values in enumerate(alpha, 1):
        top1 = {"uncut_top1": 19.0 + epoch, "cut_top1": 9.0 + epoch if cut else None}
        top1["cut_statistics"] = "batch" if cut else None
        parameters = dict(zip(names, np.asarray(values).tolist(), strict=False))
        line = {"epoch": epoch, "candidates": candidates, "parameters": parameters}
        for name, content in (("metrics", {"epoch": epoch} | top1), ("architecture", line)):
            with open(folder / f"{name}.jsonl", "a") as file:
                file.write(json.dumps(content) + "\n")
    return folder


def alphas(leaders):
    """[epochs, edges, candidates]; `leaders[epoch][edge]` is the best operation but for `none`."""
    alpha = np.full((len(leaders), len(NAMES), 3), 0.1)
    alpha[..., 0] = 9
    for epoch, row in enumerate(leaders):
        for edge, k in enumerate(row):
            alpha[epoch, edge, k] = 0.2
    return alpha


MOVING = alphas([[1] * 10, [2] + [1] * 9, [1, 2] + [1] * 8])
STILL = alphas([[1] * 10] * 3)


def test_changes_of_the_best_operation_ignore_none(tmp_path):
    record = figures.Record.of(write(tmp_path / "run", MOVING))
    assert record.changes().tolist() == [[True] + [False] * 9, [True, True] + [False] * 8]
    assert figures.Record.of(write(tmp_path / "still", STILL)).changes().sum() == 0


def test_alphas_have_a_row_per_search_and_a_mark_per_change(tmp_path):
    runs = [("alpha-max", STILL), ("edas", MOVING)]
    records = [figures.Record.of(write(tmp_path / label, a, label)) for label, a in runs]
    figure = figures.alphas_figure(records, figures.most_changed(records)[:3])
    nothing_overlaps(figure)
    grid = np.array(figure.axes).reshape(2, 3)
    assert [a.get_title() for a in grid[0]] == [
        "1: normal x0 → x2", "2: normal x1 → x2", "3: normal x0 → x3",
    ]  # fmt: skip
    assert [row[0].get_ylabel() for row in grid] == [
        "alpha-max, seed 2\n0 changes in all", "edas, seed 2\n3 changes in all",
    ]  # fmt: skip
    legends_match_lines(figure)
    marks = [[a.lines[-1].get_xdata().tolist() for a in row] for row in grid]
    assert marks == [[[], [], []], [[2, 3], [3], []]]
    assert grid[1, 0].lines[-1].get_ydata().tolist() == [0.2, 0.2]  # on the one that leads
    *drawn, uniform, _ = grid[1, 0].lines
    assert [line.get_ydata().tolist() for line in drawn] == MOVING[:, 0].T.tolist()
    total = np.exp(MOVING[:, 0]).sum(-1)
    assert np.exp(uniform.get_ydata()) / total == pytest.approx([1 / 3] * 3)


def test_edges_with_most_changes_are_chosen(tmp_path):
    leaders = np.ones((4, 10), int)
    leaders[1::2, 7] = leaders[3, 4] = 2
    record = figures.Record.of(write(tmp_path / "run", alphas(leaders)))
    assert figures.most_changed([record]) == [1, 2, 3, 4, 5, 8]


def test_several_runs_share_a_picture(tmp_path):
    ours, darts = write(tmp_path / "a", MOVING), write(tmp_path / "d", STILL, method="darts_1")
    figures.run((ours,))
    assert {p.name for p in (ours / "pictures").iterdir()} == {"alphas.svg", "alphas.png"}
    figures.run((darts, ours), output=tmp_path / "out")
    text = (tmp_path / "out" / "cuts.svg").read_text()
    words = ("darts_1, seed 2", "edas, seed 2", "supernet")
    assert all(f">{word}</text>" in text for word in words)
    records = [figures.Record.of(folder) for folder in (ours, darts)]
    figure = figures.cuts_figure(records)
    nothing_overlaps(figure)
    assert figure.axes[1].lines[0].get_ydata().tolist() == [10, 11, 12]


@pytest.mark.parametrize(("folders", "edges", "named"), [
    (["nowhere"], (), "nowhere: is not the folder of a search"),
    ([], (), "name one run folder"),
    (["run", "run"], (), "--output"),
    (["run"], (0,), "--edges 0: there are edges 1 to 10"),
    (["run", "other"], (), "other: its edges or candidates are not those of the first run"),
    (["run", "off"], (), "was run without --cut-accuracy"),
])  # fmt: skip
def test_refusals_name_the_folder_or_flag(tmp_path, folders, edges, named):
    write(tmp_path / "run", MOVING)
    write(tmp_path / "other", MOVING, candidates=["skip_connect", "none", "sep_conv_3x3"])
    write(tmp_path / "off", MOVING, cut=False)
    output = tmp_path / "out" if len(set(folders)) > 1 else None
    with pytest.raises(InputError, match=named):
        figures.run(tuple(tmp_path / name for name in folders), edges=edges, output=output)
    assert not (tmp_path / "run" / "pictures").exists()


def test_an_interrupted_run_with_one_epoch_is_drawn(tmp_path):
    run = write(tmp_path / "run", MOVING)
    lines = (run / "metrics.jsonl").read_text().splitlines(True)
    (run / "metrics.jsonl").write_text(lines[0])  # the architecture is two lines ahead
    figures.run((run,), edges=(3,))
    assert ">another operation leads</text>" in (run / "pictures" / "alphas.svg").read_text()


@pytest.mark.parametrize("edges", [[3], [1, 2, 3, 4, 5, 6]])
def test_legend_and_panels_stay_apart(tmp_path, edges):
    names = ["none", *CANDIDATES8[1:]]
    alpha = np.random.default_rng(0).normal(size=(4, len(NAMES), 8))
    record = figures.Record.of(write(tmp_path / "run", alpha, candidates=names))
    nothing_overlaps(figures.alphas_figure([record], edges))
