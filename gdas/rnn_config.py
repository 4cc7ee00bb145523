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
    """ptb: the paper's search (4.3); text: one minute on two CPU cores, no download."""
    sample: Literal["hard", "soft"] = "soft"
    """soft: mix all activations by their relaxed sample (authors' code); hard: run the sampled
    one (3.2), with which edge (0, 1) learns nothing."""
    derive_none: bool = False
    """Allow `none` in the derived cell (authors' code; the paper's operation set); such a
    node's state is 0."""
    nodes: Annotated[int, Between(2, 32)] = 9
    """Nodes B of the cell, the input state included: 9 means 8 searched nodes and 36 edges."""
    tau_max: Annotated[float, Between(0, 1e6, above=True)] = 10.0
    """Gumbel-softmax temperature in the first epoch."""
    tau_min: Annotated[float, Between(0, 1e6, above=True)] = 0.1
    """Temperature in the last epoch; linear in between."""
    arch_learning_rate: Annotated[float, Between(0, 1e38)] = 3e-3
    """Learning rate of the architecture parameters (Adam)."""
    arch_beta1: Annotated[float, Between(0, 1, below=True)] = 0.9
    """Adam's beta1 for the architecture parameters."""
    arch_beta2: Annotated[float, Between(0, 1, below=True)] = 0.999
    """Adam's beta2 for the architecture parameters."""
    arch_weight_decay: Annotated[float, Between(0, 1e3)] = 1e-3
    """L2 penalty of the architecture parameters, added to the gradient."""
    epochs: int = 200
    """Epochs."""
    batch_size: int = 128
    """Columns the text is split into, over all processes together."""
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
