"""What config.json says of a run beside its flags: command, start, code, versions, machine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from common.run.cli import module_form
from common.run.config import LoopConfig
from common.run.operations import recorded

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "einops", "numpy", "scikit-learn")


def describe(
    config: LoopConfig, method: str, folder: Path, accelerator: Accelerator
) -> dict[str, Any]:
    """The contents of config.json."""
    fields = dataclasses.asdict(config)
    return {
        "method": method,
        **fields,
        **recorded(fields.get("operations")),
        "output": str(folder),
        "resume": None,
        "processes": accelerator.num_processes,
        "mixed_precision": str(accelerator.mixed_precision),
        "device": _device_name(accelerator.device),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "commit": commit(),
        "command": _command_line(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _command_line() -> str:
    return f"{program()} {shlex.join(sys.argv[1:])}".strip()


def program() -> str:
    """The start of the command line: `python FILE` or `python -m MODULE`."""
    return module_form() or shlex.join(["python", sys.argv[0]])


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def commit() -> str | None:
    """Commit of this checkout, with a + if files differ; None outside a checkout."""
    def git(*words: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return (git("rev-parse", "HEAD") + ("+" if changed else "")) or None
    except OSError:  # no git on this machine
        return None
