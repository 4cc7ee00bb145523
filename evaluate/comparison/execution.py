"""Where the runs of a comparison run: the flags that compare.py and reproduce.py share."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from common.errors import InputError
from common.run.flags import Between
from comparison.executor import Executor, LocalExecutor, devices, threads_each
from comparison.slurm import COMMANDS, SlurmExecutor

QUEUED = 100  # jobs of a comparison that a cluster's queue holds at once
OURS = {"--output", "-o", "--error", "-e", "--array", "-a", "--wrap", "--signal", "--no-requeue"}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How many runs at a time, and where."""

    jobs: Annotated[int | None, Between(1, 1024)] = None
    """Runs at a time; by default one per GPU, or one. On a cluster, jobs in its queue; by default
    100."""
    threads: Annotated[int | None, Between(1, 1024)] = None
    """CPU threads per run; by default the usable cores divided by the runs at a time. On a
    cluster, by default each job's own choice (see a search's --help); give it for equal runs."""
    cluster: Literal["slurm"] | None = None
    """Submit each run as a job to this scheduler. Ctrl-C leaves the jobs there; the same command
    follows them again."""
    sbatch: str = ""
    """Slurm's options of each job, in one string: --sbatch='--partition gpu --time 8:00:00
    --gpus 1'."""
    job_setup: Path | None = None
    """A bash file that each job of the cluster sources first, to load modules or to copy data to
    the node's disk."""

    def check_execution(self) -> None:
        """Check the flags of a cluster, and that its commands are here.

        Raises:
            InputError: naming the flag or the command.
        """
        if self.cluster is None:
            for name, value in (("--sbatch", self.sbatch), ("--job-setup", self.job_setup)):
                if value:
                    raise InputError(f"{name} {value}: only with --cluster slurm")
            return
        absent = [name for name in COMMANDS if shutil.which(name) is None]
        if absent:
            raise InputError(
                f"--cluster slurm: no command {', '.join(absent)} here; start this on a login node "
                "of the cluster, or leave the flag out"
            )
        if self.job_setup is not None and not self.job_setup.is_file():
            raise InputError(f"--job-setup {self.job_setup}: no such file")
        try:
            given = {word.partition("=")[0] for word in shlex.split(self.sbatch)}
        except ValueError as error:  # an open quote
            raise InputError(f"--sbatch {self.sbatch!r}: {error}") from None
        if own := sorted(given & OURS):
            raise InputError(f"--sbatch: {own[0]} is set for each job; leave it out")

    def executor(self, launched: bool = False) -> Executor:
        """What runs the jobs.

        Args:
            launched: each run has a launcher, which uses all GPUs.
        """
        if self.cluster == "slurm":
            setup = self.job_setup and self.job_setup.resolve()
            return SlurmExecutor(self.jobs or QUEUED, self.threads, self.sbatch, setup)
        places = [None] * (self.jobs or 1) if launched else devices(self.jobs)
        return LocalExecutor(places, threads_each(self.threads, len(places)))


EXECUTION_FLAGS = {field.name for field in dataclasses.fields(Execution)}
