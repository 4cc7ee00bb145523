"""The flags of itnas/search.py: the paper's settings, presets, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from common.errors import InputError
from common.networks.fits import check_candidates
from common.run.config import SearchConfig, SpaceFlags
from common.run.flags import Between, flag
from itnas.derive import Reweighting

METHOD = "itnas"


@dataclass(frozen=True)
class ITNASConfig(SpaceFlags, SearchConfig):
    """Section 4.1.1: CIFAR-10, 8 cells, 16 channels, 50 epochs."""

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's search (4.1.1); digits: two minutes on a CPU."""
    gumbel: bool = True
    """Sample the outer edges' weights with an annealed Gumbel-softmax (3.2)."""
    transition: bool = True
    """Compute the inner edges' weights from their predecessors' (3.3)."""
    pruning: bool = True
    """Derive cells by iterative edge pruning, Algorithm 1 (3.4); needs transitions."""
    tau_max: Annotated[float, Between(1e-3, 1e6)] = 5.0
    """Gumbel-softmax temperature in the first epoch (4.1.1)."""
    tau_min: Annotated[float, Between(1e-3, 1e6)] = 0.5
    """Temperature in the last epoch; linear in between."""
    derive_tau: Annotated[float, Between(1e-3, 1e6)] = 1.0
    """Temperature of the noise-free outer weights in the derivation (3.4); Eq. 5 would use
    0.5."""
    reweighting: Reweighting = "logits"
    """Attention over the predecessors that pruning keeps (3.4). logits: softmax of their
    logits; scores: softmax of their scores."""
    learning_rate_min: float = 0.001
    """Final learning rate of the cosine schedule."""
    arch_learning_rate: float = 3e-4
    """Learning rate of the architecture parameters (Adam)."""

    def provenance(self) -> dict[str, Any]:
        return {
            **super().provenance(),
            "gumbel": self.gumbel, "transition": self.transition, "pruning": self.pruning,
            "derive_tau": self.derive_tau, "reweighting": self.reweighting,
        }

    def check(self) -> None:
        super().check()
        check_candidates(self.candidates, self.channels, self.operations)
        if "none" in (self.candidates or ()):
            raise InputError(
                f"--candidates {' '.join(self.candidates)}: Algorithm 1 could derive none, which "
                "ITNAS does not have (4.1.1); leave it out"
            )
        for name in ("tau_max", "tau_min", "derive_tau"):
            value = getattr(self, name)
            if not self.gumbel and value != getattr(ITNASConfig, name):
                raise InputError(
                    f"{flag(name)} {value}: --no-gumbel has no temperature; leave one of them out"
                )
        if self.reweighting != "logits" and not self.pruning:
            raise InputError(
                f"--reweighting {self.reweighting}: nothing is pruned; leave out it or --no-pruning"
            )
        if self.pruning and not self.transition:
            raise InputError(
                "--no-transition: pruning (Algorithm 1) follows the transitions, and there are "
                "none; add --no-pruning"
            )
        if self.transition and self.nodes < 4:
            raise InputError(
                f"--nodes {self.nodes}: such a cell has no inner edge that a transition could lead "
                "to; use 4 or more, or add --no-transition --no-pruning"
            )


PRESETS = {
    "cifar10": ITNASConfig(),
    "digits": ITNASConfig(
        preset="digits", dataset="digits", epochs=6, batch_size=64, channels=8, cells=4,
        crop_padding=1, flip=False, learning_rate=0.1, arch_learning_rate=6e-3,
        cut_accuracy="batch",
    ),
}
