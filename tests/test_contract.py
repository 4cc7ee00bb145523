"""What holds for every method: those of the papers, and two that are outside of this code.

Its fast form computes what its equations say; a killed search resumes to the same bits; its
architecture is drawn, derived, and read by a comparison. `distributed_checks.py` holds that
processes stay equal.
"""

import functools

import pytest
import torch
from torch import nn

from builders import (
    EDGES,
    FIRST,
    SEARCH,
    assert_same_run,
    assert_same_state,
    conv,
    drnas,
    interrupt_after,
    make_search_trainer,
    metrics_of,
)
from common.draw.cell import cells_figure
from common.draw.search import architecture_figure, measures_figure
from common.files import json_lines, json_object
from common.networks.genotype import OWN_OPS, FixedCell, Op, load
from common.networks.network import Network
from common.networks.ops import register
from common.supernet.equation_form import EquationSuperNet
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from common.training.equation_form import EquationTrainer
from comparison.run_folders import found, results_of
from edas.equation_form import EquationEDAS
from edas.supernet import EDASSuperNet
from fair_darts import FairSuperNet
from gdas.equation_form import EquationGDAS
from gdas.supernet import GDASSuperNet
from itnas.equation_form import EquationITNAS
from itnas.supernet import ITNASSuperNet
from pc_darts.equation_form import EquationPCDARTS
from pc_darts.supernet import PCDARTSSuperNet
from pr_darts.equation_form import EquationPRDARTS
from pr_darts.pools import Pool
from pr_darts.supernet import PRDARTSSuperNet

POOLS = [FIRST, (FIRST[3], conv(5, 2, 2)), FIRST[:3], (FIRST[1], conv(3, 2)), (conv(3, 2, 1, 1),)]
DrNASSuperNet = drnas()[1].DrNASSuperNet


class EquationDrNAS(EquationSuperNet, DrNASSuperNet):
    pass


class EquationFair(EquationSuperNet, FairSuperNet):
    pass


FORMS = {
    "darts": (SuperNet, EquationSuperNet),
    "pc_darts": (PCDARTSSuperNet, EquationPCDARTS),
    "itnas": (ITNASSuperNet, EquationITNAS),
    "gdas": (GDASSuperNet, EquationGDAS),
    "gdas_frc": tuple(functools.partial(k, "fixed") for k in (GDASSuperNet, EquationGDAS)),
    "edas": (EDASSuperNet, EquationEDAS),
    "pr_darts": tuple(functools.partial(k, FIRST) for k in (PRDARTSSuperNet, EquationPRDARTS)),
    "drnas": (DrNASSuperNet, EquationDrNAS),
    "fair_darts": (FairSuperNet, EquationFair),
}

OF_PAPERS = [method for method in FORMS if method not in ("drnas", "fair_darts")]


def pair(method, own=()):
    """Both forms with the same weights, and alphas well apart; sizes odd and even, C above 8.

    `own` operations are added to the candidates of every edge.
    """
    nets = []
    for kind in FORMS[method]:
        torch.manual_seed(0)
        shape = {"channels": 8 if method == "darts" else 12, "cells": 3, "nodes": 2, "classes": 3}
        if own and method != "pr_darts":
            names = kind.func.candidates if method == "gdas_frc" else kind.candidates
            shape["candidates"] = (*names, *own)
        net = kind(**shape).double()
        if method == "pr_darts":
            pools = [Pool.first((*pool, *map(Op, own))) for pool in POOLS]
            net.rebuild(dict.fromkeys(net.kinds, pools))
        nets.append(net)
    fast, slow = nets
    for alpha in fast.arch_parameters():
        alpha.data.normal_()
        if "gdas" in method:
            # Where all edges out of an input draw `none`, the input's weights have no gradient and
            # rest; the equation says 0, and momentum would move them.
            alpha.data[:, 0] = -9
    slow.load_state_dict(fast.state_dict())  # strict: their checkpoints have the same names
    return fast, slow


