"""The fast search cell: computes all edges that leave a node together.

All edges out of a node read the same input. So its ReLU and pools are computed once, and each
separable candidate of all these edges is one grouped convolution. The mixing weights become the
scale of the normalisation at the end of each candidate; identities and pools are one small matrix
product; `none` adds nothing and is skipped. A cell of four nodes takes five such steps. An
operation without such a form runs on each edge by itself.
`common/supernet/equation_form.py` has the same cell edge by edge, as the tests check.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks import ops
from common.networks.layout import concatenate, to_format
from common.networks.macro import Place
from common.supernet.separable import Read, convolve, read

# Operations that are computed for many edges at once.
SPECIAL = (*ops.SEPARABLE, *ops.DENSE, *ops.POOLS, "skip_connect", "none")


@dataclass(frozen=True)
class Mix:
    """How a cell mixes its candidates in one forward pass.

    Attributes:
        op: [edges, candidates], the weight of each candidate on each edge.
        edge: [edges], the weight of each edge in its node's sum; None: 1.
    """

    op: Tensor
    edge: Tensor | None = None

    def of(self, step: MixedEdges) -> tuple[Tensor, Tensor | None]:
        """The weights of a step's edges: [S, T, candidates] and [S, T] (or None)."""
        return self.op[step.rows], None if self.edge is None else self.edge[step.rows]


def cell_edges(nodes: int, inputs: int = 2) -> list[tuple[int, int]]:
    """The edges (source, target) of a cell with that many computed nodes, sorted by target."""
    return [(i, j) for j in range(inputs, inputs + nodes) for i in range(j)]


