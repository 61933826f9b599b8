"""Texts put together to one file: a candidate, the loader it imports, and the drop-in's parts."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FIELD = re.compile(r"\{[^{}]*\}")
# What each loader gives to candidates, under the module that they import.
LOADERS = {"tools.backends.cpp.loader": "cpp_kernel", "tools.backends.cuda.loader": "cuda_kernel"}
# The drop-in's own part, each after those that it imports.
PARTS = tuple(
    f"tools.drop_in.{name}" for name in ("table", "modules", "twins", "operator", "shipped")
)


def stand_alone(source: str, header: str, opening: str = "") -> str:
    """The candidate's source with `header` as its docstring and the loader written into it.

    Args:
        source: the candidate's.
        header: what stands before its own words in the docstring.
        opening: statements to put before its own.
    """
    tree = ast.parse(source)
    lines = source.split("\n")
    own_words = ast.get_docstring(tree)
    future: list[str] = []
    for statement in reversed(tree.body):
        first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            future[:0] = [*lines[first:last], ""]
            lines[first:last] = []
        elif isinstance(statement, ast.ImportFrom) and statement.module in LOADERS:
            module = statement.module
            keep = {LOADERS[module], *(alias.name for alias in statement.names)}
            text = give_way(part_text(module), tree, "loader_", keep)
            lines[first:last] = [text, *_aliases(statement)]
        elif statement is tree.body[0] and own_words is not None:
            lines[first:last] = []
    words = header if own_words is None else f"{header}\n\n{own_words}"
    docstring = words.replace("\\", "\\\\").replace('"""', "'''")
    body = "\n".join(lines).strip("\n")
    first_lines = [opening.strip("\n"), ""] if opening else []
    return "\n".join([f'"""{docstring}\n"""', "", *future, *first_lines, body, ""])


def part_text(module: str) -> str:
    """One of our modules without its docstring."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    return "\n".join(text.splitlines()[tree.body[0].end_lineno or 0 :]).strip("\n")


def drop_in_text() -> str:
    """The drop-in's own parts as one text, whose imports of each other are left out."""
    texts: list[str] = []
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    for module in PARTS:
        text = part_text(module)
        lines = text.splitlines()
        for statement in reversed(ast.parse(text).body):
            if isinstance(statement, ast.Import):
                plain.add(ast.unparse(statement))
            elif isinstance(statement, ast.ImportFrom) and statement.module not in PARTS:
                names = named.setdefault(str(statement.module), set())
                names |= {ast.unparse(alias) for alias in statement.names}
            if isinstance(statement, ast.Import | ast.ImportFrom):
                lines[statement.lineno - 1 : statement.end_lineno] = []
        texts.append("\n".join(lines).strip("\n"))
    lists = [f"from {module} import {', '.join(sorted(names))}" for module, names in named.items()]
    return "\n\n\n".join(["\n".join([*sorted(plain), *sorted(lists)]), *texts])


def give_way(text: str, tree: ast.Module, prefix: str, keep: set[str]) -> str:
    """A text with a prefix to each of its names that a candidate has for something else.

    Args:
        text: ours.
        tree: the candidate's.
        prefix: put before such names.
        keep: names that are the same in both.
    """
    own = ast.parse(text)
    imported, theirs = _imported_names(own), _imported_names(tree)
    taken = bound_names(tree) | {name for name in theirs if imported.get(name) != theirs[name]}
    clashing = sorted((bound_names(own) | set(imported)) & taken - keep)
    if not clashing:
        return text
    spans = [
        range(node.lineno - 1, node.end_lineno or node.lineno)
        for node in own.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    within = {number for span in spans for number in span}
    for name in clashing:
        new = f"{prefix}{name}"
        # By tokens: what stands in a string, such as the reference's text, is left as it is.
        lines = renamed(text, name, new, formatted=True).split("\n")
        for number in within:
            if f" as {new}" not in lines[number]:
                lines[number] = re.sub(rf"\b{re.escape(new)}\b", f"{name} as {new}", lines[number])
        text = "\n".join(lines)
    return text


def bound_names(tree: ast.Module) -> set[str]:
    """Names that a module itself gives a meaning to, imports apart."""
    bound: set[str] = set()
    for node in _outermost(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    return bound


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for."""
    found: dict[str, str] = {}
    for node in _outermost(tree.body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                found[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _outermost(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes but those within a function or a class, whose names are their own."""
    for node in nodes:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _outermost(ast.iter_child_nodes(node))


def renamed(source: str, old: str, new: str, *, formatted: bool = False) -> str:
    """Python text with one of its names changed to another, strings left as they are.

    With `formatted`, names in the fields of f-strings are changed too, in versions of Python to
    which an f-string is one token.
    """
    # As the tokens are counted: splitlines() would divide at more than newlines.
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    before, at, pieces = "", 0, []
    for token in tokenize.generate_tokens(io.StringIO(source, newline="\n").readline):
        word = token.string
        if token.type == tokenize.NAME and word == old and before != ".":
            word = new
        elif formatted and token.type == tokenize.STRING and "f" in word[: word.find(word[-1])]:
            word = _FIELD.sub(lambda field: re.sub(rf"(?<![\w.]){old}\b", new, field[0]), word)
        if word != token.string:
            first = starts[token.start[0] - 1] + token.start[1]
            pieces += [source[at:first], word]
            at = first + len(token.string)
        before = token.string
    return "".join([*pieces, source[at:]])


def literal(text: str) -> str:
    """Text as a Python string that a person can read, where there is one."""
    if "'''" in text or text.endswith("\\") or text.endswith("'") or "\r" in text:
        return repr(text)
    return f"r'''{text}'''"


def _aliases(statement: ast.ImportFrom) -> list[str]:
    return [f"\n{a.asname} = {a.name}" for a in statement.names if a.asname and a.asname != a.name]
