"""An LSTM in the place of a searched cell: the yardstick of language models."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from common.language.cell import SPREAD, dropout_mask

NAME = "lstm"  # in the place of a genotype


class LSTM(nn.Module):
    """One layer of PyTorch's LSTM, called as a `RecurrentCell` is.

    Args:
        units: of the word vectors, the state and the cell state.
    """

    hidden_states = 2  # h and c

    def __init__(self, units: int):
        super().__init__()
        self.lstm = nn.LSTM(units, units)
        for weight in self.lstm.parameters():
            nn.init.uniform_(weight, -SPREAD, SPREAD)

    def masks(
        self, columns: int, p_input: float, p_hidden: float
    ) -> tuple[Tensor | None, Tensor | None]:
        """Variational dropout of every x, [B, d], and of the recurrent weights, [4d, d].

        The state meets its matrix inside PyTorch's LSTM, out of reach of a mask; AWD-LSTM drops
        that matrix's elements instead (Merity et al. 2018, 2).
        """
        weight = self.lstm.weight_hh_l0
        units = weight.shape[1]
        return (
            dropout_mask(p_input, columns, units, like=weight),
            dropout_mask(p_hidden, *weight.shape, like=weight),
        )

    def forward(
        self, x: Tensor, hidden: Tensor, x_mask: Tensor | None = None, w_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `RecurrentCell.forward`; the hidden states are h and c, [2, B, d]."""
        if x_mask is not None:
            x = x * x_mask
        dropped = {}
        if w_mask is not None:
            dropped["weight_hh_l0"] = self.lstm.weight_hh_l0 * w_mask
        before = hidden[:1].contiguous(), hidden[1:].contiguous()
        states, after = functional_call(self.lstm, dropped, (x, before))
        return states, torch.cat(after)
