"""Which texts of a reference are given the same things beside tensors, and so built alike."""

import ast
from collections.abc import Iterator, Sequence

from knowledge.reference_source import names_in
from tools.assignments import assignments
from tools.inline import bound_names


def ways(texts: Sequence[str]) -> list[int]:
    """For each text the place, among the ways to construct that there are, of its own.

    Told by the texts, of which nothing is run: what `get_init_inputs` says and needs, and what
    `get_inputs` returns beside calls. Texts of one way are surely built alike; of two, perhaps.
    """
    found: list[set[str]] = []
    places = []
    for text in texts:
        way = _given(ast.parse(text))
        if way not in found:
            found.append(way)
        places.append(found.index(way))
    return places


def _given(tree: ast.Module) -> set[str]:
    """What is said of the constructor's arguments and of inputs that are no tensors."""
    functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
    roots: list[ast.AST] = []
    if "get_init_inputs" in functions:
        roots.append(functions["get_init_inputs"])
    if "get_inputs" in functions:
        local = bound_names(ast.Module(functions["get_inputs"].body, []))
        roots += [one for one in _plain(functions["get_inputs"]) if not names_in(one) & local]
    return {ast.dump(root) for root in roots} | _needed(tree, roots)


def _plain(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What a function returns in a list, but for what it calls something to make."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.List | ast.Tuple):
            yield from (one for one in node.value.elts if not isinstance(one, ast.Call))


def _needed(tree: ast.Module, roots: Sequence[ast.AST]) -> set[str]:
    """What a module says of the names that these parts of it read, and of those read there."""
    bindings = [binding for statement in tree.body for binding in _bindings(statement)]
    needed: set[str] = set()
    left = list(roots)
    while left:
        names = names_in(left.pop())
        for bound, said in bindings:
            told = f"{sorted(bound)} {ast.dump(said)}"
            if bound & names and told not in needed:
                needed.add(told)
                left.append(said)
    return needed


def _bindings(statement: ast.stmt) -> Iterator[tuple[set[str], ast.AST]]:
    """Names that a statement binds, and to what; `A, B = 1, 2` binds two."""
    pairs = list(assignments(statement))
    bound = bound_names(ast.Module([statement], []))
    if bound == {name for name, _ in pairs}:
        yield from (({name}, value) for name, value in pairs)
    else:
        yield bound, statement
