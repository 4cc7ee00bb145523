import json
import sys
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from common import draw
from common.genotype import (
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
CELLS = {f"{name}-{kind}": c for name in published() for kind, c in load(name).cells.items()}
CELLS |= {"long": LONG, "short": SHORT, "shared": SHARED}


def metrics(epochs):
    return [
        {"epoch": e, "train_loss": 2 / e, "train_top1": 90 - 50 / e, "valid_loss": 2.1 / e,
         "valid_top1": 88 - 50 / e}
        for e in range(1, epochs + 1)
    ]  # fmt: skip


def history(epochs, edge=True):
    edges = [[i, j] for j in (2, 3) for i in range(j)]
    weights = {"op": [[1 / len(CANDIDATES)] * len(CANDIDATES)] * len(edges)}
    weights["edge"] = [1 / j for _, j in edges] if edge else None
    line = {"candidates": CANDIDATES, "edges": edges}
    line["weights"] = {"normal": weights, "reduction": weights}
    return [{"epoch": e, **line} for e in range(1, epochs + 1)]


def write_run(folder, epochs=3):
    for name, lines in {"metrics": metrics(epochs), "architecture": history(epochs)}.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    save(load("darts_v2"), folder / "genotype.json")


@pytest.mark.parametrize("name", CELLS)
def test_nothing_overlaps_in_a_cell_and_every_edge_is_an_arrow(name):
    cell = CELLS[name]
    figure = draw.cell_figure(cell)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(boxes) == len(cell.edges) + 2 + cell.nodes + 1
    assert len(arrows) == len(cell.edges) + len(cell.output)
    for one, other in combinations(boxes, 2):
        assert not one.padded(2).overlaps(other)
    for box in boxes:
        assert axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
        assert axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1
    assert len(shapes := [patch for patch in axes.patches if patch not in arrows]) == len(boxes)
    labels = [True] * len(cell.edges) + [False] * len(cell.output)
    for arrow, label in zip(arrows, labels, strict=True):
        met = sum(crosses(arrow, shape.get_path().get_extents()) for shape in shapes)
        assert met == label  # its own label and nothing else


def crosses(arrow, box):
    """Whether an arrow comes into a box, but for its ends."""
    curve = arrow.get_path().transformed(Affine2D().scale(150))
    points = np.concatenate(curve.to_polygons(closed_only=False)[:1])
    points = Path(points).interpolated(8).vertices[8:-8] / 150
    inner = box.padded(-0.02)
    return any(inner.contains(*point) for point in points)


def test_cells_name_every_operation_and_node(tmp_path):
    cells = {"normal": LONG, "reduction": SHARED, "recurrent": SHORT}
    draw.cells(Genotype("mine", cells), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "normal.svg", "normal.png", "reduction.svg", "reduction.png"
    }  # fmt: skip
    for kind in ("normal", "reduction"):
        text = (tmp_path / f"{kind}.svg").read_text()
        for edge in cells[kind].edges:
            assert f">{edge.op}</text>" in text
        for node in range(cells[kind].nodes):
            assert f">{node}</text>" in text
        for name in ("c_{k-2}", "c_{k-1}", "c_{k}"):
            assert f"${name}$" in text


def test_a_fixed_cell_is_a_box_with_its_name(tmp_path):
    draw.cells(Genotype("mine", {"reduction": FixedCell("gdas_frc")}), tmp_path)
    assert ">gdas_frc</text>" in (tmp_path / "reduction.svg").read_text()


def test_run_draws_all_and_equal_runs_alike(tmp_path):
    pictures = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name)
        draw.run(tmp_path / name)
        pictures.append({p.name: p.read_bytes() for p in (tmp_path / name / "pictures").iterdir()})
    stems = ("curves", "architecture_normal", "architecture_reduction", "normal", "reduction")
    assert pictures[0].keys() == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    assert pictures[0] == pictures[1]
    grid = pictures[0]["architecture_normal.svg"].decode()
    assert all(f">{name}</text>" in grid for name in CANDIDATES)
    assert all(f">{i} \u2192 {j}</text>" in grid for j in (2, 3) for i in range(j))


def test_a_retraining_has_curves_only(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(metrics(1)[0]) + "\n")
    draw.run(tmp_path)
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {"curves.svg", "curves.png"}


def test_curves_with_gaps(tmp_path):
    lines = metrics(5)
    lines[0] |= {"valid_loss": None, "valid_top1": None}
    del lines[2]["valid_loss"], lines[2]["valid_top1"]
    lines[4]["test_top1"] = 80.0
    draw.curves(lines, tmp_path)
    text = (tmp_path / "curves.svg").read_text()
    assert all(f">{part}</text>" in text for part in ("train", "valid", "test"))


def test_values_between_gaps_are_alone():
    nan = float("nan")
    assert draw._alone(np.array([1, nan, 2, 3, nan, 4])) == [0, 5]


def test_architecture_of_one_epoch_without_edge_weights(tmp_path):
    draw.architecture(history(1, edge=False), tmp_path)
    assert "edge's weight" not in (tmp_path / "architecture_normal.svg").read_text()


def test_main_names_a_folder_that_is_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["draw", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        draw.main()
    assert stopped.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err
