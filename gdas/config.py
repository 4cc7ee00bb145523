"""The flags of gdas/search.py: the paper's settings, presets, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from common.errors import InputError
from common.networks.fits import check_candidates
from common.networks.network import FixedReductionCell
from common.run.config import SearchConfig, SpaceFlags
from common.run.flags import Between

METHOD = "gdas"


@dataclass(frozen=True)
class GDASConfig(SpaceFlags, SearchConfig):
    """Section 4.2: CIFAR-10, 8 cells (N = 2), 16 channels, 240 epochs."""

    static: ClassVar[bool] = False

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's search (4.2); digits: one minute on a CPU."""
    reduction: Literal["searched", "fixed"] = "searched"
    """searched: both kinds of cell; fixed: only the normal cell, with fixed reduction cells
    (FRC, 3.3)."""
    draw: Literal["cell", "kind"] = "cell"
    """cell: sample operations for each cell (3.2); kind: one sample for all cells of a kind."""
    tau_max: Annotated[float, Between(0, 1e6, above=True)] = 10.0
    """Gumbel-softmax temperature in the first epoch (4.2)."""
    tau_min: Annotated[float, Between(0, 1e6, above=True)] = 0.1
    """Temperature in the last epoch; linear in between."""
    derive_none: bool = False
    """Allow `none` in the derived cell, as the paper's operation set does (3.2); such an edge
    is zero."""
    move_idle: bool = False
    """Also apply momentum and decay to weights of operations that did not run in a step."""
    epochs: int = 240
    """Epochs."""
    batch_size: int = 128
    """Batch size, over all processes together."""
    learning_rate_min: float = 0.001
    """Final learning rate of the cosine schedule."""
    arch_learning_rate: float = 3e-4
    """Learning rate of the architecture parameters (Adam)."""

    def provenance(self) -> dict[str, Any]:
        return {
            **super().provenance(),
            "reduction": self.reduction, "draw": self.draw, "derive_none": self.derive_none,
        }

    def least_size(self) -> tuple[float, float]:
        """See `SearchConfig.least_size`; a fixed reduction cell has far fewer weights."""
        return (8, 1) if self.reduction == "fixed" else super().least_size()

    def check(self) -> None:
        super().check()
        check_candidates(self.candidates, self.channels, self.operations)
        if self.reduction == "fixed" and self.space != "darts":
            raise InputError(
                f"--reduction fixed: --space {self.space} has no reduction cells; leave one out"
            )
        groups = FixedReductionCell.groups
        if self.reduction == "fixed" and 2 * self.channels % groups:
            raise InputError(
                f"--reduction fixed: its convolutions have {groups} groups and its first cell "
                f"2 x {self.channels} channels; --channels must be a multiple of {groups // 2}"
            )


PRESETS = {
    "cifar10": GDASConfig(),
    "digits": GDASConfig(
        preset="digits", dataset="digits", epochs=14, batch_size=32, channels=16, cells=3,
        crop_padding=1, flip=False, learning_rate=0.05, arch_learning_rate=6e-3,
        cut_accuracy="batch",
    ),
}
