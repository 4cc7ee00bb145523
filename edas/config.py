"""The flags of edas/search.py: the paper's settings, presets, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from common.errors import InputError
from common.networks.fits import check_candidates
from common.run.config import SearchConfig, SpaceFlags
from common.run.flags import Between, flag

METHOD = "edas"


@dataclass(frozen=True)
class EDASConfig(SpaceFlags, SearchConfig):
    """Section 4.1: CIFAR-10, 20 cells, 25 epochs, batch 64."""

    static: ClassVar[bool] = False

    preset: Literal["cifar10", "cifar100", "digits"] = "cifar10"
    """cifar10, cifar100: the paper's searches (4.1); digits: minutes on a CPU."""
    variant: Literal["alpha-max", "edas", "edas-inv"] = "edas"
    """Method of 5.3. alpha-max: train the weights with each edge's best operation; edas: with
    the sampled edge relaxed; edas-inv: also invert alpha's sign in the first epochs."""
    candidates: Literal[7, 8] | tuple[str, ...] = 7
    """7: without zero (3.1); 8: with zero (4.1), in the relaxed edge's softmax only; or names
    of operations."""
    inversion_epochs: Annotated[int | None, Between(0, 10**6)] = None
    """Initial epochs in which every other iteration uses -alpha; by default 10 for edas-inv
    (digits: 3), else 0."""
    arch_weight_decay: float | None = None
    """L2 penalty of the architecture parameters; by default 1e-3 for edas-inv, else 0."""
    decayed: Literal["all", "adam", "sampled"] = "all"
    """Which alphas decay. all: every edge's, unsampled ones by the decay alone; adam: every
    edge's, by Adam's full step; sampled: the sampled edge's only."""
    decay_epochs: Annotated[int | None, Between(0, 10**6)] = None
    """Initial epochs with decay of alpha (4.1); by default the inversion epochs."""
    edge_per_kind: bool = False
    """Relax one edge in each kind of cell per iteration, not one in total (3.2)."""
    move_idle: bool = False
    """Also apply momentum and decay to weights of operations that did not run in a step."""
    epochs: int = 25
    """Epochs."""
    cells: int = 20
    """Number of cells; those at one and two thirds are reduction cells."""
    learning_rate_min: float = 0.001
    """Final learning rate of the cosine schedule."""
    arch_learning_rate: float = 0.025
    """Learning rate of the architecture parameters (Adam)."""

    def resolved(self) -> EDASConfig:
        """Inversion and decay belong to EDAS-inv (4.1)."""
        config, inverts = super().resolved(), self.variant == "edas-inv"
        epochs, decay = self.inversion_epochs, self.arch_weight_decay
        if epochs is None:
            epochs = (3 if self.preset == "digits" else 10) if inverts else 0
        if decay is None:
            decay = 1e-3 if inverts else 0.0
        decaying = epochs if self.decay_epochs is None else self.decay_epochs
        return dataclasses.replace(
            config, inversion_epochs=epochs, arch_weight_decay=decay, decay_epochs=decaying
        )

    def provenance(self) -> dict[str, Any]:
        candidates = self.candidates
        if isinstance(candidates, tuple):
            candidates = list(candidates)
        return {"variant": self.variant, "candidates": candidates}

    def operation_names(self) -> tuple[str, ...] | None:
        return self.candidates if isinstance(self.candidates, tuple) else None

    def check(self) -> None:
        super().check()
        check_candidates(self.operation_names(), self.channels, self.operations)
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
