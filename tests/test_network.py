import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.draw.cell import cell_figure
from common.errors import InputError
from common.networks.complexity import Setting, complexity
from common.networks.drop_path import DropPath
from common.networks.genotype import (
    Cell,
    Edge,
    FixedCell,
    Genotype,
    Op,
    cell_from_pairs,
    load,
    parse,
)
from common.networks.macro import CellInputs, LargeStem, Place, SmallStem, places
from common.networks.network import (
    AuxiliaryHead,
    DerivedCell,
    DerivedEdge,
    FixedReductionCell,
    Network,
)
from common.networks.ops import FactorizedReduce, ReluConvNorm


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def place(channels=4, reduction=False, after_reduction=False, inputs=(6, 5)):
    return Place(0, channels, inputs, reduction, after_reduction)


# ------------------------------------------------------------------------------------ the stack


@pytest.mark.parametrize(("cells", "reductions"), [(8, [2, 5]), (14, [4, 9]), (20, [6, 13])])
def test_reductions_double_the_channels_at_a_third_and_two_thirds(cells, reductions):
    stack = list(places(cells, 36, {"normal": 4, "reduction": 4}, (108, 108)))
    assert [p.index for p in stack] == list(range(cells))
    assert [p.index for p in stack if p.reduction] == reductions
    assert [p.index for p in stack if p.after_reduction] == [r + 1 for r in reductions]
    first, second = reductions
    assert [p.channels for p in stack] == (
        [36] * first + [72] * (second - first) + [144] * (cells - second)
    )
    assert [p.inputs for p in stack[:3]] == [(108, 108), (108, 144), (144, stack[1].channels * 4)]
    assert stack[first + 1].inputs == (144, 288)


def test_widths_depend_on_the_nodes_that_cells_concatenate():
    stack = list(places(8, 10, {"normal": 2, "reduction": 3}, (30, 30)))
    assert [p.inputs for p in stack[2:5]] == [(20, 20), (20, 60), (60, 40)]


def test_resolution_is_halved_at_each_reduction():
    network = Network(load("pc_darts_cifar10"), 2, 8, 10).eval()
    s0, s1 = network.stem(images(1, 3, 16, 16))
    sizes = []
    for cell in network.cells:
        s0, s1 = s1, cell(s0, s1)
        sizes.append(tuple(s1.shape[1:]))
    assert sizes == [(8, 16, 16)] * 2 + [(16, 8, 8)] * 3 + [(32, 4, 4)] * 3


def test_cell_inputs():
    after = CellInputs(place(after_reduction=True), affine=True)
    assert isinstance(after.first, FactorizedReduce)
    assert isinstance(CellInputs(place(), affine=True).first, ReluConvNorm)
    states = after(images(2, 6, 9, 9), images(2, 5, 5, 5))  # odd: the reduction rounds up
    assert [tuple(state.shape) for state in states] == [(2, 4, 5, 5)] * 2


@pytest.mark.parametrize("after_reduction", [False, True])
def test_cell_inputs_after_the_relu(after_reduction):
    inputs = CellInputs(place(after_reduction=after_reduction), affine=True).eval()
    s0, s1 = images(2, 6, 9, 9), images(2, 5, 5 if after_reduction else 9, 9)
    torch.testing.assert_close(
        inputs.past_relu(s0.relu(), s1.relu()), inputs(s0, s1), rtol=0, atol=0
    )


def test_small_stem():
    s0, s1 = SmallStem(1, 5)(images(2, 1, 8, 8))
    assert s0 is s1
    assert s0.shape == (2, 15, 8, 8)


def test_large_stem_and_network_on_224_pixels():
    with torch.device("meta"):
        stem, image = LargeStem(3, 48), torch.empty(1, 3, 224, 224)
        s0, s1 = stem(image)
        network = Network(load("darts_v2"), 48, 14, 1000, large_images=True, auxiliary=True)
        logits, auxiliary = network(torch.empty(2, 3, 224, 224))
    assert s0.shape == (1, 48, 56, 56)
    assert s1.shape == (1, 48, 28, 28)
    assert isinstance(network.cells[0].inputs.first, FactorizedReduce)
    assert logits.shape == auxiliary.shape == (2, 1000)


# --------------------------------------------------------------------------------- derived cells


