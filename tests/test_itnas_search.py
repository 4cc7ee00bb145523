"""ITNAS as a command: its files and pictures, resuming, the rows of Table 2."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from builders import (
    calls_of,
    metrics_of,
)
from common.networks.genotype import load
from itnas import figures as own_figures
from itnas.config import PRESETS
from itnas.search import search
from itnas.supernet import ITNASSuperNet, triples
from picture_checks import legends_match_lines, luminance, nothing_overlaps

SEARCH = "itnas/search.py"
TINY = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
TINY += "--batch-size 32 --checkpoint-steps 1 --epochs 2 --cut-accuracy off".split()
OFF = ["--no-gumbel", "--no-transition", "--no-pruning"]
PICTURES = {f"{name}_{kind}" for name in ("transitions", "attention", "inner_edges")
            for kind in ("normal", "reduction")}  # fmt: skip


@pytest.mark.parametrize("flags", [OFF, OFF[1:], OFF[2:], OFF[:1]], ids=" ".join)
def test_the_rows_of_table_2(tmp_path, command, flags, monkeypatch):
    drawn, folder = [], tmp_path / "run"
    monkeypatch.setattr(own_figures, "run", drawn.append)
    status, _, err = command(SEARCH, *TINY, "--epochs", 1, *flags, "--output", folder)
    assert status == 0, err
    parts = {f"--no-{key}": key for key in ("gumbel", "transition", "pruning")}
    provenance = load(folder).provenance
    assert {name for name, key in parts.items() if not provenance[key]} == set(flags)
    assert ("tau" in metrics_of(folder)[0]) == ("--no-gumbel" not in flags)
    assert drawn == ([] if "--no-transition" in flags else [folder])
    line = json.loads((folder / "architecture.jsonl").read_text())
    assert ("P_normal" in line["parameters"]) == ("--no-transition" not in flags)


@pytest.mark.parametrize(("flags", "named"), [
    (["--no-transition"], "--no-pruning"),
    (["--preset", "imagenet"], "--preset"),
])  # fmt: skip
def test_bad_flags_are_refused_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *TINY, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in err and not (tmp_path / "run").exists()


def test_arch_step_on_validation_then_weight_step_on_training(tmp_path, monkeypatch):
    config = dataclasses.replace(PRESETS["digits"], output=str(tmp_path / "run"))
    calls = calls_of(search, config, monkeypatch, epochs=(0, 5))
    assert calls[:-1] == [
        ("arch_step", "valid", 5), ("weight_step", "train", 5), ("validate", 5),
        ("arch_step", "valid", 0.5), ("weight_step", "train", 0.5), ("validate", 0.5),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------- pictures


def history(epochs, nodes, scale=1.0):
    """Lines of architecture.jsonl whose parameters grow to random values."""
    torch.manual_seed(0)
    net, lines = ITNASSuperNet(channels=2, cells=3, nodes=nodes), []
    ends = [scale * torch.randn(p.shape) for p in net.arch_parameters()]
    for epoch in range(epochs):
        for p, end in zip(net.arch_parameters(), ends, strict=True):
            p.data = end * (epoch + 1) / epochs
        weights = {"op": net.mix("normal").op.tolist(), "edge": None, **net.recorded("normal")}
        lines.append({
            "epoch": epoch, "candidates": list(net.candidates), "edges": net.edges,
            "weights": {"normal": weights},
        })
    return lines


@pytest.mark.parametrize(("epochs", "nodes", "scale"), [(1, 3, 0.01), (50, 4, 3), (2, 2, 1)])
def test_pictures_show_the_recorded_values(epochs, nodes, scale):
    lines = history(epochs, nodes, scale)
    weights = lines[-1]["weights"]["normal"]
    of_edge = own_figures.by_edge(weights["triples"])
    assert sum(map(len, of_edge.values())) == len(triples(nodes))
    maps = own_figures.transitions_figure(lines[-1], "normal")
    attention = own_figures.attention_figure(lines, "normal")
    inner = own_figures.inner_edges_figure(lines[-1], "normal")
    for figure in (maps, attention, inner):
        nothing_overlaps(figure)
        for image in [image for axes in figure.axes for image in axes.images]:
            shades = image.cmap(image.norm(image.get_array())).reshape(-1, 4)
            assert min(luminance(shade[:3]) for shade in shades) > 0.1  # none is nearly black
    legends_match_lines(attention)
    legends_match_lines(inner)
    maps = [axes for axes in maps.axes if axes.images]
    entries = zip(maps, weights["triples"], weights["P"], weights["beta"], strict=True)
    for axes, (m, i, j), P, beta in entries:
        np.testing.assert_allclose(axes.images[0].get_array(), P, rtol=1e-6)
        title = axes.get_title()
        assert title.startswith(f"x{m} → x{i} → x{j} ") and title.endswith(f"{beta:.2f}")
    drawn = [line.get_ydata()[-1] for axes in attention.axes for line in axes.lines[:-1]]
    assert drawn == weights["beta"]
    for axes in attention.axes:  # equal ranges around the uniform attention, from 0 on
        *predecessors, uniform = axes.lines
        assert set(uniform.get_ydata()) == {1 / len(predecessors)}
        low, high = axes.get_ylim()
        first = attention.axes[0]
        half = first.get_ylim()[1] - first.lines[-1].get_ydata()[0]
        assert high - 1 / len(predecessors) == pytest.approx(half)
        assert low == pytest.approx(max(1 / len(predecessors) - half, 0))
        assert all(
            axes.get_ylim()[0] <= min(line.get_ydata()) for line in predecessors
        )
    Z = dict(zip(map(tuple, lines[-1]["edges"]), weights["op"], strict=True))
    rows = [axes for axes in inner.axes if axes.images]
    bars = [axes for axes in inner.axes if axes.patches]
    titles = {axes.get_title(): n for n, axes in enumerate(rows)}
    for i, j in of_edge:
        n = titles[f"x{i} → x{j}"]
        predecessors = [Z[m, i] for m in range(i)]
        np.testing.assert_allclose(rows[n].images[0].get_array(), predecessors, rtol=1e-6)
        tops = [bar.get_y() + bar.get_height() for bar in bars[n].patches[-7:]]
        assert tops == pytest.approx(Z[i, j], abs=1e-6)


def test_the_draw_command(tmp_path, command):
    def drawn(lines):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "architecture.jsonl").write_text(text)
        return command("itnas/draw.py", tmp_path)

    lines = history(2, 2)
    assert drawn(lines)[0] == 0
    normal = {name for name in PICTURES if name.endswith("normal")}
    found = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert found == {f"{name}.{end}" for name in normal for end in ("svg", "png")}
    for line in lines:
        del line["weights"]["normal"]["P"]
    for nothing in (lines, []):  # a search without transitions, and no epoch
        status, _, err = drawn(nothing)
        assert status == 2 and str(tmp_path) in err
