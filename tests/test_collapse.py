"""Detection of collapse: the Hessian's dominant eigenvalue, skips, and the rules that stop."""

import dataclasses
import json

import pytest
import torch
from torch.nn import functional as F

from builders import SEARCH_CONFIG, make_search_trainer, snapshot, unchanged
from common.errors import InputError
from common.networks.genotype import Cell, Edge, FixedCell, Op, cell_from_pairs, load
from common.supernet.supernet import SuperNet
from common.training.collapse import dominated_by_skips, epoch_before, verdict
from common.training.hessian import dominant_eigenvalue
from edas.supernet import EDASSuperNet
from gdas.supernet import GDASSuperNet
from itnas.supernet import ITNASSuperNet
from pc_darts.supernet import PCDARTSSuperNet


def full_hessian(loss_at, parameter, step=1e-6):
    """Column by column, by differences of first derivatives: autograd's second is not trusted."""
    start = parameter.detach().clone()

    def gradient(point):
        parameter.data.copy_(point.view_as(parameter))
        return torch.autograd.grad(loss_at(), parameter)[0].flatten()

    units = step * torch.eye(start.numel()).to(start)
    columns = [gradient(start.flatten() + e) - gradient(start.flatten() - e) for e in units]
    parameter.data.copy_(start)
    return torch.stack(columns) / (2 * step)


def test_eigenvalue_of_a_known_matrix():
    x, y = (torch.nn.Parameter(torch.ones(n, dtype=torch.float64)) for n in (2, 1))
    unused = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    loss = (x[0] ** 2 - 5 * x[1] ** 2 + x[0] * y[0]) / 2 + y[0]
    # [[1, 0, .5], [0, -5, 0], [.5, 0, 0]]: the largest by magnitude is negative
    assert dominant_eigenvalue(loss, [x, y, unused], seed=0) == pytest.approx(-5, rel=1e-3)
    assert dominant_eigenvalue(x.sum(), [x, unused], seed=0) == 0


@pytest.mark.parametrize("seed", range(4))
def test_eigenvalues_of_opposite_sign_do_not_cancel(seed):
    x = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    loss = (x * x * torch.tensor([2.0, -1.99, 0.1])).sum() / 2
    assert abs(dominant_eigenvalue(loss, [x], seed)) == pytest.approx(2, rel=1e-2)


@pytest.mark.parametrize("kind", [SuperNet, PCDARTSSuperNet])
def test_eigenvalue_is_that_of_the_full_hessian(kind):
    torch.manual_seed(0)
    net = kind(channels=4, cells=3, nodes=1, classes=3).double()
    for p in net.arch.values():
        p.data.copy_(torch.randn_like(p))
    images, labels = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    alpha = net.arch["alpha_normal"]  # [2, 8]

    def loss():
        return F.cross_entropy(net(images, mixes=net.relaxed()), labels)

    values = torch.linalg.eigvalsh(full_hessian(loss, alpha))
    expected = max(values.tolist(), key=abs)
    assert abs(expected) > 1e-4
    assert dominant_eigenvalue(loss(), [alpha], seed=1) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("kind", [GDASSuperNet, EDASSuperNet, ITNASSuperNet])
def test_relaxed_sampling_methods_mix_every_candidate(kind):
    torch.manual_seed(0)
    net = kind(channels=4, cells=3, nodes=2, classes=3)
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(net(images, mixes=net.relaxed()), net(images, mixes=net.relaxed()))
    loss = net(images, mixes=net.relaxed()).square().sum()
    gradients = torch.autograd.grad(loss, net.arch_parameters())
    assert all((gradient != 0).any() for gradient in gradients)


def test_recorded_when_asked_for_and_nothing_else_changes(tmp_path, accelerator):
    config = dataclasses.replace(SEARCH_CONFIG, hessian=True)
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet, config=config)
    before = snapshot([*trainer.supernet.parameters(), *trainer.supernet.buffers()])
    assert trainer.held_out_metrics()["hessian_eigenvalue"] != 0
    assert unchanged([*trainer.supernet.parameters(), *trainer.supernet.buffers()], before)
    assert all(p.requires_grad for p in trainer.supernet.parameters())
    trainer.config = SEARCH_CONFIG
    assert trainer.held_out_metrics()["hessian_eigenvalue"] is None


def test_half_of_its_edges_dominate_a_cell():
    pairs = [("skip_connect", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1)]
    assert dominated_by_skips(cell_from_pairs(pairs))
    assert not dominated_by_skips(cell_from_pairs(pairs[1:] + pairs[2:3]))
    assert not dominated_by_skips(FixedCell("gdas_frc"))
    few = dataclasses.replace(cell_from_pairs(pairs), output=(2, 3, 4, 5))  # two nodes are zero
    assert dominated_by_skips(few) and not dominated_by_skips(dataclasses.replace(few, edges=()))


