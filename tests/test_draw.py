import json
import re
from itertools import combinations

import numpy as np
import pytest
import tyro
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox
from torch import nn

from common.draw import pictures
from common.draw.cell import BRANCHES, cells_figure
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
from conftest import ROOT

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
CELLS |= {LONG: "long", SHORT: "short", SHARED: "shared"}


def metrics(epochs):
    return [
        {"epoch": e, "train_loss": 2 / e, "train_top1": 90 - 50 / e, "valid_loss": 2.1 / e,
         "valid_top1": 88 - 50 / e}
        for e in range(1, epochs + 1)
    ]  # fmt: skip


def searched(epochs, kinds=("normal", "reduction"), statistics="batch"):
    """The metrics of a search; every other epoch but the last two has no cut accuracies."""
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
def test_nothing_overlaps_in_a_cell_and_every_edge_is_an_arrow(cell):
    fixed = isinstance(cell, FixedCell)
    recurrent = not fixed and cell.inputs == 1  # node 0 is computed from both inputs
    labels = [3, 3, 1, 1] if fixed else [1] * len(cell.edges) + [0] * len(cell.output)
    labels = [0, 0, *labels] if recurrent else labels
    figure = pictures.cell_figure(cell)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(boxes) == sum(labels) + 2 + (0 if fixed else cell.nodes) + recurrent + 1
    for one, other in combinations(boxes, 2):
        assert not one.padded(2).overlaps(other)
    for box in boxes:
        assert axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
        assert axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1
    assert len(shapes := [patch for patch in axes.patches if patch not in arrows]) == len(boxes)
    for arrow, own in zip(arrows, labels, strict=True):
        met = sum(crosses(arrow, shape.get_path().get_extents()) for shape in shapes)
        assert met == own  # its own labels and nothing else


def crosses(arrow, box):
    """Whether an arrow comes into a box, but for its ends."""
    curve = arrow.get_path().transformed(Affine2D().scale(150))
    points = np.concatenate(curve.to_polygons(closed_only=False)[:1])
    points = Path(points).interpolated(8).vertices[8:-8] / 150
    inner = box.padded(-0.02)
    return any(inner.contains(*point) for point in points)


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
            assert f">{edge.op}</text>" in text
        for node in range(cell.nodes + recurrent):
            assert f">{node}</text>" in text
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


def test_run_draws_all_and_equal_runs_alike(tmp_path):
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
    assert all(f">{i} \u2192 {j}</text>" in grid for j in (2, 3) for i in range(j))


@pytest.mark.parametrize(("epochs", "shown"), [(1, [0]), (4, [0, 1, 2, 3]), (11, range(0, 12, 2))])
def test_a_cell_evolves_in_six_snapshots_at_most(tmp_path, epochs, shown):
    write_run(tmp_path)
    with open(tmp_path / "genotypes.jsonl", "w") as file:
        for epoch in range(epochs):
            line = {"epoch": epoch, "genotype": load("gdas_frc").to_json()}
            file.write(json.dumps(line) + "\n")
    pictures.run(tmp_path)
    text = (tmp_path / "pictures" / "evolution_normal.svg").read_text()
    assert re.findall(r">epoch (\d+)<", text) == [str(epoch) for epoch in shown]
    assert not (tmp_path / "pictures" / "evolution_reduction.svg").exists()  # it is fixed


def test_cells_beside_each_other_stay_apart():
    cells = {str(n): cell for n, cell in enumerate([LONG, SHORT, SHARED])}
    figure = cells_figure(cells)
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent().padded(-1) for axes in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 + 1 and box.y1 <= figure.bbox.y1 + 1 for box in boxes)


def test_a_file_torn_in_its_first_line_is_as_empty(tmp_path):
    write_run(tmp_path)
    (tmp_path / "genotypes.jsonl").write_text('{"epoch": 0, "geno')
    pictures.run(tmp_path)
    assert not list((tmp_path / "pictures").glob("evolution*"))


