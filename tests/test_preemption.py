"""Signals: who raises, who waits, who survives. Whole runs are in test_resume.py."""

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader

from common.errors import errors_are_messages
from common.preemption import Preempted, asked, preemptible, survive, waiting


def send(number=signal.SIGTERM, to=None):
    os.kill(to or os.getpid(), number)


def test_a_signal_ends_a_command_at_once_or_after_what_waits(capsys):
    for number in (signal.SIGTERM, signal.SIGUSR1):
        before = signal.getsignal(number)
        with pytest.raises(SystemExit, match="75"), errors_are_messages():
            try:
                send(number)
            finally:
                send()  # a second one changes nothing
        assert capsys.readouterr().err == f"\nended by {signal.Signals(number).name}\n"
        assert signal.getsignal(number) is before
    steps = []
    with pytest.raises(Preempted, match="SIGTERM"), preemptible():
        with waiting():
            assert asked() is None
            send()
            steps.append(asked())
        steps.append("never")
    assert steps == ["SIGTERM"]


def test_an_error_while_a_signal_waits_is_the_error():
    with pytest.raises(ValueError), preemptible(), waiting():
        send()
        raise ValueError


def test_a_signal_is_forgotten_with_the_command_that_it_ended():
    """A test, a notebook or a script of one's own trains on in the same process."""
    with pytest.raises(Preempted), preemptible():
        with pytest.raises(Preempted), preemptible():  # as a comparison within its command
            send()
        send()  # while the runs stop
        assert asked() == "SIGTERM"
        raise Preempted
    with waiting():
        assert asked() is None


def test_a_launched_process_sees_that_its_launcher_has_died(monkeypatch):
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert asked() is None  # nobody launched it: its shell may end
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with preemptible():
        assert asked() == "its launcher's death"


def test_data_workers_survive_signals_of_all_but_their_parent():
    """Such as of torchrun, which signals the process group."""
    batches = iter(DataLoader(torch.arange(8), num_workers=1, worker_init_fn=survive))
    next(batches)
    (worker,) = batches._workers
    stranger = os.fork()
    if stranger == 0:
        for number in (signal.SIGUSR1, signal.SIGTERM):
            send(number, to=worker.pid)
        os._exit(0)
    os.waitpid(stranger, 0)
    time.sleep(0.1)
    assert len(list(batches)) == 7
    batches = iter(DataLoader(torch.arange(8), num_workers=1, worker_init_fn=survive))
    next(batches)
    worker = batches._workers[0]
    with pytest.raises(RuntimeError, match="worker"):  # PyTorch's note that it ended
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0
        list(batches)
