"""Pictures of cells, searches and runs."""

import ast
import json
import random
import re
import sys
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.image import imread
from matplotlib.legend import Legend
from torch import nn

from builders import ROOT
from common.draw import pictures
from common.draw.cell import BRANCHES, cells_figure, layouts
from common.draw.confusion import confusion_figure
from common.draw.search import (
    alone,
    architecture_figure,
    curves_figure,
    measures_figure,
    spread_figure,
)
from common.errors import InputError
from common.networks.genotype import (
    CANDIDATES,
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
from common.networks.macro import Place
from common.networks.network import FixedReductionCell
from picture_checks import (
    contrast,
    legends_match_lines,
    luminance,
    nothing_overlaps,
)

OPS = CANDIDATES[1:]
LONG = cell_from_pairs([(OPS[k % 7], s) for k, s in enumerate([0, 1, 2, 1, 3, 0, 4, 2, 5, 0])])
SHORT = cell_from_pairs([(OPS[k], source) for k, source in enumerate([0, 1, 0, 2, 3, 2])])
SHARED = Cell(
    2,
    (
        Edge(0, 2, Op("sep_conv_3x3")),
        Edge(0, 2, Op("skip_connect")),
        Edge(2, 3, Op("sep_conv", 5, 2, (1, 2))),
        Edge(2, 3, Op("sep_conv", 3, 1, ())),
        Edge(1, 3, Op("dil_conv_3x3")),
    ),
    (3,),
)
CELLS = {c: f"{name}-{kind}" for name in published() for kind, c in load(name).cells.items()}
SPARSE = Cell(2, (*SHARED.edges[:1], Edge(3, 4, Op("skip_connect"))), (2, 3, 4, 5))
CELLS |= {LONG: "long", SHORT: "short", SHARED: "shared", SPARSE: "sparse"}


def metrics(epochs):
    return [
        {"epoch": e, "train_loss": 2 / e, "train_top1": 90 - 50 / e, "valid_loss": 2.1 / e,
         "valid_top1": 88 - 50 / e}
        for e in range(1, epochs + 1)
    ]  # fmt: skip


def searched(epochs, kinds=("normal", "reduction"), statistics="batch"):
    """The metrics of a search; cut accuracies in every other epoch and the last two."""
    lines = metrics(epochs)
    for e, line in enumerate(lines):
        there = statistics and (e % 2 == 0 or e >= epochs - 2)
        line["uncut_top1"] = 60 + e / 20 if there else None
        line["cut_top1"] = 40 + e / 20 if there else None
        line["derived_top1"] = 35 - e / 30 if there else None
        line["cut_statistics"] = statistics
        for n, kind in enumerate(kinds):
            line[f"entropy_{kind}"] = 2.0794 / (1 + 0.1 * e * (n + 1))
            line[f"skips_{kind}"], line[f"pools_{kind}"] = min(8, e), n
            line[f"changed_edges_{kind}"] = max(0, 11 - e - n)
    return lines


def sampled(count, **equal):
    """The cells of a random search."""
    return [
        {"number": n, "valid_top1": 90 + n * (-1) ** n / 10, "params": 20_000 + 700 * n, **equal}
        for n in range(count)
    ]


def history(epochs, edge=True):
    edges = [[i, j] for j in (2, 3) for i in range(j)]
    weights = {"op": [[1 / len(CANDIDATES)] * len(CANDIDATES)] * len(edges)}
    weights["edge"] = [1 / j for _, j in edges] if edge else None
    line = {"candidates": CANDIDATES, "edges": edges}
    line["weights"] = {"normal": weights, "reduction": weights}
    return [{"epoch": e, **line} for e in range(1, epochs + 1)]


def write_run(folder, epochs=3):
    for name, lines in {"metrics": searched(epochs), "architecture": history(epochs)}.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    save(load("darts_v2"), folder / "genotype.json")


@pytest.mark.parametrize("cell", CELLS, ids=CELLS.values())
def test_a_cell_has_an_arrow_per_edge_and_nothing_overlaps(cell):
    fixed = isinstance(cell, FixedCell)
    recurrent = not fixed and cell.inputs == 1  # node 0 is computed from both inputs
    labels = [3, 3, 1, 1] if fixed else [1] * len(cell.edges) + [0] * len(cell.output)
    labels = [0, 0, *labels] if recurrent else labels
    [(lines, boxes)], (width, height) = layouts((cell,))
    assert len(boxes) == sum(labels) + 2 + (0 if fixed else cell.nodes) + recurrent + 1
    corners = [
        (box.x - box.width / 2, box.y - box.height / 2, box.x + box.width / 2,
         box.y + box.height / 2) for box in boxes
    ]  # fmt: skip
    for left, low, right, high in corners:
        assert left > 0 and right < width and -height < low and high < 0
    for (left, low, right, high), (a, b, c, d) in combinations(corners, 2):
        assert right < a or c < left or high < b or d < low
    for line, own in zip(lines, labels, strict=True):
        path = points_of(line)
        assert all(-height < y < 0 for _, y in path)
        met = [
            any(left < x < right and low < y < high for x, y in path[1:-1])
            for left, low, right, high in corners
        ]
        assert sum(met) == own  # its own labels only


def points_of(line):
    """Points along an arrow, which is level at each of its own points."""
    path = []
    for (x, y), (u, v) in pairwise(line.points):
        for t in np.linspace(0, 1, 40):  # a cubic Bezier curve whose ends are level
            step = 3 * t**2 - 2 * t**3
            path.append((x + (u - x) * (1.5 * (t - t**2) + t**3), y + (v - y) * step))
    return path


@pytest.mark.parametrize("nodes", range(2, 9))
def test_cells_of_any_size_bend_only_next_to_nodes(nodes):
    """An arrow stays on one level on its way from a node to the next."""
    generator = random.Random(nodes)
    edges = [(generator.choice(OPS), s) for k in range(nodes)
             for s in generator.sample(range(k + 2), 2)]  # fmt: skip
    [(lines, boxes)], _ = layouts((cell_from_pairs(edges),))
    assert len(boxes) == 2 * nodes + nodes + 3
    steps = [np.ptp([y for _, y in line.points[1:-1]] or [0]) for line in lines]
    assert sum(step > 0.02 for step in steps) <= len(lines) // 8


def test_cells_name_every_operation_and_node(tmp_path):
    cells = {
        "normal": LONG, "reduction": SHARED, "recurrent": load("enas_rnn").cells["recurrent"]
    }  # fmt: skip
    pictures.cells(Genotype("mine", cells), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{kind}.{form}" for kind in cells for form in ("svg", "png")
    }
    for kind, cell in cells.items():
        recurrent = kind == "recurrent"
        text = (tmp_path / f"{kind}.svg").read_text()
        for edge in cell.edges:
            for words in re.findall(r"[^()]+", str(edge.op)):  # the shape is on a second line
                assert f">{words}</text>" in text
        for node in range(cell.nodes + recurrent):
            assert f">x{node + cell.inputs * (not recurrent)}</text>" in text
        for name in ("x_{t}", "h_{t-1}", "h_{t}") if recurrent else ("c_{k-2}", "c_{k-1}", "c_{k}"):
            assert f"${name}$" in text


def test_a_fixed_cell_has_the_branches_of_its_module(tmp_path):
    cell = FixedReductionCell(Place(0, 8, (6, 5), reduction=True, after_reduction=False))
    branches = [
        (k % 2, tuple(called(layer) for layer in branch if hasattr(layer, "kernel_size")))
        for k, branch in enumerate([*cell.convolutions, *cell.pools])
    ]
    assert {"gdas_frc": branches} == BRANCHES
    pictures.cells(load("gdas_frc"), tmp_path)
    labels = re.findall(r">(\w+_\dx\d.*)</text>", (tmp_path / "reduction.svg").read_text())
    assert labels == [op for _, ops in branches for op in ops]


def called(layer):
    name = "conv" if isinstance(layer, nn.Conv2d) else "max_pool"
    kernel, stride = (np.broadcast_to(size, 2) for size in (layer.kernel_size, layer.stride))
    halves = ", stride {}x{}".format(*stride) if max(stride) > 1 else ""
    return f"{name}_{kernel[0]}x{kernel[1]}{halves}"


def test_equal_runs_give_equal_pictures(tmp_path):
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name)
        pictures.run(tmp_path / name)
        files.append({p.name: p.read_bytes() for p in (tmp_path / name / "pictures").iterdir()})
    stems = ["curves", "measures", "normal", "reduction"]
    stems += ["architecture_normal", "architecture_reduction"]
    assert files[0].keys() == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    assert files[0] == files[1]
    grid = files[0]["architecture_normal.svg"].decode()
    assert all(f">{name}</text>" in grid for name in CANDIDATES)
    assert all(f">x{i} \u2192 x{j}</text>" in grid for j in (2, 3) for i in range(j))