def test_derived_cell_written_out():
    edges = (
        Edge(1, 2, Op("max_pool_3x3")),
        Edge(0, 3, Op("sep_conv_3x3")),
        Edge(2, 3, Op("skip_connect")),
        Edge(0, 3, Op("avg_pool_3x3")),  # a third edge into a node
        Edge(3, 4, Op("dil_conv_3x3")),
        Edge(1, 4, Op("none")),
    )
    module = DerivedCell(Cell(2, edges, (4, 2)), place()).eval()
    s0, s1 = images(2, 6, 5, 5), images(2, 5, 5, 5)
    x0, x1 = module.inputs.first(s0), module.inputs.second(s1)
    x2 = F.max_pool2d(x1, 3, 1, 1)
    pooled = F.avg_pool2d(x0, 3, 1, 1, count_include_pad=False)
    x3 = module.edges[1](x0.relu()) + x2 + pooled
    x4 = module.edges[4](x3.relu())
    torch.testing.assert_close(module(s0.relu(), s1.relu()), torch.cat([x4, x2], 1))


def test_hooks_see_edges_and_gradients_of_normalisations():
    """Operations share ReLUs, but edges are called as modules and no map is changed in place."""
    network, seen = Network(load("darts_v2"), 4, 3, 3), set()
    for name, module in network.named_modules():
        if isinstance(module, DerivedEdge):
            module.register_forward_hook(lambda *a, name=name: seen.add(name))
        if isinstance(module, nn.BatchNorm2d):
            module.register_full_backward_hook(lambda *a, name=name: seen.add(name))
    network(images(2, 3, 8, 8).float()).sum().backward()
    kinds = (DerivedEdge, nn.BatchNorm2d)
    assert seen == {n for n, m in network.named_modules() if isinstance(m, kinds)}


NONE = [("none", 0), ("none", 1), ("sep_conv_3x3", 1), ("none", 2)]


@pytest.mark.parametrize(("cell", "said"), [
    (cell_from_pairs(NONE), "none"),
    (Cell(2, (Edge(1, 3, Op("sep_conv_3x3")),), (2, 3)), "x2 = 0"),
])  # fmt: skip
def test_a_cell_with_zeros_can_be_saved_drawn_counted_and_trained(cell, said):
    """Node 2 of both cells has no input, so its channels are zeros."""
    genotype = Genotype("zeros", {"normal": cell, "reduction": cell})
    assert parse(json.dumps(genotype.to_json())) == genotype and said in str(genotype)
    assert any(said in text.get_text() for text in cell_figure(cell).axes[0].texts)

    counted = complexity(genotype, Setting(classes=3, image_size=9, channels=4, cells=3))
    network = Network(genotype, 4, 3, 3).train()
    assert counted.params == sum(p.numel() for p in network.parameters())
    assert counted.multiply_adds_paper > counted.multiply_adds > 0

    out = []
    network.cells[1].register_forward_hook(lambda module, inputs, output: out.append(output))
    loss = F.cross_entropy(network(images(2, 3, 9, 9).float()), torch.tensor([0, 2]))
    loss.backward()
    half = out[0].shape[1] // 2
    assert not out[0][:, :half].any() and out[0][:, half:].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_only_edges_from_the_inputs_of_a_reduction_cell_have_stride_2():
    cell = cell_from_pairs([("max_pool_3x3", 0), ("max_pool_3x3", 1)] + [("max_pool_3x3", 2)] * 2)
    reduction = DerivedCell(cell, place(reduction=True))
    assert [edge[0].stride for edge in reduction.edges] == [2, 2, 1, 1]
    assert reduction(images(2, 6, 7, 7), images(2, 5, 7, 7)).shape == (2, 8, 4, 4)
    assert [edge[0].stride for edge in DerivedCell(cell, place()).edges] == [1, 1, 1, 1]


# ------------------------------------------------------------------------------------ drop-path


@pytest.mark.parametrize(
    ("op", "stride", "dropped"),
    [("skip_connect", 1, False), ("skip_connect", 2, True), ("max_pool_3x3", 1, True),
     ("sep_conv_3x3", 2, True)],
)
def test_drop_path_spares_the_stride_1_identity(op, stride, dropped):
    edge = DerivedEdge(Op(op), 4, stride)
    assert any(isinstance(module, DropPath) for module in edge.modules()) is dropped
    x = images(64, 4, 4, 4).abs() + 1
    kept = edge(x)
    assert not kept.eq(0).all((1, 2, 3)).any()  # probability 0 until it is set
    Network.set_drop_path(edge, 0.5)
    torch.manual_seed(0)
    out = edge(x)
    zero = out.eq(0).all((1, 2, 3))  # single images are dropped
    assert (8 < zero.sum() < 56) if dropped else not zero.any()
    expected = 2 * kept if dropped else x
    torch.testing.assert_close(out[~zero], expected[~zero])
    edge.eval()
    assert not edge(x).eq(0).all((1, 2, 3)).any()


