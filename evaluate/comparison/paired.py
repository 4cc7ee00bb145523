"""Significance tests of all pairs of methods over the same seeds."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import InputError

LEVEL = 0.05
MOST_SEEDS = 16  # 65,536 patterns of signs


@dataclass(frozen=True)
class Pair:
    """Row a against row b, seed by seed.

    Attributes:
        difference: mean of a - b, in points.
        sd: sample standard deviation of the differences; None with one seed.
        seeds: those that both have.
        p: of the exact two-sided sign-flip permutation test.
        least_p: the smallest p possible with so many seeds.
        p_holm: p after Holm's correction for the number of pairs.
        p_t: of the paired t test, which assumes normal differences; None without any spread.
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
        """Whether the difference is significant."""
        return self.p_holm < LEVEL


def sign_flip_p(differences: Sequence[float]) -> float:
    """Exact two-sided p: the share of sign patterns whose sum is as far from 0, or farther.

    If two methods are equal, each seed's difference could as well have the other sign.
    `scipy.stats.permutation_test` gives the same, but refuses a single seed.
    """
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    return float(np.mean(abs(signs @ differences) >= abs(sum(differences)) - 1e-9))


def pairs(accuracies: Mapping[str, Mapping[int, float]]) -> list[Pair]:
    """Test all pairs of rows that have seeds in common.

    Args:
        accuracies: percent, by row and seed.

    Raises:
        InputError: more seeds than an exact test can handle.
    """
    from scipy.stats import ttest_1samp  # scikit-learn needs SciPy

    tested = []
    for a, b in itertools.combinations(accuracies, 2):
        seeds = tuple(sorted(accuracies[a].keys() & accuracies[b].keys()))
        if len(seeds) > MOST_SEEDS:
            raise InputError(f"--runs: {a} and {b} have {len(seeds)} seeds, {MOST_SEEDS} at most")
        if not seeds:
            continue
        differences = [accuracies[a][seed] - accuracies[b][seed] for seed in seeds]
        sd = statistics.stdev(differences) if len(seeds) > 1 else None
        spread = sd is not None and sd > 1e-9  # more than rounding
        tested.append({
            "a": a, "b": b, "difference": statistics.fmean(differences), "sd": sd, "seeds": seeds,
            "p": sign_flip_p(differences), "least_p": 2.0 ** (1 - len(seeds)),
            "p_t": float(ttest_1samp(differences, 0).pvalue) if spread else None,
        })  # fmt: skip
    corrected = holm([pair["p"] for pair in tested])
    return [Pair(**pair, p_holm=p) for pair, p in zip(tested, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction, in the order of `p`: bounds the chance of any false difference."""
    p = np.array(p)
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    scaled = np.arange(len(p), 0, -1) * p[order]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted.tolist()


def seeds_needed(count: int) -> int:
    """The fewest seeds with which one of so many pairs can be significant."""
    return math.floor(math.log2(count / LEVEL)) + 2


def sentence(pair: Pair) -> str:
    """The conclusion on a pair."""
    difference = f"{round(pair.difference, 2) + 0.0:+.2f}"  # no -0.00
    if pair.sd is not None:
        difference += f" \u00b1 {pair.sd:.2f}"
    seeds = f"{len(pair.seeds)} seed{'s' if len(pair.seeds) > 1 else ''}"
    test = f"p = {pair.p:.3g}, corrected {pair.p_holm:.3g}"
    if pair.separated:
        better = "better" if pair.difference > 0 else "worse"
        return f"{pair.a} is {better} than {pair.b}: {difference} points over {seeds} ({test})."
    return (
        f"{pair.a} vs {pair.b}: no significant difference ({difference} points over {seeds}; "
        f"{test}; {seeds} cannot give a p below {pair.least_p:.3g})."
    )


def preamble(tested: Sequence[Pair]) -> str:
    """How the pairs were tested, and whether any difference can be significant."""
    if not tested:
        return "No two rows have a seed in common, so nothing is tested."
    seeds, count = max(len(pair.seeds) for pair in tested), len(tested)
    least = 2.0 ** (1 - seeds)
    text = (
        f"Paired by seed: exact two-sided sign-flip permutation test, Holm's correction for "
        f"{count} pair{'s' if count > 1 else ''}, level {LEVEL}. With {seeds} "
        f"seed{'s' if seeds > 1 else ''} the smallest possible p is {least:.3g}, after correction "
        f"{min(1.0, count * least):.3g}. "
    )
    if count * least >= LEVEL:
        text += f"Significance needs at least {seeds_needed(count)} seeds. "
    return text + "No significant difference does not mean equal."
