"""Who writes a run folder: this host's processes, other hosts', requeued jobs."""

import json
import os
import threading
import time

import psutil
import pytest

from common.errors import InputError
from common.run.config import RunConfig
from common.run.folder import Run
from common.run.lock import STALE, UNWRITTEN, Lock, in_use

PARENT = psutil.Process(os.getppid())
HERE = {"pid": PARENT.pid, "started": PARENT.create_time()}  # alive, and another
NOBODY = 2**22 + 1  # above Linux' largest number of a process


@pytest.fixture
def left(tmp_path):
    """Leaves a lock in the folder: with changes, and last touched some seconds ago."""

    def leave(ago=0, **changes):
        lock = Lock(tmp_path)
        lock.path.write_text(json.dumps({**lock.mine, **HERE, **changes}))
        os.utime(lock.path, (time.time() - ago,) * 2)

    return leave


@pytest.mark.parametrize(("changes", "ago", "found"), [
    ({}, 10 * STALE, True),  # it lives, whatever its file says
    ({"started": HERE["started"] - 60}, 0, False),  # its number was given again
    ({"pid": NOBODY}, 0, False),
    ({"pid": os.getpid(), "started": psutil.Process().create_time()}, 0, False),  # left by this one
    ({"pid": "damaged"}, 0, False),
    ({"host": "another"}, STALE - 60, True),
    ({"host": "another"}, STALE + 60, False),
    ({"host": "another", "job": "7", "restart": 0}, 0, False),  # this job before its requeueing
    ({"host": "another", "job": "7", "restart": 1}, 0, True),
    ({"host": "another", "job": "8", "restart": 0}, 0, True),
])  # fmt: skip
def test_a_lock_counts_while_its_process_lives(tmp_path, left, monkeypatch, changes, ago, found):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    left(ago, **changes)
    why = in_use(tmp_path)
    assert (why is not None) == found
    if found:
        assert f"in use by process {PARENT.pid} on " in why and f"remove {tmp_path}" in why
    assert {path.name for path in tmp_path.iterdir()} == {"running.json"}


def test_a_lock_of_another_host_is_waited_for(tmp_path, left, monkeypatch, capsys):
    """Refused at its next touch; taken over, and only once, when none comes."""
    monkeypatch.setattr("common.run.lock.PAUSE", 0.01)
    left(host="another")
    touch = threading.Timer(0.2, os.utime, [tmp_path / "running.json"])
    touch.start()
    with pytest.raises(InputError, match="in use by process .* on another"):
        Lock(tmp_path).take()
    touch.join()
    assert "waiting up to 240 seconds for a sign of life" in capsys.readouterr().out
    left(host="another", ago=STALE - 0.2)
    lock = Lock(tmp_path)
    lock.take()
    assert json.loads(lock.path.read_text()) == lock.mine
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_left_lock_that_another_process_took_meanwhile_is_kept(tmp_path, left):
    left()
    taken = (tmp_path / "running.json").read_bytes()
    Lock(tmp_path)._put_aside(b"what was left before")
    assert (tmp_path / "running.json").read_bytes() == taken
    assert [path.name for path in tmp_path.iterdir()] == ["running.json"]


def test_a_lock_that_is_not_written_yet(tmp_path):
    assert in_use(tmp_path) is None
    (tmp_path / "running.json").touch()
    assert "a process that is starting" in in_use(tmp_path)
    os.utime(tmp_path / "running.json", (time.time() - UNWRITTEN - 5,) * 2)
    assert in_use(tmp_path) is None


def test_a_run_is_refused_while_another_writes_it(tmp_path, accelerator, left):
    """A dead one's lock is taken over, kept alive, watched and removed."""
    config = RunConfig(output=str(tmp_path))
    left()
    with pytest.raises(InputError, match=f"in use by process {PARENT.pid} .* since 20"):
        Run.open(config, "m", accelerator)
    assert not (tmp_path / "config.json").exists()
    left(pid=NOBODY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.run.lock.BEAT", 0.01)
        run = Run.open(config, "m", accelerator)
        os.utime(run.lock.path, (0, 0))
        deadline = time.time() + 30
        while run.lock.path.stat().st_mtime < 1 and time.time() < deadline:
            time.sleep(0.01)
        assert run.lock.path.stat().st_mtime > 1
    with run:
        run.save_checkpoint(0, 1, {})
        assert json.loads(run.lock.path.read_text()) == run.lock.mine
    assert not run.lock.path.exists()
    with pytest.raises(InputError, match="another, .* has taken this run over"), run:
        left(host="another")
        run.save_checkpoint(0, 2, {})
    for late in (lambda: run.append("metrics.jsonl", {}), lambda: run.write("genotype.json", {})):
        with pytest.raises(InputError, match="has taken this run over"):
            late()
    assert in_use(tmp_path) is not None  # the other's stays
