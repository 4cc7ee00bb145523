"""ITNAS as it is run: its commands, their files and pictures, resuming."""

import dataclasses
import json

import pytest
import torch
from matplotlib.colors import to_rgba

from common.data.datasets import load_train
from common.networks.genotype import CANDIDATES, load
from common.networks.network import Network
from common.training.bilevel import BilevelTrainer
from itnas import figures as own_figures
from itnas.config import PRESETS
from itnas.search import search
from itnas.supernet import ITNASSuperNet, triples
from picture_checks import nothing_overlaps
from test_baselines import interrupt_after
from test_resume import figures, identical, last_checkpoint

SEARCH = "itnas/search.py"
TINY = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
TINY += "--batch-size 32 --checkpoint-steps 1 --epochs 2 --cut-accuracy off".split()
OFF = ["--no-gumbel", "--no-transition", "--no-pruning"]
OWN = {f"{name}_{kind}" for name in ("transitions", "attention", "inner_edges")
       for kind in ("normal", "reduction")}  # fmt: skip


def test_a_search_resumed_within_an_epoch_ends_in_the_same_bits(tmp_path, command):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    flags = [*TINY, "--cut-accuracy", "batch"]
    status, out, err = command(SEARCH, *flags, "--output", whole)
    assert status == 0 and "normal cell" in out, err
    interrupt_after(3, lambda: command(SEARCH, *flags, "--output", resumed))
    with open(resumed / "architecture.jsonl", "a") as file:  # of an epoch begun twice
        file.write('{"epoch": 1, "weights": {}}\n')
    status, out, err = command(SEARCH, "--resume", resumed)
    assert status == 0 and "resuming at epoch 2, step 2" in out, err
    assert figures(whole) == figures(resumed) and load(whole) == load(resumed)
    (name, state), (other_name, other) = last_checkpoint(whole), last_checkpoint(resumed)
    assert name == other_name and identical(state, other)
    for file in ("architecture.jsonl", "genotypes.jsonl"):
        assert (whole / file).read_bytes() == (resumed / file).read_bytes()
    assert [line["tau"] for line in figures(whole)] == [5, 0.5]
    assert all(line["derived_top1"] is not None for line in figures(whole))
    parts = {"gumbel": True, "transition": True, "pruning": True}
    assert parts.items() <= load(whole).provenance.items()
    last = json.loads((whole / "architecture.jsonl").read_text().splitlines()[-1])
    recorded = last["weights"]["reduction"]
    assert len(recorded["P"]) == len(recorded["beta"]) == len(recorded["triples"]) == 2
    of_whole, of_resumed = (
        {path.stem: path.read_bytes() for path in (folder / "pictures").glob("*.svg")}
        for folder in (whole, resumed)
    )
    assert of_whole == of_resumed and of_whole.keys() == OWN
    Network(load(whole), channels=4, cells=3, classes=10)  # which evaluate/train.py trains


@pytest.mark.parametrize("flags", [OFF, OFF[1:], OFF[2:], OFF[:1]], ids=" ".join)
def test_the_rows_of_table_2(tmp_path, command, flags, monkeypatch):
    drawn, folder = [], tmp_path / "run"
    monkeypatch.setattr(own_figures, "run", drawn.append)
    status, _, err = command(SEARCH, *TINY, "--epochs", 1, *flags, "--output", folder)
    assert status == 0, err
    parts = {f"--no-{key}": key for key in ("gumbel", "transition", "pruning")}
    provenance = load(folder).provenance
    assert {name for name, key in parts.items() if not provenance[key]} == set(flags)
    assert ("tau" in figures(folder)[0]) == ("--no-gumbel" not in flags)
    assert drawn == ([] if "--no-transition" in flags else [folder])
    line = json.loads((folder / "architecture.jsonl").read_text())
    assert ("P_normal" in line["parameters"]) == ("--no-transition" not in flags)


def test_pruning_changes_what_is_read_off_and_nothing_that_is_trained(
    tmp_path, command, monkeypatch
):
    monkeypatch.setattr(own_figures, "run", lambda folder: None)
    states = []
    for flags in ([], ["--no-pruning"]):
        folder = tmp_path / f"run{len(flags)}"
        flags = [*TINY, "--cut-accuracy", "batch", *flags]
        assert command(SEARCH, *flags, "--output", folder)[0] == 0
        states.append(last_checkpoint(folder)[1])
    assert identical(*states)


def test_the_command_that_draws_a_run_again(tmp_path, command):
    def drawn(lines):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "architecture.jsonl").write_text(text)
        status, _, err = command("itnas/draw.py", tmp_path)
        if status != 0:
            return status, err
        return {path.name for path in (tmp_path / "pictures").iterdir()}

    of_normal = {name for name in OWN if name.endswith("normal")}
    lines = history(2, 2)
    assert drawn(lines) == {f"{name}.{end}" for name in of_normal for end in ("svg", "png")}
    for line in lines:
        del line["weights"]["normal"]["P"]
    for nothing in (lines, []):
        status, err = drawn(nothing)
        assert status == 2 and f"{tmp_path}: holds no epoch of an ITNAS search" in err


