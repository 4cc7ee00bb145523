"""Who may import whom, and names that would shadow others."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAPERS = {"pc_darts", "gdas", "edas", "itnas", "pr_darts"}
OURS = {"common", *PAPERS}
FOLDERS = sorted({*OURS, "evaluate"})  # in an order that all workers of a test run share
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_stay_within_bounds(path):
    home = path.relative_to(ROOT).parts[0]
    allowed = {"common"} | ({home} if home in PAPERS else set())
    if path.relative_to(ROOT) == Path("evaluate/benchmark.py"):
        allowed |= PAPERS  # it times them all in one process
    assert (set(imported(path)) & (OURS | {"evaluate"})) <= allowed


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_bears_another_modules_name(path):
    """A script's own folder comes first on sys.path."""
    if path.stem == "__init__" or path.relative_to(ROOT) == Path("evaluate/test.py"):
        return  # the package `test` is Python's tests of itself, which no library imports
    assert path.stem not in sys.stdlib_module_names
    found = importlib.util.find_spec(path.stem)
    assert found is None or Path(found.origin).is_relative_to(ROOT)


def test_nothing_touches_sys_path():
    assert not [p for p in FILES if "sys.path" in p.read_text()]
