"""What no machine could build is one message that names the flag; nothing is written."""

import dataclasses
import math
import os
import sys
from types import UnionType
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import torch

from builders import ROOT, SEARCH, assert_refused, command_configs, evaluate_module
from common.baselines import darts
from common.errors import InputError, errors_are_messages
from common.run import memory
from common.run.cli import given, parse, read_flags
from common.run.config import described
from common.run.flags import Between, check_bounds, flag
from common.run.memory import check_memory, of_language_model, of_network, of_padded
from common.supernet.supernet import SuperNet
from gdas import config as gdas
from gdas.supernet import GDASSuperNet
from pc_darts import config as pc_darts
from retraining.config import chosen_preset

sys.path.insert(0, str(ROOT / "evaluate"))


DIGITS = ("--preset", "digits")
HUGE = ("--cells", 200, "--channels", 4096)


def numeric(config):
    """The fields that hold numbers, as {name: whether a tuple of them}."""
    found = {}
    for name, hint in get_type_hints(type(config)).items():
        union = get_args(hint) if get_origin(hint) is UnionType else (hint,)
        if {int, float} & set(union):
            found[name] = False
        if any(get_origin(one) is tuple and get_args(one)[0] in (int, float) for one in union):
            found[name] = True
    return found


@pytest.mark.parametrize("name", command_configs())
@pytest.mark.parametrize("value", [10**39, 10**4000, math.inf, math.nan],
                         ids=["10**39", "10**4000", "inf", "nan"])
def test_every_numeric_flag_of_every_command_has_bounds(name, value):
    config = command_configs()[name]
    check_bounds(config)  # its own values are within
    fields = numeric(config)
    assert fields or name == "evaluate/watch.py"
    for field, many in fields.items():
        with pytest.raises(InputError, match=f"^{flag(field)} .*: must be ") as refused:
            check_bounds(dataclasses.replace(config, **{field: (value,) if many else value}))
        assert len(str(refused.value)) < 150


@dataclasses.dataclass(frozen=True)
class Flags:
    """Bounds of each kind."""

    rounds: Annotated[int | None, Between(2, 8)] = None
    share: Annotated[tuple[float, ...], Between(0, 1, above=True, below=True)] = (0.5,)
    free: float = 7e99


@dataclasses.dataclass(frozen=True)
class Restated(Flags):
    """A default of its own, and the bounds of its base."""

    rounds: int = 4


@pytest.mark.parametrize("kind", [Flags, Restated])
def test_bounds_are_taken_and_what_lies_beyond_is_refused(kind):
    for taken in ({}, {"rounds": 2}, {"rounds": 8}, {"rounds": None}, {"share": (1e-9, 0.99)}):
        check_bounds(kind(**taken))
    for refused, message in (
        ({"rounds": 1}, "--rounds 1: must be 2 or more"),
        ({"rounds": 9}, "--rounds 9: must be 8 or less"),
        ({"rounds": math.nan}, "--rounds nan: must be 2 or more"),
        ({"share": (0.5, 0.0)}, "--share 0.0: must be above 0"),
        ({"share": (1.0,)}, "--share 1.0: must be below 1"),
    ):
        with pytest.raises(InputError, match=message):
            check_bounds(kind(**refused))


