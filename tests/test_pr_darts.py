"""PR-DARTS' supernet, table, batch rule and trainer."""

import dataclasses

import pytest
import torch

from builders import CYCLE_CONFIG, EDGES, FIRST, SMALL, conv
from common.errors import InputError
from common.networks.genotype import Edge
from pr_darts.config import PRESETS, PRDARTSConfig, discoverable
from pr_darts.cycles import check, cycles
from pr_darts.equation_form import EquationPRDARTS
from pr_darts.morphisms import SPACES, morphisms
from pr_darts.pools import Pool
from pr_darts.search import prune_and_morph
from pr_darts.supernet import PRDARTSSuperNet

MAX, AVG, SKIP, CONV = FIRST


def ragged_net(**how):
    """A net with pools of one to four candidates and random alphas."""
    torch.manual_seed(0)
    net = PRDARTSSuperNet(FIRST, **{**SMALL, **how}).double()
    pools = [(CONV,), (MAX, CONV), FIRST, (SKIP, CONV, conv(5, 2, 2)), (AVG, conv(3, 1, 1))]
    net.rebuild({kind: [Pool.first(p) for p in pools] for kind in net.kinds})
    for alpha in net.arch_parameters():
        alpha.data.normal_()
    return net, torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])


def replace_once(net, seed=0, cycle=1):
    """End a cycle: three of a pool survive, three children join."""
    cycle = cycles(PRDARTSConfig())[cycle]
    config = dataclasses.replace(CYCLE_CONFIG, space="ur", seed=seed)
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
    ({"kept": (6, 1)}, "--kept 2"),
    ({name: () for name in ("cycle_epochs", "grace_epochs", "morphisms", "kept")}, "--kept 0"),
    ({"cycle_epochs": (2, 0, 1)}, "--cycle-epochs 0 in cycle 2"),
    ({"grace_epochs": (2, 0, 0)}, "--grace-epochs 2 in cycle 1"),
    ({"grace_epochs": (1, -1, 0)}, "--grace-epochs -1 in cycle 2"),
    ({"morphisms": (2, -1, 0)}, "--morphisms -1 in cycle 2"),
    ({"kept": (8, 2, 1)}, "--kept 8 in cycle 1.* keep 6 or"),
    ({"kept": (4, 5, 1)}, "--kept 5 in cycle 2.* keep 4 or"),
    ({"kept": (2, 2, 1)}, "--kept 2 in cycle 1"),
    ({"kept": (4, 2, 2)}, "--kept 2, --morphisms 0 in cycle 3"),
    ({"kept": (4, 2, 0)}, "--kept 0, --morphisms 0 in cycle 3"),
    ({"kept": (4, 1, 1)}, "--kept: 1 candidate .*keep 2 or more"),
    ({"morphisms": (50, 0, 0), "kept": (51, 2, 1)}, "--kept 51 in cycle 1.* keep 7 or"),
    ({"kept": (4, 2, 2), "morphisms": (2, 0, 1)}, "--kept 2, --morphisms 1 in cycle 3"),
])  # fmt: skip
def test_tables_that_cannot_run(changes, named):
    with pytest.raises(InputError, match=named):
        check(dataclasses.replace(CYCLE_CONFIG, **changes), FIRST, SPACES["dl"])


# ------------------------------------------------------------------------------------ the supernet


def test_nodes_that_are_averaged():
    """By the equations; concatenated ones are in test_contract."""
    net, images, labels = ragged_net(cell_output="mean")
    slow = EquationPRDARTS(FIRST, cell_output="mean", **SMALL).double()
    slow.rebuild(net.pools)
    slow.load_state_dict(net.state_dict())
    assert net(images).shape == (4, 3) and net.derive()["normal"].join == "mean"
    torch.testing.assert_close(net(images), slow(images), rtol=0, atol=1e-11)


def test_each_edge_has_a_softmax_over_its_own_pool():
    net, *_ = ragged_net()
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


def test_cut_candidates_do_not_run_and_the_output_is_the_same():
    net, images, _ = ragged_net()
    cuts = {kind: net.mix(kind) for kind in net.kinds}
    for mix in cuts.values():
        kept = mix.op.argmax(1)
        mix.op.data.zero_()
        mix.op.data[range(EDGES), kept] = 1
    full = net(images, net.per_cell(cuts))
    with torch.no_grad():
        weights = net.per_cell(cuts)
        cut = net(images, weights)
    assert [sum(w is not None for w in of_cell) for of_cell in weights] == [EDGES] * 3
    torch.testing.assert_close(cut, full.detach())


