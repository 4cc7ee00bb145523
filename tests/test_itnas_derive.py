"""ITNAS' Algorithm 1 by hand."""

import math

import torch

from builders import SMALL, net_and_batch, snapshot, unchanged
from itnas.derive import attention, prune, transit
from itnas.supernet import ITNASSuperNet, triples

AB = ("skip_connect", "sep_conv_3x3")


class TwoCandidates(ITNASSuperNet):
    candidates = AB


def cell_of(*rows):
    """Outer rows (0,2), (1,2), (0,3), ... by edge."""
    edges = [(i, j) for j in range(2, 2 + len(rows) // 2) for i in (0, 1)]
    return {edge: torch.tensor(row) for edge, row in zip(edges, rows, strict=True)}


def equal_attention(nodes):
    return {triple: torch.tensor(0.0) for triple in triples(nodes)}


def kept(cell, node):
    return [(edge.source, edge.op.name) for edge in cell.edges if edge.target == node]


P1 = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
NODE_3 = ([0.6, 0.4], [0.6, 0.4], [0.7, 0.3], [0.65, 0.35])


def plain(outer, P, b, nodes):
    """Without pruning: a node's two strongest edges by Eq. 11, over all predecessors."""
    Z = dict(outer)
    for j in range(2, 2 + nodes):
        for i in range(2, j):
            Z[i, j] = transit(Z, P, b, i, j, range(i))
    return {
        j: sorted(range(j), key=lambda i: -Z[i, j].max().item())[:2] for j in range(2, 2 + nodes)
    }


def test_pruning_by_hand_differs_from_the_plain_rule():
    """Z^(2,3) is .62 before (0,2) and (1,2) are one-hot, .9 after: (2,3) overtakes (1,3)."""
    outer, P, b = cell_of(*NODE_3), dict.fromkeys(triples(2), P1), equal_attention(2)
    torch.testing.assert_close(transit(outer, P, b, 2, 3, [0, 1]), torch.tensor([0.62, 0.38]))
    assert plain(outer, P, b, 2)[3] == [0, 1]
    cell = prune(outer, P, b, AB)
    assert kept(cell, 2) == [(0, "skip_connect"), (1, "skip_connect")]
    assert kept(cell, 3) == [(2, "skip_connect"), (0, "skip_connect")]
    assert cell.output == (2, 3) and cell.inputs == 2


def test_the_supernet_derives_by_the_same_rule():
    """The cell above, as logits of a supernet with two candidates."""
    for pruning, sources in ((True, {0, 2}), (False, {0, 1})):
        net = TwoCandidates(pruning=pruning, **SMALL)
        for kind in net.kinds:
            net.arch[f"alpha_{kind}"].data = torch.tensor(NODE_3).log()
            net.arch[f"P_{kind}"].data = P1.log().repeat(2, 1, 1)
            net.arch[f"beta_{kind}"].data.fill_(0.3)
        for cell in net.derive().values():
            assert {i for i, _ in kept(cell, 3)} == sources
    net = TwoCandidates(**SMALL)
    for kind in net.kinds:  # attention counts: .9 and .2 in P's first column
        net.arch[f"alpha_{kind}"].data = torch.tensor(
            [[0.6, 0.4], [0.4, 0.6], [0.7, 0.3], [0.65, 0.35]]
        ).log()
        net.arch[f"P_{kind}"].data = P1.log().repeat(2, 1, 1)
    for first, sources in ((9.0, {0, 2}), (0.0, {0, 1})):  # Z^(2,3) is .9, or [.55, .45]
        for kind in net.kinds:
            net.arch[f"beta_{kind}"].data = torch.tensor([first, 0.0])
        assert {i for i, _ in kept(net.derive()["normal"], 3)} == sources


def test_attention_sums_to_one_over_the_remaining_predecessors():
    """Eq. 15: (2,3) is pruned, so (3,4) has two predecessors left. With attentions .1, .1 it
    would be [.18, .02] and lose; renormalised it is [.9, .1] and kept.
    """
    outer = cell_of(
        [0.6, 0.4], [0.6, 0.4], [0.7, 0.3], [0.65, 0.35], [0.55, 0.45], [0.52, 0.48]
    )
    even = torch.full((2, 2), 0.5)
    P = dict.fromkeys(triples(3), even) | {(0, 3, 4): P1, (1, 3, 4): P1}
    b = equal_attention(3) | {(2, 3, 4): torch.tensor(8.0).log()}  # .1, .1 and .8
    cell = prune(outer, P, b, AB)
    assert kept(cell, 3) == [(0, "skip_connect"), (1, "skip_connect")]  # .7 and .65 beat .5
    assert kept(cell, 4) == [(3, "skip_connect"), (0, "skip_connect")]
    # All predecessors: .1 * .69 + .1 * .655 + .8 * .5 = .53, behind .55 and ahead of .52.
    assert plain(outer, P, b, 3)[4] == [0, 3]


def test_both_readings_of_the_reweighting():
    """Of scores .7, .2 and .1 the last is pruned."""
    logits = torch.tensor([0.7, 0.2, 0.1]).log()
    by_hand = torch.tensor([math.exp(0.7), math.exp(0.2)]) / (math.exp(0.7) + math.exp(0.2))
    torch.testing.assert_close(attention(logits, [0, 1], "scores"), by_hand)
    torch.testing.assert_close(attention(logits, [1, 0], "scores"), by_hand.flip(0))
    torch.testing.assert_close(attention(logits, [0, 1], "logits"), torch.tensor([7 / 9, 2 / 9]))
    torch.testing.assert_close(attention(logits, [0, 1, 2], "scores"), logits.exp())


def test_the_supernet_uses_its_reweighting():
    """(2,3) is pruned. (3,4) gives .98 of its attention to (0,3), whose row of P is sharp: .97, or
    .85 by the softmax of the scores, behind .9 and .87.
    """
    sources = {}
    for reweighting in ("logits", "scores"):
        net = TwoCandidates(reweighting=reweighting, **{**SMALL, "nodes": 3})
        for kind in net.kinds:
            rows = [[0.6, 0.4]] * 2 + [[0.7, 0.3], [0.65, 0.35], [0.9, 0.1], [0.87, 0.13]]
            net.arch[f"alpha_{kind}"].data = torch.tensor(rows).log()
            P, b = torch.full((len(triples(3)), 2, 2), 0.5), torch.zeros(len(triples(3)))
            for n, triple in enumerate(triples(3)):
                if triple == (0, 3, 4):
                    P[n] = torch.tensor([[0.98, 0.02], [0.5, 0.5]])
                    b[n] = 4.0
            net.arch[f"P_{kind}"].data, net.arch[f"beta_{kind}"].data = P.log(), b
        sources[reweighting] = {i for i, _ in kept(net.derive()["normal"], 4)}
    assert sources == {"logits": {3, 0}, "scores": {0, 1}}


def test_a_pruned_predecessor_no_longer_counts():
    """Line 16 over all m, as printed, would keep (1,4); over those left (Eq. 15), (3,4)."""
    outer = cell_of(
        [0.6, 0.4], [0.6, 0.4], [0.7, 0.3], [0.65, 0.35], [0.8, 0.2], [0.7, 0.3]
    )
    even, flip = torch.full((2, 2), 0.5), torch.tensor([[0.1, 0.9], [0.1, 0.9]])
    P = dict.fromkeys(triples(3), even) | {(0, 3, 4): P1, (1, 3, 4): P1, (2, 3, 4): flip}
    b = equal_attention(3)
    cell = prune(outer, P, b, AB)
    # With (2,3): (.9 + .9 + .1) / 3 = .63 < .7; without: .9.
    assert kept(cell, 4) == [(3, "skip_connect"), (0, "skip_connect")]


def test_one_hot_predecessors_decide_the_operation():
    """(2,3) takes the operation of its one-hot predecessors; soft ones would give the other."""
    outer = cell_of([0.55, 0.45], [0.55, 0.45], [0.5, 0.5], [0.5, 0.5])
    P = dict.fromkeys(triples(2), torch.tensor([[0.6, 0.4], [0.0, 1.0]]))
    b = equal_attention(2)
    assert transit(outer, P, b, 2, 3, [0, 1]).argmax() == 1  # .33
    assert kept(prune(outer, P, b, AB), 3) == [(2, "skip_connect"), (0, "skip_connect")]


def test_each_node_is_pruned_before_the_next():
    """A chain (2,3), (3,4), (4,5): each is one-hot before the next is computed, .9 all along."""
    rows = [[0.6, 0.4], [0.6, 0.4]] + [[0.7, 0.3], [0.65, 0.35]] * 3
    outer, P, b = cell_of(*rows), dict.fromkeys(triples(4), P1), equal_attention(4)
    cell = prune(outer, P, b, AB)
    assert [kept(cell, node) for node in (3, 4, 5)] == [
        [(2, "skip_connect"), (0, "skip_connect")],
        [(2, "skip_connect"), (3, "skip_connect")],
        [(2, "skip_connect"), (3, "skip_connect")],
    ]
    # Soft, Z^(2,j) is .62, Z^(3,j) (.69 + .655 + .634) / 3 = .6597, Z^(4,5) .6602.
    assert plain(outer, P, b, 4) == {2: [0, 1], 3: [0, 1], 4: [0, 3], 5: [0, 4]}


def test_pruning_keeps_two_edges_a_node_and_does_not_change_its_input():
    net, *_ = net_and_batch(ITNASSuperNet, nodes=5)
    before = snapshot(net.arch_parameters())
    for cell in net.derive().values():
        assert [edge.target for edge in cell.edges] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
        assert all(edge.op.name in net.candidates for edge in cell.edges)
    assert unchanged(net.arch_parameters(), before)
    outer, P, b = cell_of(*NODE_3), dict.fromkeys(triples(2), P1), equal_attention(2)
    copies = {edge: row.clone() for edge, row in outer.items()}
    prune(outer, P, b, AB)
    assert outer.keys() == copies.keys()
    assert all(torch.equal(outer[edge], copies[edge]) for edge in copies)
