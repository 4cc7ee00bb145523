"""The progress of a comparison: a live table on a terminal, otherwise a line per event."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence

from comparison.jobs import Job

UP = "\x1b[{}F\x1b[J"  # go up so many lines and clear what is below


class View:
    """Shows what runs, what is done and about how long the rest takes.

    Args:
        jobs: all of them.
        places: how many run at once.
    """

    def __init__(self, jobs: Sequence[Job], places: int):
        self.jobs, self.places = jobs, places
        self.live, self.drawn, self.shown = sys.stdout.isatty(), 0, 0.0
        self.told = ""

    def __enter__(self) -> View:
        done = sum(job.state == "done" for job in self.jobs)
        self._line(f"{len(self.jobs)} runs, {done} done already, {self.places} at a time")
        return self

    def __exit__(self, *_: object) -> None:
        self.show(force=True)

    def started(self, job: Job) -> None:
        if not self.live and job.state != "waiting":
            self._line(f"{'queued' if job.state == 'queued' else 'started'} {job.name}")

    def trouble(self, text: str) -> None:
        """Tell once why the executor waits."""
        if text and text != self.told:
            self._line(f"{text}; trying again")
        self.told = text

    def ended(self, job: Job) -> None:
        if job.state == "failed":
            last = job.why.splitlines()[-1]
            self._line(f"FAILED {job.name}: {last} (its log: {job.log})")
        elif not self.live:
            self._line(f"done {job.name} in {duration(job.seconds())}; {self.summary()}")

    def show(self, force: bool = False) -> None:
        """Redraw the live table, at most once per second."""
        if not self.live or (not force and time.time() - self.shown < 1):
            return
        self.shown = time.time()
        width, height = shutil.get_terminal_size()
        table = [line[: width - 1] for line in (*self.table(), self.summary())][1 - height :]
        sys.stdout.write((UP.format(self.drawn) if self.drawn else "") + "\n".join(table) + "\n")
        sys.stdout.flush()
        self.drawn = len(table)

    def table(self) -> list[str]:
        """A line per label, a column per seed."""
        labels = list(dict.fromkeys(job.label for job in self.jobs))
        seeds = sorted({job.seed for job in self.jobs})
        width = max(map(len, labels))
        lines = [("", *(f"seed {seed}" for seed in seeds))]
        lines += [(label, *(self._cell(label, seed) for seed in seeds)) for label in labels]
        return [
            (f"{first:<{width}}" + "".join(f"  {cell:<14}" for cell in cells)).rstrip()
            for first, *cells in lines
        ]

    def summary(self) -> str:
        """Counts and the time left."""
        count = Counter(job.state for job in self.jobs)
        parts = [f"{count['done']} of {len(self.jobs)} runs done", f"{count['running']} running"]
        parts += [f"{count[state]} {state}" for state in ("queued", "failed") if count[state]]
        if left := self.seconds_left():
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Estimated from runs of the same label and kind, else from all; None: nothing is known."""
        known: dict[tuple[str, bool], list[float]] = {}
        for job in self.jobs:
            share = {"done": 1.0, "running": job.progress()}.get(job.state, 0.0)
            if share > 0 and (total := job.seconds() / share) > 0:
                known.setdefault((job.label, job.is_search), []).append(total)
        if not known:
            return None
        usual = statistics.fmean(seconds for values in known.values() for seconds in values)
        left = []
        for job in self.jobs:
            if job.state in ("waiting", "queued", "running"):
                expected = statistics.fmean(known.get((job.label, job.is_search), [usual]))
                spent = job.seconds() if job.state == "running" else 0.0
                left.append(max(0.0, expected - spent))
        at_once = sum(job.state == "running" for job in self.jobs)
        at_once = at_once if any(job.state == "queued" for job in self.jobs) else self.places
        return max(sum(left) / max(1, at_once), max(left, default=0.0))

    def _cell(self, label: str, seed: int) -> str:
        """The state of a label's first unfinished job with a seed."""
        own = [job for job in self.jobs if (job.label, job.seed) == (label, seed)]
        for job in own:
            if job.state in ("failed", "queued"):
                return job.state
            if job.state == "running":
                return f"{'search' if job.is_search else 'train'} {100 * job.progress():.0f} %"
        if all(job.state == "done" for job in own):
            return "done" if own else ""
        return "search done" if any(job.state == "done" for job in own) else "waits"

    def _line(self, text: str) -> None:
        """Print a line; the live table is redrawn below it."""
        if self.drawn:
            sys.stdout.write(UP.format(self.drawn))
            self.drawn = 0
        print(text, flush=True)


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them: 80 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
