"""NAS-Bench-201's space: its networks, its strings, the searches in it, and the table."""

import dataclasses
import functools
import itertools
import json
import random
import statistics

import pytest
import torch
from torch.nn import functional as F

from builders import assert_refused, assert_same_run, assert_same_state, interrupt_after
from common.baselines import darts
from common.draw.cell import cells_figure
from common.errors import InputError
from common.networks.complexity import Setting, complexity
from common.networks.formats import topology_text
from common.networks.genotype import json_text, load, parse, save
from common.networks.nasbench201 import NASBENCH201
from common.networks.network import Network
from common.networks.table import HEADER, read_table
from common.run.cli import parse as parse_flags
from common.supernet.equation_form import EquationSuperNet
from common.supernet.measures import cuts
from common.supernet.supernet import SuperNet
from comparison.conduct import report_jobs
from comparison.planned import jobs_of
from comparison.settings import CompareConfig
from edas import config as edas
from edas.equation_form import EquationEDAS
from edas.supernet import EDASSuperNet
from gdas import config as gdas
from gdas.equation_form import EquationGDAS
from gdas.supernet import GDASSuperNet
from itnas import config as itnas
from itnas.equation_form import EquationITNAS
from itnas.supernet import ITNASSuperNet
from pc_darts import config as pc_darts
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import PCDARTSSuperNet
from pr_darts import config as pr_darts
from retraining import random_cells
from retraining.config import chosen_preset
from retraining.random_cells import random_genotype

CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
    "|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
)
CIFAR = Setting(classes=10, image_size=32, channels=16, cells=5)
FORMS = {
    "darts": (SuperNet, EquationSuperNet),
    "pc_darts": (PCDARTSSuperNet, EquationPCDARTS),
    "pc_darts_random": (functools.partial(PCDARTSSuperNet, mask="random"), EquationPCDARTS),
    "itnas": (ITNASSuperNet, EquationITNAS),
    "gdas": (GDASSuperNet, EquationGDAS),
    "edas": (EDASSuperNet, EquationEDAS),
}


def string_of(ops):
    a, b, c, d, e, f = ops
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


# --------------------------------------------------------------------------------- the networks


def test_networks_have_the_benchmarks_counts():
    skips = complexity(load(string_of(["skip_connect"] * 6)), CIFAR)
    assert skips.params == 73_306 and round(skips.multiply_adds / 1e6, 2) == 7.78
    found = complexity(load(CELL), CIFAR)
    assert found.params == 73_306 + 4 * 243_040 + 28_000 == 1_073_466
    assert round(found.multiply_adds / 1e6, 2) == 153.27
    every = complexity(load(string_of(["none", "avg_pool_3x3"] * 3)), CIFAR)
    assert every.params == 73_306  # neither has parameters


def test_a_cell_is_its_equation():
    """x_j = sum of operations on x_i < j; the last node is the output; residual blocks between."""
    torch.manual_seed(0)
    net = Network(load(CELL), channels=4, cells=1, classes=3).double().eval()
    x = torch.randn(2, 3, 8, 8).double()
    h = net.stem[1](F.conv2d(x, net.stem[0].weight, padding=1))
    for place, module in zip(net.places, net.cells, strict=True):
        if place.reduction:
            first, second = module.convolutions
            y = second(first(h))
            h = y + F.conv2d(F.avg_pool2d(h, 2), module.shortcut[1].weight)
            continue
        o = [edge[0] for edge in module.edges]
        x1 = o[0](h)
        x2 = o[1](h) + o[2](x1)
        h = h + o[4](x1) + o[5](x2)
        assert (o[4][1].kernel_size, o[5][1].kernel_size) == ((1, 1), (3, 3))
    norm, relu = net.head
    expected = net.classifier(relu(norm(h)).mean((2, 3)))
    torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-10)
    assert [place.kind for place in net.places] == ["cell", "residual"] * 2 + ["cell"]
    assert [place.channels for place in net.places] == [4, 8, 8, 16, 16]


# ---------------------------------------------------------------------------------- the strings


def test_strings_are_read_and_written(tmp_path, command):
    genotype = load(CELL)
    cells = genotype.to_json()["cells"]
    assert topology_text(cells) == CELL
    assert parse(json_text(genotype)).cells == genotype.cells  # the JSON form holds it
    (tmp_path / "cell.txt").write_text(CELL + "\n")
    assert load(tmp_path / "cell.txt").cells == genotype.cells
    status, out, err = command("evaluate/convert.py", tmp_path / "cell.txt", "--to", "nasbench201")
    assert (status, out.strip()) == (0, CELL), err
    _, _, err = command("evaluate/convert.py", "gdas", "--to", "nasbench201")
    assert "there is no cell of NAS-Bench-201 (normal, reduction only)" in err
    with pytest.raises(InputError, match=r"node 2 is '\|none~1\|none~0\|'; it must be"):
        load("|none~0|+|none~1|none~0|")
    with pytest.raises(InputError, match='cell: unknown operation "conv"'):
        load("|conv~0|")
    svg = cells_figure({"cell": genotype.cells["cell"]})._repr_svg_()
    assert svg.count("nor_conv_3x3") >= 4 and "c_{k-2}" not in svg