def random_cell(seed, nodes=4):
    generator = random.Random(seed)
    return cell_from_pairs(
        [(generator.choice(OPS), s) for k in range(nodes)
         for s in generator.sample(range(k + 2), 2)]
    )  # fmt: skip


@pytest.mark.parametrize(("seeds", "titles"), [
    ([0], ["epoch 1"]),
    ([0, 0, 0], ["epochs 1 to 3"]),
    ([0, 0, 1, 0, 0], ["epochs 1 to 2", "epoch 3", "epochs 4 to 5"]),
    (range(11), [f"epoch {n}" for n in (1, 3, 5, 7, 9, 11)]),
])  # fmt: skip
def test_a_cell_evolves_in_six_different_snapshots_at_most(tmp_path, seeds, titles):
    reduction = load("gdas_frc").cells["reduction"]
    lines = [
        {"epoch": epoch, "genotype": Genotype("x", {
            "normal": random_cell(seed), "reduction": reduction
        }).to_json()} for epoch, seed in enumerate(seeds, 1)
    ]  # fmt: skip
    pictures.evolution(lines, tmp_path)
    text = (tmp_path / "evolution_normal.svg").read_text()
    assert re.findall(r">(epochs? [^<]+)<", text) == titles
    assert not (tmp_path / "evolution_reduction.svg").exists()  # it is fixed


