"""The boxes of `--help`: which flags stand together, and how each is described."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructFieldSpec,
    StructTypeInfo,
)

# In the order of the boxes, titled apart from any flag's name. Flags of no group are the command's
# own and stand above them.
GROUPS = {
    "Run": "output resume extend_epochs seed threads checkpoint_steps log_with compile",
    "Data": "dataset data_root image_size limit_images table held_out held_out_share test_split "
            "crop_padding flip cutout color_jitter workers accept_images",
    "Search": "split train_share valid_share arch_learning_rate arch_beta1 arch_beta2 "
              "arch_weight_decay arch_grad_clip cut_accuracy cut_steps hessian stop_on_collapse",
    "Weights": "epochs batch_size accumulate optimizer learning_rate learning_rate_min "
               "learning_rate_warmup schedule momentum weight_decay grad_clip drop_path "
               "auxiliary_weight label_smoothing ema_decay bptt bptt_deviation slowness trigger "
               "dropout_output dropout_hidden dropout_input dropout_embedding dropout_word",
    "Architecture": "space channels cells nodes candidates operations units",
    "Execution": "jobs cluster sbatch job_setup",
}  # fmt: skip
FEW = 15  # flags that one box shows well


def boxes(kind: type, default: Any) -> type:
    """A dataclass with the fields of a flat one, those of a group nested under its name.

    tyro draws one box for each nested dataclass; `flat` undoes the nesting.

    Args:
        kind: the flat dataclass.
        default: an instance of it, whose values are the defaults; MISSING_NONPROP: the class' own.
    """
    spec = ConstructorRegistry.get_struct_spec(StructTypeInfo.make(kind, default, False))
    fields = {field.name: _described(field) for field in spec.fields}
    groups = GROUPS if len(fields) > FEW else {}
    grouped = {
        group: [fields.pop(name) for name in names.split() if name in fields]
        for group, names in groups.items()
    }
    nested = [(group, _made(group, found)) for group, found in grouped.items() if found]
    return _made(kind.__name__, [*fields.values(), *nested])


def _made(name: str, fields: list[tuple]) -> type:
    """A dataclass of these fields."""
    made = dataclasses.make_dataclass(name, fields, kw_only=True)
    made.__module__ = "builtins"  # no source file, where tyro would search for docstrings: slow
    return made


def flat(flags: Any) -> dict[str, Any]:
    """The values of `boxes` by the names of the flags."""
    values = vars(flags)
    groups = [vars(values[group]) for group in GROUPS if group in values]
    own = {name: value for name, value in values.items() if name not in GROUPS}
    return own | {name: value for group in groups for name, value in group.items()}


def _described(field: StructFieldSpec) -> tuple:
    """Name, type with its help, and default if any; the None of an optional flag is not shown."""
    text = field.helptext() if callable(field.helptext) else field.helptext
    text = " ".join((text or "").split())  # tyro would keep the source's line breaks
    hint = "" if field.default is None else None
    shown = tyro.conf.arg(help=text or None, metavar=metavar(field.type), help_behavior_hint=hint)
    described = field.name, Annotated[field.type, shown]
    if field.default is MISSING_NONPROP:
        return described
    return *described, dataclasses.field(default=field.default)


def metavar(hint: Any) -> str | None:
    """An optional flag's value in the help: INT, STR, {a,b}, STR ...; None: as tyro shows it."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    parts = [part for part in get_args(hint) if part is not types.NoneType]
    if get_origin(hint) not in (typing.Union, types.UnionType) or len(parts) != 1:
        return None
    if get_origin(parts[0]) is Literal:
        return "{" + ",".join(map(str, get_args(parts[0]))) + "}"
    if get_origin(parts[0]) is tuple:
        return f"{get_args(parts[0])[0].__name__.upper()} ..."
    return parts[0].__name__.upper()
