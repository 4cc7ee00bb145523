"""The recurrent cell that a genotype describes (DARTS 2.1, GDAS 4.3), unrolled over time.

State 0 combines the word x and the previous hidden state h. Node j reads the state of one earlier
node i through a gate c and an activation f; one matrix W_j gives both::

    c, a = [x, h] W_0           s_0 = h + sigmoid(c) (tanh(a) - h)
    c, a = s_i W_j              s_j = s_i + sigmoid(c) (f(a) - s_i)
    h'   = mean of the output nodes

A node whose activation is `none` has state 0, as in a search.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.networks.genotype import Cell, FixedCell, Genotype

ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda a: a,
}
SPREAD = 0.04  # initial weights are uniform in [-SPREAD, SPREAD] (authors' code)


def recurrent_cell(genotype: Genotype) -> Cell:
    """The recurrent cell of a genotype.

    Raises:
        InputError: the genotype has none, or one that the equations above do not describe.
    """
    cell = genotype.cells.get("recurrent")
    if cell is None:
        raise InputError(
            f"genotype {genotype.name}: a language model needs a recurrent cell, and it has only "
            f"{' and '.join(genotype.cells)}"
        )
    if isinstance(cell, FixedCell):
        raise InputError(
            f"genotype {genotype.name}: the recurrent cell must have edges; {cell.name} is a cell "
            "of image networks"
        )
    targets = [edge.target for edge in cell.edges]
    twice = [node for node in targets if targets.count(node) > 1]
    if twice:
        raise InputError(
            f"genotype {genotype.name}: node {twice[0]} of the recurrent cell has more than one "
            "edge; each node reads one earlier node"
        )
    return cell


def dropout_mask(p: float, *shape: int, like: Tensor) -> Tensor | None:
    """0 with probability p, 1 / (1 - p) elsewhere; None if p is 0."""
    return like.new_empty(shape).bernoulli_(1 - p) / (1 - p) if p > 0 else None


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """x times a dropout mask; None: x itself."""
    return x if mask is None else x * mask


class GatedNodes(nn.Module):
    """The weights of a recurrent cell: one matrix per node, shared by all edges into it.

    Args:
        units: d, the size of word vectors and states.
        nodes: N, computed nodes without state 0.

    Attributes:
        W0: [2d, 2d]; rows for x and then h, columns for c and then a.
        W: N matrices [d, 2d].
    """

    hidden_states = 1  # passed from one time step to the next

    def __init__(self, units: int, nodes: int):
        super().__init__()
        self.units, self.nodes = units, nodes
        self.W0 = nn.Parameter(torch.empty(2 * units, 2 * units).uniform_(-SPREAD, SPREAD))
        self.W = nn.ParameterList(
            torch.empty(units, 2 * units).uniform_(-SPREAD, SPREAD) for _ in range(nodes)
        )

    def masks(
        self, columns: int, p_input: float, p_hidden: float
    ) -> tuple[Tensor | None, Tensor | None]:
        """Variational dropout for one chunk: masks of every x and of every state before a matrix.

        Each is [B, d], or None if its probability is 0.
        """
        return tuple(
            dropout_mask(p, columns, self.units, like=self.W0) for p in (p_input, p_hidden)
        )


class RecurrentCell(GatedNodes):
    """A derived cell, unrolled over time.

    Args:
        cell: see `recurrent_cell`.
        units: d.
    """

    def __init__(self, cell: Cell, units: int):
        super().__init__(units, cell.nodes)
        self.cell = cell
        self.training_step = time_step

    def compile_step(self, backend: str = "inductor") -> None:
        """Compile the time step for training; evaluation has other batch sizes and stays eager."""
        self.training_step = torch.compile(time_step, dynamic=False, backend=backend)

    def forward(
        self, x: Tensor, hidden: Tensor, x_mask: Tensor | None = None, h_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read a chunk of text.

        Args:
            x: word vectors, [T, B, d].
            hidden: the state before them, [1, B, d].
            x_mask: see `masks`.
            h_mask: see `masks`.

        Returns:
            The state after each word, [T, B, d], and the last of them, [1, B, d].
        """
        step = self.training_step if self.training else time_step
        from_x = masked(x, x_mask) @ self.W0[: self.units]  # [T, B, 2d]
        W0, W = self.W0[self.units :], list(self.W)
        h, states = hidden[0], []
        if self.training:
            h.requires_grad_()  # like all later states: one compiled graph
        for word in from_x:
            h = step(self.cell, word, h, h_mask, W0, W)
            states.append(h)
        return torch.stack(states), h[None]


def time_step(
    cell: Cell, from_x: Tensor, h: Tensor, mask: Tensor | None, W0: Tensor, W: Sequence[Tensor]
) -> Tensor:
    """The next hidden state h', [B, d].

    Args:
        cell: its edges in node order.
        from_x: x W_0 of this word, [B, 2d].
        h: the previous hidden state, [B, d].
        mask: multiplies every state before a matrix, [B, d]; None: no dropout.
        W0: the rows of W_0 for h, [d, 2d].
        W: one matrix per node, [d, 2d].
    """
    c, a = torch.addmm(from_x, masked(h, mask), W0).chunk(2, 1)
    states = [torch.lerp(h, a.tanh(), c.sigmoid())]
    for edge, weight in zip(cell.edges, W, strict=True):
        s = states[edge.source]
        if edge.op.name == "none":
            states.append(torch.zeros_like(s))
            continue
        c, a = (masked(s, mask) @ weight).chunk(2, 1)
        states.append(torch.lerp(s, ACTIVATIONS[edge.op.name](a), c.sigmoid()))
    return torch.stack([states[node] for node in cell.output]).mean(0)