def test_a_retraining_has_curves_only(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(metrics(1)[0]) + "\n")
    pictures.run(tmp_path)
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {"curves.svg", "curves.png"}


def test_curves_with_gaps(tmp_path):
    lines = metrics(5)
    lines[0] |= {"valid_loss": None, "valid_top1": None}
    del lines[2]["valid_loss"], lines[2]["valid_top1"]
    lines[4]["test_top1"] = 80.0
    pictures.curves(lines, tmp_path)
    text = (tmp_path / "curves.svg").read_text()
    assert all(f">{part}</text>" in text for part in ("train", "valid", "test"))


def test_values_between_gaps_are_alone():
    nan = float("nan")
    assert pictures.alone(np.array([1, nan, 2, 3, nan, 4])) == [0, 5]


@pytest.mark.parametrize(
    "lines",
    [
        searched(50, statistics="running"),
        searched(1),
        searched(6, kinds=("normal",)),
        searched(3, statistics=None),
        [line | {"skips_normal": 10, "changed_edges_normal": 100} for line in searched(601)],
    ],
    ids=["two kinds", "one epoch", "only normal", "no cuts", "large numbers"],
)
def test_measures_draw_what_is_given_and_nothing_overlaps(lines):
    with rc_context(pictures.STYLE):
        figure = pictures.measures_figure(lines)
        nothing_overlaps(figure)
    drawn = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    others = {"epoch", "train_loss", "train_top1", "valid_loss", "cut_statistics"}
    keys = {key for line in lines for key, value in line.items() if value is not None} - others
    assert drawn.keys() == keys
    for key, line in drawn.items():
        given = np.array([epoch[key] for epoch in lines], float)
        assert np.array_equal(line.get_ydata(), given, equal_nan=True)
        assert np.array_equal(line.get_xdata(), [epoch["epoch"] for epoch in lines])
        assert set(pictures.alone(given)) <= set(line.get_markevery())
        low, high = line.axes.get_ylim()
        assert low <= np.nanmin(given) and np.nanmax(given) <= high