def mixes(method, net, seed):
    """Of a pass; methods that draw draw alike from one seed."""
    torch.manual_seed(seed)
    told = {"sampled": (3,)} if method == "edas" else {}
    return net.mixes(torch.Generator().manual_seed(seed), **told)


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        images = torch.randn(3, 3, 10, 10, generator=generator).double()
        yield images, torch.randint(3, (3,), generator=generator)


def check_one_pass(method, nets):
    """Logits, gradients and running statistics of both forms agree; returns the gradients."""
    batch, _ = batches()
    logits, states = [], []
    for net in nets:
        loss, out = net.loss(*batch, mixes(method, net, 5))
        loss.backward()
        with torch.no_grad():  # gradients, by the names of a checkpoint
            for parameter in net.parameters():
                here = parameter.grad
                parameter.copy_(torch.zeros_like(parameter) if here is None else here)
        logits.append(out)
        states.append(net.state_dict())
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-10)
    assert_same_state(*states)
    largest = {k: g.abs().max().item() for k, g in states[0].items() if "arch." in k}
    assert max(largest.values()) > 0
    for name, size in largest.items():  # GDAS' are 1e-4 and less, as temperature 10 divides them
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=1e-10 * size)
    return states[0]


@pytest.mark.parametrize("method", FORMS)
def test_logits_gradients_and_statistics_are_those_of_the_equations(method):
    check_one_pass(method, pair(method))


