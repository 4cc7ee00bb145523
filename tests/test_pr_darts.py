"""PR-DARTS' supernet, table, batch rule and trainer."""

import dataclasses

import pytest
import torch

from common.data.images import Images
from common.data.split import Split
from common.errors import InputError
from common.networks.genotype import Edge
from common.run.folder import Run
from common.supernet.candidate import run
from pr_darts.config import PRESETS, PRDARTSConfig, discoverable
from pr_darts.cycles import check, cycles
from pr_darts.equation_form import EquationPRDARTS
from pr_darts.morphisms import SPACES, morphisms
from pr_darts.pools import Pool
from pr_darts.search import prune_and_morph
from pr_darts.supernet import PRDARTSSuperNet
from pr_darts.trainer import CycleTrainer
from test_pr_darts_morphisms import FIRST, conv

MAX, AVG, SKIP, CONV = FIRST
SMALL = {"channels": 4, "cells": 3, "nodes": 2, "classes": 3}
EDGES = 5
CONFIG = PRDARTSConfig(
    dataset="digits", cycle_epochs=(2, 1, 1), grace_epochs=(1, 0, 0), morphisms=(2, 0, 0),
    kept=(4, 2, 1), batch_size=4, batch_step=2, batch_max=10, channels=4, cells=3, nodes=4,
    crop_padding=1, learning_rate=0.1, arch_learning_rate=0.01,
).resolved()  # fmt: skip


def ragged_net(**how):
    """Pools of one to four candidates, alphas well apart."""
    torch.manual_seed(0)
    net = PRDARTSSuperNet(FIRST, **{**SMALL, **how}).double()
    pools = [(CONV,), (MAX, CONV), FIRST, (SKIP, CONV, conv(5, 2, 2)), (AVG, conv(3, 1, 1))]
    net.rebuild({kind: [Pool.first(p) for p in pools] for kind in net.kinds})
    for alpha in net.arch_parameters():
        alpha.data.normal_()
    return net, torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])


def make(folder, accelerator, config=CONFIG):
    torch.manual_seed(0)
    pixels = torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8)
    images = Images(pixels, torch.arange(50) % 3, ("a", "b", "c"), (0.5,) * 3, (0.3,) * 3)
    supernet = PRDARTSSuperNet(config.first(), **SMALL)
    return CycleTrainer(config, supernet, Run(folder, "t", accelerator), images,
                        Split.halves(50, 0))  # fmt: skip


def replace_once(net, seed=0, cycle=1):
    """A cycle's change: three of the pool survive, three are morphed."""
    cycle = cycles(PRDARTSConfig())[cycle]
    config = dataclasses.replace(CONFIG, space="ur", seed=seed)
    pools, parents = prune_and_morph(config, net, cycle)
    net.rebuild(pools, parents)
    return pools, parents


# --------------------------------------------------------------------------------------- Table I


def test_the_defaults_are_section_4_and_table_1():
    config = PRESETS["cifar10"].resolved()
    config.check()
    paper = {
        "dataset": "cifar10", "cells": 8, "channels": 16, "nodes": 6, "epochs": 100,
        "learning_rate": 0.025, "learning_rate_min": 0.01, "momentum": 0.9, "weight_decay": 3e-4,
        "arch_learning_rate": 6e-4, "arch_beta1": 0.5, "arch_beta2": 0.999,
        "arch_weight_decay": 1e-3, "grad_clip": 5.0, "batch_size": 24, "batch_step": 8,
        "batch_max": 128, "memory_threshold": 0.95, "crop_padding": 4, "flip": True, "space": "dl",
        "cell_output": "concat",
    }  # fmt: skip
    assert {key: getattr(config, key) for key in paper} == paper
    table = cycles(config)
    assert [cycle.end - cycle.start for cycle in table] == [15, 15, *[10] * 7]
    assert [cycle.grace for cycle in table] == [5, 5, *[3] * 7]
    assert [cycle.kept for cycle in table] == [6] * 5 + [4, 3, 2, 1]
    assert [cycle.survivors for cycle in table] == [3] * 5 + [4, 3, 2, 1]
    assert [cycle.start for cycle in table] == [0, *[cycle.end for cycle in table[:-1]]]
    assert [cycle.last for cycle in table] == [False] * 8 + [True]
    digits = PRESETS["digits"].resolved()
    digits.check()
    assert len(cycles(digits)) == 9 and digits.kept == config.kept
    assert digits.morphisms == config.morphisms and digits.nodes == 6