@pytest.mark.parametrize(("words", "message"), [
    ([SEARCH, *DIGITS, "--cells", 10**30], "--cells 10{19}... \\(31 characters\\)|--cells 10{30}"),
    ([SEARCH, *DIGITS, "--nodes", 10**5], "--nodes 100000: must be 32"),
    ([SEARCH, *DIGITS, "--threads", 10**12], "--threads 1000000000000: must be 1024"),
    ([SEARCH, *DIGITS, "--crop-padding", 20_000], "--crop-padding 20000: must be 1024"),
    ([SEARCH, *DIGITS, "--crop-padding", 9], "--crop-padding 9: 38 % .* 7 or less"),
    ([SEARCH, *DIGITS, "--cutout", 10**30], "--cutout 10+: must be 4096"),
    ([SEARCH, *DIGITS, "--image-size", 20_000], "--image-size 20000: must be 4096"),
    ([SEARCH, *DIGITS, "--cells", 200, "--nodes", 32], "--cells 200, --nodes 32: 99000 edges"),
    ([SEARCH, *DIGITS, *HUGE], "--channels 4096, --cells 200.* GiB of memory at the least"),
    (["gdas/search.py", *DIGITS, *HUGE], "--channels 4096.* GiB"),
    (["edas/search.py", *DIGITS, *HUGE], "--channels 4096.* GiB"),
    (["itnas/search.py", *DIGITS, *HUGE], "--channels 4096.* GiB"),
    (["pr_darts/search.py", *DIGITS, *HUGE], "--channels 4096.* GiB"),
    (["common/baselines/darts.py", *DIGITS, *HUGE], "--channels 4096.* GiB"),
    (["evaluate/random_search.py", *DIGITS, *HUGE], "--channels 4096.* GiB"),
    (["gdas/rnn_search.py", "--preset", "text", "--units", 65536], "--units 65536.* GiB"),
    (["evaluate/train_rnn.py", "--preset", "text", "--genotype", "gdas_rnn", "--units", 65536],
     "--units 65536.* GiB"),
    (["evaluate/train.py", *DIGITS, "--genotype", "gdas", *HUGE], "--channels 4096.* GiB"),
    (["evaluate/detect.py", "--count", *HUGE], "--channels 4096.* GiB"),
    (["evaluate/complexity.py", "--genotype", "gdas", "--cells", 10**6], "--cells 1000000: must"),
])  # fmt: skip
def test_what_cannot_be_built_is_one_message(tmp_path, command, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "memory", lambda: (64 * 2**30, "machine"))
    monkeypatch.setattr(torch.nn.Conv2d, "__init__", None)  # nothing is built
    assert_refused(command(*words), message)
    assert list(tmp_path.iterdir()) == []


def test_a_trained_run_is_tested_and_exported_within_the_memory(trained_run, command, monkeypatch):
    monkeypatch.setattr(memory, "memory", lambda: (2**15, "machine"))
    before = sorted(trained_run.rglob("*"))
    assert_refused(command("evaluate/test.py", trained_run), "--batch-size .* GiB of memory")
    words = ("evaluate/export.py", trained_run, "--formats", "pt2", "--batch-sizes", 2**20)
    assert_refused(command(*words), "--batch-sizes 1048576: .* GiB of memory")
    assert sorted(trained_run.rglob("*")) == before


def saved_bytes(network, images):
    """What a step of a network keeps for its backward pass, its parameters not counted."""
    seen = {}

    def pack(x):
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kept = network.loss(images, torch.zeros(len(images), dtype=torch.int64))
    for parameter in network.parameters():
        seen.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(seen.values()), kept


@pytest.mark.parametrize(("module", "kind"), [(darts, SuperNet), (gdas, GDASSuperNet)])
def test_the_estimate_is_below_what_a_step_takes_and_near_it(module, kind):
    config = dataclasses.replace(module.PRESETS["digits"], channels=8, cells=3)
    network, images = kind(channels=8, cells=3), torch.randn(4, 3, 16, 16)
    kept, _ = saved_bytes(network, images)
    held = 2 * 4 * sum(p.numel() for p in network.weight_parameters())
    maps, weights = config.least_size()
    kept_least = of_network((3, 16, 16), 8, 3, 4, maps, 0)
    held_least = of_network((3, 16, 16), 8, 3, 4, 0, weights)
    assert kept / 2 < kept_least < kept and held / 2 < held_least < held


