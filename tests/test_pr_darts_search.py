"""PR-DARTS as it is run: its commands, their files, resuming, pictures, its published cells."""

import dataclasses
import json

import pytest
import torch

from common.draw.search import architecture_figure, weights_by_name
from common.files import json_lines
from common.networks.complexity import SETTINGS, complexity
from common.networks.genotype import Genotype, load, parse, save
from common.networks.network import Network
from conftest import launch
from pr_darts.config import PRDARTSConfig, discoverable
from pr_darts.figures import after_the_last_pruning, cycles_figure
from pr_darts.figures import run as draw_cycles
from pr_darts.pools import Pool
from test_baselines import interrupt_after
from test_resume import figures, identical, last_checkpoint

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
    (2, "epoch 2, step 1"),  # between epochs of a cycle
    (4, "epoch 3, step 1"),  # a cycle is over, its pools have not changed
    (6, "epoch 3, step 3"),  # within the first epoch of the next
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
    assert figures(whole) == figures(resumed) and load(whole) == load(resumed)
    for name in ("architecture.jsonl", "genotypes.jsonl", "split.json"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    (name, state), (other_name, other) = last_checkpoint(whole), last_checkpoint(resumed)
    assert name == other_name and identical(state, other)


def test_what_a_search_leaves(finished):
    folder, output = finished
    lines = figures(folder)
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
    assert "of normal cells" in output

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


def test_a_found_cell_is_retrained(finished, tmp_path, command):
    status, _, err = command(
        "evaluate/train.py", "--preset", "digits", "--genotype", finished[0], "--channels", 4,
        "--cells", 3, "--epochs", 1, "--limit-images", 128, "--output", tmp_path / "trained",
    )  # fmt: skip
    assert status == 0, err


@pytest.mark.parametrize(("flags", "named"), [
    (["--space", "dx"], "--space"),
    (["--candidates", "max_pool_3x3", "skip_connect"], "no convolution, so nothing could be"),
    (["--candidates", "none", "sep_conv_3x3"], "--candidates none: unknown operation"),
    (["--candidates", "skip_connect", "sep_conv_3x3", "skip_connect"], "names an operation twice"),
    (["--candidates", "sep_conv_3x3(dilation 1, [2])"], "lies outside of --space dl"),
    (["--kept", "6", "1"], "--kept 2: give each as many numbers"),
    (["--kept", "9", "6", "2", "1"], "--kept 9 in cycle 1: there are 4 candidates and 3 new"),
    (["--grace-epochs", "2", "0", "0", "0"], "--grace-epochs 2 in cycle 1 of 2 epochs"),
    (["--epochs", "9"], "--epochs 9: the cycles have 6 in all; change --cycle-epochs"),
    (["--batch-max", "4"], "--batch-max 4: must be --batch-size 8 or more"),
    (["--batch-max", "72"], "--batch-max 72: a part of the 128 training images, 64"),
    (["--batch-max", "60"], "--batch-max 60: must be --batch-size 8 and a multiple of"),
    (["--batch-step", "0"], "--batch-step 0: must be 1 or more"),
    (["--memory-threshold", "1.2"], "--memory-threshold 1.2: must be 1 or less"),
    (["--cell-output", "sum"], "--cell-output"),
    (["--morphisms", "many"], "--morphisms"),
])  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(tmp_path, command, flags, named):
    status, _, err = command(SEARCH, *TINY, *flags, "--output", tmp_path / "run")
    assert status == 2 and named in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------------------- pictures


def test_figure_2_says_what_was_recorded(finished):
    metrics = [{**line, "seconds": 2.0} for line in figures(finished[0])]
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
        assert begun == [1.5, 3.5, 4.5, len(metrics) - 0.5]


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


def test_pictures_can_be_drawn_again_and_of_a_search_that_is_not_finished(
    finished, tmp_path, command
):
    lines = (finished[0] / "metrics.jsonl").read_text().splitlines(True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:3]))
    assert command("pr_darts/draw.py", tmp_path)[0] == 0
    pictures = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {"cycles"}
    before = (finished[0] / "pictures" / "cycles.svg").read_bytes()
    draw_cycles(finished[0])
    assert (finished[0] / "pictures" / "cycles.svg").read_bytes() == before