@pytest.mark.parametrize(("changes", "named"), [
    ({"kept": (6, 1)}, "--cycle-epochs 3, --grace-epochs 3, --morphisms 3, --kept 2: give each"),
    ({name: () for name in ("cycle_epochs", "grace_epochs", "morphisms", "kept")}, "give each"),
    ({"cycle_epochs": (2, 0, 1)}, "--cycle-epochs 0 in cycle 2: must be 1 or more"),
    ({"grace_epochs": (2, 0, 0)}, "--grace-epochs 2 in cycle 1 of 2 epochs"),
    ({"grace_epochs": (1, -1, 0)}, "--grace-epochs -1 in cycle 2"),
    ({"morphisms": (2, -1, 0)}, "--morphisms -1 in cycle 2: must be 0 or more"),
    ({"kept": (8, 2, 1)}, "--kept 8 in cycle 1: there are 4 candidates and 2 new"),
    ({"kept": (4, 5, 1)}, "--kept 5 in cycle 2: there are 4 candidates and 0 new"),
    ({"kept": (2, 2, 1)}, "--kept 2 in cycle 1, of which 2 by --morphisms are new: at least one"),
    ({"kept": (4, 2, 2)}, "--kept 2, --morphisms 0 in cycle 3, the last"),
    ({"kept": (4, 2, 0)}, "--kept 0, --morphisms 0 in cycle 3, the last"),
    ({"kept": (4, 1, 1)}, "--kept: 1 candidate is left to cycle 3, the last"),
    ({"morphisms": (50, 0, 0), "kept": (51, 2, 1)},
     "--kept 51 in cycle 1: by then the morphisms of --space have reached 7 operations"),
    ({"kept": (4, 2, 2), "morphisms": (2, 0, 1)}, "--kept 2, --morphisms 1 in cycle 3, the last"),
])  # fmt: skip
def test_tables_that_cannot_work(changes, named):
    with pytest.raises(InputError) as error:
        check(dataclasses.replace(CONFIG, **changes), FIRST, SPACES["dl"])
    assert named in str(error.value)


# ------------------------------------------------------------------------------------ the supernet


def equation_form(net):
    """The supernet as its equations are written, with the pools and weights of this one."""
    classes = net.classifier.out_features
    slow = EquationPRDARTS(
        FIRST, net.nodes, cell_output=net.cell_output, channels=net.places[0].channels,
        cells=len(net.cells), classes=classes,
    ).to(net.classifier.weight)
    slow.rebuild(net.pools)
    slow.load_state_dict(net.state_dict())
    return slow


@pytest.mark.parametrize("cell_output", ["concat", "mean"])
def test_the_mixture_over_ragged_pools(cell_output):
    net, images, labels = ragged_net(cell_output=cell_output)
    slow = equation_form(net)
    torch.testing.assert_close(net(images), slow(images), rtol=0, atol=1e-11)
    gradients = []
    for form in (net, slow):
        found = torch.autograd.grad(form.loss(images, labels)[0], list(form.parameters()))
        gradients.append(dict(zip(dict(form.named_parameters()), found, strict=True)))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=1e-11)
    for kind in net.kinds:
        op, absent = net.mix(kind).op, net.get_buffer(f"absent_{kind}")
        assert (op[absent] == 0).all() and (op[~absent] > 0).all()
        torch.testing.assert_close(op.sum(1), torch.ones(EDGES).double())
        assert [len(row) for row in net.weights(kind)] == [1, 2, 4, 3, 2]