def test_set_drop_path_reaches_every_edge():
    network = Network(load("darts_v2"), 4, 3, 10)
    network.set_drop_path(0.25)
    drops = [module for module in network.modules() if isinstance(module, DropPath)]
    assert len(drops) == 6 + 2 * 5  # all but two edges of a normal cell, three of a reduction cell
    assert {module.probability.item() for module in drops} == {0.25}


def test_drop_path_drops_the_branches_of_the_fixed_cell_one_by_one():
    cell = FixedReductionCell(place(channels=8))
    Network.set_drop_path(cell, 0.5)
    torch.manual_seed(0)
    out = cell(images(64, 6, 4, 4), images(64, 5, 4, 4))
    zero = out.unflatten(1, (4, 8)).eq(0).all(2).all(2).all(2)
    assert ((zero.sum(0) > 16) & (zero.sum(0) < 48)).all()
    assert len({tuple(row.tolist()) for row in zero}) > 8


# ------------------------------------------------------------------------------- auxiliary head


def test_auxiliary_logits_in_training_only():
    network = Network(load("darts_v2"), 2, 3, 7, auxiliary=True)
    x = images(2, 3, 32, 32)
    logits, auxiliary = network(x)
    assert logits.shape == auxiliary.shape == (2, 7)
    assert network.eval()(x).shape == (2, 7)
    assert Network(load("darts_v2"), 2, 3, 7)(x).shape == (2, 7)


def test_auxiliary_head_reads_the_second_reduction_cell():
    network = Network(load("darts_v2"), 2, 8, 7, auxiliary=True)
    read, made = [], []
    network.auxiliary.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    network.cells[5].register_forward_hook(lambda module, args, out: made.append(out))
    network(images(2, 3, 32, 32))
    assert read[0] is made[0]


@pytest.mark.parametrize(("large", "size", "norms"), [(False, 8, 2), (True, 7, 1)])
def test_auxiliary_head_layers(large, size, norms):
    head = AuxiliaryHead(6, 9, large_images=large)
    assert head(images(2, 6, size, size)).shape == (2, 9)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in head) == norms


# --------------------------------------------------------------------- the fixed reduction cell


def test_fixed_reduction_cell_written_out():
    cell = FixedReductionCell(place(channels=8)).eval()
    s0, s1 = images(2, 6, 6, 6), images(2, 5, 6, 6)
    states = [cell.inputs.first(s0), cell.inputs.second(s1)]
    scale = (1 + 1e-5) ** 0.5  # of a normalisation that has seen no data
    branches = []
    for state, branch in zip(states, cell.convolutions, strict=True):
        wide, high, point = (m.weight for m in branch if isinstance(m, nn.Conv2d))
        assert wide.shape == (8, 1, 1, 3)
        assert high.shape == (8, 1, 3, 1)
        x = F.conv2d(state.relu(), wide, stride=(1, 2), padding=(0, 1), groups=8)
        x = F.conv2d(x, high, stride=(2, 1), padding=(1, 0), groups=8) / scale
        branches.append(F.conv2d(x.relu(), point) / scale)
    branches += [F.max_pool2d(state, 3, 2, 1) / scale for state in states]
    torch.testing.assert_close(cell(s0.relu(), s1.relu()), torch.cat(branches, 1))


def test_network_with_a_fixed_reduction_cell():
    with torch.device("meta"):
        network = Network(load("gdas_frc"), 36, 20, 10)
        logits = network(torch.empty(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    fixed = [k for k, cell in enumerate(network.cells) if isinstance(cell, FixedReductionCell)]
    assert fixed == [6, 13]
    grouped = {m.groups for m in network.cells[6].modules() if isinstance(m, nn.Conv2d)}
    assert grouped == {1, 8}


# ------------------------------------------------------------------------------------ bad input


def genotype_of(**cells):
    return Genotype("mine", cells)


NORMAL = load("darts_v2").cells["normal"]


@pytest.mark.parametrize(
    ("genotype", "channels", "named"),
    [
        (genotype_of(normal=NORMAL), 4, "mine: .*needs a reduction cell"),
        (genotype_of(reduction=NORMAL), 4, "mine: .*needs a normal cell"),
        (genotype_of(recurrent=NORMAL), 4, "needs a normal and a reduction cell"),
        (genotype_of(normal=FixedCell("gdas_frc"), reduction=NORMAL), 4, "gdas_frc halves"),
        (load("gdas_frc"), 50, "--channels 50: .*gdas_frc has 8 groups; take a multiple of 4"),
    ],
)
def test_genotypes_without_an_image_network_are_refused(genotype, channels, named):
    with pytest.raises(InputError, match=named):
        Network(genotype, channels, 3, 10)


def test_a_searched_reduction_cell_takes_any_channels():
    logits = Network(load("darts_v2"), 3, 3, 10)(images(2, 3, 8, 8))
    assert logits.shape == (2, 10)
