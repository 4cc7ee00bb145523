"""Other programs' genotype texts, read into a genotype file's content and written from it.

Read, with the words of the program that writes each::

    Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=...)   DARTS
    ... normal=[[('sep_conv_3x3', 0), ...], ...]          pt.darts: a list for each node
    ... normal=[('sep_conv_3x3', 2, 0), ...]              FairDARTS: operation, to, from
    ... normal=[('conv', {'c_mul': [1], 'dil': 1, 'k': 5}, 0), ...]    PR-DARTS
    {'normal': [(('sep_conv_3x3', 0, 0.21), ...), ...], 'normal_concat': ...}    AutoDL-Projects
    {"NetworkSelectorDatasetInfo:darts:edge_normal_0": "sep_conv_3x3", ...}      NAS-Bench-301
    (((0, 6), (1, 4), ...), ((0, 1), ...))                NASLib: input and operation's index
    |nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|        NAS-Bench-201: a node between +

Such a text may stand in a Python file, under a name or none, or in a log, where the last one
counts. It is never run: only literals, `range` and the call are read from its syntax tree.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import InputError

KNOWN = (
    "our JSON, DARTS' Genotype(normal=...), AutoDL's dictionary, NAS-Bench-301's dictionary, "
    "NASLib's tuples, NAS-Bench-201's |op~0|+|op~0|op~1|+..."
)
FIELDS = {  # kind of cell -> its edges' and its outputs' field
    "normal": ("normal", "normal_concat"),
    "reduction": ("reduce", "reduce_concat"),
    "recurrent": ("recurrent", "concat"),
}
PREFIX = "NetworkSelectorDatasetInfo:darts:"  # of NAS-Bench-301's keys
FIRST_EDGE = {2: 0, 3: 2, 4: 5, 5: 9}  # node -> number of its edge from state 0
INDEXED = (  # NASLib's operations by index; also all that NAS-Bench-301 has
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5",
    "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip
START = re.compile(
    r"(?:\b(\w+)\s*=\s*)?(?P<text>\bGenotype\w*\(|\{\s*['\"](?:normal|recurrent)['\"])"
)
MOST_STATES = 1000  # of a `range`

Content = dict[str, Any]  # of a cell in a genotype file


# ------------------------------------------------------------------------------------- reading


def is_text(what: str) -> bool:
    """Whether a command-line argument looks like a genotype text, not like a name or a path."""
    return START.search(what) is not None or what.lstrip()[:1] in ("(", "[", "{", "|")


def read(text: str, name: str | None = None) -> tuple[str | None, dict[str, Content]] | None:
    """The name and the cells of a text in one of the forms above; None: it has none of them.

    Args:
        text: the content of a Python file or a log, or the genotype alone.
        name: the variable to read, where a file has several.

    Raises:
        InputError: the form is known and the text has errors, or several names to choose from.
    """
    if text.lstrip().startswith("|"):
        return None, {"cell": _topology(text.strip())}
    try:
        found = _found(text)
        if name is not None and name not in found:
            held = ", ".join(filter(None, found)) or "no name of a genotype"
            raise InputError(f"no genotype has the name {name} there; the file holds {held}")
        if not found:
            return None
        if name is None and len(found) > 1:
            names = list(filter(None, found))
            raise InputError(f"holds {', '.join(names)}; add a name, as in FILE:{names[0]}")
        name = next(iter(found)) if name is None else name
        return name, _cells(_literal(found[name]))
    except RecursionError:
        raise InputError("nested too deeply for a genotype") from None


def _found(text: str) -> dict[str | None, ast.expr]:
    """The genotypes in a text by name; None: without a name, and the last of several."""
    tree = _tree(text)
    if tree is None:  # a log: each genotype is a text of its own
        starts = {match[1]: match.start("text") for match in START.finditer(text)}
        return {name: _from_log(text[start:]) for name, start in starts.items()}
    found: dict[str | None, ast.expr] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign([ast.Name(name)], ast.Name(other)) if other in found:
                found[name] = found[other]
            case ast.Assign([ast.Name(name)], value) if _is_genotype(value):
                found[name] = value
            case ast.Expr(value) if _is_genotype(value):
                found[None] = value
    return found


def _tree(text: str) -> ast.Module | None:
    """The syntax tree of Python or JSON; None for any other text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strings and numbers in logs
        try:
            return ast.parse(text.strip())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _from_log(text: str) -> ast.expr:
    """The genotype that a text starts with."""
    depth = 0
    for bracket in re.finditer(r"[()\[\]{}]", text):
        depth += 1 if bracket[0] in "([{" else -1
        if depth == 0:
            tree = _tree(text[: bracket.end()])
            if tree is None:
                raise InputError(f"cannot read {text[:60]}...: it has a syntax error")
            return tree.body[0].value
    raise InputError(f"{text[:60]}... does not end: a closing bracket is missing")


