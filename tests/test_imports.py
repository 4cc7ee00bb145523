"""The house: who may import whom, and names that would shadow others."""

import ast
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from builders import ROOT, SLOW

PAPERS = ("pc_darts", "gdas", "edas", "itnas", "pr_darts")
# Floors: a file imports from its own room and from rooms below.
ROOMS = (
    "common", "common/data", "common/run", "common/networks", "common/draw", "common/supernet",
    "common/training", "common/language", "common/baselines",
    *PAPERS,
    "evaluate/published", "evaluate/retraining", "evaluate/benchmarking", "evaluate/exporting",
    "evaluate/comparison", "evaluate/detection", "evaluate/reproduction", "evaluate",
)  # fmt: skip
FILES = [
    path.relative_to(ROOT)
    for folder in ("common", *sorted(PAPERS), "evaluate")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
COMMANDS = {path for path in FILES if "__name__ == \"__main__\"" in (ROOT / path).read_text()}
ALIAS = Path("common/timm_models.py")  # the old name of networks/timm_models, for users' scripts
NAMES = re.compile(r"\b(pc_?darts|gdas|edas|itnas|pr_?darts)", re.IGNORECASE)


def module_of(path):
    """The file of a module as files of evaluate/ and all others name it."""
    for base in (ROOT, ROOT / "evaluate"):
        for candidate in (base / f"{path}.py", base / path / "__init__.py"):
            if candidate.is_file():
                return candidate.relative_to(ROOT)
    return None


def names_of(node):
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        return [n if module_of(n.replace(".", "/")) else node.module for n in names]
    return []


def imported(path):
    """Our own files that a file imports, but for a notebook's display."""
    tree = ast.parse((ROOT / path).read_text())
    displays = [n for n in ast.walk(tree) if getattr(n, "name", "") == "_repr_svg_"]
    display_only = {id(node) for display in displays for node in ast.walk(display)}
    for node in ast.walk(tree):
        if id(node) in display_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
        for name in names_of(node):
            if found := module_of(name.replace(".", "/")):
                yield found


def room(path):
    return str(path.parent)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_its_own_room_and_rooms_below(path):
    if path == ALIAS:
        return
    for other in imported(path):
        if other.name == "__init__.py":
            continue
        here, there = room(path), room(other)
        assert here == there or ROOMS.index(there) < ROOMS.index(here), f"{path} imports {other}"
        assert not (here in PAPERS and there in PAPERS and here != there), f"{path}: {other}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_command_is_never_imported(path):
    """Its classes would exist twice."""
    assert not COMMANDS & set(imported(path))


def test_no_circles_within_a_room():
    below = {path: {p for p in imported(path) if p != path} for path in FILES}
    while leaves := {path for path, others in below.items() if not others & below.keys()}:
        below = {path: others for path, others in below.items() if path not in leaves}
    assert not below


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[0] == "common"], ids=str)
def test_common_knows_no_paper(path):
    """Names of papers stand in docstrings and comments, as provenance, and nowhere in its code."""
    if path.name == "zoo.py":
        return  # what papers print of published cells, with the source of each
    tree = ast.parse((ROOT / path).read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute, ast.ClassDef, ast.FunctionDef)):
            name = getattr(node, "id", getattr(node, "attr", getattr(node, "name", "")))
            assert not NAMES.match(name), f"{path}:{node.lineno}: {name}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = NAMES.match(node.value) and node.value != "gdas_frc"  # a fixed cell's name
            assert id(node) in docstrings or not named, f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent in {Path("evaluate"), *map(Path, PAPERS)}], ids=str
)
def test_no_file_beside_a_command_bears_another_modules_name(path):
    """A script's own folder comes first on sys.path."""
    if path.stem == "__init__" or path == Path("evaluate/test.py"):
        return  # the package `test` is Python's tests of itself, which no library imports
    assert path.stem not in sys.stdlib_module_names
    found = importlib.util.find_spec(path.stem)
    if found is not None and found.origin is not None:  # a folder of ours has none
        assert Path(found.origin).is_relative_to(ROOT)


def test_nothing_touches_sys_path():
    assert not [p for p in FILES if "sys.path" in (ROOT / p).read_text()]


@pytest.mark.parametrize("path", sorted(COMMANDS), ids=str)
def test_a_command_imports_common_before_torch(path):
    """OpenMP reads how threads wait when torch loads; `common/__init__.py` sets it."""
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            first = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            package = first.split(".")[0]
            if package in ("common", *PAPERS):
                return
            assert package in sys.stdlib_module_names or package == "tyro", first


@cache
def slow_imports(path):
    """Chains of imports outside of functions that lead from a file to a slow library."""
    chains = []
    for node in ast.parse((ROOT / path).read_text()).body:
        for name in names_of(node):
            if name.split(".")[0] in SLOW:
                chains.append(f"{path} -> {name}")
            elif other := module_of(name.replace(".", "/")):
                chains += [f"{path} -> {chain}" for chain in slow_imports(other)]
    return chains


@pytest.mark.parametrize("path", sorted(COMMANDS), ids=str)
def test_a_command_starts_without_slow_libraries(path):
    """The rule of common/README.md, for --help and refusals."""
    assert not slow_imports(path)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda path: path.name)
def test_what_tests_share_is_in_builders(path):
    """No test file imports another one, or conftest.py, or a private name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        modules = [node.module] if isinstance(node, ast.ImportFrom) else names
        assert not [m for m in modules if m.startswith(("test_", "conftest"))], path.name
        assert not [name for name in names if name.startswith("_")], path.name
