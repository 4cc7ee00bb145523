"""Reading and writing files: damage is reported or ignored, never a traceback."""

import json
import os
from dataclasses import dataclass
from typing import Literal

import pytest

from common.errors import InputError
from common.files import digest, first_lines, json_lines, json_object, write_whole
from common.run.config import LoopConfig, config_digest, saved, unknown, younger

DEEP = "[" * 100_000  # deeper than Python's recursion goes
LONG = "9" * 5_000  # more digits than Python turns into a number


def test_json_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    assert json_lines(path) == [{"epoch": 0}, {"epoch": 1}]
    for bad in ("", "5", "null", "[]", '{"epoch"', DEEP, LONG):
        path.write_text(f'{{"epoch": 0}}\n{bad}\n{{"epoch": 2}}\n')
        with pytest.raises(InputError, match=r"metrics.jsonl: damaged \(line 2 is not a JSON obj"):
            json_lines(path)
    path.write_bytes(b'{"epoch": 0}\n\xff\xfe\n')
    with pytest.raises(InputError, match="line 2"):
        json_lines(path)
    for unreadable in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="cannot be read"):
            json_lines(unreadable)


def test_json_object(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"epochs": 3}')
    assert json_object(path) == {"epochs": 3}
    for bad in ("", "{", "[1]", "null", DEEP, LONG):
        path.write_text(bad)
        assert json_object(path) is None
    path.write_bytes(b"\xff\xfe\x00")
    assert json_object(path) is json_object(tmp_path) is json_object(tmp_path / "no") is None
    assert json_object(path / "below a file") is None


def test_first_lines(tmp_path):
    path = tmp_path / "lines"
    assert first_lines(path) == first_lines(path, 0) == b"" and first_lines(path, 1) is None
    path.write_bytes(b"one\ntwo\nthr")
    assert first_lines(path) == first_lines(path, 2) == b"one\ntwo\n"
    assert first_lines(path, 1) == b"one\n" and first_lines(path, 3) is None
    assert first_lines(tmp_path) is first_lines(tmp_path, 0) is None
    (tmp_path / "link").symlink_to("nowhere")
    assert first_lines(tmp_path / "link") is None


def test_digests_ignore_the_order_of_keys():
    assert digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1}) != digest({"a": 1})
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_writes_are_atomic(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_whole(path, b"old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: is a folder"):
        write_whole(tmp_path / "folder", b"")
    seen, replace = [], os.replace

    def look(temporary, target):  # just before the new file appears
        seen.append((path.read_bytes(), temporary.read_bytes(), temporary.suffix))
        replace(temporary, target)

    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "replace", look)
    write_whole(path, b"new")
    assert seen == [(b"old", b"new", ".tmp")] and path.read_bytes() == b"new" and len(synced) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "folder"]


@dataclass(frozen=True)
class Kinds(LoopConfig):
    """A field of every kind that a config has."""

    choice: Literal["a", "b"] = "a"
    number: Literal[1, 2] = 1
    maybe: Literal["x"] | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    share: float | None = None


def written(folder, **changes):
    description = {"method": "m", "mixed_precision": "no", "processes": 1, **changes}
    (folder / "config.json").write_text(json.dumps(description))
    return folder


FITS = [
    ("choice", "b"), ("number", 2), ("maybe", None), ("maybe", "x"), ("sizes", []),
    ("sizes", [1, 2, 3]), ("pair", [2, "b"]), ("share", None), ("share", 1), ("share", 0.5),
    ("learning_rate", 1), ("seed", 5), ("threads", None), ("output", None),
]  # fmt: skip
FITS_NOT = [
    ("choice", "c"), ("choice", None), ("number", 3), ("number", True), ("number", 1.0),
    ("maybe", "y"), ("sizes", [1, "2"]), ("sizes", 5), ("sizes", "12"), ("sizes", None),
    ("pair", [1]), ("pair", ["a", 1]), ("pair", [1, "a", 2]), ("share", "1"), ("share", True),
    ("learning_rate", None), ("seed", 5.0), ("seed", True), ("seed", "5"), ("threads", [1]),
    ("dataset", 1), ("pair", "ab"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), FITS)
def test_a_saved_value_of_the_right_type(tmp_path, name, value):
    config = saved(Kinds, written(tmp_path, **{name: value}), "m")
    as_written = tuple(value) if isinstance(value, list) else value
    assert getattr(config, name) == as_written and config.resume == str(tmp_path)
    rest = {**vars(Kinds()), name: as_written, "resume": str(tmp_path)}
    assert vars(config) == rest  # missing fields have their defaults


@pytest.mark.parametrize(("name", "value"), FITS_NOT)
def test_a_saved_value_of_a_wrong_type(tmp_path, name, value):
    with pytest.raises(InputError, match=rf"config.json is damaged \({name} is "):
        saved(Kinds, written(tmp_path, **{name: value}), "m")


def test_a_damaged_config(tmp_path):
    with pytest.raises(InputError, match="is a run of m, not of other"):
        saved(Kinds, written(tmp_path), "other")
    for bad in ("", "{", "[]", "5", "{}", '{"method": 5}', DEEP, '{"method": ' + LONG + "}"):
        (tmp_path / "config.json").write_text(bad)
        with pytest.raises(InputError, match="its config.json is damaged"):
            saved(Kinds, tmp_path, "m")
    (tmp_path / "config.json").write_text('{"method": "m", "processes": 1}')
    with pytest.raises(InputError, match="lacks mixed_precision"):
        saved(Kinds, tmp_path, "m")
    (tmp_path / "config.json").unlink()
    (tmp_path / "metrics.jsonl").touch()
    for folder in (tmp_path, tmp_path / "nothing", tmp_path / "metrics.jsonl"):
        with pytest.raises(InputError, match="no run there"):
            saved(Kinds, folder, "m")


def test_the_digest_of_a_config_ignores_what_no_result_depends_on():
    description = {
        "method": "m", "mixed_precision": "no", "processes": 1, "commit": "c", "device": "cpu",
        "machine": "", "versions": {}, "command": "", "started": "", **vars(Kinds()),
    }  # fmt: skip
    assert unknown(Kinds(), {**description, "lost": 1, "gone": 2}) == ["gone", "lost"]
    assert not unknown(Kinds(), description) and not younger(Kinds(), description)
    del description["share"], description["choice"]
    assert younger(Kinds(), description) == {"choice": "a", "share": None}
    told = {"output", "resume", "data_root", "device", "machine", "versions", "command", "started"}
    told |= {"extend_epochs"}  # epochs holds the new total
    for name in description:
        same = config_digest({**description, name: "other"}) == config_digest(description)
        assert same == (name in told), name
