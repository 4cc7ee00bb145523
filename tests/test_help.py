"""--help: flags in boxes, each default said once."""

import dataclasses
import re

import pytest

from common.run.cli import read_flags
from common.run.flags import flag
from common.run.help import GROUPS
from test_limits import CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_every_flag_is_shown_once_and_none_nowhere(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    config = CONFIGS[name]
    with pytest.raises(SystemExit, match="0"):
        read_flags(type(config), ["--help"], None, config)
    shown = capsys.readouterr().out
    assert "None" not in shown
    words = shown.replace(",", " ").split()
    for field in dataclasses.fields(config):
        if not re.search("Positional|Suppress", str(field.type)):
            assert flag(field.name) in words


def test_the_boxes_of_a_search(capsys):
    config = CONFIGS["pc_darts/search.py"]
    with pytest.raises(SystemExit, match="0"):
        read_flags(type(config), ["--help"], None, config)
    shown = capsys.readouterr().out
    titles = [f"{group} options" for group in GROUPS]
    assert [shown.index(title) for title in titles] == sorted(map(shown.index, titles))
    assert shown.index("--warmup-epochs") < shown.index(titles[0])  # its own come first


def test_groups_name_flags_that_exist():
    known = {field.name for config in CONFIGS.values() for field in dataclasses.fields(config)}
    assert {name for names in GROUPS.values() for name in names.split()} <= known


@pytest.mark.parametrize("name", sorted({*CONFIGS} - {"evaluate/test.py", "evaluate/export.py"}))
def test_without_flags_the_defaults(name):
    config = CONFIGS[name]
    assert read_flags(type(config), [], None, config) == config
