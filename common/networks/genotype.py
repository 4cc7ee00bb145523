"""Genotypes: the cells that a search found.

A genotype is a versioned JSON file that people can read and write (`formats` reads and writes the
texts of other programs)::

    {
      "format": "nas-genotype", "version": 1, "name": "my_cells",
      "cells": {
        "normal": {
          "inputs": 2,
          "edges": [
            {"from": 0, "to": 2, "op": "sep_conv_3x3"},
            {"from": 1, "to": 2,
             "op": {"name": "sep_conv", "kernel": 5, "dilation": 1, "expansions": [1]}}
          ],
          "output": [2]
        },
        "reduction": {"fixed": "gdas_frc"}
      },
      "provenance": {"source": "where it comes from"}
    }

States are numbered as in DARTS: 0 and 1 are the outputs of the two previous cells (a recurrent cell
and NAS-Bench-201's `cell` have one input, state 0); the computed nodes follow. `output` lists the
states that are concatenated (averaged in a recurrent cell, and in an image cell with
`"join": "mean"`). A node may have any number of edges; one without edges is zero, and
`"zero": [4]` beside `output` says so.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import write_whole
from common.networks import formats
from common.run.operations import OWN_OPS, in_words

FORMAT, VERSION = "nas-genotype", 1

# The candidate operations of DARTS, in the column order of alpha (facts: DARTS, PC-DARTS, GDAS).
CANDIDATES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
IMAGE_OPS = (*CANDIDATES, "sep_conv_7x7", "nor_conv_1x1", "nor_conv_3x3")
PARAMETRISED_OPS = ("sep_conv",)
RECURRENT_OPS = ("none", "tanh", "relu", "sigmoid", "identity")
FIXED_CELLS = ("gdas_frc",)
JOINS = ("concat", "mean")
KINDS = ("normal", "reduction", "recurrent", "cell")  # cell: of NAS-Bench-201


@dataclass(frozen=True)
class Op:
    """An operation: its name and, for the parametrised `sep_conv`, its shape.

    Attributes:
        name: one of `IMAGE_OPS`, `OWN_OPS`, `PARAMETRISED_OPS` or, in a recurrent cell,
            `RECURRENT_OPS`.
        kernel: odd kernel size of every depthwise convolution (`sep_conv` only).
        dilation: dilation of every depthwise convolution, 1 or more (`sep_conv` only).
        expansions: inner widths as multiples of the channels (`sep_conv` only). There is one unit
            more than expansions: `(1,)` with dilation 1 is DARTS' sep_conv, `()` a single unit.
    """

    name: str
    kernel: int | None = None
    dilation: int | None = None
    expansions: tuple[int, ...] | None = None

    def to_json(self) -> str | dict[str, Any]:
        """A string for a plain operation, an object for a parametrised one."""
        if self.kernel is None:
            return self.name
        return {
            "name": self.name,
            "kernel": self.kernel,
            "dilation": self.dilation,
            "expansions": list(self.expansions),
        }

    def __str__(self) -> str:
        if self.kernel is None:
            return self.name
        widths = ",".join(map(str, self.expansions))
        return f"{self.name}_{self.kernel}x{self.kernel}(dilation {self.dilation}, [{widths}])"


@dataclass(frozen=True)
class Edge:
    """An operation between two states of a cell, `source` < `target`."""

    source: int
    target: int
    op: Op


@dataclass(frozen=True)
class Cell:
    """A cell as a graph: number of inputs, edges ordered by target, and the output states.

    An output state that no edge enters is a node of zeros.

    Attributes:
        join: how an image cell joins the output states, one of `JOINS`.
    """

    inputs: int
    edges: tuple[Edge, ...]
    output: tuple[int, ...]
    join: str = "concat"

    @property
    def nodes(self) -> int:
        """The number of computed nodes."""
        states = [*self.output, *(edge.target for edge in self.edges)]
        return max(states) - self.inputs + 1

    @property
    def zero(self) -> tuple[int, ...]:
        """The nodes that no edge enters; they are zero."""
        computed = range(self.inputs, self.inputs + self.nodes)
        return tuple(node for node in computed if not self.into(node))

    def into(self, node: int) -> tuple[Edge, ...]:
        """The edges that end in `node`."""
        return tuple(edge for edge in self.edges if edge.target == node)


@dataclass(frozen=True)
class FixedCell:
    """A cell that was not searched, by name (one of `FIXED_CELLS`)."""

    name: str


@dataclass(frozen=True)
class Genotype:
    """Cells by kind, and their provenance."""

    name: str
    cells: Mapping[str, Cell | FixedCell]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def own_operations(self) -> set[str]:
        """Names of the user's operations in the cells."""
        searched = [cell for cell in self.cells.values() if isinstance(cell, Cell)]
        return OWN_OPS.keys() & {edge.op.name for cell in searched for edge in cell.edges}

    def to_json(self) -> dict[str, Any]:
        """The content of a genotype file."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "cells": {kind: _cell_to_json(cell) for kind, cell in self.cells.items()},
            "provenance": dict(self.provenance),
        }

    def __str__(self) -> str:
        """All cells as text, one line per node."""
        return "\n".join(
            line for kind, cell in self.cells.items() for line in _describe(kind, cell)
        )

    def _repr_svg_(self) -> str:
        """All cells as a picture, which a notebook shows."""
        from common.draw.cell import cells_figure  # for display only; drawing knows genotypes

        return cells_figure(self.cells)._repr_svg_()


def cell_from_pairs(pairs: Sequence[tuple[str, int]], inputs: int = 2) -> Cell:
    """A cell from DARTS' notation, `[(op, source), ...]` with two pairs per node."""
    edges = tuple(
        Edge(source, inputs + k // 2, Op(name)) for k, (name, source) in enumerate(pairs)
    )
    return Cell(inputs, edges, tuple(range(inputs, inputs + len(pairs) // 2)))


def words(kind: str) -> str:
    """A kind of cell in words: NAS-Bench-201's only one is `cell`."""
    return kind if kind == "cell" else f"{kind} cell"


def published() -> list[str]:
    """Sorted names of the published genotypes."""
    folder = resources.files("common.networks") / "genotypes"
    names = [entry.name for entry in folder.iterdir()]
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def load(what: str | Path) -> Genotype:
    """Load a genotype by published name, from a file or run folder, or from its text.

    Args:
        what: a published name, a run folder, a file with a genotype in any form of `formats`,
            `file.py:NAME` where a file has several, or such a text itself.

    Raises:
        InputError: no such name, file or folder, or it is not a valid genotype.
    """
    if str(what) in published():
        name = f"{what}.json"
        return parse((resources.files("common.networks") / "genotypes" / name).read_text(), name)
    exists = os.path.exists(what)  # Path.exists fails on a text too long for a file's name
    if formats.is_text(str(what)) and not exists:
        short = textwrap.shorten(str(what), 60, placeholder="...")
        return _read(str(what), f"--genotype {short}", "pasted", "text on the command line")
    try:
        path, name = Path(what), None
        file, _, last = str(what).rpartition(":")
        if last.isidentifier() and os.path.isfile(file) and not exists:
            path, name = Path(file), last
        if (path / "config.json").exists() and not (path / "genotype.json").exists():
            raise InputError(
                f"--genotype {what}: the search has not finished; continue it with --resume {what}"
            )
        alike = [name for name in published() if name.startswith(str(what).rstrip("/"))]
        if path.is_dir():
            path = path / "genotype.json"
            if not path.exists() and not alike:
                raise InputError(f"--genotype {what}: the folder holds no genotype.json")
        if not path.is_file():
            raise InputError(
                f"--genotype {what}: no published genotype, file or run folder of that name\n"
                + (f"Did you mean {' or '.join(alike)}?" if alike
                   else f"Published: {', '.join(published())}")
            )
        return _read(path.read_text(encoding="utf-8-sig"), str(path), path.stem, str(what), name)
    except UnicodeDecodeError:
        raise InputError(f"--genotype {what}: not a text file; a genotype is JSON") from None
    except OSError as error:
        raise InputError(f"--genotype {what}: cannot be read ({error.strerror})") from None


def _read(text: str, where: str, stem: str, source: str, name: str | None = None) -> Genotype:
    """Parse a text in any known form.

    Args:
        text: of a file or of the command line.
        where: it is, for messages.
        stem: the genotype's name where the text gives none.
        source: for the provenance.
        name: the variable to read from a file.
    """
    try:
        found = formats.read(text, name)
        if found is not None:
            name, cells = found
            name = stem if name in (None, "genotype") else name  # logs call each one genotype
            name, source = (word.encode(errors="replace").decode() for word in (name, source))
            return _genotype_from_json({
                "format": FORMAT, "version": VERSION, "name": name, "cells": cells,
                "provenance": {"source": source},
            })  # fmt: skip
        if not text.lstrip().startswith("{"):
            raise InputError(f"there is no genotype in it; known forms: {formats.KNOWN}")
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return parse(text, where)


def parse(text: str, where: str = "genotype") -> Genotype:
    """Parse the text of a genotype file.

    Args:
        text: JSON.
        where: name of the file, for messages.

    Raises:
        InputError: names `where`, the error, and the valid values.
    """
    try:
        data = json.loads(text)
        json.dumps(data, ensure_ascii=False).encode()  # refuses lone surrogates
    except (ValueError, RecursionError) as error:  # also numbers too long for Python
        raise InputError(f"{where}: not valid JSON: {error}") from None
    try:
        return _genotype_from_json(data)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def save(genotype: Genotype, path: Path) -> None:
    """Write a genotype file."""
    write_whole(path, f"{json_text(genotype)}\n".encode())


def json_text(genotype: Genotype) -> str:
    """The text of a genotype file, one line per edge."""
    text = json.dumps(genotype.to_json(), indent=2)
    edge = r'\{\s+("from": [^{}]*(?:\{[^{}]*\})?)\s+\}'  # an operation may be an object
    text = re.sub(edge, lambda found: "{" + _in_a_line(found[1]) + "}", text)
    return re.sub(r'"(?:output|zero)": \[[^]]*\]', lambda found: _in_a_line(found[0]), text)


def _in_a_line(text: str) -> str:
    return re.sub(r"([\[{]) | ([\]}])", r"\1\2", " ".join(text.split()))


# ------------------------------------------------------------------------------------ validation


def _genotype_from_json(data: Any) -> Genotype:
    _expect(isinstance(data, dict), "a genotype is a JSON object")
    _expect(data.get("format") == FORMAT, f'"format" must be "{FORMAT}"')
    _expect(
        _is_int(data.get("version")) and data["version"] == VERSION,
        f'"version" is {data.get("version")!r}; this program reads version {VERSION}',
    )
    name, cells = data.get("name"), data.get("cells")
    _expect(isinstance(name, str) and name != "", '"name" must be a non-empty string')
    _expect(isinstance(cells, dict) and len(cells) > 0, f'"cells" must hold some of {KINDS}')
    provenance = data.get("provenance", {})
    _expect(isinstance(provenance, dict), '"provenance" must be an object')
    for kind in cells:
        _expect(kind in KINDS, f'unknown kind of cell "{kind}"; known: {", ".join(KINDS)}')
    try:
        cells = {kind: _cell_from_json(kind, cell) for kind, cell in cells.items()}
    except UnknownOperation as error:
        record = provenance.get("operations")
        whose = "an operation of your own" if record is None else f"those of {in_words(record)}"
        raise InputError(
            f"{error}. For {whose} add --operations FILE; in Python, "
            "common.networks.ops.load_file(FILE)"
        ) from None
    return Genotype(name, cells, provenance)


def _cell_from_json(kind: str, data: Any) -> Cell | FixedCell:
    _expect(isinstance(data, dict), f"the {words(kind)} must be an object")
    if "fixed" in data:
        fixed = data["fixed"]
        _expect(
            fixed in FIXED_CELLS,
            f'{kind}: unknown fixed cell "{fixed}"; known: {", ".join(FIXED_CELLS)}',
        )
        return FixedCell(fixed)
    inputs = 1 if kind in ("recurrent", "cell") else 2
    _expect(
        _is_int(data.get("inputs")) and data["inputs"] == inputs,
        f'{kind}: "inputs" must be {inputs}',
    )
    listed, zero = data.get("edges"), data.get("zero", [])
    _expect(
        isinstance(zero, list) and all(_is_int(n) and n >= inputs for n in zero)
        and (kind != "recurrent" or not zero),
        f'{kind}: "zero" must list the nodes that no edge enters, in an image cell',
    )
    _expect(
        isinstance(listed, list) and (listed or zero), f'{kind}: "edges" must be a non-empty list'
    )
    edges = [_edge_from_json(kind, inputs, edge) for edge in listed]
    entered = {edge.target for edge in edges}
    nodes = range(inputs, max(*entered, *zero, inputs) + 1)
    for node in nodes:
        _expect(
            node in entered or node in zero,
            f'{kind}: no edge ends in node {node}; if it shall be zero, add "zero": [{node}]',
        )
        _expect(
            node not in entered or node not in zero,
            f'{kind}: node {node} is in "zero", but an edge ends in it',
        )
    output = data.get("output")
    _expect(
        isinstance(output, list) and len(output) > 0
        and all(_is_int(state) and state in nodes for state in output)
        and len(set(output)) == len(output),
        f'{kind}: "output" must list computed nodes ({nodes.start} to {nodes.stop - 1}), each once',
    )
    join = data.get("join", "concat")
    _expect(
        join == "concat" or (join in JOINS and kind != "recurrent"),
        f'{kind}: "join" must be one of {", ".join(JOINS)}, in an image cell, not {join!r}',
    )
    return Cell(inputs, tuple(sorted(edges, key=lambda edge: edge.target)), tuple(output), join)


def _edge_from_json(kind: str, inputs: int, data: Any) -> Edge:
    _expect(
        isinstance(data, dict) and {"from", "to", "op"} <= data.keys(),
        f'{kind}: an edge is an object with "from", "to" and "op", not {data!r}',
    )
    source, target = data["from"], data["to"]
    _expect(
        _is_int(source) and _is_int(target) and target >= inputs,
        f'{kind}: "from" and "to" are state numbers and "to" is at least {inputs}, in {data!r}',
    )
    _expect(
        0 <= source < target,
        f"{kind}: the edge from {source} to {target} comes from a later node; "
        f'"from" must be smaller than "to"',
    )
    return Edge(source, target, _op_from_json(kind, data["op"]))


def _op_from_json(kind: str, data: Any) -> Op:
    known = RECURRENT_OPS if kind == "recurrent" else (*IMAGE_OPS, *OWN_OPS)
    if isinstance(data, str):
        if data not in known:
            raise UnknownOperation(f'{kind}: unknown operation "{data}"; known: {", ".join(known)}')
        return Op(data)
    _expect(
        isinstance(data, dict) and kind != "recurrent" and data.get("name") in PARAMETRISED_OPS,
        f"{kind}: unknown operation {data!r}; known: {', '.join(known)}, and as an object with "
        f'"kernel", "dilation" and "expansions": {", ".join(PARAMETRISED_OPS)}',
    )
    kernel, dilation, expansions = (data.get(k) for k in ("kernel", "dilation", "expansions"))
    _expect(
        _is_int(kernel) and kernel > 0 and kernel % 2 == 1 and _is_int(dilation) and dilation > 0
        and isinstance(expansions, list) and all(_is_int(e) and e > 0 for e in expansions),
        f'{kind}: "kernel" must be odd, "dilation" positive and "expansions" a list of positive '
        f"integers, in {data!r}",
    )
    return Op(data["name"], kernel, dilation, tuple(expansions))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class UnknownOperation(InputError):
    """An operation's name that is not known, as that of a user's operation may be."""


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


# ----------------------------------------------------------------------------------- output


def _cell_to_json(cell: Cell | FixedCell) -> dict[str, Any]:
    if isinstance(cell, FixedCell):
        return {"fixed": cell.name}
    return {
        "inputs": cell.inputs,
        "edges": [{"from": e.source, "to": e.target, "op": e.op.to_json()} for e in cell.edges],
        "output": list(cell.output),
        **({"zero": list(cell.zero)} if cell.zero else {}),
        **({} if cell.join == "concat" else {"join": cell.join}),
    }


def _describe(kind: str, cell: Cell | FixedCell) -> list[str]:
    if isinstance(cell, FixedCell):
        return [f"{words(kind)}: fixed, {cell.name}"]
    lines = [words(kind)]
    for node in range(cell.inputs, cell.inputs + cell.nodes):
        terms = [f"{edge.op}(x{edge.source})" for edge in cell.into(node)]
        summed = " + ".join(f"{term:<16}" for term in terms).rstrip()
        lines.append(f"  x{node} = {summed or 0}")
    return lines
