"""What the statements of a module bind to names, and where in its text a value stands."""

import ast
from collections.abc import Iterator


def assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they are bound to, each with its own part of it: `A, B = 1, 2` binds two."""
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets: list[ast.expr] = [statement.target]
        value = statement.value
    elif isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    else:
        return
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id, value
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, part in zip(target.elts, value.elts, strict=False):
                if isinstance(one, ast.Name):
                    yield one.id, part


def span_of(node: ast.expr, source: str) -> tuple[int, int]:
    """Where a node stands, in characters of its source; ast counts bytes of UTF-8 in a line."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    lines = source.encode().splitlines(keepends=True)

    def place(line: int, column: int) -> int:
        before = b"".join(lines[: line - 1]) + lines[line - 1][:column]
        return len(before.decode())

    return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
