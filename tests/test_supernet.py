"""The base supernet: first-order DARTS."""

import dataclasses
import importlib
from contextlib import nullcontext

import pytest
import torch

from common.networks.genotype import CANDIDATES, Edge, Op
from common.supernet.measures import Measures, cut_to_best
from common.supernet.supernet import SuperNet, small_noise, strongest

EDGES = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


def test_number_of_parameters_of_darts():
    supernet = SuperNet()
    assert sum(p.numel() for p in supernet.weight_parameters()) == 1_930_618  # facts, section 7
    assert sum(p.numel() for p in supernet.arch_parameters()) == 224


def test_initial_alphas_are_small_normal_noise():
    torch.manual_seed(0)
    noise = small_noise(100, 100).detach()
    assert noise.std().item() == pytest.approx(1e-3, rel=0.05) and abs(noise.mean()) < 5e-5
    assert 3e-3 < noise.abs().max() < 6e-3  # a uniform distribution: 1.7e-3
    alphas = [*SuperNet(channels=4, cells=3).arch.values()]
    assert all(alpha.std().item() == pytest.approx(1e-3, rel=0.3) for alpha in alphas)


@pytest.mark.parametrize(("nodes", "edges"), [(3, 9), (4, 14), (5, 20)])
def test_edges(nodes, edges):
    assert len(SuperNet(channels=4, cells=3, nodes=nodes).edges) == edges


def test_mix_is_a_softmax_over_an_edges_candidates():
    supernet = SuperNet(channels=4, cells=3)
    supernet.arch["alpha_normal"].data = torch.randn(14, 8)
    weights = supernet.arch["alpha_normal"].exp()
    expected = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(supernet.mix("normal").op, expected)


def slow_top2(strengths, edges):
    """DARTS, section 2.4, step by step."""
    result = []
    for node in (2, 3):
        ranked = []
        for row, (source, target) in enumerate(edges):
            if target == node:
                best = max(
                    (strengths[row][k], CANDIDATES[k]) for k in range(8) if CANDIDATES[k] != "none"
                )
                ranked.append((best[0], source, best[1]))
        ranked.sort(key=lambda entry: (-entry[0], entry[1]))
        result += [(node, source, name) for _, source, name in ranked[:2]]
    return result


def test_derivation_against_a_slow_form():
    for seed in range(20):
        strengths = torch.rand(5, 8, generator=torch.Generator().manual_seed(seed))
        cell = strongest(strengths, EDGES, CANDIDATES)
        found = [(edge.target, edge.source, edge.op.name) for edge in cell.edges]
        assert found == slow_top2(strengths.tolist(), EDGES)
        assert cell.output == (2, 3)


def test_none_is_never_derived_and_does_not_make_an_edge_strong():
    strengths = torch.full((5, 8), 0.1)
    strengths[:, CANDIDATES.index("none")] = 0.9
    strengths[3, CANDIDATES.index("sep_conv_5x5")] = 0.2
    strengths[4, CANDIDATES.index("skip_connect")] = 0.3
    cell = strongest(strengths, EDGES, CANDIDATES)
    assert all(edge.op != Op("none") for edge in cell.edges)
    assert [(e.source, e.op.name) for e in cell.into(3)] == [
        (2, "skip_connect"), (1, "sep_conv_5x5"),
    ]


def test_derive_none_lets_none_compete():
    """In derived cells and in metrics: GDAS' Omega (3.2)."""
    net = SuperNet(channels=4, cells=3, nodes=2, derive_none=True)
    alpha, none = net.arch["alpha_normal"].data.zero_(), CANDIDATES.index("none")
    alpha[0, none], alpha[3, none] = 3, 9  # the strongest edge of node 3
    alpha[4, CANDIDATES.index("skip_connect")] = 3
    alpha[2, none], alpha[2, 4] = 1, 0.9  # behind both
    cell = net.derive()["normal"]
    assert [(e.source, e.op.name) for e in cell.into(3)] == [(1, "none"), (2, "skip_connect")]
    assert cell.into(2)[0] == Edge(0, 2, Op("none"))
    best = Measures(net).best["normal"]
    assert best[[0, 2, 3]].tolist() == [none] * 3 and best[4] == 3
    cut = cut_to_best(net.mix("normal"), CANDIDATES, net.derive_none)
    assert cut.op.argmax(1).tolist() == best.tolist()


@pytest.mark.parametrize(("module", "kind"), [
    ("common.baselines.darts", "SuperNet"), ("pc_darts.search", "PCDARTSSuperNet"),
    ("gdas.search", "GDASSuperNet"),
])  # fmt: skip
@pytest.mark.parametrize("derive_none", [False, True])
def test_derive_none_reaches_the_supernet_and_the_genotype(monkeypatch, module, kind, derive_none):
    module = importlib.import_module(module)
    config = dataclasses.replace(module.PRESETS["digits"], derive_none=derive_none).resolved()
    assert module.PRESETS["digits"].derive_none is False  # the default
    seen = {}

    def stop(*given, **how):
        seen.update(how)
        raise StopIteration

    monkeypatch.setattr(module, kind, stop)
    monkeypatch.setattr(module, "shape", lambda config, images: {})
    monkeypatch.setattr(module, "open_search", lambda *_: (config, nullcontext(), None, None))
    with pytest.raises(StopIteration):
        module.search(config)
    assert seen["derive_none"] is derive_none
    assert config.provenance()["derive_none"] is derive_none


def test_ties_go_to_the_earlier_input():
    cell = strongest(torch.full((5, 8), 0.1), EDGES, CANDIDATES)
    assert [edge.source for edge in cell.into(3)] == [0, 1]


def test_alphas_are_in_the_checkpoint_and_not_among_the_weights():
    supernet = SuperNet(channels=4, cells=3)
    assert {"arch.alpha_normal", "arch.alpha_reduction"} <= supernet.state_dict().keys()
    arch = {id(p) for p in supernet.arch_parameters()}
    assert not arch & {id(p) for p in supernet.weight_parameters()}
    assert len(list(supernet.parameters())) == len(supernet.weight_parameters()) + 2


def test_alpha_gradient_by_finite_differences():
    torch.manual_seed(0)
    supernet = SuperNet(channels=4, cells=3, nodes=2, classes=3).double()
    images, labels = torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])
    alpha = supernet.arch["alpha_reduction"]
    loss, _ = supernet.loss(images, labels)
    (gradient,) = torch.autograd.grad(loss, [alpha])
    for e, k in [(0, 1), (2, 4), (4, 6)]:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                alpha[e, k] += sign * 1e-5
                values.append(supernet.loss(images, labels)[0].item())
                alpha[e, k] -= sign * 1e-5
        assert gradient[e, k].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)
