"""Commands of the repository as processes of their own; what is finished is not repeated."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import json_object

ROOT = Path(__file__).parents[2]


def result(folder: Path, script: str, words: Sequence[str], launcher: str = "") -> dict[str, Any]:
    """The result of the run in this folder, which is begun or gone on with if it has none yet.

    Args:
        folder: of the run.
        script: that makes it, from the root of the repository.
        words: its flags, but for the folder.
        launcher: what stands before the script, e.g. `accelerate launch`; by default this Python.

    Raises:
        InputError: the script failed; what it had to say is on the screen.
    """
    if json_object(folder / "result.json") is None:
        begun = (folder / "config.json").exists()
        flags = ["--resume", str(folder)] if begun else [*words, "--output", str(folder)]
        start = shlex.split(launcher) or [sys.executable]
        status = call([*start, str(ROOT / script), *flags])
        if status != 0:
            raise InputError(
                f"{script} in {folder} ended with status {status}, for the reason above; what was "
                "finished stays, and the same command goes on from there"
            )
    return json.loads((folder / "result.json").read_text())


def call(words: Sequence[str]) -> int:
    """Run a command to its end; it is ended with this program, by Ctrl-C or SIGTERM."""
    ours = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"\n$ {shlex.join(words)}", flush=True)
    process = subprocess.Popen(words)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        signal.signal(signal.SIGTERM, ours)
