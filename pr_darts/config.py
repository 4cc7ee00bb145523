"""The flags of pr_darts/search.py: the paper's settings, presets, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from common.errors import InputError
from common.networks.fits import check_own
from common.networks.genotype import OWN_OPS, Op
from common.run.config import SearchConfig
from common.run.flags import Between
from pr_darts.cycles import check
from pr_darts.morphisms import SPACES, candidate, is_convolution, reachable

METHOD = "pr_darts"
FIRST = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3(dilation 1, [])")


@dataclass(frozen=True)
class PRDARTSConfig(SearchConfig):
    """Section IV-A and Table I: CIFAR-10, 8 cells, 16 channels, nine cycles of 100 epochs."""

    unextended: ClassVar[str] = "the cycles fix the number of epochs"
    static: ClassVar[bool] = False
    largest_batch: ClassVar[str] = "batch_max"

    preset: Literal["cifar10", "digits"] = "cifar10"
    """cifar10: the paper's search (IV-A); digits: two or three minutes on a CPU."""
    space: Literal["dl", "dr", "ur", "nasbench201"] = "dl"
    """Which convolutions morphisms can reach (Table II): DARTS-like, depth-restricted,
    unrestricted. nasbench201 is refused."""
    candidates: tuple[str, ...] = FIRST
    """Initial candidates of every edge (IV-A); one must be a convolution."""
    cycle_epochs: Annotated[tuple[int, ...], Between(most=10**6)] = (
        15, 15, 10, 10, 10, 10, 10, 10, 10
    )  # fmt: skip
    """Epochs of each cycle (Table I)."""
    grace_epochs: Annotated[tuple[int, ...], Between(most=10**6)] = (5, 5, 3, 3, 3, 3, 3, 3, 3)
    """Initial epochs of each cycle without arch steps (Table I)."""
    morphisms: Annotated[tuple[int, ...], Between(most=1000)] = (3, 3, 3, 3, 3, 0, 0, 0, 0)
    """New morphed candidates per edge after each cycle (Table I)."""
    kept: Annotated[tuple[int, ...], Between(most=1000)] = (6, 6, 6, 6, 6, 4, 3, 2, 1)
    """Candidates per edge after each cycle, new ones included (Table I)."""
    cell_output: Literal["concat", "mean"] = "concat"
    """Concatenate the nodes of a cell (authors' code, Table III) or average them (III-A)."""
    epochs: int | None = None
    """Follows from --cycle-epochs."""
    batch_size: int = 24
    """Smallest batch size (b_min, III-C), over all processes together."""
    batch_step: Annotated[int, Between(1, 2**20)] = 8
    """Batch-size increment (b_mult)."""
    batch_max: Annotated[int, Between(1, 2**20)] = 128
    """Largest batch size (b_max). On a GPU the batch grows every five steps as memory allows;
    on a CPU each cycle has a fixed batch, larger with fewer candidates."""
    memory_threshold: Annotated[float, Between(0, 1, above=True)] = 0.95
    """Share of GPU memory that a batch may use (III-C)."""
    memory_gib: Annotated[float | None, Between(0, 1e6, above=True)] = None
    """Treat the GPU as having this much memory in GiB, if it has more; 11: the paper's card."""
    learning_rate_min: float = 0.01
    """Final learning rate of each cycle's cosine."""

    def resolved(self) -> PRDARTSConfig:
        """The epochs are those of all cycles."""
        epochs = sum(self.cycle_epochs) if self.epochs is None else self.epochs
        return dataclasses.replace(self, epochs=epochs)

    def provenance(self) -> dict[str, Any]:
        return {"space": self.space}

    def first(self) -> list[Op]:
        """What every edge begins with.

        Raises:
            InputError: an operation is unknown.
        """
        return [candidate(name) for name in self.candidates]

    def operation_names(self) -> tuple[str, ...] | None:
        """Only a user's own; `check` knows the others, which are named with their sizes."""
        own = tuple(op.name for op in self.first() if op.name in OWN_OPS)
        return own or None

    def least_size(self) -> tuple[float, float]:
        """See `SearchConfig.least_size`; what the candidates are is free but for a convolution."""
        edges = (self.nodes - 2) * (self.nodes + 1) / 2
        return 2 * edges, edges

    def check(self) -> None:
        if self.space == "nasbench201":
            raise InputError(
                "--space nasbench201: its cells have no separable convolutions, and PR-DARTS' "
                "candidates are their morphisms; use dl, dr or ur"
            )
        first = self.first()
        names = " ".join(self.candidates)
        if len(set(first)) < len(first):
            raise InputError(f"--candidates {names}: names an operation twice")
        if not any(map(is_convolution, first)):
            raise InputError(
                f"--candidates {names}: no convolution, so nothing could be morphed; add one, as "
                f"'{FIRST[-1]}'"
            )
        for op in first:
            if is_convolution(op) and not SPACES[self.space].holds(op):
                raise InputError(
                    f"--candidates '{op}': lies outside of --space {self.space}, which has "
                    f"{SPACES[self.space]} (Table II)"
                )
        check_own([op.name for op in first], self.channels, self.operations)
        check(self, first, SPACES[self.space])
        super().check()
        if self.stop_on_collapse != "off":
            raise InputError(
                f"--stop-on-collapse {self.stop_on_collapse}: its cells come of the last cycle's "
                "pruning, so there is nothing to stop with before"
            )
        if self.epochs != sum(self.cycle_epochs):
            raise InputError(
                f"--epochs {self.epochs}: the cycles have {sum(self.cycle_epochs)} in all; "
                "change --cycle-epochs"
            )
        if self.batch_max < self.batch_size:
            raise InputError(
                f"--batch-max {self.batch_max}: must be --batch-size {self.batch_size} or more"
            )
        if (self.batch_max - self.batch_size) % self.batch_step:
            raise InputError(
                f"--batch-max {self.batch_max}: must be --batch-size {self.batch_size} and a "
                f"multiple of --batch-step {self.batch_step}"
            )


PRESETS = {
    "cifar10": PRDARTSConfig(),
    "digits": PRDARTSConfig(
        preset="digits", dataset="digits", cycle_epochs=(2,) * 9, grace_epochs=(1,) * 9,
        batch_size=32, batch_step=16, batch_max=192, channels=8, cells=3, crop_padding=1,
        flip=False, learning_rate=0.05, learning_rate_min=0.02, arch_learning_rate=2e-2,
    ),
}


def discoverable(config: PRDARTSConfig) -> set[Op]:
    """What an edge could come to within the morphing cycles (Table II's total and Table III)."""
    steps = sum(count > 0 for count in config.morphisms)
    return reachable(config.first(), SPACES[config.space], steps)
