"""A checkpoint is whole or not there, and damage is noticed."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from common.errors import InputError
from common.run import checkpoint
from common.run.config import RunConfig
from common.run.folder import Run


def state(value):
    return {"epoch": value, "weights": torch.full((1000,), float(value)), "names": ["a", "b"]}


def newest(folder):
    """The first whole checkpoint's epoch, and how many damaged ones were passed over."""
    found = list(checkpoint.newest(folder))
    whole = [s["epoch"] for _, s in found if s is not None]
    return whole[0] if whole else None, sum(s is None for _, s in found)


def test_round_trip_keeps_the_newest_two(tmp_path):
    for epoch in range(4):
        checkpoint.save(tmp_path, f"epoch-{epoch}", state(epoch))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "epoch-2.pt", "epoch-2.pt.sha256", "epoch-3.pt", "epoch-3.pt.sha256",
    ]
    path, last = next(checkpoint.newest(tmp_path))
    assert path.name == "epoch-3.pt" and last["names"] == ["a", "b"]
    assert torch.equal(last["weights"], torch.full((1000,), 3.0))
    digest, name = (tmp_path / "epoch-3.pt.sha256").read_text().split()
    assert digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_a_flipped_byte_is_noticed(tmp_path, where):
    checkpoint.save(tmp_path, "epoch-1", state(1))
    path = checkpoint.save(tmp_path, "epoch-2", state(2))
    data = bytearray(path.read_bytes())
    data[{"start": 0, "middle": len(data) // 2, "end": -1}[where]] ^= 1
    path.write_bytes(data)
    assert newest(tmp_path) == (1, 1)


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_cut_is_noticed(tmp_path, share):
    checkpoint.save(tmp_path, "epoch-1", state(1))
    path = checkpoint.save(tmp_path, "epoch-2", state(2))
    os.truncate(path, int(share * path.stat().st_size))
    assert newest(tmp_path) == (1, 1)


def test_a_missing_or_altered_digest_is_noticed(tmp_path):
    checkpoint.save(tmp_path, "epoch-1", state(1))
    checkpoint.save(tmp_path, "epoch-2", state(2))
    (tmp_path / "epoch-2.pt.sha256").unlink()
    assert newest(tmp_path) == (1, 1)
    (tmp_path / "epoch-2.pt.sha256").write_text("")
    assert newest(tmp_path) == (1, 1)


def test_names_are_sorted_by_their_numbers(tmp_path):
    """After step 9,999,999 a name is a digit longer."""
    names = [f"epoch-00001-step-{step:07d}" for step in (9_999_998, 9_999_999, 10_000_000)]
    for epoch, name in enumerate(names):
        checkpoint.save(tmp_path, name, state(epoch))
    assert [s["epoch"] for _, s in checkpoint.newest(tmp_path)] == [2, 1]
    checkpoint.drop_later(tmp_path, tmp_path / f"{names[1]}.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{names[1]}.pt", f"{names[1]}.pt.sha256"]


def test_a_digest_is_in_the_form_that_sha256sum_checks(tmp_path):
    """Two spaces, and the bare name: it is looked for beside its digest, wherever both are."""
    data = checkpoint.save(tmp_path, "epoch-1", state(1)).read_bytes()
    line = f"{hashlib.sha256(data).hexdigest()}  epoch-1.pt\n"
    assert (tmp_path / "epoch-1.pt.sha256").read_text() == line


def test_a_link_to_a_folder_goes_and_the_folder_stays(tmp_path):
    """Nothing unknown is lost with it, so there is no need to keep it under another name."""
    folder, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    used = checkpoint.save(folder, "epoch-1", state(1))
    (folder / "epoch-2.pt").symlink_to(elsewhere)
    checkpoint.drop_later(folder, used)
    assert {p.name for p in folder.iterdir()} == {"epoch-1.pt", "epoch-1.pt.sha256"}
    assert (elsewhere / "precious").exists()


def test_killed_while_writing(tmp_path):
    """SIGKILL at arbitrary moments of a program that does nothing but write checkpoints."""
    program = (
        "import sys, torch; from pathlib import Path; from common.run import checkpoint\n"
        "folder, k = Path(sys.argv[1]), 0\n"
        "while True:\n"
        "    weights = torch.full((200_000,), float(k))\n"
        "    checkpoint.save(folder, f'epoch-{k:06d}', {'epoch': k, 'weights': weights})\n"
        "    k += 1\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.time() + 60
    while len(list(tmp_path.glob("*.pt"))) < 2 and time.time() < deadline:
        time.sleep(0.01)
    for _ in range(15):  # stopped, the folder is what a kill at this moment would leave
        time.sleep(0.013)
        process.send_signal(signal.SIGSTOP)
        epoch, damaged = newest(tmp_path)
        assert epoch is not None and damaged == 0
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    path, last = next(checkpoint.newest(tmp_path))
    assert torch.equal(last["weights"], torch.full((200_000,), float(last["epoch"])))


def test_a_run_says_which_checkpoint_it_uses_and_refuses_when_all_are_damaged(
    tmp_path, accelerator, capfd
):
    run = Run.open(RunConfig(output=str(tmp_path / "run")), "test", accelerator)
    assert run.load_checkpoint() is None
    for epoch in (1, 2):
        run.save_checkpoint(epoch, 0, state(epoch))
    files = sorted((run.folder / "checkpoints").glob("*.pt"))
    os.truncate(files[-1], 100)
    assert run.load_checkpoint()["epoch"] == 1
    said = capfd.readouterr().out
    assert f"{files[-1].name} is damaged" in said and files[0].name in said
    os.truncate(files[0], 100)
    with pytest.raises(InputError, match="no checkpoint is usable"):
        run.load_checkpoint()
