"""A reference file at another size: its own module-level constants given other values.

`N = 4096` at the top of the file is replaced in the text; nothing is run, and nothing else of the
file is touched. What class Model itself reads can't be changed: one kernel serves all workloads, so
they may differ in what `get_inputs()` and `get_init_inputs()` return and in nothing else.
"""

import ast
import difflib
from collections.abc import Mapping
from typing import Any

from knowledge.errors import BadInput
from knowledge.reference_source import Unemittable, read_reference
from tools.assignments import assignments, span_of


def with_constants(source: str, values: Mapping[str, Any], where: str) -> str:
    """The file's text with these constants replaced.

    Raises:
        BadInput: the file has no such constant, or it holds another kind of value, or Model reads
            it.
    """
    if not values:
        return source
    try:
        module = ast.parse(source)
    except SyntaxError as error:
        raise BadInput(where, f"is not Python: {error.msg} on line {error.lineno}.") from error
    found = _constants(module)
    read = _read_by_model(source)
    places: list[tuple[tuple[int, int], str]] = []
    for name, value in values.items():
        place = found.get(name)
        if place is None:
            raise BadInput(where, f"has no constant {name} at its top.", _mend(name, found))
        if name in read:
            raise BadInput(
                where, f"class Model reads {name}, which a workload therefore can't change.",
                "Hand it to the constructor, or take it from the inputs' shapes.",
            )  # fmt: skip
        _check_kind(name, ast.literal_eval(place), value, where)
        places.append((span_of(place, source), repr(value)))
    # From the end on, so that places before stay where they are.
    for (start, end), text in sorted(places, reverse=True):
        source = f"{source[:start]}{text}{source[end:]}"
    return source


def _constants(module: ast.Module) -> dict[str, ast.expr]:
    """Literals that are assigned once to a name at the top of the file, by that name."""
    found: dict[str, ast.expr] = {}
    several: set[str] = set()
    for statement in module.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) > 1:
            continue  # `A = B = 4` gives one literal two names
        for name, value in assignments(statement):
            several |= {name} & set(found)
            found[name] = value
    literals = {name: value for name, value in found.items() if _is_literal(value)}
    return {name: value for name, value in literals.items() if name not in several}


def _is_literal(value: ast.expr) -> bool:
    try:
        literal = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return False
    return isinstance(literal, int | float | str | tuple | list)


def _read_by_model(source: str) -> set[str]:
    """Names of constants that class Model, or what it uses, reads."""
    try:
        reference = read_reference(source)
    except Unemittable:
        return set()
    read: set[str] = set()
    for helper in reference.helpers:
        read |= set(_constants(ast.parse(helper)))
    return read


def _mend(name: str, found: Mapping[str, ast.expr]) -> str:
    if not found:
        return "Give its sizes names first, e.g. N = 4096 above get_inputs()."
    near = difflib.get_close_matches(name, found, n=1)
    return f'Did you mean "{near[0]}"?' if near else f"It has {', '.join(found)}."


def _check_kind(name: str, old: Any, new: Any, where: str) -> None:
    pairs = ((bool, bool), (int, int), (float, (int, float)), (str, str), ((list, tuple), list))
    for kind, takes in pairs:
        if isinstance(old, kind):
            if isinstance(new, takes) and isinstance(new, bool) == isinstance(old, bool):
                return
            break
    raise BadInput(
        where, f"{name} is {old!r}, and can't become {new!r}.", "Give the same kind of value."
    )
