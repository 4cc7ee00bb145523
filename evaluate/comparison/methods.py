"""The methods that can be compared: how each is started, and how its run folder is known.

Nothing of a paper is imported: a search is a command line, and what it leaves is a run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import InputError
from comparison import published
from comparison.published import Printed

ROOT = Path(__file__).resolve().parents[2]  # of the checkout, where commands are started


@dataclass(frozen=True)
class Method:
    """A search.

    Attributes:
        script: what python is given.
        made: what config.json of its runs holds beside `method`.
        flags: that make it this method, beside the script.
        printed: what papers print of it.
    """

    script: tuple[str, ...]
    method: str
    flags: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    printed: tuple[Printed, ...] = ()


DARTS = ("-m", "common.baselines.darts")
METHODS = {
    "pc_darts": Method(("pc_darts/search.py",), "pc_darts", printed=(published.PC_DARTS,)),
    "gdas": Method(
        ("gdas/search.py",), "gdas", {"--reduction": "searched"}, {"reduction": "searched"},
        (published.GDAS,),
    ),
    "gdas_frc": Method(
        ("gdas/search.py",), "gdas", {"--reduction": "fixed"}, {"reduction": "fixed"},
        (published.FRC,),
    ),
    "edas": Method(("edas/search.py",), "edas", printed=(published.EDAS,)),
    "itnas": Method(("itnas/search.py",), "itnas", printed=(published.ITNAS,)),
    "pr_darts": Method(
        ("pr_darts/search.py",), "pr_darts", printed=(published.DL1, published.DL2)
    ),
    "darts": Method(DARTS, "darts", {"--order": "1"}, {"order": 1}, (published.DARTS,)),
    "darts2": Method(DARTS, "darts", {"--order": "2"}, {"order": 2}, (published.DARTS2,)),
    "random": Method(("evaluate/random_search.py",), "random_search"),
}  # fmt: skip


def known(name: str) -> Method:
    """A method by name.

    Raises:
        InputError: there is none.
    """
    if name not in METHODS:
        raise InputError(f"--methods {name}: unknown; known: {', '.join(METHODS)}")
    return METHODS[name]


def name_of(config: Mapping[str, Any]) -> str:
    """The method that made a run folder, by its config.json."""
    for name, method in METHODS.items():
        same = all(config.get(key) == value for key, value in method.made.items())
        if config["method"] == method.method and same:
            return name
    return config["method"]