def test_the_estimates_by_hand(monkeypatch):
    # 3 cells, reductions second and third: 2x8x8, 4x4x4, 8x2x2 numbers, C^2 of 4, 16, 64
    assert of_network((3, 8, 8), 2, 3, 5, 1, 0) == 4 * 5 * (128 + 64 + 32)
    assert of_network((3, 8, 8), 2, 3, 5, 0, 3) == 2 * 4 * 3 * (4 + 16 + 64) - 0
    assert of_network((3, 224, 224), 1, 3, 1, 1, 0) == 4 * (28 * 28 + 2 * 14 * 14 + 4 * 7 * 7)
    assert of_padded(10, (3, 8, 6), 2) == 10 * 3 * 12 * 10
    assert of_language_model(7, 5, 3, 11, 2) == 4 * (2 * (35 + 5 * 50) + 22 * (14 + 15))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert of_network((3, 8, 8), 2, 3, 4, 1, 0) == 4 * 2 * (128 + 64 + 32)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert of_network((3, 8, 8), 2, 3, 4, 1, 0) == 2 * 2 * (128 + 64 + 32)


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(memory, "CGROUP", (tmp_path / "memory.max", tmp_path / "absent"))
    (tmp_path / "memory.max").write_text("max\n")
    whole, where = memory.memory()
    assert whole > 2**28 and where == "machine"
    (tmp_path / "memory.max").write_text(f"{2**20}\n")
    assert memory.memory() == (2**20, "machine")
    check_memory("--x", 2**20)
    with pytest.raises(InputError, match="--x take 0.0 GiB"):
        check_memory("--x", 2**20 + 1)


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("Storage size calculation overflowed with sizes=[1]"),
])  # fmt: skip
def test_what_the_estimate_lets_pass_ends_in_a_message(capsys, monkeypatch, error):
    monkeypatch.setenv("RANK", "1")  # whoever runs out says so
    with pytest.raises(SystemExit, match="1"), errors_are_messages():
        raise error
    assert "error: out of memory: a smaller batch or network" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="another"), errors_are_messages():
        raise RuntimeError("another")


# ----------------------------------------------------------------------------------- home folder


@pytest.mark.parametrize("name", command_configs())
def test_a_tilde_is_the_home_folder_in_every_path_flag(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/someone")
    paths = {"data_root", "output", "resume", "genotype", "genotypes", "runs", "run", "weights"}
    config = command_configs()[name]
    mine = paths & {field.name for field in dataclasses.fields(config)}
    many = {"genotypes", "runs"}
    words = ["~/x"] if "run" in mine else []  # positional
    for field in mine - {"run"}:
        words += [flag(field), "~/x", *["b/~"] * (field in many)]
    found = read_flags(type(config), words, None, config)
    for field, value in dataclasses.asdict(found).items():
        if field in mine:
            want = "/home/of/someone/x"
            assert value == (want, "b/~") if field in many else str(value) == want
        else:
            assert value == getattr(config, field) or value != value


def test_a_tilde_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--preset", "digits", "--output=~/run", "--data-root=~/x"]
    config = parse(pc_darts.PRESETS, "pc_darts", words, "")
    assert (config.output, config.data_root) == (f"{tmp_path}/run", f"{tmp_path}/x")
    assert given(["--resume=~/run"], "--resume") == f"{tmp_path}/run"
    assert given(["--log-with=~/run"], "--log-with") == "~/run"
    (tmp_path / "g.json").write_text((ROOT / "common/networks/genotypes/gdas.json").read_text())
    words = ["--genotype=~/g.json"]
    assert chosen_preset(words)["cifar10"].recipe == "gdas"
    assert read_flags(evaluate_module("test").Options, ["~/r"], None).run == tmp_path / "r"


def test_sizes_of_thousands_of_digits_end_in_one_message(command):
    digits = "9" * 5000
    for size in (digits, "\u00b2"):
        words = ("--dataset", "folder", "--genotype", "gdas", "--image-size", size)
        status, _, err = command("evaluate/train.py", *words)
        assert status == 2 and "Traceback" not in err
    assert command(SEARCH, "--seed", digits)[0] == 2


def test_a_pipe_for_a_config_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InputError, match="config.json is not a file"):
        described(tmp_path)
    (tmp_path / "config.json").unlink()
    for text in ("9" * 5000, '{"method": ' + "[" * 100_000, "{", "[]", "{}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match="its config.json is damaged"):
            described(tmp_path)
