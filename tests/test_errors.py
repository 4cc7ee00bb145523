"""How commands end when nobody reads on, and that every command ends so."""

import ast
import os
import subprocess
import sys

import pytest

from common.errors import errors_are_messages
from conftest import ROOT

ROOMS = "common pc_darts gdas edas itnas pr_darts evaluate".split()
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
SCRIPTS = [path for path in FILES if "\nif __name__ ==" in path.read_text()]
START = "import sys\nfrom common.errors import *\nwith errors_are_messages():\n    "


def ended(code, *options, errors_too=False):
    """The status and the errors of a program whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, *options, "-c", START + code], cwd=ROOT, stdout=writer,
        stderr=writer if errors_too else subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
    )
    os.close(writer)
    return process.returncode, process.stderr or b""


@pytest.mark.parametrize(("code", "options"), [
    ("print('small')", ()), ("print('x' * 10**6)", ()), ("print('at once', flush=True)", ()),
    ("print('unbuffered')", ("-u",)), ("print('--help'); sys.exit(0)", ()),
])  # fmt: skip
def test_a_command_whose_output_nobody_reads_ends_in_silence(code, options):
    assert ended(code, *options) == (141, b"")


def test_what_is_wrong_is_said_all_the_same():
    assert ended("raise InputError('--flag')") == (2, b"error: --flag\n")
    assert ended("raise InputError('--flag')", errors_too=True)[0] == 2
    assert ended("print('x'); raise InputError('--flag')")[0] == 141


def test_another_broken_pipe_is_no_silence(monkeypatch):
    monkeypatch.setattr("common.errors._nobody_reads", lambda: False)
    with pytest.raises(BrokenPipeError), errors_are_messages():
        raise BrokenPipeError


def test_readers_that_read_are_noticed():
    assert ended("raise SystemExit(3)")[0] == 3
    code = "from common.errors import _nobody_reads; print(_nobody_reads())"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout == "False\n"


def guarded(body):
    """Whether all that these lines do is done where errors are messages."""
    done = [line for line in body if not isinstance(getattr(line, "value", None), ast.Constant)]
    return len(done) == 1 and isinstance(done[0], ast.With) and (
        ast.unparse(done[0].items[0]) == "errors_are_messages()"
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_answers_for_its_flags_too(path):
    tree = ast.parse(path.read_text())
    start = tree.body[-1].body
    if ast.unparse(start) == "main()":
        (start,) = (f.body for f in tree.body if getattr(f, "name", "") == "main")
    assert guarded(start)