# ------------------------------------------------------------------------------------ the searches


def pair(method, **shape):
    nets = []
    for kind in FORMS[method]:
        torch.manual_seed(0)
        nets.append(kind(channels=12, cells=1, nodes=3, classes=3, space=NASBENCH201).double())
    fast, slow = nets
    for alpha in fast.arch_parameters():
        alpha.data.normal_()
    slow.load_state_dict(fast.state_dict())  # strict: their checkpoints have the same names
    return fast, slow


@pytest.mark.parametrize("method", [name for name in FORMS if name != "pc_darts_random"])
def test_searches_agree_with_their_equations(method):
    """Logits, gradients, statistics; odd and even sizes, and channels that are not 8 or 16."""
    told = {"sampled": (3,)} if method == "edas" else {}
    images, labels = torch.randn(3, 3, 10, 10).double(), torch.tensor([0, 1, 2])
    nets, logits = pair(method), []
    for net in nets:
        loss, out = net.loss(images, labels, net.mixes(torch.Generator().manual_seed(5), **told))
        loss.backward()
        logits.append(out)
        with torch.no_grad():
            for parameter in net.parameters():
                found = parameter.grad
                parameter.copy_(torch.zeros_like(parameter) if found is None else found)
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-10)
    states = [net.state_dict() for net in nets]
    assert_same_state(*states)
    assert any(value.abs().max() > 1e-6 for name, value in states[0].items() if "arch." in name)


@pytest.mark.parametrize("method", FORMS)
def test_derived_cells_keep_every_edge(method):
    net, _ = pair(method)
    cell = net.derive()["cell"]
    assert [(e.source, e.target) for e in cell.edges] == net.edges and cell.output == (3,)
    own = method in ("itnas", "edas")  # which have no `none` of their own (3.1, 4.1.1)
    assert list(net.candidates) == list(NASBENCH201.candidates)[own:]
    if not own:
        for name, alpha in net.arch.items():
            alpha.data[..., 0] += 99 * name.startswith("alpha")
        assert {edge.op.name for edge in net.derive()["cell"].edges} == {"none"}
    net(torch.randn(2, 3, 8, 8).double(), net.per_cell(cuts(net)["derived_top1"]))


def test_no_normalisation_follows_a_pool_in_a_search():
    names = SuperNet(channels=4, cells=1, nodes=3, space=NASBENCH201).state_dict()
    assert any("nor_conv_1x1" in name for name in names)
    assert not any("avg_pool" in name for name in names)


def test_pc_darts_weighs_the_inputs_of_each_node_and_itnas_has_three_outer_edges():
    weights = pair("pc_darts")[0].mix("cell").edge
    for node in (weights[:1], weights[1:3], weights[3:]):
        assert node.sum().item() == pytest.approx(1)
    net, _ = pair("itnas")
    assert net.arch["alpha_cell"].shape == (3, 4)
    assert net.triples() == [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]


@pytest.mark.parametrize("module", [darts, pc_darts, gdas, edas, itnas, random_cells])
def test_the_space_has_its_own_sizes(module):
    def sizes(*flags):
        config = parse_flags(module.PRESETS, module.METHOD, [*flags], "")
        return config.nodes, config.cells

    assert sizes("--space", "nasbench201") == (4, 5)
    if module is not edas:  # the flags are the same; each parse takes a while
        return
    assert sizes() == (6, 20)
    assert sizes("--space", "nasbench201", "--preset", "digits") == (4, 1)
    assert sizes("--space", "nasbench201", "--cells", "2") == (4, 2)
    for flags, message in [
        (["--space", "nasbench201", "--nodes", "6"], "--nodes 6: --space nasbench201 has 4"),
        (["--table", "x.csv"], "--table x.csv: only for --space nasbench201"),
        (["--cells", "2"], "--cells 2: use 3 or more"),
    ]:
        with pytest.raises(InputError, match=message):
            sizes(*flags)


def test_methods_that_do_not_fit_say_why():
    with pytest.raises(InputError, match="--space nasbench201: its cells have no separable"):
        parse_flags(pr_darts.PRESETS, "pr_darts", ["--space", "nasbench201"], "")
    with pytest.raises(InputError, match="--reduction fixed: --space nasbench201 has no reduction"):
        flags = ["--space", "nasbench201", "--reduction", "fixed"]
        parse_flags(gdas.PRESETS, "gdas", flags, "")


