"""A language model around a recurrent cell, and how well it predicts a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from common.language.cell import SPREAD, dropout_mask

IGNORED = -100  # a target that is not scored


@dataclass(frozen=True)
class Dropouts:
    """Probabilities; each mask holds for a whole chunk (in brackets: AWD-LSTM's and DARTS' names).

    Attributes:
        output: of the states that the decoder reads (dropout).
        hidden: of states within the cell, see `GatedNodes.masks` (dropouth).
        input: of the word vectors that the cell reads (dropoutx).
        embedding: of the word vectors before that (dropouti).
        word: of whole words of the vocabulary (dropoute).
    """

    output: float = 0.0
    hidden: float = 0.0
    input: float = 0.0
    embedding: float = 0.0
    word: float = 0.0


class Reading(NamedTuple):
    """What a language model makes of a chunk.

    Attributes:
        logits: of the next word, [T, B, words].
        hidden: the states it ends in, [S, B, d].
        states: after each word, before any dropout, [T, B, d].
    """

    logits: Tensor
    hidden: Tensor
    states: Tensor


class LanguageModel(nn.Module):
    """Word vectors, a cell over time, a decoder whose weights are the word vectors again.

    Args:
        words: size of the vocabulary.
        units: d, of word vectors and states.
        cell: a `RecurrentCell`, or what is called like one.
        dropouts: while training.
    """

    def __init__(self, words: int, units: int, cell: nn.Module, dropouts: Dropouts):
        super().__init__()
        self.units, self.dropouts = units, dropouts
        self.vectors = nn.Parameter(torch.empty(words, units).uniform_(-SPREAD, SPREAD))
        self.cell = cell
        self.bias = nn.Parameter(torch.zeros(words))

    def initial(self, columns: int) -> Tensor:
        """The state before a text, [S, B, d]."""
        return self.vectors.new_zeros(self.cell.hidden_states, columns, self.units)

    def forward(self, words: Tensor, hidden: Tensor, *drawn: Any) -> Reading:
        """[T, B] words and the state before them -> what follows each.

        Args:
            words: of a chunk.
            hidden: [S, B, d].
            *drawn: what a searched cell's edges do in this chunk.

        Deviation: in several processes, each draws masks for its own columns, those of words too.
        """
        p = self.dropouts if self.training else Dropouts()
        columns = words.shape[1]
        x = F.embedding(words, self.vectors)  # [T, B, d]
        kept = dropout_mask(p.word, len(self.vectors), 1, like=x)
        if kept is not None:
            x = x * kept[words]
        x = self._locked(x, p.embedding)
        states, hidden = self.cell(
            x, hidden, *self.cell.masks(columns, p.input, p.hidden), *drawn
        )
        logits = F.linear(self._locked(states, p.output), self.vectors, self.bias)
        return Reading(logits, hidden, states)

    @staticmethod
    def _locked(x: Tensor, p: float) -> Tensor:
        """Dropout whose mask is the same at every time step of [T, B, d]."""
        mask = dropout_mask(p, *x.shape[1:], like=x)
        return x if mask is None else x * mask


def chunk_loss(reading: Reading, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of a chunk, nats a word; exp of it is the perplexity."""
    return F.cross_entropy(reading.logits.flatten(0, 1), targets.flatten())


def slowness(states: Tensor) -> Tensor:
    """Mean squared change of the state from word to word, [T, B, d] (temporal activation reg.)."""
    return states.diff(dim=0).square().mean() if len(states) > 1 else states.new_zeros(())


@torch.no_grad()
def exact_loss(
    accelerator: Accelerator, model: LanguageModel, text: Tensor, columns: int, chunk: int
) -> float:
    """Mean negative log-likelihood of a text in nats a word, read from its start in one go.

    Every word but the first is scored once, given all words before it. The text is read in columns
    side by side, each at first from an empty state; then each again from the state in which the
    column before it ends, until its states are those of the reading before, from where on nothing
    can differ. A recurrent state forgets, so that is soon; the number depends on neither the
    columns nor the chunks (but for rounding), nor on the number of processes.

    Args:
        accelerator: whose processes share the columns.
        model: as it is, in eval mode: without draws and dropout.
        text: [N], N > 1.
        columns: how many, over all processes; a multiple of these.
        chunk: time steps in memory at once.
    """
    share = columns // accelerator.num_processes
    first = accelerator.process_index * share
    mine = slice(first, first + share)
    length = -(-(len(text) - 1) // columns)
    padding = (0, columns * length - (len(text) - 1))  # of the last columns, never scored
    words = F.pad(text[:-1], padding).view(columns, length)[mine].t()  # [length, share]
    targets = F.pad(text[1:], padding, value=IGNORED).view(columns, length)[mine].t()
    pieces = list(zip(words.split(chunk), targets.split(chunk), strict=True))
    sums: list[Tensor | None] = [None] * len(pieces)
    after: list[Tensor | None] = [None] * len(pieces)  # the states at each piece's end
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
    """Equal but for a few roundings; states that have overflowed are, too."""
    return torch.allclose(a, b, rtol=0, atol=8 * torch.finfo(a.dtype).eps, equal_nan=True)