def test_counts():
    net = PRDARTSSuperNet(FIRST)
    assert sum(p.numel() for p in net.arch_parameters()) == 112  # facts, section 7
    assert sum(p.numel() for p in net.weight_parameters()) == 402_938
    assert net.count() == 112 and net.concatenated() == {"normal": 4, "reduction": 4}


def test_derivation_of_ragged_pools():
    net, *_ = ragged_net()
    for alpha in net.arch_parameters():
        alpha.data.zero_()
        alpha.data[2, net.candidates.index(str(AVG))] = 2
        alpha.data[3, net.candidates.index(str(conv(5, 2, 2)))] = 9
        alpha.data[4, net.candidates.index(str(MAX))] = 99  # not in this edge's pool
    cell = net.derive()["normal"]
    assert cell.edges == (
        Edge(0, 2, CONV), Edge(1, 2, CONV), Edge(1, 3, conv(5, 2, 2)), Edge(0, 3, AVG)
    )  # fmt: skip
    assert cell.join == "concat"


def test_what_is_cut_does_not_run_and_what_is_left_is_the_same(monkeypatch):
    net, images, _ = ragged_net()
    cuts = {kind: net.mix(kind) for kind in net.kinds}
    for mix in cuts.values():
        kept = mix.op.argmax(1)
        mix.op.data.zero_()
        mix.op.data[range(EDGES), kept] = 1
    ran = []
    monkeypatch.setattr(
        "pr_darts.supernet.run", lambda *what: ran.append(1) or run(*what)
    )
    full = net(images, net.per_cell(cuts))
    assert len(ran) == 3 * 12
    ran.clear()
    with torch.no_grad():
        cut = net(images, net.per_cell(cuts))
    assert len(ran) == 3 * EDGES
    torch.testing.assert_close(cut, full.detach())


def test_rebuilding_keeps_survivors_and_lets_only_the_new_inherit(monkeypatch):
    net, images, _ = ragged_net()
    net(images)  # running statistics with a past
    given = []
    monkeypatch.setattr(
        "pr_darts.supernet.inherit", lambda child, parent: given.append((child, parent))
    )
    old = [{e: dict(cell.edges[e].items()) for e in cell.edges} for cell in net.cells]
    pools, parents = replace_once(net)
    assert sum(len(edge) for kind in parents.values() for edge in kind) > 20
    expected = 0
    for cell, place, before in zip(net.cells, net.places, old, strict=True):
        rows = zip(cell.edges.items(), pools[place.kind], parents[place.kind], strict=True)
        for (name, edge), pool, parent_of in rows:
            assert list(edge) == [str(op) for op in pool.candidates]
            for op in pool.candidates:
                if op in parent_of:
                    assert (edge[str(op)], before[name][str(parent_of[op])]) in given
                    expected += 1
                else:
                    assert edge[str(op)] is before[name][str(op)]
    assert len(given) == expected
    assert all((alpha == 0).all() for alpha in net.arch_parameters())
    given.clear()
    net.rebuild(pools, {kind: [{}] * EDGES for kind in net.kinds})  # a cycle without children
    assert not given


def test_a_child_keeps_its_own_training_at_later_rebuilds():
    """The authors' code copies the parent's weights over it again at every rebuild."""
    net, images, _ = ragged_net()
    replace_once(net)
    for weight in net.weight_parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    trained = {name: value.clone() for name, value in net.state_dict().items()}
    _, parents = replace_once(net, seed=1)
    children = {  # of this time; one of them may have been pruned just now
        f"cells.{n}.edges.{i}-{j}.{op}."
        for n, place in enumerate(net.places)
        for (i, j), edge in zip(net.edges, parents[place.kind], strict=True) for op in edge
    }  # fmt: skip
    after = net.state_dict()
    left = [name for name in trained if name in after and "alpha" not in name
            and not name.startswith(tuple(children))]  # fmt: skip
    assert len(left) > 100 and all(torch.equal(after[name], trained[name]) for name in left)


