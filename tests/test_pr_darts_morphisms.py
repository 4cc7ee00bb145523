"""PR-DARTS' morphisms, and how their weights are inherited."""

import dataclasses

import pytest
import torch

from builders import FIRST, conv
from common.errors import InputError
from common.networks import ops
from pr_darts.inherit import inherit
from pr_darts.morphisms import SPACES, Space, candidate, is_convolution, morphisms, reachable

UR = SPACES["ur"]


# ------------------------------------------------------------------------------------- Table II


@pytest.mark.parametrize(("space", "count"), [("dl", 12), ("dr", 32), ("ur", 73)])
def test_five_morphisms_reach_what_the_authors_code_reaches(space, count):
    """Table II prints 12, 36 and 80 (README, reading 9)."""
    found = reachable(FIRST, SPACES[space], 5)
    assert sum(map(is_convolution, found)) == count and len(found) == count + 3
    assert all(SPACES[space].holds(op) for op in found if is_convolution(op))


class WithDilated1x1(Space):
    """A space that also has kernel 1 with dilation 2, which Table II excludes."""

    def holds(self, op):
        dilated = op.kernel == 1 and op.dilation == 2
        return super().holds(dataclasses.replace(op, dilation=1) if dilated else op)


@pytest.mark.parametrize(("space", "printed"), [("dl", 12), ("dr", 36), ("ur", 80)])
def test_the_papers_totals_count_a_dilated_1x1(space, printed):
    limits = WithDilated1x1(**vars(SPACES[space]))
    assert sum(map(is_convolution, reachable(FIRST, limits, 5))) == printed


def test_each_of_the_six():
    assert morphisms(conv(5, 1, 2, 1, 1), UR) == [
        conv(7, 1, 2, 1, 1), conv(5, 1, 2, 2, 1), conv(5, 1, 2, 1, 1, 1), conv(3, 1, 2, 1, 1),
        conv(5, 2, 2, 1, 1),
    ]  # fmt: skip
    assert conv(5, 1) in morphisms(conv(5, 2), UR)  # 6.
    assert morphisms(conv(1), UR) == [conv(3), conv(1, 1, 1)]  # nothing to dilate
    assert conv(1, 2) not in morphisms(conv(3, 2), UR)
    assert all(op.dilation == 2 for op in morphisms(conv(3, 2), UR)[:-1])


def test_limits_of_the_spaces():
    assert morphisms(conv(7, 1, 1), SPACES["dl"]) == [conv(5, 1, 1), conv(7, 2, 1)]
    assert conv(1) not in morphisms(conv(3), SPACES["dl"])
    assert conv(1) in morphisms(conv(3), SPACES["dr"])
    assert conv(3, 1, 5) in morphisms(conv(3, 1, 4), SPACES["dr"])
    assert conv(3, 1, 6) not in morphisms(conv(3, 1, 5), SPACES["dr"])
    assert conv(3, 1, 6) in morphisms(conv(3, 1, 5), UR)
    assert conv(3, 1, 1, 1, 1) in morphisms(conv(3, 1, 1, 1), UR)
    assert not any(morphisms(op, UR) for op in FIRST[:3])


@pytest.mark.parametrize("op", [conv(), conv(5, 2, 2, 1), conv(7, 1, 1), *FIRST])
def test_candidates_are_named_as_they_are_printed(op):
    assert candidate(str(op)) == op


def test_candidates_by_the_names_of_darts():
    assert candidate("sep_conv_5x5") == conv(5, 1, 1) and candidate("dil_conv_3x3") == conv(3, 2)


@pytest.mark.parametrize("name", [
    "none", "conv", "sep_conv", "sep_conv_3x5(dilation 1, [])", "sep_conv_4x4(dilation 1, [])",
    "sep_conv_3x3(dilation 0, [])", "sep_conv_3x3(dilation 1, [0])",
    "sep_conv_3x3(dilation 1, [,])",
])  # fmt: skip
def test_unknown_candidates(name):
    with pytest.raises(InputError, match="--candidates .* unknown operation.* max_pool_3x3"):
        candidate(name)


# -------------------------------------------------------------------------------------- weights

C = 4