@pytest.mark.parametrize("nodes", [2, 4, 5])
def test_nodes_keep_their_places_in_all_snapshots(nodes):
    cells = tuple(random_cell(seed, nodes) for seed in range(4))
    cells += (replace(cells[0], edges=cells[0].edges[:1]),)  # the other nodes are zero
    drawn, _ = layouts(cells)
    places = [
        {box.text.removesuffix(" = 0"): (box.x, box.y) for box in boxes} for _, boxes in drawn
    ]
    names = ["$c_{k-2}$", "$c_{k-1}$", "$c_{k}$", *(f"x{2 + n}" for n in range(nodes))]
    for name in names:
        np.testing.assert_allclose([of_cell[name] for of_cell in places], [places[0][name]] * 5,
                                   atol=0.01)  # fmt: skip
    nothing_overlaps(cells_figure({str(n): cell for n, cell in enumerate(cells)}))
    for cell, (lines, boxes) in zip(cells, drawn, strict=True):
        for one, other in combinations(boxes, 2):
            assert abs(one.x - other.x) > (one.width + other.width) / 2 or (
                abs(one.y - other.y) > (one.height + other.height) / 2
            )
        assert len(lines) == len(cell.edges) + nodes


def test_the_notebook_page_runs_and_shows_pictures(tmp_path, monkeypatch):
    """Exactly the lines of common/README.md."""
    page = (ROOT / "common" / "README.md").read_text()
    _, page = page.split("## In a notebook")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/mine").mkdir(parents=True)
    write_run(tmp_path / "runs/mine")
    names, shown = {}, []
    monkeypatch.setattr(sys, "displayhook", shown.append)  # as a notebook shows a value
    for statement in ast.parse(code).body:
        exec(compile(ast.Interactive([statement]), "README", "single"), names)
    cells, weights, output = shown
    for picture, words in ((cells, ("normal", "reduction")), (weights, CANDIDATES)):
        svg = picture._repr_svg_()
        assert "<svg" in svg and all(f">{word}</text>" in svg for word in words)
    assert output.shape == (1, 10) and output.sum().item() == pytest.approx(1)


