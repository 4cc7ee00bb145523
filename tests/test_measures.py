"""Metrics of the architecture, against values computed by hand."""

import dataclasses
import math

import pytest
import torch

from builders import SEARCH_CONFIG, make_search_trainer, snapshot, unchanged
from common.networks.genotype import CANDIDATES, Cell, Edge, Op
from common.supernet.cell import Mix
from common.supernet.measures import Measures, best_operations, cut_to_best, cut_to_cell
from common.supernet.supernet import SuperNet
from pc_darts.supernet import PCDARTSSuperNet

EDGES = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
COLUMN = {name: k for k, name in enumerate(CANDIDATES)}
CELL = Cell(2, (Edge(0, 2, Op("sep_conv_3x3")), Edge(1, 2, Op("skip_connect")),
                Edge(2, 3, Op("avg_pool_3x3")), Edge(1, 3, Op("skip_connect"))), (2, 3))


def test_the_best_operation_is_never_none():
    op = torch.rand(5, 8)
    op[:, COLUMN["none"]] = 2
    op[3, COLUMN["dil_conv_5x5"]] = 1.5
    best = best_operations(op, CANDIDATES)
    assert best[3] == COLUMN["dil_conv_5x5"] and (best != COLUMN["none"]).all()


def test_cut_to_best_keeps_one_operation_per_edge_with_weight_one():
    op, edge = torch.rand(5, 8), torch.rand(5)
    cut = cut_to_best(Mix(op, edge), CANDIDATES)
    for row, best in enumerate(best_operations(op, CANDIDATES)):
        assert cut.op[row].tolist() == [float(k == best) for k in range(8)]
    assert cut.edge is edge


def test_cut_to_cell_keeps_the_cells_operations_and_edges():
    cut = cut_to_cell(Mix(torch.rand(5, 8)), CELL, EDGES, CANDIDATES)
    kept = {(0, "sep_conv_3x3"), (1, "skip_connect"), (3, "skip_connect"), (4, "avg_pool_3x3")}
    found = {(row, CANDIDATES[column]) for row, column in cut.op.nonzero().tolist()}
    assert found == kept and cut.op.sum() == 4
    assert cut.edge.tolist() == [1, 1, 0, 1, 1]  # a removed edge has no bypass either


def test_an_edge_may_keep_several_operations():
    """Each with weight 1."""
    cell = Cell(2, (*CELL.edges, Edge(0, 2, Op("skip_connect"))), (2, 3))
    cut = cut_to_cell(Mix(torch.rand(5, 8)), cell, EDGES, CANDIDATES)
    assert cut.op[0].sum() == 2 and cut.edge.tolist() == [1, 1, 0, 1, 1]


def test_kept_edge_weights_keep_their_ratios_and_their_sum():
    edge = torch.tensor([0.4, 0.6, 0.5, 0.2, 0.3])
    cut = cut_to_cell(Mix(torch.rand(5, 8), edge), CELL, EDGES, CANDIDATES)
    torch.testing.assert_close(cut.edge, torch.tensor([0.4, 0.6, 0, 0.4, 0.6]))


@pytest.mark.parametrize("kind", [SuperNet, PCDARTSSuperNet])
def test_a_cut_supernet_does_not_depend_on_removed_operations(kind):
    torch.manual_seed(0)
    net = kind(channels=4, cells=3, nodes=2)
    cells = net.derive()
    cuts = {k: cut_to_cell(net.mix(k), cells[k], net.edges, net.candidates) for k in cells}
    x = torch.randn(4, 3, 8, 8)
    before = net(x, net.per_cell(cuts))
    state = net.state_dict()
    touched = 0
    for n, place in enumerate(net.places):
        kept = {(f"{e.source}-{e.target}", e.op.name) for e in cells[place.kind].edges}
        for name, value in state.items():
            head, _, rest = name.partition(".edges.")
            if head == f"cells.{n}" and tuple(rest.split(".")[:2]) not in kept and value.ndim > 1:
                value.mul_(3).add_(1)
                touched += 1
    assert touched > 50
    net.load_state_dict(state)
    torch.testing.assert_close(net(x, net.per_cell(cuts)), before)
    assert not torch.allclose(net(x), before)


