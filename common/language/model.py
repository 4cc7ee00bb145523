"""A language model with a recurrent cell, and its perplexity on a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from common.language.cell import SPREAD, dropout_mask, masked

IGNORED = -100  # target of padding


@dataclass(frozen=True)
class Dropouts:
    """Dropout probabilities; a mask is constant over a chunk (in brackets: AWD-LSTM's names).

    Attributes:
        output: of the states that the decoder reads (dropout).
        hidden: of states within the cell, see `GatedNodes.masks` (dropouth).
        input: of the word vectors that the cell reads (dropoutx).
        embedding: of the word vectors before that (dropouti).
        word: of words of the vocabulary (dropoute).
    """

    output: float = 0.0
    hidden: float = 0.0
    input: float = 0.0
    embedding: float = 0.0
    word: float = 0.0


class Reading(NamedTuple):
    """What a language model computes from a chunk.

    Attributes:
        logits: of the next word, [T, B, words].
        hidden: the last hidden states, [S, B, d].
        states: after each word, before dropout, [T, B, d].
    """

    logits: Tensor
    hidden: Tensor
    states: Tensor


class LanguageModel(nn.Module):
    """Word vectors, a recurrent cell, and a decoder that shares its weights with the vectors.

    Args:
        words: vocabulary size.
        units: d, the size of word vectors and states.
        cell: a `RecurrentCell`, or a module with the same interface.
        dropouts: applied in training mode.
    """

    def __init__(self, words: int, units: int, cell: nn.Module, dropouts: Dropouts):
        super().__init__()
        self.units, self.dropouts = units, dropouts
        self.vectors = nn.Parameter(torch.empty(words, units).uniform_(-SPREAD, SPREAD))
        self.cell = cell
        self.bias = nn.Parameter(torch.zeros(words))

    def initial(self, columns: int) -> Tensor:
        """The hidden state before a text, zeros of [S, B, d]."""
        return self.vectors.new_zeros(self.cell.hidden_states, columns, self.units)

    def forward(self, words: Tensor, hidden: Tensor, *draw: Any) -> Reading:
        """Predict the word after each.

        Args:
            words: a chunk, [T, B].
            hidden: the state before it, [S, B, d].
            *draw: a searched cell's sampled operations for this chunk.

        Deviation: with several processes, each draws masks for its own columns, word masks too.
        """
        p = self.dropouts if self.training else Dropouts()
        columns = words.shape[1]
        x = F.embedding(words, self.vectors)  # [T, B, d]
        word_mask = dropout_mask(p.word, len(self.vectors), 1, like=x)
        if word_mask is not None:
            x = x * word_mask[words]
        x = locked_dropout(x, p.embedding)
        states, hidden = self.cell(
            x, hidden, *self.cell.masks(columns, p.input, p.hidden), *draw
        )
        logits = F.linear(locked_dropout(states, p.output), self.vectors, self.bias)
        return Reading(logits, hidden, states)


def locked_dropout(x: Tensor, p: float) -> Tensor:
    """Dropout with one mask for all time steps of x, [T, B, d]."""
    return masked(x, dropout_mask(p, *x.shape[1:], like=x))


def chunk_loss(reading: Reading, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats per word; its exponential is the perplexity."""
    return F.cross_entropy(reading.logits.flatten(0, 1), targets.flatten())


def slowness(states: Tensor) -> Tensor:
    """Temporal activation regularisation: mean squared change of the states [T, B, d] over time."""
    return states.diff(dim=0).square().mean() if len(states) > 1 else states.new_zeros(())


@torch.no_grad()
def exact_loss(
    accelerator: Accelerator, model: LanguageModel, text: Tensor, columns: int, chunk: int
) -> float:
    """Mean negative log-likelihood of a text in nats per word, independent of batch and chunks.

    Every word but the first is scored once, given all words before it. The text is read as parallel
    columns, first from zero states. Each column is then read again from the final state of the
    column before it, until its states equal those of the previous pass; no later word can differ.
    A recurrent state forgets, so this takes few words.

    Args:
        accelerator: its processes share the columns.
        model: in eval mode.
        text: [N], N > 1.
        columns: in total; a multiple of the number of processes.
        chunk: time steps in memory at once.
    """
    share = columns // accelerator.num_processes
    first = accelerator.process_index * share
    mine = slice(first, first + share)
    length = -(-(len(text) - 1) // columns)
    padding = (0, columns * length - (len(text) - 1))  # at the end, never scored
    words = F.pad(text[:-1], padding).view(columns, length)[mine].t()  # [length, share]
    targets = F.pad(text[1:], padding, value=IGNORED).view(columns, length)[mine].t()
    pieces = list(zip(words.split(chunk), targets.split(chunk), strict=True))
    sums: list[Tensor | None] = [None] * len(pieces)
    after: list[Tensor | None] = [None] * len(pieces)  # the states after each piece
    start = model.initial(columns)  # [S, columns, d]
    while True:
        hidden = start[:, mine]
        for n, (piece, wanted) in enumerate(pieces):
            reading = model(piece, hidden)
            loss = F.cross_entropy(
                reading.logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED,
                reduction="sum",
            )
            sums[n], hidden = loss.double(), reading.hidden
            if after[n] is not None and _same(after[n], hidden):
                break
            after[n] = hidden
        ends = accelerator.gather(after[-1].transpose(0, 1).contiguous()).transpose(0, 1)
        carried = torch.cat([start[:, :1], ends[:, :-1]], 1)
        if _same(carried, start):
            total = accelerator.reduce(torch.stack(sums).sum())
            return total.item() / (len(text) - 1)
        start = carried


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal up to a few roundings; NaN equals NaN."""
    return torch.allclose(a, b, rtol=0, atol=8 * torch.finfo(a.dtype).eps, equal_nan=True)
