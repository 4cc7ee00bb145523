"""A Slurm of one node on this machine, for tests and to try out scripts.

    python tests/slurm_here.py FOLDER     runs until Ctrl-C; export SLURM_CONF=FOLDER/slurm.conf

The daemons and their jobs die with this process, however it ends.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv", "unshare")
# Each daemon has a PID namespace: whatever it has started, jobs too, dies with it, and it with us.
OWN = "setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount-proc".split()
# The node claims more cores and memory than there may be.
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=2000
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
ReturnToService=2
SlurmUser={user}
SlurmdUser={user}
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SchedulerParameters=sched_interval=1,sched_min_interval=10000
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 Port={node} CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """The programs, or rights, that are missing here."""
    paths = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    absent = [name for name in PROGRAMS if shutil.which(name, path=paths) is None]
    if not absent and subprocess.run([*OWN, "true"], capture_output=True).returncode != 0:
        absent = ["the right to make a PID namespace"]
    return absent


@contextlib.contextmanager
def running(folder=None):
    """Start Slurm, wait for its node; at the end kill its daemons and all jobs.

    Yields:
        The path of slurm.conf, to be named by SLURM_CONF.
    """
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="slurm"))  # sockets' paths must be short
    else:
        folder.mkdir()  # it is removed at the end, so it must not exist
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    host, (controller, node) = socket.gethostname().partition(".")[0], free_ports(2)
    conf.write_text(CONF.format(
        folder=folder, host=host, user=getpass.getuser(), controller=controller, node=node
    ))  # fmt: skip
    paths = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": paths}
    daemons = []

    def start(*words):
        with open(folder / f"{words[0]}.log", "wb") as log:
            daemons.append(subprocess.Popen(
                [*OWN, *words], env=environment, stdout=log, stderr=log
            ))  # fmt: skip

    try:
        start(
            "munged", "--foreground", "--force", f"--socket={folder}/munge.socket",
            f"--key-file={key}", f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/seed",
        )  # fmt: skip
        wait(lambda: (folder / "munge.socket").exists(), folder)
        start("slurmctld", "-D")
        start("slurmd", "-D")
        states = ["sinfo", "--noheader", "--format=%T"]
        wait(lambda: ask(states, environment) == "idle", folder)
        yield conf
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def ask(words, environment=None):
    """What a command prints."""
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    return done.stdout.strip()


def wait(true, folder, seconds=60):
    """Wait until something is true."""
    until = time.time() + seconds
    while not true():
        if time.time() > until:
            logs = "\n".join(path.read_text() for path in folder.glob("*.log"))
            raise TimeoutError(f"Slurm did not start, or did not end its jobs:\n{logs}")
        time.sleep(0.05)


def free_ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    with running(Path(sys.argv[1])), contextlib.suppress(KeyboardInterrupt):
        print("Slurm runs; Ctrl-C ends it", flush=True)
        time.sleep(10**9)
