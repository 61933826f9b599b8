"""The sizes that a reference's author gave names to: module-level integers, found and replaced.

Text is changed where the number stands and nowhere else, so the op stays its author's.
"""

import ast
from typing import NamedTuple

# What is smaller is a kernel size, a stride, a number of heads: not what memory hangs on.
LEAST = 16


class Constant(NamedTuple):
    """One `NAME = 4096` of a module.

    `start` and `end` are where the number stands in the text. `inputs_only`: neither Model nor its
    constructor's arguments depend on it, as on a batch size.
    """

    name: str
    value: int
    start: int
    end: int
    inputs_only: bool


def constants(source: str) -> list[Constant]:
    """The module's integer constants that its inputs depend on, in their order.

    A source that does not parse has none.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    starts = _line_starts(source)
    found: dict[str, tuple[int, int, int]] = {}
    derived: dict[str, set[str]] = {}
    again: set[str] = set()
    for statement in tree.body:
        for target, value in _assignments(statement):
            # What is bound twice has no one value.
            (again if target in derived else set()).add(target)
            derived[target] = _names(value)
            if isinstance(value, ast.Constant) and type(value.value) is int:
                found[target] = (value.value, *_span(value, starts))
    of_inputs = _reached(tree, derived, "get_inputs")
    of_weights = _reached(tree, derived, "get_init_inputs", "Model")
    return [
        Constant(name, value, start, end, name not in of_weights)
        for name, (value, start, end) in found.items()
        if name in of_inputs and name not in again
    ]


def halvings(source: str) -> list[Constant]:
    """The constants that may be halved."""
    return [one for one in constants(source) if one.value >= 2 * LEAST]


def rewrite(source: str, constant: Constant, value: int) -> str:
    """The source with another value for a constant."""
    return f"{source[: constant.start]}{value}{source[constant.end :]}"


def _assignments(statement: ast.stmt) -> list[tuple[str, ast.expr]]:
    """Names and what they are bound to; `A, B = 1, 2` binds two."""
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets: list[ast.expr] = [statement.target]
        value = statement.value
    elif isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    else:
        return []
    pairs: list[tuple[str, ast.expr]] = []
    for target in targets:
        if isinstance(target, ast.Name):
            pairs.append((target.id, value))
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            both = zip(target.elts, value.elts, strict=False)
            pairs += [(name.id, one) for name, one in both if isinstance(name, ast.Name)]
    return pairs


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _reached(tree: ast.Module, derived: dict[str, set[str]], *roots: str) -> set[str]:
    """Every name that these functions and classes read, through other names too."""
    bodies = {
        node.name: _names(node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    reached: set[str] = set()
    waiting = set(roots)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting |= bodies.get(name, set()) | derived.get(name, set())
    return reached


def _line_starts(source: str) -> list[bytes]:
    return source.encode().splitlines(keepends=True)


def _span(node: ast.expr, lines: list[bytes]) -> tuple[int, int]:
    """Where a node stands, in characters of the source; ast counts bytes of UTF-8 in a line."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None

    def place(line: int, column: int) -> int:
        before = b"".join(lines[: line - 1]) + lines[line - 1][:column]
        return len(before.decode())

    return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