def nothing_overlaps(figure):
    """Panels with all their labels, and legends, are clear of each other and in the picture."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    boxes = [axes.get_legend().get_window_extent() for axes in figure.axes if axes.get_legend()]
    for axes in figure.axes:
        labels = [axis.get_tightbbox(renderer) for axis in (axes.xaxis, axes.yaxis)]
        boxes.append(Bbox.union([axes.bbox, *(box for box in labels if box is not None)]))
        low, high = axes.get_ylim()
        ticks = [text for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
        for text in ticks:
            assert not text.get_window_extent().overlaps(axes.yaxis.label.get_window_extent())
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert figure.bbox.x0 < box.x0 and box.x1 < figure.bbox.x1
        assert figure.bbox.y0 < box.y0 and box.y1 < figure.bbox.y1


def test_measures_have_gaps_where_nothing_was_measured():
    drawn = {line.get_label(): line for line in pictures.measures_figure(searched(6)).axes[0].lines}
    for key in ("cut_top1", "derived_top1"):
        assert np.flatnonzero(np.isfinite(drawn[key].get_ydata())).tolist() == [0, 2, 4, 5]
        assert set(drawn[key].get_markevery()) == {0, 2, 5}  # those alone and the last


def test_measures_name_the_statistics_and_what_is_there():
    figure = pictures.measures_figure(searched(2, kinds=("normal",), statistics="running"))
    legends = [axes.get_legend() for axes in figure.axes[:2]]
    accuracies, kinds = ([text.get_text() for text in one.texts] for one in legends)
    assert [("running statistics" in label) for label in accuracies] == [True] * 4
    assert kinds == ["normal cell"]
    legend = pictures.measures_figure(searched(2, statistics=None)).axes[0].get_legend()
    assert [text.get_text() for text in legend.texts] == ["supernet (running statistics)"]


@pytest.mark.parametrize("epochs", [1, 2, 12, 50])
def test_epochs_and_counts_have_whole_ticks(epochs):
    accuracy, entropy, *counts = pictures.measures_figure(searched(epochs)).axes
    ticks = [axes.get_yticks() for axes in counts]
    ticks += [axes.get_xticks() for axes in (accuracy, entropy, *counts)]
    assert all(np.array_equal(one, np.round(one)) for one in ticks)


@pytest.mark.parametrize(
    "cells",
    [sampled(24), sampled(1), sampled(2), sampled(5, valid_top1=91.25, params=3_300_000)],
    ids=["many", "one", "two", "equal"],
)
def test_spread_draws_every_cell_their_mean_and_deviation(cells):
    with rc_context(pictures.STYLE):
        figure = pictures.spread_figure(cells)
        nothing_overlaps(figure)
    (axes,) = figure.axes
    dots, best, mean = axes.lines
    top1 = [cell["valid_top1"] for cell in cells]
    first = cells[top1.index(max(top1))]
    unit = 1e6 if cells[0]["params"] > 1e6 else 1e3
    assert dots.get_ydata().tolist() == top1
    assert dots.get_xdata() == pytest.approx([cell["params"] / unit for cell in cells])
    assert best.get_ydata() == max(top1) and best.get_xdata() == first["params"] / unit
    assert f"cell {first['number']}," in best.get_label()
    assert mean.get_ydata() == pytest.approx([np.mean(top1)] * 2)
    assert len(axes.patches) == (len(cells) > 1)
    for band in axes.patches:
        deviation = np.std(top1, ddof=1)
        ends = (np.mean(top1) - deviation, np.mean(top1) + deviation)
        assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx(ends)
        assert axes.get_ylim()[0] < ends[0] and ends[1] < axes.get_ylim()[1]


def test_of_equally_accurate_cells_the_least_loss_is_best():
    cells = [cell | {"valid_loss": abs(cell["number"] - 2)} for cell in sampled(4, valid_top1=90)]
    assert "cell 2," in pictures.spread_figure(cells).axes[0].lines[1].get_label()


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


def test_architecture_of_one_epoch_without_edge_weights(tmp_path):
    pictures.architecture(history(1, edge=False), tmp_path)
    assert "edge's weight" not in (tmp_path / "architecture_normal.svg").read_text()


def test_the_command_names_a_folder_that_is_no_run(tmp_path, command):
    status, _, err = command("common/draw/__main__.py", tmp_path, pictures=True)
    assert status == 2 and str(tmp_path) in err


def drawn(*words):
    """What the command draws, and what it says."""
    tyro.cli(pictures.of, args=list(map(str, words)))


def test_a_published_cell_and_a_file_are_drawn_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gdas_rnn").mkdir()  # as in a clone, whose folders bear methods' names
    drawn("gdas_rnn")
    assert (tmp_path / "pictures/gdas_rnn/recurrent.svg").exists()
    assert "pictures/gdas_rnn: recurrent.svg" in capsys.readouterr().out
    text = (ROOT / "common/networks/genotypes/gdas_rnn.json").read_text()
    (tmp_path / "mine.json").write_text(text)
    drawn("mine.json", "--output", "out")
    same = [path.read_bytes() for path in tmp_path.rglob("recurrent.svg")]
    assert len(same) == 2 and same[0] == same[1]


def test_a_run_folder_is_drawn_into_its_pictures(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(pictures, "run", seen.append)
    drawn(tmp_path)
    assert seen == [tmp_path]
    with pytest.raises(InputError, match="--output x: .* is a run folder"):
        drawn(tmp_path, "--output", "x")
    with pytest.raises(InputError, match="^no_such: no published genotype, file or run folder"):
        drawn("no_such")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--output .*file.*: cannot be written"):
        drawn("gdas_rnn", "--output", tmp_path / "file" / "x")
