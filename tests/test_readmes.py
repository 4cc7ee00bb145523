"""What READMEs name exists: files, headings, commands, their flags, classes and their methods."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from builders import ROOT, command_configs, evaluate_module

READMES = [
    path.relative_to(ROOT) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/**/*.md")])
    if not any(part.startswith((".", "runs")) for part in path.relative_to(ROOT).parts)
]  # fmt: skip
CODE = [path for path in ROOT.rglob("*.py") if ".git" not in path.parts]
OWN = Path(__file__)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*\.(?:py|md|json|svg))`")
SYMBOL = re.compile(r"`([A-Z]\w+)\.(\w+)`")


def anchors(text):
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", READMES, ids=str)
def test_links_lead_somewhere(path):
    text = (ROOT / path).read_text()
    for link in LINK.findall(text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / path).parent / file if file else ROOT / path
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("path", READMES, ids=str)
def test_files_that_are_named_exist(path):
    for name in PATH.findall((ROOT / path).read_text()):
        run_folder = name.startswith(("pictures/", "checkpoints/", "runs/"))  # of a run
        assert run_folder or any(
            (base / name).exists() for base in (ROOT, (ROOT / path).parent, ROOT / "evaluate")
        ), name


def classes():
    """Class name -> names of its attributes and methods, and of its bases."""
    found = {}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                own = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
                own |= {n.target.id for n in node.body
                        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
                own |= {t.id for n in node.body if isinstance(n, ast.Assign) for t in n.targets
                        if isinstance(t, ast.Name)}
                bases = {b.id for b in node.bases if isinstance(b, ast.Name)}
                found[node.name] = own, bases
    return found


def test_methods_that_are_named_exist():
    known = classes()

    def has(name, attribute):
        own, bases = known[name]
        return attribute in own or any(has(b, attribute) for b in bases if b in known)

    for path in READMES:
        for name, attribute in SYMBOL.findall((ROOT / path).read_text()):
            if name in known:
                assert has(name, attribute), f"{path}: {name}.{attribute}"


IN_FILE = re.compile(
    r"`([\w.]+)`(?: and `([\w.]+)`)? in \[[^]]*\]\(([^)#]+\.py)\)"
)


@pytest.mark.parametrize("path", READMES, ids=str)
def test_symbols_are_in_the_file_beside_them(path):
    """Where a README says "`symbol` in [file.py](file.py)"."""
    for *symbols, file in IN_FILE.findall((ROOT / path).read_text()):
        text = ((ROOT / path).parent / file).read_text()
        for symbol in filter(None, symbols):
            assert re.search(rf"\b{symbol.rpartition('.')[2]}\b", text), f"{symbol} in {file}"


INLINE = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^```.*?^```", re.M | re.S)


def inline_code():
    """(README, code) of every piece of code within a line."""
    for path in READMES:
        for code in INLINE.findall(FENCED.sub("", (ROOT / path).read_text())):
            yield path, code


def test_files_named_without_their_folder_exist():
    names = {path.name for path in CODE}
    named = [(path, code) for path, code in inline_code() if re.fullmatch(r"\w+\.py", code)]
    assert [n for n in named if n[1] not in names] == [] and len(named) > 5


def test_symbols_named_anywhere_are_in_the_code():
    """Class names and names with an underscore; one that ends with it begins metrics' names."""
    words = set(re.findall(r"\w+", "\n".join(path.read_text() for path in CODE if path != OWN)))
    kind = re.compile(r"(?:\w+\.)*(?:[A-Z]+[a-z]\w*|_?[a-z]\w*_\w+)(?:\.\w+)*(?:\(\))?")
    named = [(path, code) for path, code in inline_code()
             if kind.fullmatch(code) and not code.endswith("_")]
    absent = [n for n in named if not set(re.findall(r"\w+", n[1])) <= words]
    assert absent == [] and len(named) > 50


# Of tyro, accelerate launch, torchrun, sbatch, and of the authors' own scripts.
OTHERS_FLAGS = {"help", "mixed_precision", "nproc_per_node", "set", "auxiliary", "requeue"}


def test_flags_named_within_a_line_exist():
    convert = evaluate_module("convert").Options("gdas", "json")  # a command without numbers
    configs = (*command_configs().values(), convert)
    names = {name for config in configs for name in vars(config)}
    flags = [(path, flag) for path, code in inline_code()
             for flag in re.findall(r"(?<![\w-])--([a-z][\w-]*)", code)]
    known = names | OTHERS_FLAGS
    absent = [f for f in flags if f[1].replace("-", "_").removeprefix("no_") not in known]
    assert absent == [] and len(flags) > 50


def commands():
    """(README, script, flags) of every command line in a code block."""
    for path in READMES:
        for block in re.findall(r"^```\w*\n(.*?)^```", (ROOT / path).read_text(), re.M | re.S):
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            for line in lines:
                line = re.sub(r"\s#.*", "", line).split("&&")[-1].strip()
                try:
                    words = shlex.split(line)
                except ValueError:
                    continue
                yield from ((path, *found) for found in [script_of(words)] if found)


def script_of(words):
    """The script of a command line, and the names of its flags."""
    if words[:1] == ["srun"]:
        below = [n for n, word in enumerate(words) if word in ("torchrun", "python")]
        words = words[below[0]:] if below else words
    flags = {w.partition("=")[0] for w in words if w.startswith("--")}
    for n, word in enumerate(words):
        if word.endswith(".py") and n > 0 and words[0] in ("python", "accelerate", "torchrun"):
            after = {w.partition("=")[0] for w in words[n:] if w.startswith("--")}
            return word, after
        if word == "-m" and n + 1 < len(words):
            return words[n + 1], flags
    return None


def test_commands_in_readmes_are_there_with_their_flags():
    checked = 0
    for path, script, flags in commands():
        if "/" in script:
            assert (ROOT / script).is_file(), f"{path}: {script}"
        if script not in command_configs():
            continue
        names = set(vars(command_configs()[script])) | {"help"}
        for flag in flags:
            name = flag.removeprefix("--").replace("-", "_")
            assert name in names or name.removeprefix("no_") in names or name == "k", (
                f"{path}: {script} {flag}"
            )
        checked += 1
    assert checked > 40


def test_shell_scripts_have_no_errors():
    texts = "\n".join((ROOT / path).read_text() for path in READMES)
    blocks = re.findall(r"^```bash\n(.*?)^```", texts, re.M | re.S)
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(blocks) >= 2


def test_scripts_in_messages_exist():
    """`python evaluate/...` in any string of ours."""
    for path in CODE:
        if Path("tests") in path.relative_to(ROOT).parents:
            continue
        for name in re.findall(r"(?:python|launch) ([a-z_]+/[a-z_]+\.py)", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)}: {name}"
