"""Table I: the cycles of a search, and checks of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import InputError
from common.networks.genotype import Op
from common.run.config import SearchConfig
from common.run.flags import flag
from pr_darts.morphisms import Space, reachable

ROWS = ("cycle_epochs", "grace_epochs", "morphisms", "kept")


@dataclass(frozen=True)
class Cycle:
    """A column of Table I.

    Attributes:
        number: from 1.
        start: its first epoch; the search starts at 0.
        end: the epoch after its last.
        grace: epochs at its start in which alpha is frozen.
        morphisms: children added to each edge after it.
        kept: "candidates", the number an edge has after it.
        last: whether it is the last cycle.
    """

    number: int
    start: int
    end: int
    grace: int
    morphisms: int
    kept: int
    last: bool

    @property
    def survivors(self) -> int:
        """Number of candidates that pruning leaves; with the children they are `kept`."""
        return self.kept - self.morphisms


def cycles(config: SearchConfig) -> list[Cycle]:
    """The columns of Table I; the config has its rows."""
    table, start = [], 0
    rows = [getattr(config, name) for name in ROWS]
    for number, (epochs, grace, morphisms, kept) in enumerate(zip(*rows, strict=True), 1):
        last = number == len(rows[0])
        table.append(Cycle(number, start, start + epochs, grace, morphisms, kept, last))
        start += epochs
    return table


def check(config: SearchConfig, first: Sequence[Op], space: Space) -> None:
    """Refuse a table that cannot run.

    Args:
        config: with the rows of Table I.
        first: the candidates of an edge in the first cycle.
        space: limits of their morphisms.

    Raises:
        InputError: names the row's flag, the cycle and valid values.
    """
    lengths = {flag(name): len(getattr(config, name)) for name in ROWS}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise InputError(f"{counts}: give each as many numbers, one a cycle (Table I)")
    candidates, morphed = len(first), 0
    for cycle in cycles(config):
        _check(cycle, candidates)
        morphed += cycle.morphisms > 0
        there = len(reachable(first, space, morphed))
        if cycle.kept > there:
            raise InputError(
                f"--kept {cycle.kept} in cycle {cycle.number}: by then the morphisms of --space "
                f"have reached {there} operations at most; keep {there} or fewer"
            )
        candidates = cycle.kept


def _check(cycle: Cycle, candidates: int) -> None:
    where = f"in cycle {cycle.number}"
    epochs = cycle.end - cycle.start
    if epochs < 1:
        raise InputError(f"--cycle-epochs {epochs} {where}: must be 1 or more")
    if not 0 <= cycle.grace < epochs:
        raise InputError(
            f"--grace-epochs {cycle.grace} {where} of {epochs} epochs: must be 0 or more and leave "
            "an epoch that trains alpha, which pruning ranks by"
        )
    if cycle.last and (cycle.kept, cycle.morphisms) != (1, 0):
        raise InputError(
            f"--kept {cycle.kept}, --morphisms {cycle.morphisms} {where}, the last: it leaves one "
            "operation an edge and adds none (Table I: use 1 and 0)"
        )
    if cycle.last and candidates < 2:
        raise InputError(
            f"--kept: {candidates} candidate is left to cycle {cycle.number}, the last, which must "
            "choose; keep 2 or more before it, or start with 2 or more --candidates"
        )
    if cycle.morphisms < 0:
        raise InputError(f"--morphisms {cycle.morphisms} {where}: must be 0 or more")
    if cycle.survivors < 1:
        raise InputError(
            f"--kept {cycle.kept} {where}, of which {cycle.morphisms} by --morphisms are new: at "
            "least one candidate must survive"
        )
    if cycle.survivors > candidates:
        raise InputError(
            f"--kept {cycle.kept} {where}: there are {candidates} candidates and "
            f"{cycle.morphisms} new ones by --morphisms; keep {candidates + cycle.morphisms} or "
            "fewer"
        )
