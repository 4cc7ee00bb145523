"""What a person sees while a comparison runs: a live table, or plain lines where none can be."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Sequence

from comparison.jobs import Job

UP = "\x1b[{}F\x1b[J"  # so many lines up, and clear what is below


class View:
    """Says what runs, what is done and how long the rest will take.

    Args:
        jobs: all of them.
        places: how many run at once.
    """

    def __init__(self, jobs: Sequence[Job], places: int):
        self.jobs, self.places = jobs, places
        self.live, self.drawn, self.shown = sys.stdout.isatty(), 0, 0.0

    def __enter__(self) -> View:
        done = sum(job.state == "done" for job in self.jobs)
        self._line(f"{len(self.jobs)} runs, {done} done already, {self.places} at a time")
        return self

    def __exit__(self, *_: object) -> None:
        self.show(force=True)

    def started(self, job: Job) -> None:
        """A line, where there is no table."""
        if not self.live and job.state == "running":
            self._line(f"started {job.name}")

    def ended(self, job: Job) -> None:
        """Likewise; a failure is said in any case."""
        if job.state == "failed":
            last = job.why.splitlines()[-1]
            self._line(f"FAILED {job.name}: {last} (its log: {job.log})")
        elif not self.live:
            self._line(f"done {job.name} in {duration(job.seconds())}; {self.summary()}")

    def show(self, force: bool = False) -> None:
        """The table anew, where it is live and a second old."""
        if not self.live or (not force and time.time() - self.shown < 1):
            return
        self.shown = time.time()
        width, height = shutil.get_terminal_size()
        table = [line[: width - 1] for line in (*self.table(), self.summary())][1 - height :]
        sys.stdout.write((UP.format(self.drawn) if self.drawn else "") + "\n".join(table) + "\n")
        sys.stdout.flush()
        self.drawn = len(table)

    def table(self) -> list[str]:
        """A row a label, a column a seed."""
        labels = list(dict.fromkeys(job.label for job in self.jobs))
        seeds = sorted({job.seed for job in self.jobs})
        width = max(map(len, labels))
        head = f"{'':<{width}}" + "".join(f"  {f'seed {seed}':<14}" for seed in seeds)
        rows = [head.rstrip()]
        for label in labels:
            cells = (self._cell(label, seed) for seed in seeds)
            rows.append((f"{label:<{width}}" + "".join(f"  {c:<14}" for c in cells)).rstrip())
        return rows

    def summary(self) -> str:
        """Counts and the time left."""
        count = {s: sum(j.state == s for j in self.jobs) for s in ("done", "running", "failed")}
        parts = [f"{count['done']} of {len(self.jobs)} runs done", f"{count['running']} running"]
        if count["failed"]:
            parts.append(f"{count['failed']} failed")
        left = self.seconds_left()
        if left:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """By how long runs of the same kind took; None: nothing is known yet."""
        known: dict[tuple[str, bool], list[float]] = {}
        for job in self.jobs:
            whole = job.seconds() if job.state == "done" else 0.0
            if job.state == "running" and (share := job.progress()) > 0:
                whole = job.seconds() / share
            if whole > 0:
                known.setdefault((job.label, job.is_search), []).append(whole)
        if not known:
            return None
        usual = statistics.fmean(s for values in known.values() for s in values)
        left = []
        for job in self.jobs:
            if job.state in ("waiting", "running"):
                expected = statistics.fmean(known.get((job.label, job.is_search), [usual]))
                spent = job.seconds() if job.state == "running" else 0.0
                left.append(max(0.0, expected - spent))
        return max(sum(left) / self.places, max(left, default=0.0))

    def _cell(self, label: str, seed: int) -> str:
        """The least finished of a label's jobs of a seed."""
        own = [job for job in self.jobs if (job.label, job.seed) == (label, seed)]
        for job in own:
            if job.state == "failed":
                return "failed"
            if job.state == "running":
                return f"{'search' if job.is_search else 'train'} {100 * job.progress():.0f} %"
        if all(job.state == "done" for job in own):
            return "done" if own else ""
        return "search done" if any(job.state == "done" for job in own) else "waits"

    def _line(self, text: str) -> None:
        """Above the table, which is drawn anew below."""
        if self.drawn:
            sys.stdout.write(UP.format(self.drawn))
            self.drawn = 0
        print(text, flush=True)


def duration(seconds: float) -> str:
    """As a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
