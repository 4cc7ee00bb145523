"""The recurrent cell that a genotype describes (DARTS 2.1, GDAS 4.3), one layer over time.

State 0 is made of the word x and the state h before it; node j takes its state from an earlier one
by a gate c and an activation f, both from one matrix W_j::

    c, a = [x, h] W_0           s_0 = h + sigmoid(c) (tanh(a) - h)
    c, a = s_i W_j              s_j = s_i + sigmoid(c) (f(a) - s_i)
    h'   = the mean of the output nodes

A node whose activation is `none` has the state 0, as in a search.

`plain_loop` is these equations, step by step; the cell itself runs `fused_loop`, which gives the
same numbers sooner.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.language.fused import Plan, Steps, fused_loop
from common.networks.genotype import Cell, FixedCell, Genotype

ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda a: a,
}
SPREAD = 0.04  # of initial weights: uniform in +- this (authors' code)


def recurrent_cell(genotype: Genotype) -> Cell:
    """The recurrent cell of a genotype.

    Raises:
        InputError: it has none, or one that no equation above describes.
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
            "edge; it takes its state from one earlier node"
        )
    return cell


def dropout_mask(p: float, *shape: int, like: Tensor) -> Tensor | None:
    """Zeros with probability p, 1 / (1 - p) elsewhere; None where nothing is dropped."""
    return like.new_empty(shape).bernoulli_(1 - p) / (1 - p) if p > 0 else None


class GatedNodes(nn.Module):
    """The weights of a recurrent cell: one matrix a node, shared by all edges into it.

    Args:
        units: d, of the word vectors and of every state.
        nodes: N computed ones, state 0 apart.

    Attributes:
        W0: [2d, 2d], rows for x and then h, columns for c and then a.
        W: N of [d, 2d].
    """

    hidden_states = 1  # that one time step hands to the next

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
        """Variational dropout of a chunk: of every x, and of every state that meets a matrix.

        Each is [B, d], or None where nothing is dropped.
        """
        return tuple(
            dropout_mask(p, columns, self.units, like=self.W0) for p in (p_input, p_hidden)
        )


class RecurrentCell(GatedNodes):
    """A derived cell over time.

    Args:
        cell: see `recurrent_cell`.
        units: d.
    """

    def __init__(self, cell: Cell, units: int):
        super().__init__(units, cell.nodes)
        self.cell = cell
        self.steps = self.training_steps = Steps(Plan.of(cell))

    def compile_steps(self, backend: str = "inductor") -> None:
        """Compile the time step while training; a text is scored in other widths, and without."""
        self.training_steps = Steps(self.steps.plan)
        self.training_steps.compile(backend)

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
            The state after each word [T, B, d] and the last of them [1, B, d].
        """
        x = x if x_mask is None else x * x_mask
        from_x = x @ self.W0[: self.units]  # [T, B, 2d]
        steps = self.training_steps if self.training else self.steps
        states = fused_loop(
            steps, from_x, hidden[0], h_mask, self.W0[self.units :], list(self.W)
        )
        return states, states[-1:]

    def plain_loop(
        self, x: Tensor, hidden: Tensor, x_mask: Tensor | None = None, h_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same by the equations, one node of one time step after another."""

        def masked(state: Tensor, mask: Tensor | None) -> Tensor:
            return state if mask is None else state * mask

        h, outputs = hidden[0], []
        for word in x:
            c, a = (torch.cat([masked(word, x_mask), masked(h, h_mask)], 1) @ self.W0).chunk(2, 1)
            states = [h + c.sigmoid() * (a.tanh() - h)]
            for edge, weight in zip(self.cell.edges, self.W, strict=True):
                s = states[edge.source]
                if edge.op.name == "none":
                    states.append(torch.zeros_like(s))
                    continue
                c, a = (masked(s, h_mask) @ weight).chunk(2, 1)
                states.append(s + c.sigmoid() * (ACTIVATIONS[edge.op.name](a) - s))
            h = sum(states[node] for node in self.cell.output) / len(self.cell.output)
            outputs.append(h)
        return torch.stack(outputs), h[None]
