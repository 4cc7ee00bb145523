"""A derived recurrent cell over a chunk of text, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch

from common.language.cell import RecurrentCell, recurrent_cell
from common.networks.genotype import load

WORDS = 35  # of a chunk (GDAS 4.3)


def recurrent_passes(
    units: int, columns: int, device: torch.device
) -> dict[str, Callable[[int], None]]:
    """Forward and backward passes of `gdas_rnn`'s cell for `benchmarking.timing.in_turn`.

    Args:
        units: size of word vectors and states.
        columns: the batch size.
        device: runs the cell.
    """
    x = torch.randn(WORDS, columns, units, device=device, requires_grad=True)
    hidden = x.new_zeros(1, columns, units)
    passes = {}
    for name in ("eager", "compiled"):
        cell = RecurrentCell(recurrent_cell(load("gdas_rnn")), units).to(device)
        if name == "compiled":
            cell.compile_step()
        masks = cell.masks(columns, 0.75, 0.25)

        def run(number: int, cell: RecurrentCell = cell, masks: tuple = masks) -> None:
            states, _ = cell(x, hidden, *masks)
            torch.autograd.grad(states.sum(), [x, *cell.parameters()])

        passes[name] = run
    return passes