class SearchCell(nn.Module):
    """A cell of a supernet: x_j = sum over i < j of f_ij(x_i), all candidates on all edges.

    Checkpoint names are `edges.<i>-<j>.<candidate>...`, one tensor per edge, as in the
    equation-shaped cell, although tensors are stacked in memory.

    Args:
        place: widths and resolution.
        nodes: computed nodes.
        candidates: names of the operations, in the column order of the mix.
        width: input channels of the candidates; None: all.
    """

    def __init__(
        self, place: Place, nodes: int, candidates: Sequence[str], width: int | None = None
    ):
        super().__init__()
        self.first = len(place.inputs)  # the first computed node
        self.edges, self.outputs = cell_edges(nodes, self.first), place.outputs(nodes)
        self.inputs = place.adapters(affine=False)
        self.steps = nn.ModuleList(
            MixedEdges(sources, targets, self.edges, candidates, width or place.channels, place)
            for sources, targets in self.partition()
        )
        self.register_state_dict_post_hook(_name_by_edge)
        self.register_load_state_dict_pre_hook(_stack_by_step)

    def partition(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Groups of edges to compute together, as (sources, targets): those out of each state.

        Both inputs feed every node; then the first node is complete and feeds the rest, and so on.
        """
        first, last = self.first, self.edges[-1][1]
        return [((i,), tuple(range(max(i + 1, first), last + 1))) for i in range(last)]

    def forward(self, *given: Tensor | Mix) -> Tensor:
        """What cells hand on, and a mix: [B, C_k-2, ..], [B, C_k-1, ..] -> [B, nodes x C, H, W]."""
        *inputs, mix = given
        states = dict(enumerate(self.inputs.past_relu(*inputs)))
        arrived = defaultdict(list)  # node -> outputs of its incoming edges so far

        def state(i: int) -> Tensor:
            if i not in states:
                states[i] = self.node(arrived.pop(i))
            return states[i]

        for step in self.steps:
            flows = self.flows(step, [state(i) for i in step.sources], mix)
            for j, x in zip(step.targets, flows, strict=True):
                arrived[j].append(x)
        return concatenate([state(j) for j in self.outputs])

    def flows(self, step: MixedEdges, sources: list[Tensor], mix: Mix) -> Sequence[Tensor]:
        """From S sources to T targets of a step: S x [B, C, H, W] -> T x [B, C, H', W']."""
        op, edge = mix.of(step)
        return step(sources, op if edge is None else op * edge[..., None])

    def node(self, flows: Sequence[Tensor]) -> Tensor:
        """A node's output from what `flows` brought it: their sum."""
        return sum(flows[1:], flows[0])


class MixedEdges(nn.Module):
    """All candidates on all edges from S sources to T targets, summed over the sources.

    `candidates[name]` holds the operation `name` of every edge, each tensor stacked over the edges
    (source by source): [S * T, ...]; a pool is shared by the edges of a source, and stacked over S.
    An operation that is not `SPECIAL` is a list of one module per edge.
    """

    def __init__(
        self,
        sources: tuple[int, ...],
        targets: tuple[int, ...],
        edges: list[tuple[int, int]],
        candidates: Sequence[str],
        channels: int,
        place: Place,
    ):
        super().__init__()
        self.sources, self.targets = sources, targets
        self.channels, self.stride = channels, place.stride(sources[0])
        self.column = {name: k for k, name in enumerate(candidates)}
        # [S, T]: index of each edge among all edges of the cell
        rows = torch.tensor([[edges.index((i, j)) for j in targets] for i in sources])
        self.register_buffer("rows", rows, persistent=False)
        self.candidates = nn.ModuleDict()
        for name in candidates:
            copies = len(sources) if name in ops.POOLS else len(sources) * len(targets)
            modules = [
                place.candidate(name, sources[0], channels) for _ in range(copies)
            ]
            self.candidates[name] = stacked(modules) if name in SPECIAL else nn.ModuleList(modules)

    def edges_of(self, name: str) -> list[list[tuple[int, int]]]:
        """The edges of each row of a candidate's tensors."""
        if name in ops.POOLS:
            return [[(i, j) for j in self.targets] for i in self.sources]
        return [[(i, j)] for i in self.sources for j in self.targets]

    def forward(self, sources: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
        """Sum over the sources i and candidates o of weight[i, j, o] o(x_i), for every target j.

        Args:
            sources: S x [B, C, H, W].
            weight: [S, T, candidates].

        Returns:
            T x [B, C, H', W'].
        """
        x = concatenate(sources) if len(sources) > 1 else sources[0]  # [B, S*C, H, W]
        relu = F.relu(x)
        # [candidates, S*T*C]: one scale per channel and edge; contiguous, as batch normalisation on
        # a CPU reads past an expanded tensor
        scale = weight.flatten(0, 1).t().unsqueeze(2).expand(-1, -1, self.channels)
        scale = scale.flatten(1).contiguous()
        total, reads = None, {}  # [B, S*T*C, H', W'], and what is read by dilation
        for name, candidate in self.candidates.items():
            if name in ops.SEPARABLE:
                y = self.separable(relu, candidate, scale[self.column[name]], reads)
            elif name in ops.DENSE:
                y = self.dense(relu, candidate, scale[self.column[name]])
            elif name == "skip_connect" and self.stride == 2:
                y = self.reduce(relu, candidate, scale[self.column[name]])
            else:
                continue
            total = y if total is None else total.add_(y)  # backward needs no normalised output
        parts = []  # each T x [B, C, H', W'], to be summed
        if total is not None:
            by_source = total.chunk(len(self.sources), 1)
            parts.append(sum(by_source[1:], by_source[0]).chunk(len(self.targets), 1))
        parts += self.weightless(x, weight)
        parts += self.one_by_one(sources, weight)
        return [sum(flows[1:], flows[0]) for flows in zip(*parts, strict=True)]

    def separable(
        self, relu: Tensor, conv: nn.Module, scale: Tensor, reads: dict[int, Read]
    ) -> Tensor:
        """A separable convolution of every edge: [B, S*C, H, W] -> [B, S*T*C, H', W'].

        `reads` holds what first convolutions read, by dilation; it may be added to.
        """
        first, last = conv.units[0], conv.units[-1]
        (dilation, _) = first.depthwise.dilation
        if dilation not in reads:
            reads[dilation] = self.read(relu, first)
        what = reads[dilation]
        for unit, following in pairwise(conv.units):
            x = F.relu(self.unit(what, unit), inplace=True)
            what = self.read(x, following)
        return self.unit(what, last, scale)

    def read(self, x: Tensor, unit: nn.Module) -> Read:
        """What a `SeparableUnit` of every edge reads of x: [B, S*C, ..] or [B, S*T*C, ..]."""
        (stride, _), (dilation, _) = unit.depthwise.stride, unit.depthwise.dilation
        return read(x, len(unit.depthwise.weight), self.channels, stride, dilation)

    def unit(self, what: Read, unit: nn.Module, scale: Tensor | None = None) -> Tensor:
        """Depthwise and pointwise convolution and normalisation: [B, S*T*C, H', W']."""
        x = convolve(what, unit.depthwise.weight, unit.pointwise.weight)
        return normalise(x, unit.norm, scale)

    def dense(self, relu: Tensor, conv: nn.Module, scale: Tensor) -> Tensor:
        """A convolution of every edge: [B, S*C, H, W] -> [B, S*T*C, H', W']."""
        _, convolution, norm = conv
        x = conv.convolve(relu, convolution.weight.flatten(0, 1), groups=len(self.sources))
        return normalise(x, norm, scale)

    def reduce(self, relu: Tensor, skip: nn.Module, scale: Tensor) -> Tensor:
        """FactorizedReduce of every edge as one 2x2 convolution: both 1x1 are corners of it."""
        even = F.pad(skip.even.weight, (0, 1, 0, 1))
        odd = F.pad(skip.odd.weight, (1, 0, 1, 0))
        corners = torch.cat([even, odd], 1).flatten(0, 1)  # [S*T*C, C, 2, 2]
        height, width = relu.shape[-2:]
        if height % 2 or width % 2:  # zeros below and to the right
            relu = F.pad(relu, (0, width % 2, 0, height % 2))
        x = F.conv2d(relu, corners, None, 2, groups=len(self.sources))
        return normalise(x, skip.norm, scale)

    def weightless(self, x: Tensor, weight: Tensor) -> list[Sequence[Tensor]]:
        """Pools and identities of every edge, if any: [B, S*C, H, W] -> T x [B, C, H', W']."""
        maps, columns = [], []
        of_column = weight.unbind(2)  # candidates x [S, T]
        for name, candidate in self.candidates.items():
            if name in ops.POOLS:
                pool, *norms = candidate if isinstance(candidate, nn.Sequential) else [candidate]
                y = normalise(pool(x), *norms) if norms else pool(x)
            elif name == "skip_connect" and self.stride == 1:
                y = x
            else:
                continue
            maps += y.chunk(len(self.sources), 1)
            columns.append(of_column[self.column[name]])
        return [weighted_sums(maps, torch.cat(columns))] if maps else []

    def one_by_one(self, sources: Sequence[Tensor], weight: Tensor) -> list[Sequence[Tensor]]:
        """Operations without a special form, if any: S x [B, C, H, W] -> T x [B, C, H', W']."""
        others = [name for name in self.candidates if name not in SPECIAL]
        if not others:
            return []
        nodes, targets = [], len(self.targets)
        for t in range(targets):
            terms = [
                weight[s, t, self.column[name]] * self.candidates[name][s * targets + t](x)
                for s, x in enumerate(sources)
                for name in others
            ]
            nodes.append(sum(terms[1:], terms[0]))
        return [nodes]


def weighted_sums(maps: Sequence[Tensor], weight: Tensor) -> Sequence[Tensor]:
    """M maps into T sums of them: M x [B, C, H, W], [M, T] -> T x [B, C, H, W].

    A matrix product of the weights and the stacked maps, channels-last; it keeps the maps for the
    backward pass only if the weights need a gradient.
    """
    stacked = torch.stack([x.permute(0, 2, 3, 1) for x in maps])  # [M, B, H, W, C]
    sums = weight.t() @ stacked.flatten(1)  # [T, B*H*W*C]
    return sums.view(-1, *stacked.shape[1:]).permute(0, 1, 4, 2, 3).unbind()


def normalise(x: Tensor, norm: nn.BatchNorm2d, scale: Tensor | None = None) -> Tensor:
    """The normalisations of many edges at once; `norm` holds their statistics [E, C] or [C]."""
    mean, var = norm.running_mean.view(-1), norm.running_var.view(-1)
    # CPU BatchNorm vectorises 8 or 16 channels; for few others NCHW is faster.
    few = x.device.type == "cpu" and x.shape[1] < 16 and x.shape[1] % 8 != 0
    if few:
        x = x.contiguous()
    x = F.batch_norm(x, mean, var, scale, None, norm.training, norm.momentum, norm.eps)
    return to_format(x, torch.channels_last) if few else x


# ------------------------------------------------------------- checkpoints: one tensor per edge


def stacked(modules: Sequence[nn.Module]) -> nn.Module:
    """One module whose tensors stack those of equal modules: [len(modules), ...]."""
    one = copy.deepcopy(modules[0])
    for name, module in one.named_modules():
        twins = [m.get_submodule(name) for m in modules]
        for key in module._parameters:
            if module._parameters[key] is not None:
                tensors = [t._parameters[key].detach() for t in twins]
                module._parameters[key] = nn.Parameter(torch.stack(tensors))
        for key in module._buffers:
            if module._buffers[key] is not None:
                module._buffers[key] = torch.stack([t._buffers[key] for t in twins])
    return one


def _name_by_edge(cell: SearchCell, state: dict, prefix: str, _) -> None:
    """Split `steps.<n>.candidates.<name>.<rest>` [E, ...] into one entry per edge."""
    for n, step in enumerate(cell.steps):
        for name, candidate in step.candidates.items():
            if name not in SPECIAL:
                for own, by_edge in _keys_of_list(step, n, name, prefix):
                    state[by_edge] = state.pop(own)
                continue
            for rest in candidate.state_dict():
                rows = state.pop(f"{prefix}steps.{n}.candidates.{name}.{rest}")
                for edges, row in zip(step.edges_of(name), rows, strict=True):
                    for i, j in edges:
                        state[f"{prefix}edges.{i}-{j}.{name}.{rest}"] = row


def _stack_by_step(cell: SearchCell, state: dict, prefix: str, *_) -> None:
    """The inverse of `_name_by_edge`; `load_state_dict` reports missing entries."""
    for n, step in enumerate(cell.steps):
        for name, candidate in step.candidates.items():
            if name not in SPECIAL:
                for own, by_edge in _keys_of_list(step, n, name, prefix):
                    if by_edge in state:
                        state[own] = state.pop(by_edge)
                continue
            for rest in candidate.state_dict():
                keys = [
                    [f"{prefix}edges.{i}-{j}.{name}.{rest}" for i, j in edges]
                    for edges in step.edges_of(name)
                ]
                if all(key in state for row in keys for key in row):
                    rows = [[state.pop(key) for key in row][0] for row in keys]
                    state[f"{prefix}steps.{n}.candidates.{name}.{rest}"] = torch.stack(rows)


def _keys_of_list(step: MixedEdges, n: int, name: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Names in step n and by edge of every tensor of a candidate that is not `SPECIAL`."""
    for k, ((i, j),) in enumerate(step.edges_of(name)):
        for rest in step.candidates[name][k].state_dict():
            yield (
                f"{prefix}steps.{n}.candidates.{name}.{k}.{rest}",
                f"{prefix}edges.{i}-{j}.{name}.{rest}",
            )