def grown(parent_op, child_op, stride=1):
    """A parent with running statistics, and its child."""
    torch.manual_seed(0)
    parent, child = (
        ops.build(op, C, stride, search=True).double() for op in (parent_op, child_op)
    )
    for _ in range(3):
        parent(3 * torch.randn(8, C, 9, 9).double() + 1)
    assert child_op in morphisms(parent_op, UR)
    before = {name: value.clone() for name, value in parent.state_dict().items()}
    inherit(child, parent)
    assert all(torch.equal(value, before[name]) for name, value in parent.state_dict().items())
    return parent, child


def outputs(parent, child, training):
    torch.manual_seed(1)
    x = torch.randn(8, C, 9, 9).double()
    return parent.train(training)(x), child.train(training)(x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("parent_op", "child_op"), [
    (conv(3), conv(5)), (conv(1, 1, 1), conv(3, 1, 1)), (conv(5, 2, 2, 1), conv(7, 2, 2, 1)),
    (conv(3, 1, 1), conv(3, 1, 2)), (conv(5, 1, 2, 1), conv(5, 1, 2, 2)),
    (conv(3, 2, 1, 1), conv(3, 2, 2, 1)),
])  # fmt: skip
def test_growing_a_kernel_and_widening_keep_the_function(parent_op, child_op, stride, training):
    parent, child = grown(parent_op, child_op, stride)
    was, now = outputs(parent, child, training)
    torch.testing.assert_close(now, was, rtol=0, atol=1e-6)
    for unit, model in zip(child.units, parent.units, strict=True):
        count = model.norm.num_features
        assert torch.equal(unit.norm.running_mean[:count], model.norm.running_mean)
        assert unit.norm.num_batches_tracked == model.norm.num_batches_tracked


def test_new_channels_are_random_and_enter_the_next_layer_with_weight_zero():
    parent, child = grown(conv(3, 1, 1), conv(3, 1, 2))
    first, second = child.units
    assert first.pointwise.weight[C:].abs().min() > 0
    assert second.depthwise.weight[C:].abs().max() > 0
    assert second.pointwise.weight[:, C:].abs().max() == 0
    xavier = (2 / (C + 2 * C)) ** 0.5
    assert 0.3 * xavier < first.pointwise.weight[C:].std() < 2 * xavier
    child(torch.randn(8, C, 9, 9).double()).square().sum().backward()  # and they can learn
    assert second.pointwise.weight.grad[:, C:].abs().min() > 0


def test_new_channels_follow_xaviers_normal_law_for_the_widened_layer():
    """sqrt(2 / (inputs + outputs)); PyTorch's default has 0.71 of that."""
    torch.manual_seed(0)
    parent, child = (ops.build(conv(3, 1, n), 32, 1, search=True) for n in (1, 2))
    inherit(child, parent)
    new = child.units[0].pointwise.weight[32:]
    assert new.std().item() == pytest.approx((2 / (32 + 64)) ** 0.5, rel=0.1)
    assert new.abs().max() > 2.5 * new.std()  # a uniform law ends at 1.7


@pytest.mark.parametrize("expansions", [(), (2, 1)])
def test_shrinking_a_kernel_keeps_its_centre(expansions):
    parent, child = grown(conv(5, 1, *expansions), conv(3, 1, *expansions))
    for unit, model in zip(child.units, parent.units, strict=True):
        assert torch.equal(unit.depthwise.weight, model.depthwise.weight[..., 1:4, 1:4])
        assert torch.equal(unit.pointwise.weight, model.pointwise.weight)
        assert torch.equal(unit.norm.running_var, model.norm.running_var)


@pytest.mark.parametrize(("was", "becomes"), [(1, 2), (2, 1)])
def test_a_dilation_changes_no_weight(was, becomes):
    parent, child = grown(conv(3, was, 1), conv(3, becomes, 1))
    theirs, ours = parent.state_dict(), child.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    before, now = outputs(parent, child, training=False)
    assert before.shape == now.shape and not torch.allclose(before, now)


@pytest.mark.parametrize("expansions", [(), (2,)])
def test_a_new_unit_outputs_the_relu_of_its_parent(expansions):
    parent, child = grown(conv(5, 2, *expansions), conv(5, 2, *expansions, 1))
    was, now = outputs(parent, child, training=False)
    torch.testing.assert_close(now, was.relu() / (1 + 1e-5) ** 0.5, rtol=0, atol=1e-12)
