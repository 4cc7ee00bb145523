"""Checkpoint files: they appear whole or not at all, and a damaged one is noticed.

A checkpoint `X.pt` holds tensors and plain values and is read with `weights_only`. Its SHA-256 is
in `X.pt.sha256`, in the form that `sha256sum -c` checks. The digest is written first, so wherever
the program is killed, an `X.pt` has its digest.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from common.files import write_whole

KEEP = 2  # newest ones; the one before the last is there in case the last is damaged


def save(folder: Path, name: str, state: dict[str, Any]) -> Path:
    """Write `<folder>/<name>.pt` at once, and drop all but the newest `KEEP`.

    Names must sort by age.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"{name}.pt"
    digest = hashlib.sha256(data).hexdigest()
    write_whole(_digest_of(path), f"{digest}  {path.name}\n".encode())
    write_whole(path, data)
    for old in sorted(folder.glob("*.pt"))[:-KEEP]:
        old.unlink()
        _digest_of(old).unlink(missing_ok=True)
    return path


def newest(folder: Path) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """The folder's checkpoints, newest first, on the CPU; None where the digest does not match."""
    for path in sorted(folder.glob("*.pt"), reverse=True):
        data, digest = path.read_bytes(), _digest_of(path)
        recorded = digest.read_text().split()[:1] if digest.exists() else []
        if recorded != [hashlib.sha256(data).hexdigest()]:
            yield path, None
        else:
            yield path, torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _digest_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