def test_random_cells_are_uniform_over_the_operations_of_each_edge():
    cells = [random_genotype(3, 0, n, NASBENCH201).cells["cell"] for n in range(500)]
    for edge in range(6):
        drawn = [cell.edges[edge].op.name for cell in cells]
        counts = [drawn.count(name) for name in NASBENCH201.candidates]
        assert sum(counts) == 500 and all(70 < count < 130 for count in counts)


# --------------------------------------------------------------------------------------- the table


@pytest.fixture(scope="module")
def lines():
    """A table of made-up accuracies."""
    draw = random.Random(0)
    cells = itertools.product(NASBENCH201.candidates, repeat=6)
    return [",".join(HEADER), *(
        f"{string_of(ops)},{draw.uniform(10, 94):.2f},{draw.uniform(1, 73):.2f},20" for ops in cells
    )]  # fmt: skip


@pytest.fixture(scope="module")
def table(lines, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_cell_has_its_accuracies_and_ranks(table, lines):
    found = read_table(str(table)).of(load(CELL))
    _, *numbers = next(line for line in lines if line.startswith(CELL)).split(",")
    assert [found[f"true_{name}"] for name in ("cifar10", "cifar100", "imagenet16_120")] == [
        float(number) for number in numbers
    ]
    values = [float(line.split(",")[1]) for line in lines[1:]]
    assert found["rank_cifar10"] == 1 + sum(value > found["true_cifar10"] for value in values)
    assert found["rank_imagenet16_120"] == 1  # all are tied


@pytest.mark.parametrize(("change", "message"), [
    (lambda lines: lines[:-1], r"lacks the cell \|avg_pool_3x3~0\|.*; it has 15624 of 15,625"),
    (lambda lines: ["a,b", *lines[1:]], "its first line must be architecture,cifar10_test_top1"),
    (lambda lines: [*lines[:2], lines[2] + "x", *lines[3:]], "line 3 must be a cell and 3"),
    (lambda lines: [lines[0], *(f"{x.split(',')[0]},.9,.7,.4" for x in lines[1:])], "not shares"),
    (lambda lines: [], "not a CSV file; its first line must be"),
])  # fmt: skip
def test_a_wrong_table_is_one_message(lines, tmp_path, change, message):
    (tmp_path / "t.csv").write_text("\n".join(change(lines)))
    with pytest.raises(InputError, match=f"^--table .*t.csv: .*{message}"):
        read_table(str(tmp_path / "t.csv"))
    with pytest.raises(InputError, match=r"--table .*none.csv: cannot be read"):
        read_table(str(tmp_path / "none.csv"))


def test_a_search_looks_its_cells_up_and_its_network_trains(table, tmp_path, command):
    flags = ["--preset", "digits", "--space", "nasbench201", "--channels", "4", "--threads", "1"]
    flags += ["--limit-images", "64", "--batch-size", "16", "--epochs", "2"]
    run = tmp_path / "run"
    result = command("gdas/search.py", *flags, "--table", tmp_path / "x", "--output", run)
    assert_refused(result, "--table", run)
    status, out, err = command("gdas/search.py", *flags, "--table", table, "--output", run)
    assert status == 0, err
    assert "\ncell\n  x1 = " in out
    known = read_table(str(table))
    read = [[json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
            for name in ("metrics", "genotypes")]  # fmt: skip
    for metrics, line in zip(*read, strict=True):
        genotype = parse(json.dumps(line["genotype"]))
        assert metrics | known.of(genotype) == metrics
    killed = tmp_path / "killed"
    flags += ["--table", table, "--checkpoint-steps", "1"]
    interrupt_after(4, lambda: command("gdas/search.py", *flags, "--output", killed))
    status, out, err = command("gdas/search.py", *flags, "--output", killed)
    assert status == 0 and "resuming at epoch 2, step 2" in out, out + err
    assert_same_run(run, killed)
    train = ["--genotype", run, "--channels", "4", "--cells", "1", "--epochs", "1"]
    status, _, err = command("evaluate/train.py", *train, "--limit-images", "64",
                             "--threads", "1", "--output", tmp_path / "trained")  # fmt: skip
    assert status == 0, err


def test_the_recipe_is_the_benchmarks():
    config = chosen_preset(["--genotype", CELL])["cifar10"]
    shown = {
        "recipe": "nasbench201", "channels": 16, "cells": 5, "epochs": 200, "batch_size": 256,
        "learning_rate": 0.1, "learning_rate_min": 0.0, "schedule": "cosine", "momentum": 0.9,
        "optimizer": "nesterov", "weight_decay": 5e-4, "grad_clip": 0.0, "drop_path": 0.0,
        "auxiliary_weight": 0.0, "cutout": 0, "crop_padding": 4, "flip": True,
    }  # fmt: skip
    found = dataclasses.asdict(config)
    assert {name: found[name] for name in shown} == shown


# ---------------------------------------------------------------------------------- the comparison


def test_a_comparison_shows_true_accuracies_beside_those_of_all_cells(
    table, tmp_path, capfd, command
):
    """Of run folders as searches write them; the last one has not finished."""
    config = CompareConfig(
        ("darts", "random"), output=str(tmp_path), seeds=2, preset="digits", search_epochs=2,
        space="nasbench201", table=str(table),
    )
    config.check()
    jobs = jobs_of(config, tmp_path)
    assert [job.name for job in jobs] == ["darts-0", "random-0", "darts-1", "random-1"]
    for job, module in zip(jobs, [darts, random_cells] * 2, strict=True):
        flags = parse_flags(module.PRESETS, module.METHOD, job.flags, "")
        assert (flags.space, flags.table, flags.cells) == ("nasbench201", str(table), 1)
    known, last = read_table(str(table)), {}
    for n, job in enumerate(jobs[:-1]):
        job.folder.mkdir(parents=True)
        cells = [random_genotype(3, n, k, NASBENCH201) for k in range(2)]
        last.setdefault(job.label, []).append(known.of(cells[-1])["true_cifar10"])
        method = "darts" if job.label == "darts" else "random_search"
        about = {"method": method, "seed": job.seed, "space": "nasbench201", "dataset": "digits"}
        (job.folder / "config.json").write_text(json.dumps(about))
        (job.folder / "result.json").write_text(json.dumps({"search_seconds": 5.0}))
        save(cells[-1], job.folder / "genotype.json")
        if job.label == "darts":
            lines = [{"epoch": e, "genotype": cell.to_json()} for e, cell in enumerate(cells, 1)]
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            (job.folder / "genotypes.jsonl").write_text(text)
    report_jobs(config, jobs, tmp_path)
    page = (tmp_path / "true_accuracy.md").read_text()
    assert page in capfd.readouterr().out
    cells = [line.split(" | ") for line in page.splitlines() if " | " in line]
    rows = {label: values for label, *values in cells}
    mean, sd = statistics.fmean(last["darts"]), statistics.stdev(last["darts"])
    assert rows["| darts"][0] == f"{mean:.2f} \u00b1 {sd:.2f} (2)"
    assert rows["| random"][0] == f"{last['random'][0]:.2f} (1)"
    top1 = [values[0] for values in known.top1.values()]
    exact = f"{statistics.fmean(top1):.2f} \u00b1 {statistics.pstdev(top1):.2f}"
    assert rows["| a random cell (exact)"][0] == exact
    assert rows["| the best cell of each"][0] == f"{max(top1):.2f}"
    assert "Left out: random, seed 1" in page and "nothing is retrained" in page
    lines = (tmp_path / "true_accuracy.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 + 2 + 1  # darts' epochs and ends, random's end
    assert (tmp_path / "true_accuracy.svg").is_file()

    runs = ["--runs", str(tmp_path), "--output", str(tmp_path / "again")]
    known = ["--space", "nasbench201", "--table", str(table)]
    assert command("evaluate/compare.py", *runs, *known)[0] == 0
    table_of = [line for line in page.splitlines() if line.startswith("| ")]
    again = (tmp_path / "again" / "true_accuracy.md").read_text()
    assert [line for line in again.splitlines() if line.startswith("| ")] == table_of
    refused = command("evaluate/compare.py", *runs)
    assert_refused(refused, "searched in the space nasbench201, not darts; .* --table FILE")


def test_a_cell_of_other_operations_has_no_known_accuracy(table):
    genotype = load(CELL)
    cell = parse(json_text(genotype).replace("nor_conv_1x1", "sep_conv_3x3"))
    with pytest.raises(InputError, match="--table: has no cell .*sep_conv_3x3"):
        read_table(str(table)).of(cell)


@pytest.mark.parametrize(("flags", "message"), [
    ({"space": "nasbench201"}, "--space nasbench201: add --table"),
    ({"table": "t.csv"}, "--table t.csv: only for --space nasbench201"),
    ({"space": "nasbench201", "table": "none.csv"}, "--table none.csv: cannot be read"),
    ({"space": "nasbench201", "table": "", "methods": ("gdas", "pr_darts")}, "pr_darts: cannot"),
    ({"space": "nasbench201", "table": "", "train_flags": "--epochs 1"}, "retrains nothing"),
])  # fmt: skip
def test_a_comparison_says_what_does_not_fit(table, tmp_path, flags, message):
    if flags.get("table") == "":
        flags = {**flags, "table": str(table)}
    with pytest.raises(InputError, match=message):
        CompareConfig(output=str(tmp_path / "new"), **flags).check()
    usual = CompareConfig(space="nasbench201", table=str(table)).names()
    assert usual == ["pc_darts", "gdas", "edas", "itnas", "darts", "darts2", "random"]
