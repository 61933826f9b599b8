"""Reads a reference's source: what to keep of it for a candidate, and where `forward` stands.

Works on text with the help of `ast`, so that what is kept reads as its author wrote it.
"""

import ast
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class Unemittable(ValueError):
    """A program that can't be written as a module; the message is one sentence that says why."""


_DROPPED = ("get_inputs", "get_init_inputs")


@dataclass(frozen=True)
class Reference:
    """A reference's parts, `Model` already renamed in all of them.

    `model` is the class as given; `head` and `tail` are its text before and after `forward`'s body.
    `arguments` names forward's parameters after self; `defined` the module's own names.
    """

    imports: tuple[str, ...]
    helpers: tuple[str, ...]
    model: str
    head: str
    tail: str
    indent: str
    arguments: tuple[str, ...]
    defined: tuple[str, ...]

    def model_with(self, forward: list[str]) -> str:
        """The class with these statements as forward's body."""
        body = textwrap.indent("\n".join(forward), self.indent)
        return f"{self.head}\n{body}{self.tail}".rstrip()


def read_reference(source: str, name: str = "ModelNew") -> Reference:
    """The parts of a reference, its `Model` under another name.

    Raises:
        Unemittable: it doesn't parse, has no class Model, or forward takes arguments in a way that
        can't be kept.
    """
    source = _renamed(source, name)
    try:
        module = ast.parse(source)
    except SyntaxError as error:
        raise Unemittable(f"the reference does not parse: {error.msg}") from error
    lines = source.splitlines()
    model = next((n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if model is None:
        raise Unemittable("the reference has no class Model at the top of the module")
    forward = next(
        (n for n in model.body if isinstance(n, ast.FunctionDef) and n.name == "forward"), None
    )
    if forward is None:
        raise Unemittable("class Model does not define forward itself")
    arguments = forward.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        raise Unemittable("forward takes *args, **kwargs or keyword-only arguments")
    imports, helpers = _kept(module, model, lines)
    first = forward.body[0]
    head = lines[_start(model) - 1 : first.lineno - 1]
    indent = " " * first.col_offset
    before = lines[first.lineno - 1].encode()[: first.col_offset].decode()
    if before.strip():
        # The body begins on the line on which the signature ends.
        head.append(before.rstrip())
        indent = " " * (forward.col_offset + 4)
    elif isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        assert first.end_lineno is not None
        head += lines[first.lineno - 1 : first.end_lineno]
    assert model.end_lineno is not None
    assert forward.end_lineno is not None
    tail = lines[forward.end_lineno : model.end_lineno]
    return Reference(
        imports=imports,
        helpers=helpers,
        model="\n".join(lines[_start(model) - 1 : model.end_lineno]),
        head="\n".join(_without_trailing_comments(head)),
        tail="\n" + "\n".join(tail) if tail else "",
        indent=indent,
        arguments=tuple(a.arg for a in [*arguments.posonlyargs, *arguments.args][1:]),
        defined=_defined(module),
    )


def _without_trailing_comments(head: list[str]) -> list[str]:
    """The lines up to the last that isn't blank or a comment: those spoke of the old body."""
    kept = list(head)
    while kept and (not kept[-1].strip() or kept[-1].lstrip().startswith("#")):
        kept.pop()
    return kept


def _start(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    lines: list[int] = [node.lineno, *(decorator.lineno for decorator in decorators)]
    return min(lines)


def renamed(source: str, old: str, new: str) -> str:
    """The source with a name of its module changed to another, its text otherwise untouched.

    Attributes, keywords, strings and functions that have an argument of that name are let be.

    Raises:
        SyntaxError: it does not parse.
    """
    lines = [line.encode() for line in source.splitlines()]
    for row, column in sorted(_places(ast.parse(source), old, lines), reverse=True):
        lines[row] = lines[row][:column] + new.encode() + lines[row][column + len(old.encode()) :]
    return "\n".join(line.decode() for line in lines) + "\n"


def _places(node: ast.AST, name: str, lines: list[bytes]) -> Iterator[tuple[int, int]]:
    """Row and column, in bytes, of every use of a module's name."""
    if isinstance(node, ast.Name) and node.id == name:
        yield node.lineno - 1, node.col_offset
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
        row = node.lineno - 1
        # Behind the keyword, which is `def` or `class`.
        keyword = 3 if isinstance(node, ast.FunctionDef) else 5
        yield row, lines[row].index(name.encode(), node.col_offset + keyword)
    inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        arguments = node.args
        taken = [one.arg for one in ast.walk(arguments) if isinstance(one, ast.arg)]
        if name in taken:
            inner = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
            inner += node.decorator_list if isinstance(node, ast.FunctionDef) else []
    for child in inner:
        yield from _places(child, name, lines)


def _renamed(source: str, name: str) -> str:
    """The source with its `Model` under another name."""
    try:
        return renamed(source, "Model", name)
    except SyntaxError as error:
        raise Unemittable(f"the reference does not parse: {error.msg}") from error


def _kept(
    module: ast.Module, model: ast.ClassDef, lines: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Imports, and what else the class needs; what only the input generators read is dropped."""
    imports: list[str] = []
    rest: list[ast.stmt] = []
    for node in module.body:
        if node is model or _is_dropped(node):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(_text(node, lines))
        else:
            rest.append(node)
    needed = names_in(model)
    kept: list[ast.stmt] = []
    changed = True
    while changed:
        changed = False
        for node in rest:
            if node in kept or not _is_needed(node, needed):
                continue
            kept.append(node)
            needed |= names_in(node)
            changed = True
    helpers = [_text(node, lines) for node in rest if node in kept]
    return tuple(imports), tuple(helpers)


def _is_dropped(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name in _DROPPED
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _is_needed(node: ast.stmt, needed: set[str]) -> bool:
    """Definitions and constants are kept where they are read; other statements always are."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name in needed
    if isinstance(node, ast.Assign):
        return bool(set().union(*(names_in(target) for target in node.targets)) & needed)
    if isinstance(node, ast.AnnAssign):
        return bool(names_in(node.target) & needed)
    return True


def names_in(node: ast.AST) -> set[str]:
    """The names that stand in a part of a program."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _text(node: ast.stmt, lines: list[str]) -> str:
    """A statement's own text, with the comment lines right above it."""
    first = _start(node) - 1
    while first > 0 and lines[first - 1].startswith("#"):
        first -= 1
    assert node.end_lineno is not None
    return "\n".join(lines[first : node.end_lineno])


def _defined(module: ast.Module) -> tuple[str, ...]:
    names: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            names |= names_in(node)
    return tuple(sorted(names))