def centre(candidate, size):
    """The central part of a candidate's first depthwise kernels."""
    weight = candidate.units[0].depthwise.weight
    border = (weight.shape[-1] - size) // 2
    return weight[..., border : border + size, border : border + size]


def test_rebuilding_keeps_survivors_and_children_inherit():
    net, images, _ = ragged_net()
    net(images)  # updates running statistics
    old = [{e: dict(cell.edges[e].items()) for e in cell.edges} for cell in net.cells]
    pools, parents = replace_once(net)
    children = 0
    for cell, place, before in zip(net.cells, net.places, old, strict=True):
        rows = zip(cell.edges.items(), pools[place.kind], parents[place.kind], strict=True)
        for (name, edge), pool, parent_of in rows:
            assert list(edge) == [str(op) for op in pool.candidates]
            for op in pool.candidates:
                if op not in parent_of:
                    assert edge[str(op)] is before[name][str(op)]
                    continue
                parent = parent_of[op]
                size = min(op.kernel, parent.kernel)
                inherited = centre(before[name][str(parent)], size)
                assert torch.equal(centre(edge[str(op)], size), inherited)
                children += 1
    assert children > 30
    assert all((alpha == 0).all() for alpha in net.arch_parameters())


def test_a_child_keeps_its_own_training_at_later_rebuilds():
    """Unlike in the authors' code, which copies the parent over it at every rebuild."""
    net, images, _ = ragged_net()
    replace_once(net)
    for weight in net.weight_parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    trained = {name: value.clone() for name, value in net.state_dict().items()}
    _, parents = replace_once(net, seed=1)
    children = {  # of this rebuild; a re-admitted one is new, too
        f"cells.{n}.edges.{i}-{j}.{op}."
        for n, place in enumerate(net.places)
        for (i, j), edge in zip(net.edges, parents[place.kind], strict=True) for op in edge
    }  # fmt: skip
    after = net.state_dict()
    left = [name for name in trained if name in after and "alpha" not in name
            and not name.startswith(tuple(children))]  # fmt: skip
    assert len(left) > 100 and all(torch.equal(after[name], trained[name]) for name in left)


def test_a_readmitted_candidate_inherits_again():
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


def test_pools_differ_between_edges_and_follow_from_seed_and_cycle():
    nets = [ragged_net()[0] for _ in range(3)]
    first, second, third = (
        replace_once(net, seed)[0] for net, seed in zip(nets, (0, 0, 1), strict=True)
    )
    assert first == second != third
    assert replace_once(ragged_net()[0], cycle=2)[0] != first
    assert len({pool.candidates for pool in first["normal"]}) > 2
    torch.manual_seed(9)
    assert replace_once(ragged_net()[0])[0] == first


def test_the_worst_are_pruned_and_parents_follow_alpha():
    """On each edge of either kind by its own alphas (III-B.2)."""
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
    config = dataclasses.replace(CYCLE_CONFIG, space="ur")
    pools, parents = prune_and_morph(config, net, cycle)
    bred = []
    for kind in net.kinds:
        for row, (pool, parent_of) in enumerate(zip(pools[kind], parents[kind], strict=True)):
            assert set(pool.candidates[:4]) == set(first) - set(worst[kind, row])
            bred += [parent == favoured[kind] for parent in parent_of.values()]
    assert len(bred) == 2 * 2 * EDGES and all(bred)  # odds of e^9


def test_children_are_morphisms_within_the_space():
    net, *_ = ragged_net()
    config = dataclasses.replace(CYCLE_CONFIG, space="dl")
    pools, parents = prune_and_morph(config, net, cycles(PRDARTSConfig())[0])
    assert {len(pool.candidates) for edges in pools.values() for pool in edges} <= {4, 5, 6}
    for edges in parents.values():
        for edge in edges:
            assert all(child in morphisms(op, SPACES["dl"]) for child, op in edge.items())


@pytest.mark.parametrize(("space", "count"), [("dl", 15), ("dr", 35), ("ur", 76)])
def test_discoverable_operations(space, count):
    assert len(discoverable(PRDARTSConfig(space=space))) == count
