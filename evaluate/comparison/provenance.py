"""The date and commit of a report, and the commits, versions and machines of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from common.run.description import commit
from comparison.rows import Measured


def provenance(measured: Sequence[Measured]) -> dict[str, Any]:
    """The report's own date (UTC) and commit, and what the config.json of the runs say.

    Returns:
        date and commit of the report; started: when the first and the last run were started, of
        those that say so; finished: when the first and the last run ended, by the times of their
        files; runs: every value of commit, machine, device, threads, precision and
        version among the runs, sorted.
    """
    runs = [run for one in measured for run in one.result.runs]
    values: dict[str, set[str]] = {}
    for run in runs:
        own = {key: run.config.get(key) for key in ("commit", "machine", "device", "threads")}
        own["precision"] = run.config.get("mixed_precision")
        for key, value in (own | run.config.get("versions", {})).items():
            values.setdefault(key, set()).add(str(value))
    results = [run.folder / "result.json" for run in runs]
    starts = sorted(f"{run.started} UTC" for run in runs if run.started)
    ends = sorted(path.stat().st_mtime for path in results if path.exists())
    return {
        "date": _text(datetime.now().timestamp()),
        "commit": commit(),
        "started": starts[:1] + starts[-1:],
        "finished": [_text(end) for end in ends[:1] + ends[-1:]],
        "runs": {key: sorted(found) for key, found in values.items()},
    }


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