def test_an_incomplete_first_line_is_ignored(tmp_path):
    write_run(tmp_path)
    (tmp_path / "genotypes.jsonl").write_text('{"epoch": 0, "geno')
    pictures.run(tmp_path)
    assert not list((tmp_path / "pictures").glob("evolution*"))


def test_a_retraining_has_curves_only(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(metrics(1)[0]) + "\n")
    pictures.run(tmp_path)
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {"curves.svg", "curves.png"}


def test_curves_with_gaps():
    lines = metrics(5)
    lines[0] |= {"valid_loss": None, "valid_top1": None}
    del lines[2]["valid_loss"], lines[2]["valid_top1"]
    lines[4]["test_top1"] = 80.0
    figure = curves_figure(lines)
    nothing_overlaps(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "valid", "test"]


def test_values_between_gaps_are_alone():
    nan = float("nan")
    assert alone(np.array([1, nan, 2, 3, nan, 4])) == [0, 5]


@pytest.mark.parametrize(
    ("lines", "statistics"),
    [
        (searched(50, statistics="running"), "running"),
        (searched(1), "batch"),
        (searched(6, kinds=("normal",)), "batch"),
        (searched(3, statistics=None), None),
        ([line | {"skips_normal": 10, "changed_edges_normal": 100} for line in searched(601)],
         "batch"),
    ],
    ids=["two kinds", "one epoch", "only normal", "no cuts", "large numbers"],
)  # fmt: skip
def test_measures_draw_all_values_and_nothing_overlaps(lines, statistics):
    figure = measures_figure(lines)
    nothing_overlaps(figure)
    accuracy, entropy, *_ = figure.axes
    cuts = [f"{what} ({statistics} statistics)" for what in (
        "supernet", "each edge cut to its best", "derived cell only"
    )]  # fmt: skip
    expected = ["supernet (running statistics)", *(cuts if statistics else [])]
    assert legend_texts(accuracy) == expected
    kinds = [kind for kind in ("normal", "reduction") if f"entropy_{kind}" in lines[0]]
    assert legend_texts(entropy) == [f"{kind} cell" for kind in kinds]
    legends_match_lines(figure)
    drawn = [line for axes in figure.axes for line in axes.lines]
    keys = [key for key in lines[0] if key.endswith(("normal", "reduction", "_top1"))]
    given = [np.array([line[key] for line in lines], float) for key in keys if key != "train_top1"]
    given = {values.tobytes() for values in given if np.isfinite(values).any()}
    assert {np.array(line.get_ydata(), float).tobytes() for line in drawn} == given
    for line in drawn:
        assert line.get_xdata().tolist() == [epoch["epoch"] for epoch in lines]
        low, high = line.axes.get_ylim()
        assert low <= np.nanmin(line.get_ydata()) and np.nanmax(line.get_ydata()) <= high


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("epochs", [1, 2, 12, 50])
def test_epochs_and_counts_have_whole_ticks(epochs):
    accuracy, entropy, *counts = measures_figure(searched(epochs)).axes
    ticks = [axes.get_yticks() for axes in counts]
    ticks += [axes.get_xticks() for axes in (accuracy, entropy, *counts)]
    assert all(np.array_equal(one, np.round(one)) for one in ticks)


