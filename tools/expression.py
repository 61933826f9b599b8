"""An op written as an expression over named inputs, e.g. `torch.softmax(x @ w, -1)`.

What passes computes with tensors and can do nothing else: inputs, `torch` and `math`, calls,
operators, indices and literals. What a dotted name stands for is looked up where torch is.
"""

import ast
import re
from collections.abc import Iterator, Sequence

ROOTS = ("torch", "math")
_DOTTED = re.compile(r"\s*[^\W\d]\w*(\.[^\W\d]\w*)*\s*")
_ALLOWED = (
    ast.Expression, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Load, ast.Constant,
    ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.Compare, ast.cmpop, ast.Subscript,
    ast.Slice, ast.Tuple, ast.List,
)  # fmt: skip
_SAID = {
    "Lambda": "a lambda", "ListComp": "a comprehension", "GeneratorExp": "a comprehension",
    "Starred": "a star", "NamedExpr": "an assignment", "IfExp": "a condition", "BoolOp": "and, or",
    "JoinedStr": "an f-string",
}  # fmt: skip
EXAMPLE = "torch.softmax(x @ w, -1)"


def is_dotted_name(op: str, inputs: Sequence[str]) -> bool:
    """Whether an op is the name of a function rather than an expression over its inputs."""
    return _DOTTED.fullmatch(op) is not None and op.strip().partition(".")[0] not in inputs


def read_expression(op: str, inputs: Sequence[str]) -> ast.Expression:
    """The expression, parsed.

    Args:
        op: its text.
        inputs: the names that it may use.

    Raises:
        ValueError: it is not Python, uses a name that is no input, or does more than compute; the
            message is one sentence.
    """
    try:
        tree = ast.parse(op.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(
            f"the op is neither a name nor an expression like {EXAMPLE} ({said})"
        ) from error
    for node in ast.walk(tree):
        _check(node, inputs)
    return tree


def _check(node: ast.AST, inputs: Sequence[str]) -> None:
    if not isinstance(node, _ALLOWED) or (isinstance(node, ast.keyword) and node.arg is None):
        kind = type(node).__name__
        said = "**" if isinstance(node, ast.keyword) else _SAID.get(kind, f"a {kind}")
        raise ValueError(f"an op as an expression can't hold {said}; write a reference file")
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        raise ValueError("an op as an expression can't hold bytes; write a reference file")
    if isinstance(node, ast.Name) and node.id not in (*inputs, *ROOTS):
        known = ", ".join(inputs)
        raise ValueError(
            f'"{node.id}" in the op is not an input; inputs: {known}; known: torch, math'
        )
    if isinstance(node, ast.Attribute):
        if node.attr.startswith("_"):
            raise ValueError(f'"{node.attr}" is private; an op as an expression can\'t use it')
        if node.attr.endswith("_"):
            raise ValueError(f'"{node.attr}" changes its tensor; use {node.attr.rstrip("_")}')


def dotted_names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that begins with torch or math, whole, e.g. `torch.nn.functional.gelu`."""
    for child in ast.iter_child_nodes(tree):
        name = _chain(child)
        if name:
            yield name
        else:
            yield from dotted_names(child)


def methods(tree: ast.AST) -> Iterator[str]:
    """Every attribute of something computed, e.g. `view` of `(x + 1).view(-1)`."""
    for child in ast.iter_child_nodes(tree):
        if _chain(child):
            continue
        if isinstance(child, ast.Attribute):
            yield child.attr
        yield from methods(child)


def _chain(node: ast.AST) -> str:
    """The dotted name that a node is, if it begins with torch or math; else nothing."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in ROOTS:
        return ".".join((node.id, *reversed(parts)))
    return ""
