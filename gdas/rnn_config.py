"""The flags of gdas/rnn_search.py: the paper's settings, presets, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from common.language.loop import TextConfig
from common.run.flags import Between

METHOD = "gdas_rnn"


@dataclass(frozen=True)
class GDASRNNConfig(TextConfig):
    """Section 4.3: PTB, 300 units, B = 9, 200 epochs."""

    preset: Literal["ptb", "text"] = "ptb"
    """ptb: the paper's search (4.3); text: a minute on two CPU cores, no download."""
    sample: Literal["hard", "soft"] = "soft"
    """Mix all activations of an edge by their relaxed draw (authors' code), or run the drawn one
    (3.2), by which edge (0, 1) learns nothing."""
    derive_none: bool = False
    """Let `none` be derived, too (authors' code; the paper's Omega): such a node's state is 0."""
    nodes: Annotated[int, Between(2, 32)] = 9
    """B, the state made of word and hidden state counted: 9 are 8 searched nodes and 36 edges."""
    tau_max: Annotated[float, Between(0, 1e6, above=True)] = 10.0
    """Temperature of the first epoch."""
    tau_min: Annotated[float, Between(0, 1e6, above=True)] = 0.1
    """Temperature of the last epoch; between them it is linear."""
    arch_learning_rate: Annotated[float, Between(0, 1e38)] = 3e-3
    """Of the architecture parameters' Adam."""
    arch_beta1: Annotated[float, Between(0, 1, below=True)] = 0.9
    """Adam's decay of the first moment."""
    arch_beta2: Annotated[float, Between(0, 1, below=True)] = 0.999
    """Adam's decay of the second moment."""
    arch_weight_decay: Annotated[float, Between(0, 1e3)] = 1e-3
    """Of the architecture parameters (added to the gradient, as Adam does)."""
    epochs: int = 200
    """Passes over the training text."""
    batch_size: int = 128
    """Columns that each text is read in, over all processes together."""
    weight_decay: float = 5e-7
    """Of the weights."""


PRESETS = {
    "ptb": GDASRNNConfig(),
    "text": GDASRNNConfig(
        preset="text", dataset="small", units=48, batch_size=32, epochs=6, learning_rate=10,
        dropout_output=0.2, dropout_hidden=0.1, dropout_input=0.2, dropout_embedding=0.1,
        arch_learning_rate=2e-2,
    ),
}
