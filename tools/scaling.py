"""The sizes that a reference's author gave names to: module-level integers, found and replaced.

Text is changed where the number stands and nowhere else, so the op stays its author's.
"""

import ast
from typing import NamedTuple

from tools.assignments import assignments, span_of

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
    found: dict[str, tuple[int, int, int]] = {}
    derived: dict[str, set[str]] = {}
    again: set[str] = set()
    for statement in tree.body:
        for target, value in assignments(statement):
            # What is bound twice has no one value.
            (again if target in derived else set()).add(target)
            derived[target] = _names(value)
            if isinstance(value, ast.Constant) and type(value.value) is int:
                found[target] = (value.value, *span_of(value, source))
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
