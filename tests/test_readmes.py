"""Commands, flags, files and symbols that READMEs, messages and docstrings name are there."""

import ast
import dataclasses
import importlib
import inspect
import re
import runpy
import shlex
import sys

import pytest
import tyro

from common.arguments import module_form
from common.flags import flag
from conftest import ROOT

FOLDERS = ("common", "edas", "evaluate", "gdas", "itnas", "pc_darts", "pr_darts")
READMES = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))])
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
ELSEWHERE = {  # flags of other programs, of the authors' code and of an earlier commit
    "--mixed_precision", "--num_processes", "--nproc-per-node", "--auxiliary", "--set",
    "--headless", "--hide-scrollbars", "--window-size", "--screenshot", "--method",
}  # fmt: skip
START = re.compile(
    r"(?:python|accelerate launch(?: --\S+(?: \w+)?)*?|torchrun(?: --\S+ \w+)*?) "
    r"(?:-m (?P<module>common[\w.]*)|(?P<script>\w+/[\w/]+\.py))(?P<rest>.*)"
)


class Captured(Exception):
    """What a command would have parsed its flags by."""


def flags_of(target):
    """Of a dataclass or function; of a bool also its `no-` form."""
    if dataclasses.is_dataclass(target):
        found = {f.name: "bool" in str(f.type) for f in dataclasses.fields(target) if f.init}
    else:
        found = {n: p.annotation is bool for n, p in inspect.signature(target).parameters.items()}
    names = {flag(name) for name in found} | {"--help"}
    return names | {flag(f"no_{name}") for name, yes_or_no in found.items() if yes_or_no}


@pytest.fixture(scope="module")
def known():
    """By command, the flags that it would parse: it is started, and ends where it parses."""
    found, patch = {}, pytest.MonkeyPatch()

    def capture(target, *args, **kwargs):
        raise Captured(target)

    patch.setattr(tyro, "cli", capture)
    patch.setattr(tyro.extras, "subcommand_cli_from_dict", capture)
    patch.setattr("common.arguments.module_form", module_form)

    def flags(path):
        if path not in found:
            patch.setattr(sys, "argv", [str(ROOT / path)])
            with pytest.raises(Captured) as captured:
                runpy.run_path(str(ROOT / path), run_name="__main__")
            target = captured.value.args[0]
            several = target.values() if isinstance(target, dict) else [target]
            found[path] = set().union(*map(flags_of, several))
        return found[path]

    yield flags
    patch.undo()


def blocks(text):
    """The lines of fenced blocks, those that end in a backslash joined, and inline code."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    for block in fenced:
        # also a flag on the next line, without a backslash, as in docstrings
        yield from re.sub(r"\\?\n\s+(?=-)|\\\n\s*", " ", block).splitlines()
    without = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without))


def texts(path):
    """All texts of a source file, each f-string's values as X."""
    tree = ast.parse(path.read_text())
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
            )
        elif isinstance(getattr(node, "value", None), str) and id(node) not in inside:
            yield node.value


def commands():
    """Where, which file and which words follow, of every command that is written down."""
    for path in READMES:
        for line in blocks(path.read_text()):
            yield from parsed(path, line)
    for path in SOURCES:
        for text in texts(path):
            for line in re.sub(r"\\?\n\s+(?=--)|\\\n\s*", " ", text).splitlines():
                yield from parsed(path, line)


def parsed(where, line):
    """The command of a line, if it is one: its file, and its flags outside quoted words."""
    match = START.search(line)
    if match is None:
        return
    script = match["script"] or match["module"].replace(".", "/") + ".py"
    rest = re.split(r"  +(?=[#\w])|[`;]|\s&&\s|[.,] ", match["rest"])[0]
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    yield where.relative_to(ROOT), script, words


def test_commands_exist_and_know_their_flags(known):
    seen, wrong = 0, []
    for where, script, words in commands():
        seen += 1
        if not (ROOT / script).is_file():
            wrong.append(f"{where}: {script} is no file")
            continue
        for word in words:
            name = word.partition("=")[0].rstrip(").:]'\"").lstrip("[(")
            if name.startswith("--") and name.replace("_", "-") not in known(script):
                wrong.append(f"{where}: {script} {name}")
    assert not wrong and seen > 60


def test_flags_in_backticks_are_some_commands(known):
    scripts = [
        str(path.relative_to(ROOT)) for path in SOURCES if "\nif __name__" in path.read_text()
    ]
    every = set().union(*map(known, scripts)) | ELSEWHERE
    wrong = [
        (str(path.relative_to(ROOT)), name) for path in READMES for code in blocks(path.read_text())
        for name in re.findall(r"(?:^|[\s\"'])(--[\w-]+)", code)
        if name not in every and name.replace("_", "-") not in every
    ]
    assert not wrong


def anchors(path):
    """GitHub's, of a file's headings."""
    heads = re.findall(r"^#+ (.*)", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_and_files_in_readmes_are_there():
    wrong = []
    for path in READMES:
        text = path.read_text()
        for link in re.findall(r"(?:\]\(|src(?:set)?=\")([^)\"\s]+)", text):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            there = target.exists() and (not anchor or anchor in anchors(target))
            if "://" not in link and not there:
                wrong.append((path.name, link))
        for file in re.findall(r"`([\w]+/[\w/]*\w\.(?:py|md|json))`", text):
            if not (ROOT / file).exists() and not (path.parent / file).exists():
                wrong.append((path.name, file))
    assert not wrong


def identifiers():
    """All names of the sources, and the words of their texts (keys of files and of `arch`)."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            for field in ("id", "name", "attr", "arg"):
                value = getattr(node, field, None)
                if isinstance(value, str):
                    found.add(value)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"\w+", node.value))
    return found


def classes():
    """Every class of the sources by name."""
    found = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path)
    return found


def symbols():
    """What the tables from equations to symbols name: where, and the code."""
    for path in READMES:
        rows = False
        for line in path.read_text().splitlines():
            if re.match(r"\| (paper|equation)s? \|", line.lower()):
                rows = True
            elif not line.startswith("|"):
                rows = False
            if rows:
                here = line.strip("|").split(" | ", 1)[-1]
                yield from ((path.parent.name, code) for code in re.findall(r"`([^`]+)`", here))


def test_symbols_beside_equations_are_there():
    names, homes, wrong, seen = identifiers(), classes(), [], 0
    for where, code in symbols():
        match = re.fullmatch(r"([A-Z]\w+)\.(\w+)", code)
        seen += 1
        if match is not None:
            paths = homes.get(match[1], [])
            modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths]
            own = [getattr(importlib.import_module(module), match[1]) for module in modules]
            if not any(
                hasattr(kind, match[2]) or match[2] in getattr(kind, "__dataclass_fields__", {})
                for kind in own
            ):
                wrong.append((where, code))
        elif re.fullmatch(r"(?!test_)[\w.]+(?<!\.jsonl)(?<!\.json)(?<!\.svg)(?<!\.py)", code):
            wrong += [(where, code)] * (not set(filter(None, code.split("."))) <= names)
    assert not wrong and seen > 60


def test_where_tests_are_named_they_are_there():
    defined = set()
    for path in (ROOT / "tests").glob("*.py"):
        defined |= set(re.findall(r"def (test_\w+)", path.read_text())) | {path.stem}
    for path in READMES:
        named = set(re.findall(r"`(?:tests/)?(test_\w+)(?:\.py)?`", path.read_text()))
        assert named <= defined, path
