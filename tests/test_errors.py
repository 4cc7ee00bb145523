"""Commands on a closed pipe, and the error handling of every command."""

import ast
import os
import subprocess
import sys

import pytest

from builders import ROOT

ROOMS = "common pc_darts gdas edas itnas pr_darts evaluate".split()
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
SCRIPTS = [path for path in FILES if "\nif __name__ ==" in path.read_text()]
START = "import sys\nfrom common.errors import *\nwith errors_are_messages():\n    "


def ended(code, *options, errors_too=False):
    """Status and errors of a program whose output pipe is closed."""
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
def test_a_closed_output_pipe_ends_a_command_silently(code, options):
    assert ended(code, *options) == (141, b"")


def test_errors_are_printed_on_a_closed_output_pipe():
    assert ended("raise InputError('--flag')") == (2, b"error: --flag\n")
    assert ended("raise InputError('--flag')", errors_too=True)[0] == 2
    assert ended("print('x'); raise InputError('--flag')")[0] == 141


def test_another_broken_pipe_is_an_error():
    """Such as one to a process of our own."""
    code = "from common.errors import *\nwith errors_are_messages(): raise BrokenPipeError"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 1 and b"BrokenPipeError" in done.stderr


def test_a_commands_own_status_is_kept():
    assert ended("raise SystemExit(3)")[0] == 3


def guarded(body):
    """Whether all statements are inside `with errors_are_messages()`."""
    done = [line for line in body if not isinstance(getattr(line, "value", None), ast.Constant)]
    return len(done) == 1 and isinstance(done[0], ast.With) and (
        ast.unparse(done[0].items[0]) == "errors_are_messages()"
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_handles_errors_of_its_flags(path):
    tree = ast.parse(path.read_text())
    start = tree.body[-1].body
    if ast.unparse(start) == "main()":
        (start,) = (f.body for f in tree.body if getattr(f, "name", "") == "main")
    assert guarded(start)