@pytest.mark.parametrize(
    "cells",
    [sampled(24), sampled(1), sampled(2), sampled(5, valid_top1=91.25, params=3_300_000)],
    ids=["many", "one", "two", "equal"],
)
def test_spread_shows_every_cell_the_mean_and_the_deviation(cells):
    figure = spread_figure(cells)
    nothing_overlaps(figure)
    (axes,) = figure.axes
    top1 = [cell["valid_top1"] for cell in cells]
    best = cells[top1.index(max(top1))]
    expected = [f"cells: {len(cells)}", f"best: cell {best['number']}, {max(top1):.2f} %",
                f"mean: {np.mean(top1):.2f} %"]  # fmt: skip
    if len(cells) > 1:
        deviation = np.std(top1, ddof=1)
        expected.append(f"\u00b1 one standard deviation: {deviation:.2f}")
        low, high = axes.get_ylim()
        assert low < np.mean(top1) - deviation and np.mean(top1) + deviation < high
    assert legend_texts(axes) == expected
    unit, units = (1e6, "millions") if cells[0]["params"] > 1e6 else (1e3, "thousands")
    assert axes.get_xlabel() == f"parameters ({units})"
    dots, diamond, _ = axes.lines
    assert dots.get_ydata().tolist() == top1 and max(diamond.get_ydata()) == max(top1)
    assert dots.get_xdata() == pytest.approx([cell["params"] / unit for cell in cells])


def test_of_equally_accurate_cells_the_least_loss_is_best():
    cells = [cell | {"valid_loss": abs(cell["number"] - 2)} for cell in sampled(4, valid_top1=90)]
    assert any("cell 2," in text for text in legend_texts(spread_figure(cells).axes[0]))


def test_a_random_search_has_a_spread_instead_of_curves(tmp_path):
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps({"cells": sampled(3)}))
        pictures.run(tmp_path / name)
        files.append({p.name: p.read_bytes() for p in (tmp_path / name / "pictures").iterdir()})
    assert files[0].keys() == {"spread.svg", "spread.png"}
    assert files[0] == files[1]


@pytest.mark.parametrize("result", [{"cells": 20}, {"cells": []}, {"epochs": 3}])
def test_a_result_without_cells_is_no_run(tmp_path, result):
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: holds no metrics.jsonl")):
        pictures.run(tmp_path)


@pytest.mark.parametrize(("epochs", "edge"), [(1, False), (3, True)])
def test_the_legends_name_candidates_edges_and_uniform_weights(epochs, edge):
    figure = architecture_figure(history(epochs, edge), "normal")
    nothing_overlaps(figure)
    legends_match_lines(figure)
    legends = [
        [text.get_text() for text in legend.get_texts()] for legend in figure.findobj(Legend)
    ]
    of_edges = [["from x0", "from x1", "from x2", "uniform"]] if edge else []
    assert legends == [[*CANDIDATES, "uniform (1/8)"], *of_edges]


def test_edge_weights_have_panels_of_their_own():
    lines = history(3)
    lines[-1] = json.loads(json.dumps(lines[-1]))
    weights = lines[-1]["weights"]["normal"]
    weights["op"][0] = [0.1254, *[0.1246] * 3, *[0.125] * 4]
    weights["edge"] = [0.51, 0.49, 0.3, 0.4, 0.3]
    panels = {axes.get_title(): axes for axes in architecture_figure(lines, "normal").axes}
    assert list(panels) == [f"x{i} \u2192 x{j}" for j in (2, 3) for i in range(j)] + [
        "edges into x2", "edges into x3"
    ]  # fmt: skip
    *drawn, uniform = panels["x0 \u2192 x2"].lines
    assert [line.get_ydata()[-1] for line in drawn] == weights["op"][0]
    assert set(uniform.get_ydata()) == {1 / 8}
    low, high = panels["x2 \u2192 x3"].get_ylim()  # shared
    assert 0.124 < low < 0.1246 and 0.1254 < high < 0.126
    for node, (first, last) in {2: (0, 2), 3: (2, 5)}.items():
        axes = panels[f"edges into x{node}"]
        *drawn, uniform = axes.lines
        assert [line.get_ydata()[-1] for line in drawn] == weights["edge"][first:last]
        assert set(uniform.get_ydata()) == {1 / node}
        low, high = axes.get_ylim()
        assert low + high == pytest.approx(2 / node) and high - low == pytest.approx(2.2 / 15)


