"""Command lines: a preset or a run folder's config, changed by flags."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.constructors import MISSING_NONPROP

from common.errors import InputError, is_main_process
from common.run.config import ConfigT, LoopConfig, described, saved
from common.run.flags import PresetInt, flag
from common.run.help import boxes, flat
from common.run.operations import check_recorded, load_file

# Flags that name files or folders. A leading `~` is expanded; shells leave --output=~/runs alone.
PATHS = {
    "--data-root", "--output", "--resume", "--genotype", "--genotypes", "--runs", "--run",
    "--weights", "--operations", "--table", "--job-setup",
}  # fmt: skip
# Flags that a continued run may change. The images are compared by SHA-256, so their folder may
# move. Other thread counts round differently, which `start` says. The file of operations is
# compared by SHA-256 too, and must be named each time.
FREE = (
    "resume", "data_root", "workers", "accept_images", "threads", "extend_epochs", "log_with",
    "checkpoint_steps", "operations",
)  # fmt: skip
AnyConfig = TypeVar("AnyConfig")


def parse(presets: dict[str, ConfigT], method: str, argv: list[str], description: str) -> ConfigT:
    """The config of a command line: a preset or a run folder's config, changed by its flags.

    Args:
        presets: by name; the first is the default. Their class has a `preset` field.
        method: whose runs `--resume` and `--output` continue.
        argv: the arguments without the program's name.
        description: the help's first lines.

    Raises:
        InputError: the run cannot be resumed, or a flag contradicts it.
        SystemExit: 2, flags that do not parse; the main process prints why. 0 after --help.
    """
    preset, folder, named = given(argv, "--preset"), given(argv, "--resume"), "--resume"
    default = presets.get(preset, next(iter(presets.values())))
    output = given(argv, "--output")
    if folder is None and output is not None and os.path.lexists(Path(output) / "config.json"):
        folder, named = output, "--output"
    if folder is not None:
        try:
            run = saved(type(default), Path(folder), method)
        except InputError as error:
            raise InputError(f"{named} {error}") from None
        check_recorded(Path(folder), given(argv, "--operations"))
        if named == "--output":
            asked = _new(read_flags(type(default), argv, description, default), argv)
            _check_same(asked, run, argv)
            run = dataclasses.replace(run, output=output)
        default = run
    config = read_flags(type(default), argv, description, default)
    config = _new(config, argv) if folder is None else config.resolved()
    for field in dataclasses.fields(config) if folder is not None else ():
        was, now = getattr(default, field.name), getattr(config, field.name)
        if field.name not in FREE and was != now:
            raise InputError(
                f"{_said(field.name, now)}: the run {folder} has {was}; leave the flag out, or "
                "start a new run without --resume"
            )
    config = config.extended()
    if folder is None and given(argv, "--batch-size") is None:
        config = dataclasses.replace(config, batch_size=PresetInt(config.batch_size))
    try:
        config.check()
    except TypeError:  # a value of the wrong type; only a damaged file has one
        if folder is None:
            raise
        raise InputError(f"{named} {folder}: its config.json is damaged") from None
    return config


def _new(config: ConfigT, argv: list[str]) -> ConfigT:
    """The config of a new run; another space than a preset's changes sizes that were not typed."""
    sizes = [name for name in ("cells", "nodes") if hasattr(config, name)]
    untyped = [name for name in sizes if given(argv, flag(name)) is None]
    sizes = {name: PresetInt(getattr(config, name)) for name in untyped}
    return dataclasses.replace(config, **sizes).resolved()


def _check_same(asked: LoopConfig, run: LoopConfig, argv: list[str]) -> None:
    """Refuse to continue a run of other flags, which `--output` names.

    Args:
        asked: the config of the command as of a new run.
        run: the config of the folder's run.
        argv: the command's arguments.

    Raises:
        InputError: naming the flags, with both values.
    """
    description = described(Path(run.resume))
    typed = [argv, shlex.split(description.get("command", ""))]
    different = []
    for field in dataclasses.fields(asked):
        name, was, now = field.name, getattr(run, field.name), getattr(asked, field.name)
        preset = name == "batch_size" or isinstance(now, PresetInt)  # fitted to the images
        if preset and not any(given(words, flag(name)) for words in typed):
            continue
        if name == "epochs" and now in description.get("extended", {}).values():
            continue
        if name not in (*FREE, "output") and was != now:
            different.append(f"{_said(name, was)}, not {now}")
    if different:
        raise InputError(
            f"--output {run.resume}: holds a run of {'; '.join(different)}; repeat its flags, or "
            "use another folder"
        )


def _said(name: str, value: Any) -> str:
    """A flag with its value, as typed."""
    if isinstance(value, bool):
        return flag(name) if value else flag(f"no_{name}")
    return f"{flag(name)} {value}"


def read_flags(
    kind: type[AnyConfig],
    argv: list[str],
    description: str | None,
    default: AnyConfig | None = None,
) -> AnyConfig:
    """The dataclass that a command line fills; its help is grouped (`help.GROUPS`).

    The file of --operations is run, so that its names are known.

    Args:
        kind: a flat dataclass, each field a flag.
        argv: the arguments without the program's name.
        description: the help's first lines.
        default: whose values are the flags' defaults, instead of the class' own.

    Raises:
        InputError: see `load_file`.
        SystemExit: 2, flags that do not parse; the main process prints why. 0 after --help.
    """
    nested = boxes(kind, MISSING_NONPROP if default is None else default)
    values = flat(tyro.cli(
        tyro.conf.OmitArgPrefixes[nested], args=argv, description=description,
        console_outputs=is_main_process(), prog=module_form(),
    ))  # fmt: skip
    for name, value in values.items():
        if flag(name) in PATHS and value is not None:
            values[name] = _home(value)
    if values.get("operations") is not None:
        load_file(values["operations"])
    return kind(**values)


def _home(value: Any) -> Any:
    """A path, or several, with the home folder in place of a leading `~`."""
    if isinstance(value, tuple):
        return tuple(map(_home, value))
    return type(value)(os.path.expanduser(value))


def module_form() -> str | None:
    """`python -m package.module` if the program was started that way, else None."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    started_so = spec is not None and spec.origin == sys.argv[0]
    return f"python -m {spec.name}" if started_so else None


def given(argv: list[str], name: str) -> str | None:
    """The last value of a flag, read before the command line is parsed.

    As for the parser, words are joined by - or _, and the value follows a space or =.
    """
    value = None
    for k, word in enumerate(argv):
        key, equals, text = word.partition("=")
        if key.replace("_", "-") != name:
            continue
        if equals:
            value = text
        elif k + 1 < len(argv):
            value = argv[k + 1]
    return _home(value) if name in PATHS and value is not None else value
