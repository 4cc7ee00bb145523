"""An LSTM in place of a searched cell: the baseline of language models."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from common.language.cell import SPREAD, dropout_mask, masked

NAME = "lstm"  # --genotype lstm


class LSTM(nn.Module):
    """One layer of PyTorch's LSTM with the interface of `RecurrentCell`.

    Args:
        units: size of word vectors, hidden state and cell state.
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

        PyTorch's LSTM gives no access to the state before its matrix; like AWD-LSTM, this drops
        elements of the matrix instead (Merity et al. 2018, 2).
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
        weights = {"weight_hh_l0": masked(self.lstm.weight_hh_l0, w_mask)}
        before = hidden[:1].contiguous(), hidden[1:].contiguous()
        states, after = functional_call(
            self.lstm, weights, (masked(x, x_mask), before)
        )
        return states, torch.cat(after)
