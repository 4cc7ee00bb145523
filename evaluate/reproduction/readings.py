"""What is read of a finished run, in the units in which papers print it."""

from __future__ import annotations

from collections.abc import Callable

from comparison.rows import both_adds_of
from comparison.run_folders import RunFolder
from reproduction.plan import Reading


def of_result(key: str, scale: float = 1.0, start: float = 0.0) -> Callable[[RunFolder], float]:
    """`start + scale * value` of a key of result.json; None where it has none."""

    def read(run: RunFolder) -> float | None:
        value = run.result.get(key)
        return None if value is None else start + scale * value

    return read


def paper_adds(run: RunFolder) -> float | None:
    """Multiply-adds in millions as PC-DARTS counts them."""
    counted = both_adds_of(run)
    return None if counted is None else counted[1] / 1e6


def layer_adds(run: RunFolder) -> float | None:
    """Multiply-adds in millions of convolutions and linear layers, as GDAS counts them."""
    counted = both_adds_of(run)
    return None if counted is None else counted[0] / 1e6


def device_days(run: RunFolder) -> float | None:
    """Days of a search times its processes, as papers count GPU-days."""
    seconds = run.result.get("search_seconds")
    return None if seconds is None else seconds * run.config.get("processes", 1) / 86400


error, accuracy = of_result("test_top1", -1, 100), of_result("test_top1")  # percent
top5_error = of_result("test_top5", -1, 100)
error_of_last_five = of_result("test_top1_last_five", -1, 100)  # PR-DARTS IV-C
parameters = of_result("params", 1e-6)  # millions

ERROR, TOP5, PARAMETERS = Reading(error), Reading(top5_error), Reading(parameters)
DAYS = Reading(device_days, searches=True, digits=4)
