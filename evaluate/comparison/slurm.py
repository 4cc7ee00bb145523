"""Runs command lines as jobs of a Slurm cluster.

Each run is a job of its own: `RUN.sbatch` beside its folder is the script, `RUN.log` the output,
which begins with the job's number. Slurm's queue is the record of what was submitted: a job is
found again by the path of its script. So the comparing process may end at any time, and no job is
submitted twice.

submitit was tried: it runs pickled functions, needs Slurm's accounting to see how a job ends, and
its wrapper takes the signals that a run has to see.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from common.errors import InputError
from comparison.jobs import Job
from comparison.methods import ROOT

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
INTERVAL = 10.0  # seconds between questions to Slurm
# Seconds after which a job has ended without a result: another machine's file is not visible here
# at once, and a job that is being requeued looks ended for a moment.
PATIENCE = 60.0
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
}  # fmt: skip
WAITS = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD"}
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name} --output={log} --open-mode=append
#SBATCH --requeue --signal=B:USR1@120
#SBATCH {options}
echo "Slurm job $SLURM_JOB_ID on $(hostname), start $((${{SLURM_RESTART_COUNT:-0}} + 1))"
began=$(date +%s)
# USR1 comes to this shell, two minutes before the time limit; TERM on a requeue, a preemption or
# scancel, by the cluster's settings to this shell alone. A launcher passes TERM on to its workers.
trap 'limit=1; [ -n "$run" ] && kill -TERM $run' USR1
trap '[ -n "$run" ] && kill -TERM $run' TERM
trap 'echo $SECONDS >> {clock}' EXIT
cd {root}
export PYTHONPATH={root}:$PYTHONPATH
{setup}
line=({new})
[ -e {folder}/config.json ] && line=({resume})
"${{line[@]}}" &
run=$!
if [ -n "$limit" ]; then kill -TERM $run; fi
while kill -0 $run 2>/dev/null; do wait $run; done   # a signal interrupts `wait`
wait $run
status=$?
if [ -n "$limit" ] && [ ! -e {folder}/result.json ]; then
    if [ -n "$(find {folder}/checkpoints -newermt @$began -print -quit 2> /dev/null)" ]; then
        scontrol requeue $SLURM_JOB_ID
    else
        echo "error: the time limit came before the first checkpoint; give --sbatch more --time"
    fi
fi
exit $status
"""


