"""Checkpoint files: written atomically, with a digest that reveals damage.

A checkpoint `X.pt` holds tensors and plain values and is read with `weights_only`. Its SHA-256 is
in `X.pt.sha256`, in the form that `sha256sum -c` checks. The digest is written first, so wherever
the program is killed, an `X.pt` has its digest. Names hold numbers, and the numbers sort by age.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from common.files import write_whole

KEEP = 2  # newest ones; the one before the last is there in case the last is damaged


def save(folder: Path, name: str, state: dict[str, Any]) -> Path:
    """Write `<folder>/<name>.pt` atomically and delete all but the newest `KEEP`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"{name}.pt"
    digest = hashlib.sha256(data).hexdigest()
    write_whole(_digest_of(path), f"{digest}  {path.name}\n".encode())
    write_whole(path, data)
    tidy(folder)
    return path


def newest(folder: Path) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """The folder's checkpoints on the CPU, newest first; None if the digest does not match."""
    for path in reversed(_by_age(folder)):
        try:
            data, recorded = path.read_bytes(), _digest_of(path).read_bytes().split()[:1]
        except OSError:  # not there, a folder, a link to nothing, not readable
            yield path, None
            continue
        if recorded != [hashlib.sha256(data).hexdigest().encode()]:
            yield path, None
        else:
            yield path, torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def drop_later(folder: Path, used: Path) -> None:
    """Delete checkpoints newer than the one a run resumes from; they will be written again."""
    for path in _by_age(folder):
        if _age(path) > _age(used):
            _remove(path)
            _remove(_digest_of(path))


def tidy(folder: Path) -> None:
    """Keep the newest `KEEP` with their digests; delete everything else that a kill left."""
    for old in _by_age(folder)[:-KEEP]:
        _remove(old)
    for digest in folder.glob("*.pt.sha256"):
        if not digest.with_suffix("").exists():
            _remove(digest)
    for unfinished in folder.glob("*.tmp"):
        _remove(unfinished)


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pt"), key=_age)


def _age(path: Path) -> list[int]:
    """Epoch and step as numbers: 12 sorts after 9."""
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _remove(path: Path) -> None:
    """Remove a file; a folder with unknown contents is renamed instead."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(path.name + ".damaged"))
    else:
        path.unlink(missing_ok=True)


def _digest_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
