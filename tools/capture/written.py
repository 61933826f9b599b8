"""A function by its own source: its text, and definitions of every name that it reads."""

import ast
import dis
import importlib
import inspect
import sys
import textwrap
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from tools.capture.examples import NotWritable, literal

MAIN = "__main__"


def function_text(function: Any, name: str) -> str:
    """A module's text that defines `name` as this function, and what it reads.

    Raises:
        NotWritable: its source is not to be had, or it reads what can't be written down.
    """
    text = _Text()
    text.add(function, name)
    return "\n".join([*sorted(text.imports), "", *text.definitions])


class _Text:
    """Imports and definitions as they are found to be needed, each once."""

    def __init__(self) -> None:
        self.imports: set[str] = {"import torch"}
        self.definitions: list[str] = []
        self._known: dict[str, Any] = {"torch": torch}

    def add(self, function: Any, name: str) -> None:
        """A function under a name, after all that it reads."""
        if not isinstance(function, FunctionType):
            raise NotWritable(
                f"{name} is a {type(function).__qualname__} and no function of Python"
            )
        code = function.__code__
        if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_VARARGS):
            raise NotWritable(f"{name} is a generator, a coroutine, or takes *arguments")
        node = _definition(function, name)
        for read, value in _read_by(function).items():
            if value is function:
                raise NotWritable(f"{name} calls itself")
            self._define(read, value)
        _plain_signature(node, function, name)
        self.definitions.append(f"\n{ast.unparse(node)}\n")

    def _define(self, name: str, value: Any) -> None:
        if name in self._known:
            if self._known[name] is not value:
                raise NotWritable(f"two of the functions read different things as {name}")
            return
        self._known[name] = value
        if isinstance(value, ModuleType):
            self.imports.add(_import_of(name, value))
        elif (source := _importable(name, value)) is not None:
            self.imports.add(source)
        elif isinstance(value, FunctionType):
            self.add(value, name)
        else:
            self.definitions.append(f"{name} = {literal(value, name)}")


def _definition(function: FunctionType, name: str) -> ast.FunctionDef:
    """The function's syntax tree, under a name of our own."""
    try:
        if function.__name__ == "<lambda>":
            # Its own lines may be the middle of a statement: the whole file is read, or cell.
            lines, _ = inspect.findsource(function)
            return _from_lambda(_parsed("".join(lines)), function, name)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise NotWritable(f"the source of {name} is not to be had") from error
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        raise NotWritable(f"{name} is decorated, so its source is not all of it")
    node.name = name
    return node


def _parsed(text: str) -> ast.Module:
    """A file's tree, or a notebook cell's, which may await at its top."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(text, "source", "exec", flags)
    assert isinstance(tree, ast.Module)
    return tree


def _from_lambda(tree: ast.Module, function: FunctionType, name: str) -> ast.FunctionDef:
    """The one lambda of its line that compiles to this function's code, as a `def`."""
    found = {
        ast.unparse(one): one
        for one in ast.walk(tree)
        if isinstance(one, ast.Lambda)
        and one.lineno == function.__code__.co_firstlineno
        and _same_code(one, function.__code__)
    }
    if len(found) != 1:
        raise NotWritable(f"which lambda of its line {name} is can't be told")
    (node,) = found.values()
    empty = ast.parse(f"def {name}(): pass").body[0]
    assert isinstance(empty, ast.FunctionDef)
    empty.args, empty.body = node.args, [ast.Return(node.body)]
    return ast.fix_missing_locations(empty)


def _same_code(node: ast.Lambda, code: CodeType) -> bool:
    whole = compile(ast.fix_missing_locations(ast.Expression(node)), "lambda", "eval")
    made = next(one for one in whole.co_consts if isinstance(one, CodeType))
    names = made.co_varnames, made.co_consts, set(made.co_names)
    free = set(code.co_freevars)
    return names[:2] == (code.co_varnames, code.co_consts) and (
        set(code.co_names) | free == names[2] | free
    )


def _read_by(function: FunctionType) -> dict[str, Any]:
    """What a function and those inside of it read from outside, by name.

    Raises:
        NotWritable: a name stands for nothing yet.
    """
    found: dict[str, Any] = {}
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError as error:
            told = f"{function.__name__} reads a variable that has no value yet"
            raise NotWritable(told) from error
    for name in sorted(names_read(function)):
        if name in function.__globals__ and name not in found:
            found[name] = function.__globals__[name]
    return found


def names_read(function: FunctionType) -> set[str]:
    """The names that a function, and those inside of it, look up in its file or in Python."""
    return _names_of(function.__code__)


def _names_of(code: CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    own = {
        str(one.argval)
        for one in dis.get_instructions(code)
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }
    return own.union(*map(_names_of, inner))


def _plain_signature(node: ast.FunctionDef, function: FunctionType, name: str) -> None:
    """Leave out annotations, and write defaults as the values that they are."""
    arguments = node.args
    if arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
        raise NotWritable(f"{name} takes keyword-only arguments, *arguments or **arguments")
    node.returns = None
    for one in (*arguments.posonlyargs, *arguments.args):
        one.annotation = None
    arguments.defaults = [
        ast.parse(literal(value, f"a default of {name}"), mode="eval").body
        for value in function.__defaults__ or ()
    ]


def _import_of(name: str, module: ModuleType) -> str:
    path = module.__name__
    if path == MAIN or sys.modules.get(path) is not module:
        raise NotWritable(f"{name} is a module that can't be imported")
    return f"import {path}" if path == name else f"import {path} as {name}"


def _importable(name: str, value: Any) -> str | None:
    """An import that gives the value under this name; None where there is none."""
    home, own = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (callable(value) and isinstance(home, str) and isinstance(own, str)):
        return None
    if home == MAIN or "." in own or not own.isidentifier():
        return None
    try:
        module = importlib.import_module(home)
    except ImportError:
        return None
    if getattr(module, own, None) is not value or getattr(module, "__file__", None) is None:
        return None
    return f"from {home} import {own}" if own == name else f"from {home} import {own} as {name}"
