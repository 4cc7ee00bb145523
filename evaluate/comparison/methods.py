"""The methods that can be compared: how each is started, and how its run folders are recognised.

Nothing of a paper is imported: a search is a command line that writes a run folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import InputError
from comparison import published
from comparison.published import Printed

ROOT = Path(__file__).resolve().parents[2]  # of the checkout; commands are started there


@dataclass(frozen=True)
class Method:
    """A search.

    Attributes:
        script: Python's arguments.
        method: `method` in the config.json of its runs.
        flags: those that make it this method; config.json has the same values.
        printed: its results in the papers.
    """

    script: tuple[str, ...]
    method: str
    flags: Mapping[str, str] = field(default_factory=dict)
    printed: tuple[Printed, ...] = ()


GDAS, DARTS = ("gdas/search.py",), ("-m", "common.baselines.darts")
METHODS = {
    "pc_darts": Method(("pc_darts/search.py",), "pc_darts", printed=(published.PC_DARTS,)),
    "gdas": Method(GDAS, "gdas", {"--reduction": "searched"}, (published.GDAS,)),
    "gdas_frc": Method(GDAS, "gdas", {"--reduction": "fixed"}, (published.FRC,)),
    "edas": Method(("edas/search.py",), "edas", printed=(published.EDAS,)),
    "itnas": Method(("itnas/search.py",), "itnas", printed=(published.ITNAS,)),
    "pr_darts": Method(
        ("pr_darts/search.py",), "pr_darts", printed=(published.DL1, published.DL2)
    ),
    "darts": Method(DARTS, "darts", {"--order": "1"}, (published.DARTS,)),
    "darts2": Method(DARTS, "darts", {"--order": "2"}, (published.DARTS2,)),
    "random": Method(("evaluate/random_search.py",), "random_search"),
}  # fmt: skip

DARTS_ONLY = ("gdas_frc", "pr_darts")  # cannot search NAS-Bench-201's space


def known(names: Sequence[str]) -> list[str]:
    """The names of methods, each once.

    Raises:
        InputError: one is unknown, or there is none.
    """
    if not names:
        raise InputError(f"--methods: name some of {', '.join(METHODS)}")
    for name in names:
        if name not in METHODS:
            raise InputError(f"--methods {name}: unknown; known: {', '.join(METHODS)}")
    return list(dict.fromkeys(names))


def name_of(config: Mapping[str, Any]) -> str:
    """The method that made a run folder, by its config.json."""
    for name, method in METHODS.items():
        flags = {flag.removeprefix("--"): value for flag, value in method.flags.items()}
        same = all(str(config.get(key)) == value for key, value in flags.items())
        if config["method"] == method.method and same:
            return name
    return config["method"]