def test_a_pruned_one_that_comes_back_inherits_again():
    net, *_ = ragged_net()
    pools = {kind: [Pool.first((conv(3), conv(5)))] * EDGES for kind in net.kinds}
    net.rebuild(pools)
    pruned = {kind: [Pool((conv(3),), (conv(3), conv(5)))] * EDGES for kind in net.kinds}
    net.rebuild(pruned)
    net.rebuild(pools, {kind: [{conv(5): conv(3)}] * EDGES for kind in net.kinds})
    for cell in net.cells:
        for edge in cell.edges.values():
            parent, child = (edge[str(op)].units[0].depthwise.weight for op in (conv(3), conv(5)))
            assert torch.equal(child[..., 1:4, 1:4], parent)
            torch.testing.assert_close(child.square().sum(), parent.square().sum())


def test_pools_differ_from_edge_to_edge_and_are_functions_of_seed_and_cycle():
    nets = [ragged_net()[0] for _ in range(3)]
    first, second, third = (
        replace_once(net, seed)[0] for net, seed in zip(nets, (0, 0, 1), strict=True)
    )
    assert first == second != third
    assert replace_once(ragged_net()[0], cycle=2)[0] != first
    assert len({pool.candidates for pool in first["normal"]}) > 2
    torch.manual_seed(9)
    assert replace_once(ragged_net()[0])[0] == first


def test_the_worst_go_and_children_are_of_the_better_ones():
    """Of each edge of either kind by its own alphas (III-B.2)."""
    torch.manual_seed(0)
    first = (MAX, AVG, SKIP, CONV, conv(5), conv(7))
    net = PRDARTSSuperNet(first, **SMALL)
    worst, favoured = {}, {"normal": CONV, "reduction": conv(5)}
    for kind in net.kinds:
        alpha = net.arch[f"alpha_{kind}"].data
        for row in range(EDGES):
            worst[kind, row] = [first[(row + n + (kind == "normal")) % 3] for n in range(2)]
            for op in first:
                value = -9 if op in worst[kind, row] else 9 if op == favoured[kind] else 0
                alpha[row, net.candidates.index(str(op))] = value
    cycle = dataclasses.replace(cycles(PRDARTSConfig())[1], morphisms=2, kept=6)  # 4 survive
    config = dataclasses.replace(CONFIG, space="ur")
    pools, parents = prune_and_morph(config, net, cycle)
    bred = []
    for kind in net.kinds:
        for row, (pool, parent_of) in enumerate(zip(pools[kind], parents[kind], strict=True)):
            assert set(pool.candidates[:4]) == set(first) - set(worst[kind, row])
            bred += [parent == favoured[kind] for parent in parent_of.values()]
    assert len(bred) == 2 * 2 * EDGES and all(bred)  # e^9 to 1


def test_only_morphisms_of_the_space_appear():
    net, *_ = ragged_net()
    config = dataclasses.replace(CONFIG, space="dl")
    pools, parents = prune_and_morph(config, net, cycles(PRDARTSConfig())[0])
    assert {len(pool.candidates) for edges in pools.values() for pool in edges} <= {4, 5, 6}
    for edges in parents.values():
        for edge in edges:
            assert all(child in morphisms(op, SPACES["dl"]) for child, op in edge.items())


@pytest.mark.parametrize(("space", "count"), [("dl", 15), ("dr", 35), ("ur", 76)])
def test_discoverable_operations(space, count):
    assert len(discoverable(PRDARTSConfig(space=space))) == count


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf")])
def test_a_memory_size_that_is_none(size):
    with pytest.raises(InputError, match="--memory-gib .*: must be "):
        dataclasses.replace(CONFIG, memory_gib=size).check()
    dataclasses.replace(CONFIG, memory_gib=11).check()