def _is_genotype(node: ast.expr) -> bool:
    fields = {field for fields in FIELDS.values() for field in fields}
    match node:
        case ast.Call(ast.Name(called) | ast.Attribute(attr=called), _, keywords):
            named = any(keyword.arg in fields for keyword in keywords)
            return named or called.startswith("Genotype")
        case ast.Dict(keys):
            names = [str(key.value) for key in keys if isinstance(key, ast.Constant)]
            return any(name in fields or name.startswith(PREFIX) for name in names)
        case ast.Tuple([first, second]) | ast.List([first, second]):
            return all(isinstance(cell, ast.Tuple | ast.List) and cell.elts and all(
                isinstance(pair, ast.Tuple | ast.List) and len(pair.elts) == 2
                and all(isinstance(index, ast.Constant) for index in pair.elts)
                for pair in cell.elts) for cell in (first, second))  # fmt: skip
    return False


def _literal(node: ast.expr) -> Any:
    """The value of a literal, with lists for tuples and a dictionary for a call's fields.

    Raises:
        InputError: it is not made of literals.
    """
    match node:
        case ast.Constant(value):
            return value
        case ast.Name("true" | "false" | "null" as name):
            return json.loads(name)
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
            return -value
        case ast.List(items) | ast.Tuple(items):
            return [_literal(item) for item in items]
        case ast.Dict(keys, values) if all(isinstance(key, ast.Constant) for key in keys):
            names = [str(key.value) for key in keys]
            return dict(zip(names, map(_literal, values), strict=True))
        case ast.Call(ast.Name("range"), [*bounds], []) if 1 <= len(bounds) <= 2:
            bounds = [_literal(bound) for bound in bounds]
            if all(isinstance(bound, int) for bound in bounds):
                return list(range(*bounds)[:MOST_STATES])
        case ast.Call(ast.Name("list" | "tuple"), [one], []):
            return _literal(one)
        case ast.Call(ast.Attribute(ast.Name("np" | "numpy")), [one], []):  # NumPy 2's numbers
            return _literal(one)
        case ast.Call(_, values, keywords) if _is_genotype(node) and len(values) <= 4:
            order = ("normal", "normal_concat", "reduce", "reduce_concat")
            named = {str(keyword.arg): _literal(keyword.value) for keyword in keywords}
            return dict(zip(order, map(_literal, values))) | named  # noqa: B905
    raise InputError(f"cannot read {ast.unparse(node)[:60]}: only literals and range are read")


def _cells(data: Any) -> dict[str, Content]:
    if isinstance(data, list):
        return {"normal": _indexed(data[0]), "reduction": _indexed(data[1])}
    if any(key.startswith(PREFIX) for key in data):
        return {"normal": _numbered(data, "normal"), "reduction": _numbered(data, "reduce")}
    unknown = set(data) - {field for fields in FIELDS.values() for field in fields}
    if unknown:
        raise InputError(
            f"unknown field {', '.join(sorted(unknown))}; if the cells do not depend on it, "
            "take it out"
        )
    cells = {}
    for kind, (edges, concat) in FIELDS.items():
        if data.get(edges) is not None:
            cells[kind] = _listed(kind, data[edges], data.get(concat))
        elif edges == "reduce" and edges in data and data.get(concat) is not None:
            cells[kind] = {"fixed": "gdas_frc"}  # how GDAS' authors write it; others: no concat
    if not cells:
        raise InputError(f"no cells: give some of {', '.join(e for e, _ in FIELDS.values())}")
    return cells