def convolution(channels, stride, affine):
    """A dense 3x3 convolution, without a special form."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


class Gate(nn.Module):
    """x sigmoid(convolution of x), with no normalisation, and parameters of its own."""

    def __init__(self, channels, stride, affine):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 1, stride)
        self.slope = nn.Parameter(torch.ones(()))
        self.stride = stride

    def forward(self, x):
        return self.slope * x[:, :, :: self.stride, :: self.stride] * self.convolution(x).sigmoid()


@pytest.fixture
def own():
    """Two operations that are not in this code, by name."""
    builders = {"full_conv_3x3": convolution, "gate": Gate}
    for name, builder in builders.items():
        register(name, builder)
    yield tuple(builders)
    for name in builders:
        del OWN_OPS[name]


@pytest.mark.parametrize("method", OF_PAPERS)
def test_own_operations_run_as_the_equations_say(method, own):
    nets = pair(method, own)
    for net in nets if method in ("gdas", "gdas_frc", "edas") else ():  # draw and take them often
        for alpha in net.arch_parameters():
            alpha.data[..., -2:] += 2
    gradients = check_one_pass(method, nets)
    for name in own:
        assert any(f".{name}." in key and g.abs().max() > 1e-4 for key, g in gradients.items())


@pytest.mark.parametrize("method", OF_PAPERS)
def test_iterations_with_own_operations_agree(method, own, tmp_path, accelerator):
    check_iterations(method, pair(method, own), tmp_path, accelerator, 3)


@pytest.mark.parametrize("method", FORMS)
def test_both_steps_run_in_bf16(method):
    net, _ = pair(method)
    net.float()
    (images, labels), _ = batches()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = net.loss(images.float(), labels, mixes(method, net, 0))
    gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    assert any(g is not None and g.abs().max() > 0 for g in gradients)


def check_iterations(method, nets, tmp_path, accelerator, number):
    """So many steps on alpha and as many on the weights end alike."""
    train, valid = batches()
    states = []
    given = {"sampled": (3,)} if method == "edas" else {}
    for net, kind in zip(nets, (BilevelTrainer, EquationTrainer), strict=True):
        trainer = make_search_trainer(tmp_path, accelerator, net, trainer=kind)
        for trainer.global_step in range(number):
            trainer.arch_step(valid, **given)
            trainer.weight_step(train, **given)
        states.append(net.state_dict())
    assert_same_state(*states)


@pytest.mark.parametrize("method", FORMS)
def test_ten_iterations_agree(method, tmp_path, accelerator):
    check_iterations(method, pair(method), tmp_path, accelerator, 10)


# ------------------------------------------------------------------------------------- its runs

TINY = "--preset digits --channels 4 --cells 3 --nodes 4 --limit-images 128".split()
TINY += "--batch-size 32 --checkpoint-steps 1 --epochs 2 --threads 1".split()
CYCLES = "--preset digits --channels 2 --cells 3 --nodes 4 --limit-images 64 --batch-size 8".split()
CYCLES += "--batch-step 8 --batch-max 16 --checkpoint-steps 1 --cycle-epochs 1 1".split()
CYCLES += "--grace-epochs 0 0 --morphisms 0 0 --kept 2 1 --threads 1".split()
DARTS, EDAS = (["common/baselines/darts.py"], ["edas/search.py"])
RUNS = {
    "darts": [*DARTS, *TINY, "--order", "1"],
    "darts, second order": [*DARTS, *TINY, "--order", "2"],
    "pc_darts": [SEARCH, *TINY, "--warmup-epochs", "1"],
    "gdas": ["gdas/search.py", *TINY],
    "gdas_frc": ["gdas/search.py", *TINY, "--reduction", "fixed"],
    "edas, alpha-max": [*EDAS, *TINY, "--variant", "alpha-max"],
    "edas": [*EDAS, *TINY, "--variant", "edas", "--candidates", "8"],
    "edas, inverted": [*EDAS, *TINY, "--variant", "edas-inv", "--inversion-epochs", "1"],
    "itnas": ["itnas/search.py", *TINY],
    "pr_darts": ["pr_darts/search.py", *CYCLES],
    "drnas": ["drnas.py", *TINY],
    "fair_darts": ["tests/fair_darts.py", *TINY, "--arch-learning-rate", "0.4"],
}
OWN_PICTURES = {
    "edas": {"alphas"}, "pr_darts": {"cycles"},
    "itnas": {f"{name}_{kind}" for name in ("transitions", "attention", "inner_edges")
              for kind in ("normal", "reduction")},
}  # fmt: skip
VARIANTS = ("edas, alpha-max", "edas, inverted")  # of a method that another run is of
ALL_DRAWN = ("gdas_frc", "drnas", "fair_darts")  # pictures take longer than these searches


def sampling_gdas(fixed, genotype, _, metrics):
    assert [line["tau"] for line in metrics] == [10, pytest.approx(0.1)]
    assert (genotype.cells["reduction"] == FixedCell("gdas_frc")) == fixed
    assert genotype.provenance["reduction"] == ("fixed" if fixed else "searched")
    return ("entropy_reduction" in metrics[0]) != fixed


def edges_of_edas(candidates, genotype, last, _):
    assert len(last["parameters"]) == 2 * EDGES
    alpha = torch.tensor(last["parameters"]["alpha_reduction_0-2"])
    recorded = torch.tensor(last["weights"]["reduction"]["op"][0])
    torch.testing.assert_close(recorded, alpha.softmax(0))  # +alpha, also with inversion
    return len(alpha) == candidates and "variant" in genotype.provenance


def transitions_of_itnas(_, last, metrics):
    assert [line["tau"] for line in metrics] == [5, 0.5]
    recorded = last["weights"]["reduction"]
    return len(recorded["P"]) == len(recorded["beta"]) == len(recorded["triples"]) == 2


def gates_of_fair_darts(genotype, last, metrics):
    assert all(line["entropy_normal"] is None for line in metrics)  # no distributions
    assert max(map(max, last["weights"]["normal"]["op"])) > 0.6
    return any(cell.zero for cell in genotype.cells.values())


RECORDED = {  # what else a method's run records
    "darts": lambda genotype, _, metrics: (
        genotype.provenance["order"] == 1 and metrics[0]["cut_statistics"] == "batch"
        and all(line["derived_top1"] is not None for line in metrics)
    ),
    "gdas": functools.partial(sampling_gdas, False),
    "gdas_frc": functools.partial(sampling_gdas, True),
    "edas, alpha-max": functools.partial(edges_of_edas, 7),
    "edas": functools.partial(edges_of_edas, 8),
    "edas, inverted": functools.partial(edges_of_edas, 7),
    "itnas": transitions_of_itnas,
    "fair_darts": gates_of_fair_darts,
}  # fmt: skip


def test_a_search_of_one_level(tmp_path, command):
    """DrNAS with both gradients of each batch, which all images are drawn for."""
    before, _, after = drnas()[0].partition(" " * 16 + "trainer.arch_step(valid)\n")
    file = tmp_path / "one_level.py"
    file.write_text(before + after.replace("weight_step", "joint_step"))
    status, _, err = command(file, *TINY, "--split", "shared", "--output", tmp_path / "run")
    assert status == 0, err
    split, genotype = json_object(tmp_path / "run" / "split.json"), load(tmp_path / "run")
    assert split["train"] == split["valid"] == list(range(128))
    assert genotype.provenance["images"] == 128 and genotype.provenance["split"] == "shared"
    first, last = json_lines(tmp_path / "run" / "architecture.jsonl")
    assert first["parameters"] != last["parameters"]


@pytest.mark.parametrize("method", [
    pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ()) for name in RUNS
])  # fmt: skip
def test_a_search_from_start_to_end_and_killed_on_the_way(method, tmp_path, command):
    script, *flags = RUNS[method]
    if script == "drnas.py":
        script = tmp_path / script
        script.write_text(drnas()[0])
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    drawn = method in ALL_DRAWN
    status, out, err = command(script, *flags, "--output", whole, pictures=drawn)
    assert status == 0 and "normal cell" in out and "note:" not in out, err
    interrupt_after(4, lambda: command(script, *flags, "--output", killed))
    with open(killed / "architecture.jsonl", "a") as file:  # of an epoch that runs again
        file.write('{"epoch": 1, "weights": {}}\n')
    status, out, err = command(script, "--resume", killed)
    assert status == 0 and "resuming at epoch 2, step" in out, err
    assert_same_run(whole, killed)
    for name in ("architecture.jsonl", "genotypes.jsonl", "split.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name

    genotype, history = load(whole), json_lines(whole / "architecture.jsonl")
    assert genotype.to_json() == json_lines(whole / "genotypes.jsonl")[-1]["genotype"]
    Network(genotype, channels=4, cells=3, classes=10)  # evaluate/train.py can train it
    cells_figure(genotype.cells)
    measures_figure(metrics_of(whole), history)
    for kind in history[-1]["weights"]:
        architecture_figure(history, kind)
    if drawn:
        lines = (whole / "pictures/architecture_normal.svg").read_text()
        assert ("uniform" in lines) == (method != "fair_darts")
        pictures = {path.stem for path in (whole / "pictures").iterdir()}
        kinds = ["normal"] if method == "gdas_frc" else ["normal", "reduction"]
        assert pictures == {"curves", "measures", "normal", "reduction"} | {
            f"{name}_{kind}" for name in ("architecture", "evolution") for kind in kinds
        }
    own = sorted((whole / "pictures").glob("*.svg"))
    for path in own if not drawn and method != "pr_darts" else ():  # which draws times
        assert path.read_bytes() == (killed / "pictures" / path.name).read_bytes()
    assert {path.stem for path in own} >= OWN_PICTURES.get(method.partition(",")[0], set())
    [result], _, _ = results_of(found([str(whole)])[0])
    assert result.failure == "no retraining of its cells with seed 2"
    assert RECORDED.get(method, lambda *_: True)(genotype, history[-1], metrics_of(whole))
