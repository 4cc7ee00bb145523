"""A derived recurrent cell over time, fast: a forward and a backward pass written by hand.

Three things make it fast, and none changes a number but in the last digits. Nodes with the same
source share one matrix product. Backwards, whatever needs no later step is computed for all time
steps at once: the factors of the chain rule before the loop, the gradients of all weights after it
as one product each (a plain loop adds up one of rank B a step). And autograd, which would record
some eighty operations a time step, sees one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.genotype import Cell

IN_PLACE = {"tanh": Tensor.tanh_, "relu": Tensor.relu_, "sigmoid": Tensor.sigmoid_}


@dataclass(frozen=True)
class Group:
    """Nodes that take their state from the same one.

    Attributes:
        source: the slot of that state; -1: state 0.
        nodes: their numbers from 0, in the order of their slots.
        start: the first slot of theirs.
        runs: activation, and from where to where within the group it holds.
    """

    source: int
    nodes: tuple[int, ...]
    start: int
    runs: tuple[tuple[str, int, int], ...]

    @property
    def slots(self) -> slice:
        """Where their states are kept."""
        return slice(self.start, self.start + len(self.nodes))


@dataclass(frozen=True)
class Plan:
    """In which order a cell is computed, and where its states are kept.

    Attributes:
        groups: each after the one that holds its source.
        output: the slots whose mean is the new state; None: all.
        nodes: how many slots.
    """

    groups: tuple[Group, ...]
    output: tuple[int, ...] | None
    nodes: int

    @classmethod
    def of(cls, cell: Cell) -> Plan:
        """The plan of a cell whose nodes have one edge each."""
        slot, groups, start = {0: -1}, [], 0
        for source in range(cell.nodes):
            edges = [edge for edge in cell.edges if edge.source == source]
            edges.sort(key=lambda edge: edge.op.name)
            runs, at = [], 0
            for name, run in itertools.groupby(edge.op.name for edge in edges):
                length = len(list(run))
                runs.append((name, at, at + length))
                at += length
            slot.update((edge.target, start + n) for n, edge in enumerate(edges))
            if edges:
                nodes = tuple(edge.target - 1 for edge in edges)
                groups.append(Group(slot[source], nodes, start, tuple(runs)))
            start += len(edges)
        output = tuple(sorted(slot[node] for node in cell.output))
        return cls(tuple(groups), None if len(output) == start else output, start)


def fused_loop(
    plan: Plan, from_x: Tensor, hidden: Tensor, mask: Tensor | None, W0_hidden: Tensor,
    W: Sequence[Tensor],
) -> Tensor:
    """The states after each word, [T, B, d].

    Args:
        plan: of the cell.
        from_x: the words' share of [c, a] in state 0, [T, B, 2d].
        hidden: the state before the first word, [B, d].
        mask: of every state where it meets a matrix, [B, d]; None: all ones.
        W0_hidden: [d, 2d].
        W: of each node, [d, 2d].
    """
    by_group = [torch.cat([W[node] for node in group.nodes], 1) for group in plan.groups]
    return _FusedLoop.apply(plan, from_x, hidden, mask, W0_hidden, *by_group)


class _FusedLoop(torch.autograd.Function):
    """`fused_loop` with the weights of each group side by side. k: nodes of a group, N: of all."""

    @staticmethod
    def forward(ctx, plan, from_x, hidden, mask, W0, *W):
        T, B, d = *from_x.shape[:2], hidden.shape[1]
        h = from_x.new_empty(T + 1, B, d)
        h[0] = hidden
        ca0, s0 = from_x.clone(), from_x.new_empty(T, B, d)
        s = from_x.new_empty(T, B, plan.nodes, d)
        ca = [from_x.new_empty(T, B, len(group.nodes), 2, d) for group in plan.groups]
        # What meets a matrix: of h, of each group's source. Without a mask, the states themselves.
        met0 = h[:T] if mask is None else torch.empty_like(s0)
        met = [
            _source(group, s0, s) if mask is None else torch.empty_like(s0)
            for group in plan.groups
        ]
        views = [_views(group, ca[n], s0, s) for n, group in enumerate(plan.groups)]
        output = None if plan.output is None else torch.tensor(plan.output, device=h.device)
        for t in range(T):
            if mask is not None:
                torch.mul(h[t], mask, out=met0[t])
            ca0[t].addmm_(met0[t], W0)  # [B, 2d]
            c, a = ca0[t].split(d, 1)
            torch.lerp(h[t], a.tanh_(), c.sigmoid_(), out=s0[t])
            for (source, flat, c, a, runs, out), w, meets in zip(views, W, met, strict=True):
                if mask is not None:
                    torch.mul(source[t], mask, out=meets[t])
                torch.mm(meets[t], w, out=flat[t])  # [B, k 2 d]
                c[t].sigmoid_()
                for activate, run in runs:
                    activate(run[t])
                torch.lerp(source[t].unsqueeze(1), a[t], c[t], out=out[t])  # [B, k, d]
            torch.mean(s[t] if output is None else s[t][:, output], 1, out=h[t + 1])
        ctx.plan = plan
        ctx.save_for_backward(h, s0, s, ca0, W0, mask, *ca, *W, *met, met0)
        return h[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        plan, groups = ctx.plan, len(ctx.plan.groups)
        h, s0, s, ca0, W0, mask, *rest = ctx.saved_tensors
        ca, W, met, met0 = rest[:groups], rest[groups:2 * groups], rest[2 * groups:-1], rest[-1]
        T, B, d = s0.shape
        # The chain rule's factors, for all time steps at once: from a node's state to its c and a
        # before their activations, and to its source.
        factor0, kept0 = _factors(h[:T].unsqueeze(2), ca0.view(T, B, 1, 2, d), [("tanh", 0, 1)])
        factors = [
            _factors(_source(group, s0, s).unsqueeze(2), ca[n], group.runs)
            for n, group in enumerate(plan.groups)
        ]
        d_ca0 = torch.empty_like(ca0)
        d_ca = [torch.empty_like(factor) for factor, _ in factors]
        in_steps = [
            (group, factor.unbind(), kept.unbind(), gradient.unbind(), w.t())
            for group, (factor, kept), gradient, w in zip(
                plan.groups, factors, d_ca, W, strict=True
            )
        ]
        d_h = torch.zeros_like(h[0])  # what the next time step sends back
        d_s, d_s0 = torch.zeros_like(s[0]), torch.empty_like(h[0])  # [B, N, d], [B, d]
        share = 1 / (plan.nodes if plan.output is None else len(plan.output))
        for t in reversed(range(T)):
            d_h = (d_h + grad[t]) * share
            if plan.output is None:
                d_s.copy_(d_h.unsqueeze(1))
            else:
                d_s.zero_()
                d_s[:, list(plan.output)] = d_h.unsqueeze(1)
            d_s0.zero_()
            for group, factor, kept, gradient, W_t in reversed(in_steps):
                own = d_s[:, group.slots]  # [B, k, d]
                torch.mul(own.unsqueeze(2), factor[t], out=gradient[t])  # [B, k, 2, d]
                back = gradient[t].view(B, -1) @ W_t
                source = d_s0 if group.source < 0 else d_s[:, group.source]
                if own.shape[1] == 1:
                    source.addcmul_(own[:, 0], kept[t][:, 0])
                else:
                    source.add_((own * kept[t]).sum(1))
                source.add_(back) if mask is None else source.addcmul_(back, mask)
            torch.mul(d_s0.unsqueeze(1), factor0[t][:, 0], out=d_ca0[t].view(B, 2, d))
            back = d_ca0[t] @ W0.t()
            d_h = torch.addcmul(back if mask is None else back * mask, d_s0, kept0[t][:, 0])
        d_W = [
            meets.reshape(T * B, d).t() @ gradient.view(T * B, -1)
            for meets, gradient in zip(met, d_ca, strict=True)
        ]
        d_W0 = met0.reshape(T * B, d).t() @ d_ca0.view(T * B, -1)
        return None, d_ca0, d_h, None, d_W0, *d_W


def _source(group: Group, s0: Tensor, s: Tensor) -> Tensor:
    """Where a group's source is kept, [T, B, d]."""
    return s0 if group.source < 0 else s[:, :, group.source]


