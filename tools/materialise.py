"""A task's subject as source text in the field's convention, whichever way the task names it.

An operator or a module is looked up first, so that a misspelt name is a line with the nearest
known one, and then written out as a reference that anyone can run without Kernelwright.
"""

import difflib
import importlib
import inspect
import keyword
import math
from types import ModuleType
from typing import Any

import torch

from knowledge.errors import BadInput
from tools.task import InputSpec, Task

CONSTRUCTOR = "\n\ndef get_init_inputs():\n    return []\n"


def materialise(task: Task) -> str:
    """The reference's source.

    Raises:
        BadInput: the file cannot be read, or the operator or module does not exist.
    """
    if task.reference is not None:
        try:
            return task.reference.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(str(task.reference), f"cannot be read ({error}).") from error
    inputs = ",\n        ".join(_drawn(spec) for spec in task.inputs)
    footer = f"def get_inputs():\n    return [\n        {inputs},\n    ]\n"
    if task.op is not None:
        return f"{_operator(task, task.op)}\n\n{footer}{CONSTRUCTOR}"
    return f"{_module(task, str(task.module))}\n\n{footer}{CONSTRUCTOR}"


def _operator(task: Task, op: str) -> str:
    where = f"{task.name}: op"
    parts = op.split(".")
    _require_identifiers(parts, where, op, "torch.nn.functional.gelu")
    holder, rest = _import_prefix(parts, where, op)
    found = _attribute(holder, rest, where, op)
    if inspect.isclass(found):
        home = ".".join(parts[:-1])
        raise BadInput(where, f"{op} is a class.", f"Write module: {home}:{parts[-1]}")
    if not callable(found):
        raise BadInput(where, f"{op} cannot be called.")
    names = [f"input_{i}" for i in range(len(task.inputs))]
    given = [*names, *(f"{k}={_expression(v)}" for k, v in task.arguments.items())]
    imports = sorted({"torch", holder.__name__})
    return "\n".join([
        f'"""{op}, written out as a reference."""', "",
        *(f"import {name}" for name in imports), "", "",
        "class Model(torch.nn.Module):",
        f"    def forward(self, {', '.join(names)}):",
        f"        return {op}({', '.join(given)})", "",
    ])  # fmt: skip


def _module(task: Task, name: str) -> str:
    where = f"{task.name}: module"
    home, _, class_name = name.partition(":")
    parts = home.split(".")
    _require_identifiers([*parts, class_name], where, name, "torch.nn:LayerNorm")
    holder, rest = _import_prefix(parts, where, name)
    found = _attribute(_attribute(holder, rest, where, name), [class_name], where, name)
    if not (inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        raise BadInput(where, f"{name} is not a torch.nn.Module class.")
    given = ", ".join(f"{k}={_expression(v)}" for k, v in task.arguments.items())
    return "\n".join([
        f'"""{name}, written out as a reference."""', "",
        "import torch", "",
        f"from {home} import {class_name}", "", "",
        f"class Model({class_name}):",
        "    def __init__(self):",
        f"        super().__init__({given})", "",
    ])  # fmt: skip


def _require_identifiers(parts: list[str], where: str, name: str, example: str) -> None:
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise BadInput(where, f'"{name}" is not a name of that kind.', f"For example: {example}")


def _import_prefix(parts: list[str], where: str, name: str) -> tuple[ModuleType, list[str]]:
    """The longest importable module at the front of a dotted name, and the rest of the name."""
    for length in range(len(parts), 0, -1):
        dotted = ".".join(parts[:length])
        try:
            return importlib.import_module(dotted), parts[length:]
        except ModuleNotFoundError as error:
            # Only "there is no such module" leads on; a module that lacks one of its own does not.
            if error.name is None or not f"{dotted}.".startswith(f"{error.name}."):
                raise BadInput(where, f"{dotted} raises when imported: {error}") from error
        except (Exception, SystemExit) as error:
            said = " ".join(str(error).split())[:200]
            what = f"{dotted} raises when imported: {type(error).__name__}: {said}"
            raise BadInput(where, what) from error
    near = difflib.get_close_matches(parts[0], ["torch"], n=1)
    mend = f'Did you mean "{near[0]}"?' if near else "Is it installed here?"
    raise BadInput(where, f"{name} cannot be imported: there is no module {parts[0]}.", mend)


def _attribute(holder: Any, names: list[str], where: str, name: str) -> Any:
    for part in names:
        if not hasattr(holder, part):
            owner = getattr(holder, "__name__", type(holder).__name__)
            near = difflib.get_close_matches(part, [n for n in dir(holder) if n[0] != "_"], n=1)
            mend = f'Did you mean "{near[0]}"?' if near else ""
            raise BadInput(where, f"{name} does not exist: {owner} has no {part}.", mend)
        holder = getattr(holder, part)
    return holder


def _drawn(spec: InputSpec) -> str:
    """An expression that draws one input; floats are normal, or uniform where `high` is given."""
    shape, dtype = list(spec.shape), f"dtype=torch.{spec.dtype}"
    if spec.dtype == "bool":
        return f"torch.rand({shape}) < 0.5"
    if "int" in spec.dtype:
        return f"torch.randint(0, {spec.high}, {shape}, {dtype})"
    if spec.high is not None:
        return f"torch.rand({shape}, {dtype}) * {spec.high}"
    return f"torch.randn({shape}, {dtype})"


def _expression(value: Any) -> str:
    """A value from YAML as Python text; `torch.float16` and its like become what they name."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {_expression(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_expression, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, str) and value.startswith("torch."):
        named = getattr(torch, value.removeprefix("torch."), None)
        if isinstance(named, torch.dtype | torch.memory_format | torch.layout):
            return value
    return repr(value)