def _listed(kind: str, listed: Any, concat: Any) -> Content:
    """A cell of a namedtuple or a dictionary: edges node by node, and states to concatenate."""
    edges, states = FIELDS[kind]
    if not isinstance(listed, list) or not listed or not all(
        isinstance(entry, list) and entry for entry in listed
    ):  # fmt: skip
        raise InputError(f"{edges} must be a list of edges, as [('skip_connect', 0), ...]")
    if not isinstance(concat, list) or not all(type(state) is int for state in concat):
        raise InputError(f"{states} must list states, as {states}=range(2, 6)")
    inputs, a_node = (1, 1) if kind == "recurrent" else (2, 2)
    if all(isinstance(entry[0], list) for entry in listed):
        found = [_edge(e, inputs + n) for n, node in enumerate(listed) for e in node]
    elif all(len(e) == 3 and type(e[1]) is int and type(e[2]) is int for e in listed):
        found = [_edge([op, source], to) for op, to, source in listed]
        found, concat = _renumbered(edges, found, concat)
    elif len(listed) % a_node:
        raise InputError(f"{edges} has {len(listed)} edges; give two for each node")
    else:
        found = [_edge(entry, inputs + n // a_node) for n, entry in enumerate(listed)]
    nodes = range(inputs, max(edge["to"] for edge in found) + 1)
    if not concat or not set(concat) <= set(nodes):
        raise InputError(
            f"{states} is {str(concat)[:60]}, but the nodes of {edges} are {nodes.start} to "
            f"{nodes.stop - 1}"
        )
    return {"inputs": inputs, "edges": found, "output": concat}


def _renumbered(
    field: str, edges: list[Content], concat: Sequence[int]
) -> tuple[list[Content], list[int]]:
    """FairDARTS' cell without the nodes that no edge enters.

    Its network neither concatenates such a node nor runs an edge that leaves it.
    """
    number = {0: 0, 1: 1}
    kept = []
    for edge in sorted(edges, key=lambda edge: edge["to"]):
        source, target = edge["from"], edge["to"]
        if target < 2 or not 0 <= source < target:
            raise InputError(
                f"{field}: no edge can go to {target} from {source} (an edge is operation, to, "
                "from; nodes start at 2)"
            )
        if source in number:
            number.setdefault(target, len(number))
            kept.append({**edge, "from": number[source], "to": number[target]})
    if not kept:
        raise InputError(f"{field}: no edge leaves an input, 0 or 1")
    return kept, [number[state] for state in concat if state in number]


def _edge(entry: Any, target: int) -> Content:
    """An edge from (operation, input), with a weight behind it or keywords between them."""
    match entry:
        case [str(op), dict(keywords), source]:
            op = _operation(op, keywords)
        case [str(op), source] | [str(op), source, int() | float()]:
            pass
        case _:
            raise InputError(f"an edge is (operation, input), not {str(entry)[:60]}")
    return {"from": source, "to": target, "op": op}


def _operation(name: str, keywords: Mapping[str, Any]) -> str | Content:
    """PR-DARTS' operation, by its name and keywords, as in a genotype file."""
    match name, keywords:
        case "conv", {"k": kernel, "dil": dilation, "c_mul": widths, **rest} if not rest:
            return {
                "name": "sep_conv", "kernel": kernel, "dilation": dilation, "expansions": widths,
            }  # fmt: skip
        case "pool", {"k": int(size), "type_": str(kind), **rest} if not rest:
            return f"{kind}_pool_{size}x{size}"
        case ("skip" | "none"), {**rest} if not rest:
            return {"skip": "skip_connect", "none": "none"}[name]
    raise InputError(
        f"unknown operation ('{name}', {keywords}); known: conv with k, dil and c_mul, pool with k "
        "and type_, skip, none"
    )


def _numbered(data: Mapping[str, Any], word: str) -> Content:
    """A cell of NAS-Bench-301: operations by number of the edge, two inputs for each node."""
    wanted = {}
    for node, first in FIRST_EDGE.items():
        key = f"{PREFIX}inputs_node_{word}_{node}"
        inputs = "0_1" if node == 2 else data.get(key)
        sources = [int(source) for source in re.findall("[0-9]", str(inputs))]
        if not re.fullmatch("[0-9]_[0-9]", str(inputs)) or not 0 <= sources[0] < sources[1] < node:
            raise InputError(f'{key} is {inputs!r}; give two smaller states, as "0_{node - 1}"')
        wanted |= {f"{PREFIX}edge_{word}_{first + source}": (node, source) for source in sources}
    if further := [key for key in data if f"edge_{word}_" in str(key) and key not in wanted]:
        raise InputError(f"{further[0]} is an edge of no node; see {PREFIX}inputs_node_{word}_...")
    for key in wanted:
        if not isinstance(data.get(key), str):
            raise InputError(f"{key} must name an operation, as its node has this edge")
    edges = [
        {"from": wanted[key][1], "to": wanted[key][0], "op": op}
        for key, op in data.items() if key in wanted
    ]  # fmt: skip
    return {"inputs": 2, "edges": edges, "output": list(FIRST_EDGE)}


def _indexed(pairs: Sequence[Any]) -> Content:
    """A cell of NASLib: (input, index of the operation), two for each node."""
    if len(pairs) % 2:
        raise InputError(f"a cell has {len(pairs)} pairs; give two for each node")
    edges = []
    for n, (source, op) in enumerate(pairs):
        if type(op) is not int or not 0 <= op < len(INDEXED):
            raise InputError(f"({source}, {op}): operations are 0 to {len(INDEXED) - 1}")
        edges.append({"from": source, "to": 2 + n // 2, "op": INDEXED[op]})
    return {"inputs": 2, "edges": edges, "output": list(range(2, 2 + len(pairs) // 2))}


def _topology(text: str) -> Content:
    """NAS-Bench-201's cell: for each node an operation from each earlier state."""
    nodes = text.split("+")
    found = [re.findall(r"\|([A-Za-z0-9_]+)~([0-9]+)(?=\|)", node) for node in nodes]
    for target, (node, edges) in enumerate(zip(nodes, found, strict=True), 1):
        written = "".join(f"|{op}~{source}" for op, source in edges) + "|"
        if node != written or [int(source) for _, source in edges] != list(range(target)):
            form = "".join(f"|operation~{source}" for source in range(target))
            raise InputError(f"node {target} is {node[:60]!r}; it must be {form}|")
    return {
        "inputs": 1, "output": [len(nodes)],
        "edges": [
            {"from": int(source), "to": target, "op": op}
            for target, edges in enumerate(found, 1) for op, source in edges
        ],
    }  # fmt: skip


# ------------------------------------------------------------------------------------- writing


def topology_text(cells: Mapping[str, Content]) -> str:
    """NAS-Bench-201's text of a genotype file's cell.

    Raises:
        InputError: names what the form cannot express.
    """
    if "cell" not in cells:
        raise InputError(f"there is no cell of NAS-Bench-201 ({', '.join(cells)} only)")
    edges = {(edge["from"], edge["to"]): edge["op"] for edge in _edges("cell", cells)}
    last = max(cells["cell"]["output"])
    wanted = [[(source, target) for source in range(target)] for target in range(1, last + 1)]
    if len(cells["cell"]["edges"]) != len(edges) or set(edges) != set(sum(wanted, [])):
        raise InputError("the cell does not have one edge between all states")
    if cells["cell"]["output"] != [last]:
        raise InputError(f"the output of the cell is not its last node, {last}")
    return "+".join(
        "".join(f"|{edges[edge]}~{edge[0]}" for edge in node) + "|" for node in wanted
    )


def namedtuple_text(cells: Mapping[str, Content]) -> str:
    """DARTS' text of a genotype file's cells: two edges for each node (recurrent: one).

    Raises:
        InputError: names what the form cannot express.
    """
    kinds = ("recurrent",) if "recurrent" in cells else ("normal", "reduction")
    return _namedtuple(cells, {kind: _pairs(kind, cells) for kind in kinds})


def triples_text(cells: Mapping[str, Content]) -> str:
    """FairDARTS' text of a genotype file's cells: any number of edges for each node but none.

    Raises:
        InputError: names what the form cannot express.
    """
    listed = {}
    for kind in ("normal", "reduction"):
        edges = _edges(kind, cells)
        if "zero" in cells[kind]:  # FairDARTS' network would not concatenate such a node
            raise InputError(f"node {cells[kind]['zero'][0]} of the {kind} cell has no edges")
        listed[kind] = [(edge["op"], edge["to"], edge["from"]) for edge in edges]
    return _namedtuple(cells, listed)


def _namedtuple(cells: Mapping[str, Content], listed: Mapping[str, Sequence[tuple]]) -> str:
    fields = []
    for kind, tuples in listed.items():
        edges, states = FIELDS[kind]
        output = cells[kind]["output"]
        row = range(output[0], output[0] + len(output))
        fields.append(f"{edges}={tuples}, {states}={row if list(row) == output else output}")
    return f"Genotype({', '.join(fields)})"


def compact_text(cells: Mapping[str, Content]) -> str:
    """NASLib's text of a genotype file's cells: four nodes, all concatenated, seven operations.

    Raises:
        InputError: names what the form cannot express.
    """
    return str(tuple(
        tuple((source, INDEXED.index(op)) for op, source in _four_nodes(kind, cells))
        for kind in ("normal", "reduction")
    ))  # fmt: skip


def numbered_text(cells: Mapping[str, Content]) -> str:
    """NAS-Bench-301's dictionary, as JSON: `compact_text`'s cells without doubled edges.

    Raises:
        InputError: names what the form cannot express.
    """
    found = {}
    for kind in ("normal", "reduction"):
        word, pairs = FIELDS[kind][0], _four_nodes(kind, cells)
        for n, (node, first) in enumerate(FIRST_EDGE.items()):
            both = pairs[2 * n : 2 * n + 2]
            found |= {f"{PREFIX}edge_{word}_{first + source}": op for op, source in both}
            low, high = sorted(source for _, source in both)
            if low == high:
                raise InputError(f"node {node} of the {kind} cell has two edges from state {low}")
            if node > 2:
                found[f"{PREFIX}inputs_node_{word}_{node}"] = f"{low}_{high}"
    return json.dumps(found, indent=1)


def _edges(kind: str, cells: Mapping[str, Content]) -> list[Content]:
    """The edges of a searched cell that concatenates its nodes, operations by their names."""
    if kind not in cells:
        raise InputError(f"there is no {kind} cell ({', '.join(cells)} only)")
    together = ("normal", "reduction") if kind in ("normal", "reduction") else (kind,)
    if further := sorted(cells.keys() - set(together)):
        raise InputError(f"there is a {further[0]} cell beside the {kind} one")
    cell = cells[kind]
    if "fixed" in cell:
        raise InputError(f"the {kind} cell is a fixed one ({cell['fixed']})")
    if "join" in cell:
        raise InputError(f"the {kind} cell joins its nodes by {cell['join']}")
    for edge in cell["edges"]:
        if not isinstance(edge["op"], str):
            raise InputError(f"the {kind} cell has a parametrised operation ({edge['op']})")
    return cell["edges"]


def _pairs(kind: str, cells: Mapping[str, Content]) -> list[tuple[str, int]]:
    """A cell's operations and inputs, two for each node (recurrent: one)."""
    edges, a_node = _edges(kind, cells), 1 if kind == "recurrent" else 2
    into = [edge["to"] for edge in edges]
    for node in range(cells[kind]["inputs"], max(into + cells[kind]["output"]) + 1):
        if into.count(node) != a_node:
            raise InputError(f"node {node} of the {kind} cell has {into.count(node)} edges")
    return [(edge["op"], edge["from"]) for edge in edges]


def _four_nodes(kind: str, cells: Mapping[str, Content]) -> list[tuple[str, int]]:
    pairs = _pairs(kind, cells)
    if len(pairs) != 8 or cells[kind]["output"] != list(FIRST_EDGE):
        raise InputError(
            f"the {kind} cell has {len(pairs) // 2} nodes and concatenates "
            f"{cells[kind]['output']}, not the four nodes 2 to 5"
        )
    for op, _ in pairs:
        if op not in INDEXED:
            raise InputError(f"the {kind} cell has the operation {op}")
    return pairs
