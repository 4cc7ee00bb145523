"""Two methods over the same seeds: what their differences allow to say."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats  # scikit-learn brings it

from common.errors import InputError

LEVEL = 0.05
MOST_SEEDS = 16  # 65,536 patterns of signs


@dataclass(frozen=True)
class Pair:
    """Row a against row b, seed by seed.

    Attributes:
        difference: mean of a - b, in points.
        sd: of the differences; None with one seed.
        seeds: that both have.
        p: of the exact sign-flip permutation test, two-sided.
        least_p: the smallest that so many seeds can give.
        p_holm: p, corrected for the number of pairs (Holm).
        p_t: of the paired t test, which trusts in normal differences; None where it has none.
    """

    a: str
    b: str
    difference: float
    sd: float | None
    seeds: tuple[int, ...]
    p: float
    least_p: float
    p_holm: float
    p_t: float | None

    @property
    def separated(self) -> bool:
        """Whether the data tell the two apart."""
        return self.p_holm < LEVEL


def sign_flip_p(differences: Sequence[float]) -> float:
    """Exact two-sided p: the share of all sign patterns whose mean is as far from 0, or farther.

    If two methods are the same, each seed's difference could as well have the other sign.
    """
    observed = abs(sum(differences)) - 1e-9
    flips = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips]
    return sum(value >= observed for value in sums) / len(sums)


def pairs(accuracies: Mapping[str, Mapping[int, float]]) -> list[Pair]:
    """All pairs of rows that have seeds in common.

    Args:
        accuracies: of each row, by seed, in percent.

    Raises:
        InputError: more seeds than an exact test can go through.
    """
    found = []
    for a, b in itertools.combinations(accuracies, 2):
        seeds = tuple(sorted(accuracies[a].keys() & accuracies[b].keys()))
        if len(seeds) > MOST_SEEDS:
            raise InputError(f"--runs: {a} and {b} have {len(seeds)} seeds, {MOST_SEEDS} at most")
        if not seeds:
            continue
        differences = [accuracies[a][seed] - accuracies[b][seed] for seed in seeds]
        sd = statistics.stdev(differences) if len(seeds) > 1 else None
        # A spread that is rounding alone is none.
        p_t = stats.ttest_1samp(differences, 0).pvalue if sd and sd > 1e-9 else None
        found.append((a, b, statistics.fmean(differences), sd, seeds, sign_flip_p(differences),
                      2.0 ** (1 - len(seeds)), None if p_t is None else float(p_t)))
    adjusted = holm([pair[5] for pair in found])
    return [
        Pair(*pair[:7], p_holm, pair[7])
        for pair, p_holm in zip(found, adjusted, strict=True)
    ]  # fmt: skip


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: all pairs that it calls separated are so at the level, together."""
    adjusted, so_far = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = so_far
    return adjusted


def seeds_needed(count: int) -> int:
    """How many seeds the exact test needs at least to separate one of so many pairs."""
    return math.floor(math.log2(count / LEVEL)) + 2


def sentence(pair: Pair) -> str:
    """What can be said of a pair."""
    difference = f"{round(pair.difference, 2) + 0.0:+.2f} points"  # no -0.00
    if pair.sd is not None:
        difference += f" \u00b1 {pair.sd:.2f}"
    over = f"over {len(pair.seeds)} seed{'s' if len(pair.seeds) > 1 else ''}"
    test = f"p = {pair.p:.3g}, corrected {pair.p_holm:.3g}"
    if pair.separated:
        better = "ahead of" if pair.difference > 0 else "behind"
        return f"{pair.a} is {better} {pair.b}: {difference} {over} ({test})."
    return (
        f"The data do not separate {pair.a} from {pair.b}: {difference} {over} ({test}; "
        f"{pair.least_p:.3g} is the smallest p that so many seeds can give)."
    )


def preamble(found: Sequence[Pair]) -> str:
    """What the test can do at all."""
    if not found:
        return "There is no pair of rows with seeds in common, so nothing is concluded."
    seeds = max(len(pair.seeds) for pair in found)
    least, count = 2.0 ** (1 - seeds), len(found)
    text = (
        f"Paired by seed; exact sign-flip permutation test, two-sided, Holm's correction for "
        f"{count} pair{'s' if count > 1 else ''}, level {LEVEL}. With {seeds} "
        f"seed{'s' if seeds > 1 else ''} the smallest p is {least:.3g}, after correction "
        f"{min(1.0, count * least):.3g}"
    )
    if count * least >= LEVEL:
        return (
            f"{text}: so few seeds cannot separate any pair, whatever they show, and no sentence "
            f"below says that methods are equal. It takes {seeds_needed(count)} seeds for one of "
            "so many pairs."
        )
    return text + ". Pairs that are not separated are not shown to be equal."