class SlurmExecutor:
    """Submits jobs and follows them.

    Args:
        most: jobs in the queue at once.
        threads: CPU threads of each run; None: its own choice.
        options: of sbatch, as one string.
        setup: a bash file that each job sources.

    Attributes:
        places: runs at a time.
        trouble: why Slurm did not answer, accept a job or start one, until it does.
    """

    def __init__(self, most: int, threads: int | None, options: str, setup: Path | None):
        self.places, self.threads, self.options, self.setup = most, threads, options, setup
        self.jobs: dict[str, Job] = {}  # by Slurm's number
        self.gone: dict[str, float] = {}  # when a job was first seen to have ended
        self.asked = self.refused = 0.0  # when Slurm answered and refused last
        self.trouble = ""

    def adopt(self, jobs: Sequence[Job]) -> None:
        """Follow the jobs of an earlier start that are still in the queue.

        Raises:
            InputError: Slurm does not answer, or will not accept `--sbatch`.
        """
        by_script = {str(job.script_file): job for job in jobs if job.state == "waiting"}
        try:
            for number, (state, _, _, script) in self._queue().items():
                if state not in ENDED and script in by_script:
                    self.jobs[number] = by_script.pop(script)
                    self.jobs[number].state = "queued"
            if by_script:
                script = SCRIPT.splitlines()[0] + f"\n#SBATCH {self.options}\n"
                _ask("sbatch", "--test-only", text=script)
        except subprocess.CalledProcessError as error:
            raise InputError(f"--cluster slurm, --sbatch {self.options!r}: {said(error)}") from None

    def has_room(self) -> bool:
        """Whether one more job can be submitted now."""
        return len(self.jobs) < self.places and time.time() - self.refused > INTERVAL

    def submit(self, job: Job) -> None:
        """Submit a job; it stays `waiting` where Slurm refuses, as at a limit of jobs per user.

        Raises:
            InputError: the cells that it trains are missing or damaged.
        """
        try:
            # Where its answer came late, Slurm may have accepted the job all the same.
            number = self._number_of(job) if self.refused else None
            if number is None:
                job.prepare()
                job.script_file.write_text(self.script(job))
                told = _ask("sbatch", "--parsable", str(job.script_file))  # number, ;cluster
                number = told.partition(";")[0].strip()
        except subprocess.CalledProcessError as error:
            self.trouble, self.refused = said(error), time.time()
            return
        self.trouble, self.refused = "", 0.0
        self.jobs[number], job.state = job, "queued"

    def script(self, job: Job) -> str:
        """The job's script: a new run, or, once it has a config, a resumed one."""
        resume = job.resume_line()
        new = resume if job.has_begun() else job.begin_line(self.threads)
        paths = {"root": ROOT, "folder": job.folder, "clock": job.clock, "name": job.name}
        return SCRIPT.format(
            **{name: shlex.quote(str(value)) for name, value in paths.items()},
            log=shlex.quote(str(job.log).replace("%", "%%")), options=self.options,
            setup="" if self.setup is None else f". {shlex.quote(str(self.setup))}",
            new=shlex.join(new), resume=shlex.join(resume),
        )  # fmt: skip

    def poll(self) -> list[Job]:
        """The jobs that ended since the last call; their state is done or failed."""
        now = time.time()
        if not self.jobs or now - self.asked < INTERVAL:
            return []
        self.asked = now
        try:
            queue = self._queue()
        except subprocess.CalledProcessError as error:
            self.trouble = said(error)
            return []
        if self.refused == 0:
            self.trouble = ""
        ended = []
        for number, job in list(self.jobs.items()):
            state, started, reason, _ = queue.get(number, ("", "", "", ""))
            if "held" in f"{state} {reason}".lower():
                self.trouble = f"Slurm job {number} is held ({reason}): scontrol release {number}"
            if state and state not in ENDED:
                job.state = "queued" if state in WAITS else "running"
                job.started = started
                self.gone.pop(number, None)
            elif job.finished() or now - self.gone.setdefault(number, now) > PATIENCE:
                ended.append(self.jobs.pop(number))
                how = f"Slurm job {number} ended as {state}"
                if not state:
                    how = f"Slurm no longer lists job {number}; sacct -j {number} may say why"
                job.end(state in ("COMPLETED", ""), how, cut_short=state != "FAILED")
        return ended

    def stop(self) -> str:
        """Leave the jobs to Slurm; returns how to cancel them."""
        left = [number for number, job in self.jobs.items() if not job.finished()]
        if not left:
            return "stopped; give the same command again to continue"
        return (
            f"{len(left)} jobs stay in Slurm's queue; give the same command again to follow them. "
            f"To cancel them: scancel {' '.join(left)}"
        )

    def _number_of(self, job: Job) -> str | None:
        """The number of a job's script in the queue."""
        for number, (state, _, _, script) in self._queue().items():
            if state not in ENDED and script == str(job.script_file):
                return number
        return None

    def _queue(self) -> dict[str, tuple[str, float, str, str]]:
        """State, start, reason and script of each of the user's jobs, by its number."""
        words = ("--noheader", "--me", "--states=all", "--format=%A|%T|%S|%r|%o")
        found = {}
        for line in _ask("squeue", *words).splitlines():
            number, state, started, reason, script = line.split("|", 4)
            found[number] = state, _seconds(started), reason, script.strip()
        return found


def said(error: subprocess.CalledProcessError) -> str:
    """What a command of Slurm complained about, in one line."""
    return " ".join(error.stderr.split()) or f"{error.cmd[0]} gave exit status {error.returncode}"


def _ask(*words: str, text: str | None = None) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
    return done.stdout


def _seconds(text: str) -> float:
    """A time of Slurm's in seconds since the epoch; now where it has none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # N/A
        return time.time()