def test_the_entropy_axis_shows_what_moves_and_the_uniform_entropy_if_near():
    lines = [{"epoch": e, "valid_top1": 50, "entropy_normal": 2.0794 - 1e-4 * e} for e in (1, 2, 3)]
    for moved, shown in ((0, True), (1, False)):
        shifted = [line | {"entropy_normal": line["entropy_normal"] - moved} for line in lines]
        figure = measures_figure(shifted, history(3))
        nothing_overlaps(figure)
        entropy = figure.axes[1]
        assert legend_texts(entropy) == ["normal cell", *["uniform weights"] * shown]
        assert np.ptp(entropy.get_ylim()) < 1e-3
        ticks = [label.get_text() for label in entropy.get_yticklabels()]
        assert len({*ticks}) == len(ticks) > 2  # distinct, without an offset
        assert not entropy.yaxis.get_offset_text().get_text()
        if shown:
            assert entropy.lines[-1].get_ydata().tolist() == pytest.approx([np.log(8)] * 3)


def test_pictures_are_white_whatever_the_readers_style(tmp_path):
    """GitHub and pages in dark mode show them on their own background."""
    write_run(tmp_path)
    with rc_context({"figure.facecolor": "black", "axes.facecolor": "black"}):
        pictures.run(tmp_path)
    for path in (tmp_path / "pictures").glob("*.png"):
        image = imread(path)
        assert image[[0, 0, -1, -1], [0, -1, 0, -1]].min() == 1, path  # opaque and white
        assert np.mean(image[..., :3].min(-1) < 0.02) < 0.5, path


def test_numbers_in_a_confusion_matrix_are_readable_and_nothing_is_black():
    counts = np.diag([100, 75, 71, 69, 50, 26, 24, 5])
    counts[:, 0] += 100 - counts.diagonal()
    figure = confusion_figure(counts, list("abcdefgh"))
    (axes,) = figure.axes
    (image,) = axes.images
    shades = image.cmap(image.norm(image.get_array()))
    assert min(luminance(colour[:3]) for colour in shades.reshape(-1, 4)) > 0.1
    for text in axes.texts:
        column, row = text.get_position()
        assert contrast(text.get_color(), shades[row, column][:3]) > 3.5


def test_the_command_names_a_folder_that_is_no_run(tmp_path, command):
    status, _, err = command("common/draw/__main__.py", tmp_path, pictures=True)
    assert status == 2 and str(tmp_path) in err


def test_a_published_cell_and_a_file_are_drawn_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gdas_rnn").mkdir()  # as in a clone, whose folders bear methods' names
    pictures.of("gdas_rnn")
    assert (tmp_path / "pictures/gdas_rnn/recurrent.svg").exists()
    assert "pictures/gdas_rnn: recurrent.svg" in capsys.readouterr().out
    text = (ROOT / "common/networks/genotypes/gdas_rnn.json").read_text()
    (tmp_path / "mine.json").write_text(text)
    pictures.of("mine.json", Path("out"))
    same = [path.read_bytes() for path in tmp_path.rglob("recurrent.svg")]
    assert len(same) == 2 and same[0] == same[1]


def test_a_run_folder_is_drawn_into_its_pictures(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(pictures, "run", seen.append)
    pictures.of(str(tmp_path))
    assert seen == [tmp_path]
    with pytest.raises(InputError, match="--output x: .* is a run folder"):
        pictures.of(str(tmp_path), Path("x"))
    with pytest.raises(InputError, match="^no_such: no published genotype, file or run folder"):
        pictures.of("no_such")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--output .*file.*: cannot be written"):
        pictures.of("gdas_rnn", tmp_path / "file" / "x")