@pytest.mark.parametrize(("flags", "named"), [
    (["--no-transition"], "--no-transition: pruning (Algorithm 1) follows the transitions"),
    (["--nodes", "3"], "--nodes 3: such a cell has no inner edge"),
    (["--tau-min", "0"], "--tau-min 0"),
    (["--tau-max", "nan"], "--tau-max nan"),
    (["--no-gumbel", "--tau-max", "2"], "--tau-max 2.0: --no-gumbel has no temperature"),
    (["--preset", "imagenet"], "--preset"),
])  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *TINY, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_alpha_P_and_beta_by_validation_then_weights_by_training(tmp_path, monkeypatch):
    done = []
    for verb in ("arch_step", "weight_step"):
        monkeypatch.setattr(
            BilevelTrainer, verb,
            lambda self, half, tau, verb=verb: done.append((verb, half, tau)),
        )
    monkeypatch.setattr(BilevelTrainer, "validate", lambda self, tau: done.append(tau))
    monkeypatch.setattr(BilevelTrainer, "epochs", lambda self: iter([0, 5]))
    monkeypatch.setattr(BilevelTrainer, "batches", lambda self: iter([("train", "valid")]))
    monkeypatch.setattr(BilevelTrainer, "finish", lambda self, own_pictures: done.append("finish"))
    search(dataclasses.replace(PRESETS["digits"], output=str(tmp_path / "run")))
    assert done == [
        ("arch_step", "valid", 5), ("weight_step", "train", 5), 5,
        ("arch_step", "valid", 0.5), ("weight_step", "train", 0.5), 0.5, "finish",
    ]  # fmt: skip


def test_digits_take_enough_arch_steps():
    config = PRESETS["digits"]
    images = load_train("digits", "data", None)
    assert config.epochs * (len(images) // 2 // config.batch_size) >= 60


# ---------------------------------------------------------------------------------------- pictures


def history(epochs, nodes, scale=1.0):
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
def test_pictures_show_what_was_recorded_and_nothing_overlaps(epochs, nodes, scale):
    lines = history(epochs, nodes, scale)
    weights = lines[-1]["weights"]["normal"]
    of_edge = own_figures.by_edge(weights["triples"])
    assert sum(map(len, of_edge.values())) == len(triples(nodes))
    maps = own_figures.transitions_figure(lines[-1], "normal")
    attention = own_figures.attention_figure(lines, "normal")
    inner = own_figures.inner_edges_figure(lines[-1], "normal")
    for figure in (maps, attention, inner):
        nothing_overlaps(figure)
    matrices = [torch.tensor(axes.images[0].get_array()) for axes in maps.axes if axes.images]
    assert len(matrices) == len(triples(nodes))
    for matrix, recorded in zip(matrices, weights["P"], strict=True):
        torch.testing.assert_close(matrix.double(), torch.tensor(recorded).double())
    labels = [own_figures.short(name) for name in lines[-1]["candidates"]]
    grid = [axes for axes in maps.axes if axes.images]
    assert texts(grid[0].yaxis) == texts(grid[-1].xaxis) == labels
    assert maps.get_supxlabel() == "operation on the inner edge"  # the columns of P, Eq. 10
    assert maps.get_supylabel() == "operation on its predecessor"
    titles = [axes.get_title() for axes in maps.axes if axes.images]
    for title, (m, i, j), beta in zip(titles, weights["triples"], weights["beta"], strict=True):
        assert title.startswith(f"{m} → {i} → {j} ") and title.endswith(f"{beta:.2f}")
    for axes in attention.axes:
        count = len(axes.lines)
        assert [to_rgba(line.get_color()) for line in axes.lines] == colours(attention)[:count]
    drawn = [line.get_ydata()[-1] for axes in attention.axes for line in axes.lines]
    assert drawn == weights["beta"]
    Z = dict(zip(map(tuple, lines[-1]["edges"]), weights["op"], strict=True))
    rows = [axes for axes in inner.axes if axes.images]
    bars = [axes for axes in inner.axes if axes.patches]
    titles = {axes.get_title(): n for n, axes in enumerate(rows)}
    for i, j in of_edge:
        n = titles[f"{i} → {j}"]
        shown = torch.tensor(rows[n].images[0].get_array()).double()
        torch.testing.assert_close(shown, torch.tensor([Z[m, i] for m in range(i)]).double())
        assert texts(rows[n].yaxis) == [f"{m} → {i}" for m in range(i)]
        assert [bar.get_facecolor() for bar in bars[n].patches[::7]] == colours(inner)[:i]
        tops = [bar.get_y() + bar.get_height() for bar in bars[n].patches[-7:]]
        assert len(bars[n].patches) == 7 * i and tops == pytest.approx(Z[i, j], abs=1e-6)
    assert texts(bars[-1].xaxis) == labels


def texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def colours(figure):
    """Those of the legend, by m."""
    handles = figure.legends[0].get_lines()
    return [to_rgba(one.get_color()) for one in handles if one.get_label().startswith("from ")]


def test_operations_have_short_names():
    assert [own_figures.short(name) for name in CANDIDATES[1:]] == [
        "max", "avg", "skip", "sep 3", "sep 5", "dil 3", "dil 5"
    ]  # fmt: skip
    assert len({own_figures.source_colour(m) for m in range(9)}) == 9
