"""PR-DARTS as a command: files, resuming, pictures, published cells."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from matplotlib.legend import Legend

from builders import (
    assert_same_run,
    interrupt_after,
    last_checkpoint,
    launch,
    metrics_of,
)
from common.draw.search import architecture_figure
from common.files import json_lines
from common.networks.complexity import SETTINGS, complexity
from common.networks.genotype import Genotype, load, parse, save
from common.networks.network import Network
from picture_checks import legends_match_lines, nothing_overlaps
from pr_darts.config import PRDARTSConfig, discoverable
from pr_darts.figures import after_the_last_pruning, cycles_figure
from pr_darts.figures import run as draw_cycles
from pr_darts.pools import Pool

SEARCH = "pr_darts/search.py"
TINY = "--preset digits --channels 2 --cells 3 --nodes 4 --limit-images 128 --batch-size 8".split()
TINY += "--batch-step 8 --batch-max 32 --checkpoint-steps 1 --threads 1".split()
TINY += "--cycle-epochs 2 2 1 1 --grace-epochs 1 1 0 0 --morphisms 3 3 0 0 --kept 6 6 2 1".split()
BATCHES = [32, 32, 16, 16, 16, 32]  # of each epoch: 4, 6, 6 and 2 candidates an edge


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pr_darts") / "run"
    process = launch(SEARCH, *TINY, "--space", "ur", "--output", folder)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return folder, output


@pytest.mark.parametrize(("saves", "where"), [
    (3, "epoch 2, step 1"),  # between epochs of a cycle
    (6, "epoch 3, step 1"),  # after a cycle, before its pools change
    (8, "epoch 3, step 3"),  # within the first epoch of the next
], ids=["within a cycle", "after a cycle", "within an epoch"])  # fmt: skip
def test_resumed_it_ends_in_the_same_bits(
    finished, tmp_path, command, monkeypatch, saves, where
):
    whole, resumed = finished[0], tmp_path / "resumed"
    for module in ("common.draw.pictures", "pr_darts.figures"):  # slow, and tested elsewhere
        monkeypatch.setattr(f"{module}.run", lambda folder: None)
    interrupt_after(saves, lambda: command(SEARCH, *TINY, "--space", "ur", "--output", resumed))
    status, out, err = command(SEARCH, "--resume", resumed)
    assert status == 0 and f"resuming at {where}" in out, err
    assert_same_run(whole, resumed)
    for name in ("architecture.jsonl", "genotypes.jsonl", "split.json"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name


def test_the_files_of_a_search(finished):
    folder, output = finished
    lines = metrics_of(folder)
    assert [line["cycle"] for line in lines] == [1, 1, 2, 2, 3, 4]
    assert [line["batch_size"] for line in lines] == BATCHES
    assert [line["candidates_normal"] for line in lines][:2] == [20, 20]
    assert lines[2]["candidates_normal"] <= 30 and lines[5]["candidates_reduction"] == 10
    assert lines[0]["similarity_normal"] == pytest.approx(1 / 3)
    assert lines[0]["conv_share_normal"] == 0.25 and lines[0]["pool_share_reduction"] == 0.5
    rates = [line["learning_rate"] for line in lines]
    assert rates == pytest.approx([0.05, 0.035, 0.05, 0.035, 0.05, 0.05])
    found = [line["discovered_normal"] for line in lines]
    assert found == sorted(found) and 4 == found[0] < found[2] < found[4] == found[5]
    result = json.loads((folder / "result.json").read_text())
    assert result["discovered"]["normal"] == found[-1]
    config = PRDARTSConfig(space="ur", morphisms=(3, 3, 0, 0))
    assert result["discoverable"] == len(discoverable(config))
    assert output.count("cycle 2:") == 1 and "cycle 4:" in output

    history = [json.loads(line) for line in (folder / "architecture.jsonl").open()]
    for line in history:
        for kind, edges in line["candidates"].items():
            for names, weights in zip(edges, line["weights"][kind]["op"], strict=True):
                assert len(names) == len(weights) and sum(weights) == pytest.approx(1)
                assert any(name.startswith("sep_conv") for name in names)
    assert {w for row in history[0]["weights"]["normal"]["op"] for w in row} == {0.25}
    for number, line in enumerate(history):  # in each cycle alpha moves, but for grace epochs
        rests = number in (0, 2)
        assert all((len(set(row)) == 1) == rests for row in line["weights"]["normal"]["op"])
        for name, rows in line["parameters"].items():
            op = line["weights"][name.removeprefix("alpha_")]["op"]
            for alpha, row in zip(rows, op, strict=True):
                assert torch.tensor(alpha).softmax(0).tolist() == pytest.approx(row)

    state = last_checkpoint(folder)[1]
    assert state["cycle"] == 4 and state["batch_size"] == 32
    for kind, pools in state["pools"].items():
        cell = load(folder).cells[kind]
        of_edge = dict(zip([(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)], pools, strict=True))
        for edge in cell.edges:
            assert edge.op in Pool.from_json(of_edge[edge.source, edge.target]).candidates
    assert load(folder).provenance["space"] == "ur"
    pictures = {path.stem for path in (folder / "pictures").iterdir()}
    assert {"normal", "reduction", "curves", "measures", "architecture_normal"} <= pictures
    assert "cycles" in pictures


@pytest.mark.parametrize("genotype", [None, "pr_darts_ur"], ids=["found", "published"])
def test_cells_can_be_retrained(finished, tmp_path, command, genotype):
    status, _, err = command(
        "evaluate/train.py", "--preset", "digits", "--genotype", genotype or finished[0],
        "--channels", 4, "--cells", 3, "--epochs", 1, "--limit-images", 128,
        "--output", tmp_path / "trained", pictures=genotype is not None,
    )  # fmt: skip
    assert status == 0, err
    assert (tmp_path / "trained/pictures/normal.svg").exists() == (genotype is not None)


@pytest.mark.parametrize(("flags", "named"), [
    (["--space", "dx"], "--space"),
    (["--candidates", "max_pool_3x3", "skip_connect"], "--candidates max_pool_3x3 skip_connect"),
    (["--candidates", "none", "sep_conv_3x3"], "--candidates none"),
    (["--candidates", "skip_connect", "sep_conv_3x3", "skip_connect"], "--candidates skip_connect"),
    (["--candidates", "sep_conv_3x3(dilation 1, [2])"], "--space dl"),
    (["--kept", "6", "1"], "--kept 2"),
    (["--epochs", "9"], "change --cycle-epochs"),
    (["--batch-max", "4"], "--batch-max 4: must be --batch-size 8 or more"),
    (["--batch-max", "72"], "--batch-max 72"),
    (["--batch-max", "60"], "--batch-step 8"),
])  # fmt: skip
def test_bad_flags_are_refused_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *TINY, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------------------- pictures


def test_figure_2_shows_the_recorded_values(finished):
    metrics = [{**line, "seconds": 2.0} for line in metrics_of(finished[0])]
    last = after_the_last_pruning(json_lines(finished[0] / "architecture.jsonl")[-1])
    figure = cycles_figure(metrics, last)
    accuracy, rate, batch, time, similar, normal, reduction = figure.axes  # seven panels
    assert batch.lines[0].get_ydata().tolist() == BATCHES
    assert accuracy.lines[1].get_ydata().tolist() == [line["valid_top1"] for line in metrics]
    rates = [line["learning_rate"] for line in metrics]
    assert rate.lines[0].get_ydata().tolist() == rates and set(time.lines[0].get_ydata()) == {2}
    assert similar.lines[0].get_ydata()[0] == pytest.approx(1 / 3)
    for axes in (normal, reduction):
        assert [line.get_ydata()[0] for line in axes.lines[:3]] == [25, 50, 25]
        begun = [line.get_xdata()[0] for line in axes.lines[3:]]
        assert begun == [2.5, 4.5, 5.5, len(metrics) + 0.5]


def test_after_the_last_pruning_each_edge_has_its_best_candidate(finished):
    line = json_lines(finished[0] / "architecture.jsonl")[-1]
    last = after_the_last_pruning(line)
    for kind, cell in load(finished[0]).cells.items():
        assert last[f"similarity_{kind}"] == 1
        shares = [last[f"{name}_share_{kind}"] for name in ("conv", "pool", "skip")]
        edges = len(line["candidates"][kind])
        assert sum(shares) == pytest.approx(1)
        skips = sum(edge.op.name == "skip_connect" for edge in cell.edges)
        assert edges * shares[2] >= skips  # the cell's edges are some of them


def test_the_draw_command_also_draws_unfinished_searches(finished, tmp_path, command):
    lines = (finished[0] / "metrics.jsonl").read_text().splitlines(True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:3]))
    assert command("pr_darts/draw.py", tmp_path)[0] == 0
    pictures = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {"cycles"}
    before = (finished[0] / "pictures" / "cycles.svg").read_bytes()
    draw_cycles(finished[0])
    assert (finished[0] / "pictures" / "cycles.svg").read_bytes() == before


@pytest.mark.parametrize("text", [None, "", '{"epoch": 0, "train_top1": 1}\n'])
def test_the_draw_command_refuses_other_runs(tmp_path, command, text):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    status, _, err = command("pr_darts/draw.py", tmp_path)
    assert status == 2 and str(tmp_path) in err


def test_the_architecture_picture_of_changing_pools():
    """Weights are multiples of the uniform one; the legend has each name or, of many, families."""
    lines = [
        {"epoch": epoch, "edges": [(0, 2), (1, 2)], "candidates": {"normal": names},
         "weights": {"normal": {"op": [[1 / len(row)] * len(row) for row in names], "edge": None}}}
        for epoch, names in enumerate([
            [["skip_connect"], ["a", "b"]], [["c", "a"], ["b"]],
            [[f"sep_conv_{n}" for n in range(12)], ["skip_connect"]],
        ])
    ]  # fmt: skip
    for shown, names in ((lines[:2], ["skip_connect", "a", "b", "c"]),
                         (lines[2:], ["sep_conv", "skip"])):  # fmt: skip
        figure = architecture_figure(shown, "normal")
        nothing_overlaps(figure)
        assert legend_names(figure)[:-1] == names and "uniform" in legend_names(figure)[-1]


def test_lines_are_broken_where_a_pool_changes():
    pools = [["skip_connect", "max_pool_3x3"], ["skip_connect", "max_pool_3x3", "avg_pool_3x3"]]
    op = [[0.5, 0.5], [0.6, 0.4], [1 / 3, 1 / 3, 1 / 3], [0.3, 0.3, 0.4]]
    lines = [
        {"epoch": n + 1, "edges": [(0, 2), (1, 2)], "candidates": {"normal": [pools[n // 2]] * 2},
         "weights": {"normal": {"op": [op[n]] * 2, "edge": None}}} for n in range(4)
    ]  # fmt: skip
    figure = architecture_figure(lines, "normal")
    nothing_overlaps(figure)
    legends_match_lines(figure)
    begun, skip, max_pool, avg_pool, uniform = figure.axes[0].lines
    assert set(begun.get_xdata()) == {2.5} and set(uniform.get_ydata()) == {1}
    for line, values in ((skip, [1, 1.2, None, 1, 0.9]), (max_pool, [1, 0.8, None, 1, 0.9]),
                         (avg_pool, [None, None, None, 1, 1.2])):  # fmt: skip
        assert line.get_xdata().tolist() == [1, 2, 2.5, 3, 4]
        np.testing.assert_allclose(line.get_ydata(), np.array(values, float))


def test_shapes_of_many_candidates_share_a_line_look():
    names = [f"sep_conv_{k}x{k}(dilation {d}, [{e}])" for k in (3, 5) for d in (1, 2)
             for e in ("", "1", "2")]  # fmt: skip
    line = {"epoch": 1, "edges": [(0, 2)], "candidates": {"normal": [names]},
            "weights": {"normal": {"op": [[1 / 12] * 12], "edge": None}}}  # fmt: skip
    figure = architecture_figure([line], "normal")
    legends_match_lines(figure)
    assert legend_names(figure) == ["sep_conv_3x3", "sep_conv_5x5", "uniform (1/12)"]


def legend_names(figure):
    return [text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()]


# ------------------------------------------------------------------------------------- Table III


@pytest.mark.parametrize(("name", "printed", "mean"), [
    ("pr_darts_dl1", "3.2", 2.16), ("pr_darts_dl2", "4.0", 3.01), ("pr_darts_dr", "4.2", 3.24),
    ("pr_darts_ur", "5.4", 4.36),
])  # fmt: skip
def test_parameters_of_table_3(name, printed, mean):
    """With concatenated nodes; and the counts that averaged nodes would give (III-A)."""
    genotype = load(name)
    counts = complexity(genotype, SETTINGS["cifar10"])
    assert f"{counts.params / 1e6:.1f}" == printed
    cells = {k: dataclasses.replace(cell, join="mean") for k, cell in genotype.cells.items()}
    averaged = complexity(Genotype("mean", cells), SETTINGS["cifar10"])
    assert round(averaged.params / 1e6, 2) == mean


def test_a_cell_that_averages_its_nodes(tmp_path):
    genotype = load("pr_darts_dl1")
    cells = {k: dataclasses.replace(cell, join="mean") for k, cell in genotype.cells.items()}
    save(Genotype("mean", cells), tmp_path / "mean.json")
    again = load(tmp_path / "mean.json")
    assert again.cells == cells
    torch.manual_seed(0)
    network = Network(again, 4, 3, 3).eval()
    cell, seen = network.cells[0], {}
    for n, module in enumerate(cell.edges):
        module.register_forward_hook(lambda m, i, o, n=n: seen.setdefault(n, o))
    s0, s1 = network.stem(torch.randn(2, 3, 8, 8))
    out = cell(s0.relu(), s1.relu())
    torch.testing.assert_close(out, sum(seen.values()) / 4)  # every edge ends in one of four nodes
    data = json.loads((tmp_path / "mean.json").read_text())
    data["cells"]["normal"]["join"] = "sum"
    with pytest.raises(ValueError, match="join.*concat, mean"):
        parse(json.dumps(data))