def test_metrics_of_an_epoch():
    net = SuperNet(channels=4, cells=3, nodes=2).double()
    measures = Measures(net)
    for kind in ("normal", "reduction"):
        net.arch[f"alpha_{kind}"].data.zero_()
        net.arch[f"alpha_{kind}"].data[:, COLUMN["sep_conv_3x3"]] = 1e-6
    measures.epoch(net)
    alpha = net.arch["alpha_normal"].data
    alpha[0, COLUMN["skip_connect"]] = alpha[3, COLUMN["avg_pool_3x3"]] = 50  # decided
    alpha[4, COLUMN["max_pool_3x3"]] = 1e-5
    alpha[2, COLUMN["none"]] = 50  # decided as well, but never the best operation
    figures = measures.epoch(net)
    assert figures["changed_edges_normal"] == 3 and figures["changed_edges_reduction"] == 0
    assert figures["entropy_normal"] == pytest.approx(2 / 5 * math.log(8), rel=1e-5)
    assert figures["entropy_reduction"] == pytest.approx(math.log(8), rel=1e-5)
    # node 2 takes both its edges; node 3 its strongest two: (1, 3), and (2, 3) before (0, 3)
    assert (figures["skips_normal"], figures["pools_normal"]) == (1, 2)
    assert (figures["skips_reduction"], figures["pools_reduction"]) == (0, 0)
    assert measures.epoch(net)["changed_edges_normal"] == 0


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_cut_accuracies_use_the_chosen_batch_norm_statistics(tmp_path, accelerator, statistics):
    config = dataclasses.replace(SEARCH_CONFIG, cut_accuracy=statistics)
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet, config=config)
    for _ in range(3):
        trainer.weight_step(trainer.train_batches.train(0))
    net, buffers = trainer.supernet, snapshot(trainer.supernet.buffers())
    figures = trainer.held_out_metrics()
    assert figures["cut_statistics"] == statistics
    assert unchanged(list(net.buffers()), buffers)

    cells = net.derive()
    by_kind = {k: cut_to_cell(net.mix(k), cells[k], net.edges, net.candidates) for k in cells}
    best = {k: cut_to_best(net.mix(k), net.candidates) for k in cells}
    net.train(statistics == "batch")
    for name, cut in (("uncut_top1", None), ("cut_top1", best), ("derived_top1", by_kind)):
        mixes = None if cut is None else net.per_cell(cut)
        right = sum(
            (net(images, mixes).argmax(1) == labels).sum().item()
            for images, labels in trainer.valid_batches.evaluate()
        )
        assert figures[name] == pytest.approx(100 * right / 20)


def test_a_cut_that_overflows_does_not_end_the_search(tmp_path, accelerator, monkeypatch):
    config = dataclasses.replace(SEARCH_CONFIG, cut_accuracy="batch")
    trainer = make_search_trainer(tmp_path, accelerator, SuperNet, config=config)
    original = trainer.supernet.forward

    def forward(images, mixes):
        is_cut = mixes[0].op.max() == 1
        return original(images, mixes) * (torch.inf if is_cut else 1)

    trainer.network.forward = forward
    assert 0 <= trainer.held_out_metrics()["cut_top1"] <= 100


def test_cut_accuracies_are_none_by_default(tmp_path, accelerator):
    figures = make_search_trainer(tmp_path, accelerator, SuperNet).held_out_metrics()
    names = ("uncut_top1", "cut_top1", "derived_top1", "cut_statistics")
    assert [figures[name] for name in names] == [None] * 4


def test_the_cut_keeps_none_where_it_can_be_derived(tmp_path, accelerator):
    """An edge dominated by `none` is cut to `none`, or else to the best other operation."""
    cuts = {}

    class Recording(SuperNet):
        def per_cell(self, by_kind, generator=None):
            op = by_kind["normal"].op
            if (op.amax(-1) == 1).all():  # one operation on every edge
                cuts[self.derive_none] = op.argmax(-1).tolist()
            return super().per_cell(by_kind, generator)

    config = dataclasses.replace(SEARCH_CONFIG, cut_accuracy="batch")
    for derived in (False, True):
        trainer = make_search_trainer(
            tmp_path / str(derived), accelerator, Recording, config=config, derive_none=derived
        )
        with torch.no_grad():
            trainer.arch[0][:, trainer.supernet.candidates.index("none")] = 9.0
        (tmp_path / str(derived)).mkdir()
        for _ in trainer.epochs(until=1):
            for _ in trainer.batches():
                pass
            trainer.validate()
    none = trainer.supernet.candidates.index("none")
    assert cuts[True] == [none] * len(trainer.supernet.edges) and none not in cuts[False]
