"""The flags of edas/search.py: the paper's settings, presets, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from common.errors import InputError
from common.run.config import SearchConfig
from common.run.flags import Between, flag

METHOD = "edas"


@dataclass(frozen=True)
class EDASConfig(SearchConfig):
    """Section 4.1: CIFAR-10, 20 cells, 25 epochs, batch 64."""

    static: ClassVar[bool] = False

    preset: Literal["cifar10", "cifar100", "digits"] = "cifar10"
    """cifar10, cifar100: the paper's searches (4.1); digits: minutes on two CPU cores."""
    variant: Literal["alpha-max", "edas", "edas-inv"] = "edas"
    """The methods of 5.3. alpha-max: weights are trained with every edge at its best operation;
    edas: with the sampled edge relaxed; edas-inv: and alpha's sign inverted at the start."""
    candidates: Literal[7, 8] = 7
    """7: without zero (3.1); 8: with zero (4.1), which weighs in the relaxed edge only."""
    inversion_epochs: Annotated[int | None, Between(0, 10**6)] = None
    """Epochs at the start in which every other iteration uses -alpha; by default 10 for edas-inv
    (3 on digits), 0 for the others."""
    arch_weight_decay: float | None = None
    """Of the architecture parameters (added to the gradient, as Adam does); by default 1e-3 for
    edas-inv, 0 for the others."""
    decayed: Literal["all", "adam", "sampled"] = "all"
    """With --arch-weight-decay, what decays. all: every edge's alpha, and an unsampled one by
    nothing else; adam: every edge's by Adam's whole step, which carries older gradients on;
    sampled: the sampled edge's only."""
    decay_epochs: Annotated[int | None, Between(0, 10**6)] = None
    """Epochs at the start in which alpha decays (4.1); by default those of the inversion."""
    edge_per_kind: bool = False
    """Relax one edge of each kind of cell an iteration, not one of both kinds together (3.2)."""
    move_idle: bool = False
    """Let momentum and decay move the weights of operations that did not run in a step."""
    epochs: int = 25
    """Passes over the training images."""
    cells: int = 20
    """How many are stacked; the reduction cells are at a third and at two thirds."""
    learning_rate_min: float = 0.001
    """Where the cosine ends."""
    arch_learning_rate: float = 0.025
    """Of the architecture parameters' Adam."""

    def resolved(self) -> EDASConfig:
        """Inversion and decay belong to EDAS-inv (4.1)."""
        inverts = self.variant == "edas-inv"
        epochs, decay = self.inversion_epochs, self.arch_weight_decay
        if epochs is None:
            epochs = (3 if self.preset == "digits" else 10) if inverts else 0
        if decay is None:
            decay = 1e-3 if inverts else 0.0
        decaying = epochs if self.decay_epochs is None else self.decay_epochs
        return dataclasses.replace(
            self, inversion_epochs=epochs, arch_weight_decay=decay, decay_epochs=decaying
        )

    def provenance(self) -> dict[str, Any]:
        return {"variant": self.variant, "candidates": self.candidates}

    def check(self) -> None:
        super().check()
        if self.decayed != "all" and not (self.arch_weight_decay and self.decay_epochs):
            raise InputError(
                f"--decayed {self.decayed}: nothing decays; use --variant edas-inv, and "
                "--arch-weight-decay and --decay-epochs above 0"
            )
        if self.variant != "edas-inv":
            for name in ("inversion_epochs", "arch_weight_decay", "decay_epochs"):
                if getattr(self, name):
                    raise InputError(
                        f"{flag(name)} {getattr(self, name)}: --variant {self.variant} has none; "
                        "use edas-inv"
                    )


PRESETS = {
    "cifar10": EDASConfig(),
    "cifar100": EDASConfig(preset="cifar100", dataset="cifar100"),
    "digits": EDASConfig(
        preset="digits", dataset="digits", epochs=8, batch_size=32, channels=8, cells=8,
        crop_padding=1, flip=False, learning_rate=0.05, cut_accuracy="batch",
    ),
}
