"""The flags of gdas/rnn_search.py: the paper's settings and presets."""

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
    """soft: mix all activations of an edge by their relaxed sample (authors' code); hard: run the
    sampled one only (3.2), and edge (0, 1) gets no gradient."""
    derive_none: bool = False
    """Allow `none` in the derived cell (authors' code, the paper's Omega); its node has state 0."""
    nodes: Annotated[int, Between(2, 32)] = 9
    """B, including state 0, which has no choice: 9 gives 8 searched nodes and 36 edges."""
    tau_max: Annotated[float, Between(0, 1e6, above=True)] = 10.0
    """Temperature of the first epoch."""
    tau_min: Annotated[float, Between(0, 1e6, above=True)] = 0.1
    """Temperature of the last epoch; linear in between."""
    arch_learning_rate: Annotated[float, Between(0, 1e38)] = 3e-3
    """Learning rate of the architecture parameters' Adam."""
    arch_beta1: Annotated[float, Between(0, 1, below=True)] = 0.9
    """Adam's decay of the first moment."""
    arch_beta2: Annotated[float, Between(0, 1, below=True)] = 0.999
    """Adam's decay of the second moment."""
    arch_weight_decay: Annotated[float, Between(0, 1e3)] = 1e-3
    """Weight decay of the architecture parameters, Adam's L2 kind."""
    epochs: int = 200
    """Passes over the training text."""
    batch_size: int = 128
    """Parallel columns of each text, over all processes."""
    weight_decay: float = 5e-7
    """Weight decay of the weights."""


PRESETS = {
    "ptb": GDASRNNConfig(),
    "text": GDASRNNConfig(
        preset="text", dataset="small", units=48, batch_size=32, epochs=6, learning_rate=10,
        dropout_output=0.2, dropout_hidden=0.1, dropout_input=0.2, dropout_embedding=0.1,
        arch_learning_rate=2e-2,
    ),
}