def test_rules():
    pairs = [("skip_connect", 0), ("skip_connect", 1)] + [("sep_conv_3x3", 0)] * 2
    skips, convolutions = cell_from_pairs(pairs), cell_from_pairs(pairs[::-1][:2] * 2)
    assert epoch_before("skips", [{}] * 4, convolutions) is None
    assert epoch_before("skips", [{}] * 4, skips) == 2
    assert epoch_before("skips", [{}], skips) == 0
    assert epoch_before("skips", [], None) is None
    flat = [{"hessian_eigenvalue": -1.0}] * 8
    assert epoch_before("eigenvalue", flat, skips) is None
    # the mean of the last five was 1 five epochs ago and is 1.4 now
    risen = [*flat, {"hessian_eigenvalue": 3.0}]
    assert epoch_before("eigenvalue", risen, skips) == 3
    assert epoch_before("eigenvalue", [*flat, {"hessian_eigenvalue": 2.6}], skips) is None
    assert epoch_before("off", risen, skips) is None


def test_eigenvalue_rule_needs_the_eigenvalue():
    with pytest.raises(InputError, match="--stop-on-collapse eigenvalue.*--hessian"):
        dataclasses.replace(SEARCH_CONFIG, stop_on_collapse="eigenvalue").check()


DARTS = "common/baselines/darts.py"
TINY = "--preset digits --epochs 4 --channels 4 --cells 3 --limit-images 40 --batch-size 20".split()
TINY += ["--nodes", "3", "--cut-accuracy", "off", "--threads", "1", "--arch-learning-rate", "3"]


def test_a_stopped_search_keeps_earlier_cells_and_resumes_the_same(command, tmp_path, monkeypatch):
    """The rule fires after the third epoch, with and without a resume."""
    import common.training.bilevel

    monkeypatch.setattr(
        common.training.bilevel, "epoch_before",
        lambda rule, lines, *_: 1 if len(lines) == 3 else None,
    )
    flags = [*TINY, "--stop-on-collapse", "skips", "--output", tmp_path / "run"]
    status, out, _ = command(DARTS, *flags)
    assert status == 0 and "the cells are those after epoch 2" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["epochs"] == 3 and result["cells_of_epoch"] == 2 and result["collapsed"]
    lines = (tmp_path / "run" / "genotypes.jsonl").read_text().splitlines()
    cells = load(tmp_path / "run").to_json()["cells"]
    assert cells == json.loads(lines[1])["genotype"]["cells"]
    assert len({line[line.index("cells") : line.index("provenance")] for line in lines}) > 1

    (tmp_path / "run" / "result.json").unlink()  # killed at the last moment
    status, out, _ = command(DARTS, "--resume", tmp_path / "run")
    assert status == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result


def test_pr_darts_refuses_to_stop(command):
    flags = ["--preset", "digits", "--stop-on-collapse", "skips"]
    status, _, err = command("pr_darts/search.py", *flags)
    assert status == 2 and "--stop-on-collapse skips" in err


# ---------------------------------------------------------------------------------------- verdicts


def verdict_of(ops, weights):
    cell = cell_from_pairs([(name, k % 2) for k, name in enumerate(ops)])
    return verdict("normal", cell, weights)


MIXED = ["sep_conv_3x3", "skip_connect", "dil_conv_3x3", "max_pool_3x3"] * 2


def test_a_verdict_gives_entropy_and_the_largest_weight():
    decided, uniform = [0.9, *[0.1 / 7] * 7], [1 / 8] * 8
    (line,) = verdict_of(MIXED, [decided] * 14)
    assert "entropy 0.52" in line and "2.08" in line and "0.90" in line
    lines = verdict_of(MIXED, [uniform] * 14)
    assert len(lines) == 2 and lines[1].startswith("warning: the normal cell is nearly undecided")
    (line,) = verdict_of(MIXED, [[1.0]] * 14)  # PR-DARTS' last pools
    assert "decided" in line


def test_a_verdict_says_no_more_than_is_true_of_gates_and_zeros():
    """Gates are no distribution, so they have no entropy; nodes without edges are named."""
    cell = Cell(2, (Edge(0, 3, Op("sep_conv_3x3")),), (2, 3, 4))
    assert verdict("normal", cell, [[0.5, 0.125], [0.75, 0.5]]) == [
        "normal cell: candidates' weights 0.12 to 0.75",
        "warning: nodes of the normal cell without edges, which are zero: x2, x4",
    ]


@pytest.mark.parametrize(("name", "said"), [
    ("skip_connect", "skip connections"), ("max_pool_3x3", "pools"), ("avg_pool_3x3", "pools"),
])  # fmt: skip
def test_a_verdict_warns_of_skips_and_pools(name, said):
    weights = [[0.9, *[0.1 / 7] * 7]] * 14
    half = [name] * 4 + ["sep_conv_3x3"] * 4
    assert verdict_of(half, weights)[1:] == [f"warning: {said} dominate the normal cell"]
    assert len(verdict_of(half[1:] + ["sep_conv_5x5"], weights)) == 1
