"""A derived recurrent cell over time, fast: one time step forwards and one backwards, by hand.

Three things make it fast, and none changes a number but in the last digits. Nodes with the same
source share one matrix product. The gradients of all weights come after the loop as one product
each, where a plain loop adds up one of rank B a time step. And autograd, which would record some
eighty operations a step, sees one for the whole loop. Each step is a function of tensors alone, so
that `torch.compile` can make a few kernels of it, whatever the length of a chunk (`Steps`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.networks.genotype import Cell

SMALL = 2**14  # numbers in a state: below, operations over all time steps at once cost less, since
# they are fewer; above, those within a step, since what they touch is still in the cache
ACTIVATE = {
    "tanh": Tensor.tanh_, "relu": Tensor.relu_, "sigmoid": Tensor.sigmoid_, "none": Tensor.zero_,
}
CHAIN = {  # from the gradient of f(a), and f(a), to that of a
    "tanh": lambda gradient, f: torch.addcmul(gradient, gradient, f * f, value=-1),
    "relu": lambda gradient, f: gradient * (f > 0),
    "sigmoid": lambda gradient, f: gradient * f * (1 - f),
    "identity": lambda gradient, f: gradient,
    "none": lambda gradient, f: torch.zeros_like(gradient),
}


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
        output: the slots whose mean is the new state.
        nodes: how many slots.
    """

    groups: tuple[Group, ...]
    output: tuple[int, ...]
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
        return cls(tuple(groups), output, start)