@pytest.mark.parametrize("text", [None, "", '{"epoch": 0, "train_top1": 1}\n'])
def test_pictures_of_another_run(tmp_path, command, text):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    status, _, err = command("pr_darts/draw.py", tmp_path)
    assert status == 2 and "holds no epoch of a PR-DARTS search" in err


def test_mixing_weights_of_pools_that_change(tmp_path):
    """Common's picture: gaps where an edge has no such candidate, families for many names."""
    edges = [(0, 2), (1, 2)]
    few = [
        {"epoch": 0, "edges": edges, "candidates": {"normal": [["skip_connect"], ["a", "b"]]},
         "weights": {"normal": {"op": [[1], [0.3, 0.7]], "edge": None}}},
        {"epoch": 1, "edges": edges, "candidates": {"normal": [["c", "a"], ["b"]]},
         "weights": {"normal": {"op": [[0.2, 0.8], [1]], "edge": None}}},
    ]  # fmt: skip
    names, op = weights_by_name(few, "normal")
    assert names == ["skip_connect", "a", "b", "c"]
    nan = float("nan")
    expected = [
        [[1, nan, nan, nan], [nan, 0.3, 0.7, nan]], [[nan, 0.8, nan, 0.2], [nan, nan, 1, nan]]
    ]
    torch.testing.assert_close(torch.tensor(op), torch.tensor(expected).double(), equal_nan=True)
    legend = architecture_figure(few, "normal").legends[0]
    assert [text.get_text() for text in legend.get_texts()] == names
    many = [f"sep_conv_{n}" for n in range(12)]
    line = {"epoch": 0, "edges": edges, "candidates": {"normal": [many, ["skip_connect"]]},
            "weights": {"normal": {"op": [[1 / 12] * 12, [1]], "edge": None}}}  # fmt: skip
    legend = architecture_figure([line], "normal").legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["sep_conv", "skip"]


# ------------------------------------------------------------------------------------- Table III


@pytest.mark.parametrize(("name", "printed", "mean"), [
    ("pr_darts_dl1", "3.2", 2.16), ("pr_darts_dl2", "4.0", 3.01), ("pr_darts_dr", "4.2", 3.24),
    ("pr_darts_ur", "5.4", 4.36),
])  # fmt: skip
def test_parameters_of_table_3(name, printed, mean):
    """And what they would be if a cell put out the mean of its nodes (III-A)."""
    genotype = load(name)
    counts = complexity(genotype, SETTINGS["cifar10"])
    assert f"{counts.params / 1e6:.1f}" == printed
    cells = {k: dataclasses.replace(cell, join="mean") for k, cell in genotype.cells.items()}
    averaged = complexity(Genotype("mean", cells), SETTINGS["cifar10"])
    assert round(averaged.params / 1e6, 2) == mean


def test_a_published_cell_is_retrained(tmp_path, command):
    status, _, err = command(
        "evaluate/train.py", "--preset", "digits", "--genotype", "pr_darts_ur", "--channels", 4,
        "--cells", 3, "--epochs", 1, "--limit-images", 128, "--output", tmp_path / "trained",
        pictures=True,
    )  # fmt: skip
    assert status == 0, err
    assert (tmp_path / "trained" / "pictures" / "normal.svg").exists()


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
    out = cell(s0, s1)
    torch.testing.assert_close(out, sum(seen.values()) / 4)  # every edge ends in one of four nodes
    data = json.loads((tmp_path / "mean.json").read_text())
    data["cells"]["normal"]["join"] = "sum"
    with pytest.raises(ValueError, match='"join" must be one of concat, mean'):
        parse(json.dumps(data))
