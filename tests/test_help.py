"""--help: flags in boxes, each default said once."""

import dataclasses
import re

import pytest

from builders import command_configs
from common.run.cli import read_flags
from common.run.flags import flag
from common.run.help import GROUPS


@pytest.mark.parametrize("name", command_configs())
def test_every_flag_is_shown_once_and_none_nowhere(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    config = command_configs()[name]
    with pytest.raises(SystemExit, match="0"):
        read_flags(type(config), ["--help"], None, config)
    shown = capsys.readouterr().out
    assert "None" not in shown
    words = shown.replace(",", " ").split()
    for field in dataclasses.fields(config):
        if not re.search("Positional|Suppress", str(field.type)):
            assert flag(field.name) in words


def test_the_boxes_of_a_search(capsys):
    config = command_configs()["pc_darts/search.py"]
    with pytest.raises(SystemExit, match="0"):
        read_flags(type(config), ["--help"], None, config)
    shown = capsys.readouterr().out
    own = {field.name for field in dataclasses.fields(config)}
    titles = [f"{group} options" for group, names in GROUPS.items() if own & set(names.split())]
    assert len(titles) == len(GROUPS) - 1  # how a comparison executes its runs
    assert [shown.index(title) for title in titles] == sorted(map(shown.index, titles))
    assert shown.index("--warmup-epochs") < shown.index(titles[0])  # its own come first


def test_groups_name_flags_that_exist():
    configs = command_configs().values()
    known = {field.name for config in configs for field in dataclasses.fields(config)}
    assert {name for names in GROUPS.values() for name in names.split()} <= known


@pytest.mark.parametrize(
    "name",
    sorted({*command_configs()} - {f"evaluate/{n}.py" for n in ("test", "export", "watch")}),
)
def test_without_flags_the_defaults(name):
    config = command_configs()[name]
    assert read_flags(type(config), [], None, config) == config