class Steps:
    """One time step of a cell, forwards and backwards.

    Below, B columns, d units, N nodes, k of a group. `W` are the groups' weights, [d, k 2 d]: their
    nodes' own side by side. `ca` are c and f(a) of each node.

    Args:
        plan: of the cell.

    Attributes:
        forward: see `_forward`.
        backward: see `_backward`.
        compiled: whether both are.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.forward, self.backward, self.compiled = self._forward, self._backward, False

    def compile(self, backend: str) -> None:
        """Make a few kernels of each: up to a minute, once for each number of columns."""
        self.forward = torch.compile(self._forward, dynamic=False, backend=backend)
        self.backward = torch.compile(self._backward, dynamic=False, backend=backend)
        self.compiled = True

    def _forward(
        self, from_x: Tensor, h: Tensor, mask: Tensor | None, W0: Tensor, W: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """h' [B, d], then for the way back: ca of state 0, s_0, other states, the groups' ca."""
        ca0 = torch.addmm(from_x, _masked(h, mask), W0)  # [B, 2d]
        c, a = ca0.chunk(2, 1)
        s0 = torch.lerp(h, a.tanh_(), c.sigmoid_())
        states, kept = [], []
        for group, w in zip(self.plan.groups, W, strict=True):
            source = s0 if group.source < 0 else states[group.source]
            ca = (_masked(source, mask) @ w).view(len(h), len(group.nodes), 2, -1)  # [B, k, 2, d]
            c, a = ca.unbind(2)
            c.sigmoid_()
            for name, first, last in group.runs:
                if name != "identity":
                    ACTIVATE[name](a[:, first:last])
                if name == "none":  # an open gate to 0: s_j = 0, and no gradient flows back
                    c[:, first:last].fill_(1)
            states += torch.lerp(source.unsqueeze(1), a, c).unbind(1)
            kept.append(ca)
        s = torch.stack(states, 1)  # [B, N, d]
        new = s if len(self.plan.output) == self.plan.nodes else s[:, list(self.plan.output)]
        return new.mean(1), ca0, s0, s, *kept

    def factors(
        self, h: Tensor, ca0: Tensor, s0: Tensor, s: Tensor, *ca: Tensor
    ) -> tuple[Tensor, ...]:
        """What a state's gradient is multiplied by, for one time step or for all ([T, ...]).

        Of state 0 and then of each group: on the way to c and a before their activations,
        [B, k, 2, d], and on the way to its source, [B, k, d].
        """
        c, f = ca0.unflatten(-1, (1, 2, -1)).unbind(-2)  # [B, 1, d]
        all_factors = [*_factors(h, c, f, (("tanh", 0, 1),))]
        for group, ca_k in zip(self.plan.groups, ca, strict=True):
            source = s0 if group.source < 0 else s[..., group.source, :]
            all_factors += _factors(source, *ca_k.unbind(-2), group.runs)
        return tuple(all_factors)

    def _backward(
        self, d_h: Tensor, mask: Tensor | None, W0: Tensor, W: Sequence[Tensor], *kept: Tensor
    ) -> tuple[Tensor, ...]:
        """From the gradient of h' to that of h and of every c and a; `kept`: h and `_forward`'s."""
        return self.chain(d_h, mask, W0, W, *self.factors(*kept))

    def chain(
        self, d_h: Tensor, mask: Tensor | None, W0: Tensor, W: Sequence[Tensor],
        to_ca0: Tensor, to_h: Tensor, *to: Tensor,
    ) -> tuple[Tensor, ...]:
        """See `_backward`; with the factors, for which it does not matter what comes later."""
        share = d_h / len(self.plan.output)
        zero = torch.zeros_like(share)
        d_s = [share if slot in self.plan.output else zero for slot in range(self.plan.nodes)]
        d_s0, d_ca = zero, []
        for group, w, to_ca, to_source in reversed(
            list(zip(self.plan.groups, W, to[::2], to[1::2], strict=True))
        ):
            own = torch.stack(d_s[group.slots], 1)  # [B, k, d]
            d_ca.append(own.unsqueeze(2) * to_ca)  # [B, k, 2, d]
            back = _masked(d_ca[-1].flatten(1) @ w.t(), mask) + (own * to_source).sum(1)  # [B, d]
            if group.source < 0:
                d_s0 = d_s0 + back
            else:
                d_s[group.source] = d_s[group.source] + back
        d_ca0 = (d_s0.view(len(d_s0), 1, 1, -1) * to_ca0).flatten(1)  # [B, 2d]
        back = torch.addcmul(_masked(d_ca0 @ W0.t(), mask), d_s0, to_h.squeeze(1))
        return back, d_ca0, *reversed(d_ca)


def fused_loop(
    steps: Steps, from_x: Tensor, hidden: Tensor, mask: Tensor | None, W0_hidden: Tensor,
    W: Sequence[Tensor],
) -> Tensor:
    """The states after each word, [T, B, d].

    Args:
        steps: of the cell.
        from_x: the words' share of [c, a] in state 0, [T, B, 2d].
        hidden: the state before the first word, [B, d].
        mask: of every state where it meets a matrix, [B, d]; None: all ones.
        W0_hidden: [d, 2d].
        W: of each node, [d, 2d].
    """
    by_group = [torch.cat([W[node] for node in group.nodes], 1) for group in steps.plan.groups]
    return _FusedLoop.apply(steps, from_x, hidden, mask, W0_hidden, *by_group)


class _FusedLoop(torch.autograd.Function):
    """`fused_loop` with the weights of each group side by side."""

    @staticmethod
    def forward(ctx, steps, from_x, hidden, mask, W0, *W):
        states, kept = [hidden.detach()], []  # so that all time steps are alike to a compiler
        for words in from_x:
            state, *rest = steps.forward(words, states[-1], mask, W0, W)
            states.append(state)
            kept.append(rest)
        ctx.save_for_backward(mask, W0, *W)
        ctx.steps, ctx.before, ctx.kept = steps, states[:-1], kept
        return torch.stack(states[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        mask, W0, *W = ctx.saved_tensors
        steps, h, kept = ctx.steps, torch.stack(ctx.before), list(zip(*ctx.kept, strict=True))
        if steps.compiled or h[0].numel() > SMALL:
            back, given = steps.backward, (h, *kept)
        else:
            back, given = steps.chain, steps.factors(h, *map(torch.stack, kept))
        d_h, d_ca = torch.zeros_like(h[0]), []
        for d_state, *at in reversed(list(zip(grad, *given, strict=True))):
            d_h, *d_step = back(d_h + d_state, mask, W0, W, *at)
            d_ca.append(d_step)
        d_ca0, *d_ca = (torch.stack(of_steps[::-1]) for of_steps in zip(*d_ca, strict=True))
        _, s0, s, *_ = kept
        d_W = []
        for group, gradient in zip(steps.plan.groups, d_ca, strict=True):
            source = s0 if group.source < 0 else [states[:, group.source] for states in s]
            d_W.append(_weights_gradient(torch.stack(list(source)), mask, gradient))
        return None, d_ca0, d_h, None, _weights_gradient(h, mask, d_ca0), *d_W


def _factors(
    source: Tensor, c: Tensor, f: Tensor, runs: Sequence[tuple[str, int, int]]
) -> tuple[Tensor, Tensor]:
    """Of s_j = s_i + c (f(a) - s_i), with any leading dimensions.

    Args:
        source: s_i, [B, d].
        c: [B, k, d].
        f: f(a), [B, k, d].
        runs: see `Group`.

    Returns:
        ds_j over d(c, a before their activations), [B, k, 2, d], and over ds_i, [B, k, d].
    """
    to_c = (f - source.unsqueeze(-2)) * torch.addcmul(c, c, c, value=-1)
    to_a = [
        CHAIN[name](c[..., first:last, :], f[..., first:last, :]) for name, first, last in runs
    ]
    return torch.stack([to_c, torch.cat(to_a, -2) if len(to_a) > 1 else to_a[0]], -2), 1 - c


def _weights_gradient(source: Tensor, mask: Tensor | None, d_ca: Tensor) -> Tensor:
    """Of all time steps and columns at once: [T, B, d] and [T, B, ...] to [d, ...]."""
    return _masked(source, mask).flatten(0, 1).t() @ d_ca.flatten(2).flatten(0, 1)


def _masked(state: Tensor, mask: Tensor | None) -> Tensor:
    return state if mask is None else state * mask
