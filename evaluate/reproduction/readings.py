"""The values that tables read of finished runs, in the papers' units."""

from __future__ import annotations

from collections.abc import Callable

from comparison.rows import both_adds_of
from comparison.run_folders import RunFolder
from reproduction.plan import Reading


def of_result(
    key: str, scale: float = 1.0, start: float = 0.0
) -> Callable[[RunFolder], float | None]:
    """`start + scale * value` of a key of result.json; None where it has none."""

    def read(run: RunFolder) -> float | None:
        value = run.result.get(key)
        return None if value is None else start + scale * value

    return read


def multiply_adds(convention: int) -> Reading:
    """In millions: 0 counts as GDAS (convolutions and linear layers), 1 as PC-DARTS."""

    def read(run: RunFolder) -> float | None:
        counted = both_adds_of(run)
        return None if counted is None else counted[convention] / 1e6

    return Reading(read, digits=0)


def device_days(run: RunFolder) -> float | None:
    """Days of a search times its processes, as papers count GPU-days."""
    seconds = run.result.get("search_seconds")
    return None if seconds is None else seconds * run.config.get("processes", 1) / 86400


ERROR = Reading(of_result("test_top1", -1, 100))  # percent
TOP5 = Reading(of_result("test_top5", -1, 100))
ERROR_OF_LAST_FIVE = Reading(of_result("test_top1_last_five", -1, 100))  # PR-DARTS, IV-C
ACCURACY = Reading(of_result("test_top1"))
PARAMETERS = Reading(of_result("params", 1e-6))  # millions
DAYS = Reading(device_days, digits=4, searches=True)