def _views(group: Group, ca: Tensor, s0: Tensor, s: Tensor) -> tuple:
    """A group's parts of the buffers, as a view for each time step: slicing costs time, too."""
    T, B = s0.shape[:2]
    runs = [
        (IN_PLACE[name], ca[:, :, a:b, 1].unbind())
        for name, a, b in group.runs if name != "identity"
    ]
    return (
        _source(group, s0, s).unbind(), ca.view(T, B, -1).unbind(), ca[:, :, :, 0].unbind(),
        ca[:, :, :, 1].unbind(), runs, s[:, :, group.slots].unbind(),
    )


def _factors(
    source: Tensor, ca: Tensor, runs: Sequence[tuple[str, int, int]]
) -> tuple[Tensor, Tensor]:
    """From s_j = s_i + c (f(a) - s_i): ds_j over d(c, a before activation), and over ds_i.

    Args:
        source: s_i, [T, B, 1, d].
        ca: c and f(a), [T, B, k, 2, d].
        runs: see `Group`.

    Returns:
        [T, B, k, 2, d] and [T, B, k, d].
    """
    c, f = ca.unbind(3)
    kept = 1 - c
    factor = torch.empty_like(ca)
    torch.mul(f - source, c * kept, out=factor[:, :, :, 0])
    for name, a, b in runs:
        gate, value, out = c[:, :, a:b], f[:, :, a:b], factor[:, :, a:b, 1]
        if name == "tanh":
            torch.mul(gate, 1 - value * value, out=out)
        elif name == "relu":
            torch.mul(gate, value > 0, out=out)
        elif name == "sigmoid":
            torch.mul(gate, value * (1 - value), out=out)
        else:
            out.copy_(gate)
    return factor, kept
