"""A task's subject as source text in the field's convention, whichever way the task names it.

An operator or a module is looked up first, so that a misspelt name is a line with the nearest
known one, and then written out as a reference that anyone can run without Kernelwright.
"""

import ast
import difflib
import importlib
import inspect
import keyword
import math
import re
import sys
import sysconfig
import types
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from knowledge.errors import BadInput
from tools.definition import check_workload, load_definition
from tools.definition_source import source_of
from tools.expression import dotted_names, is_dotted_name, methods, read_expression
from tools.task import Task, argument_names
from tools.workload import InputSpec, Workload
from tools.workload_files import source_at

CONSTRUCTOR = "\n\ndef get_init_inputs():\n    return []\n"
# What an expression may call: functions of tensors, and nothing that reads, writes or compiles.
SPACES = ("torch", "torch.nn", "torch.nn.functional", "torch.special", "torch.linalg", "torch.fft")
NO_FUNCTIONS = ("from_file", "load", "save")
NO_METHODS = ("numpy", "tolist", "storage", "untyped_storage", "backward", "register_hook")
# Of what torch.max(x, 1), torch.linalg.svd(x) and their like return.
PARTS = ("values", "indices", "Q", "R", "U", "S", "Vh", "L", "eigenvalues", "eigenvectors")


def materialise(task: Task) -> str:
    """The reference's source, at the first of the task's workloads.

    Raises:
        BadInput: the file cannot be read, or the operator or module does not exist.
    """
    workload = task.workloads[0] if task.workloads else None
    if task.reference is not None:
        return source_at(task.reference, workload)
    if task.definition is not None:
        definition = load_definition(task.definition)
        workload = workload or Workload(name="as given")
        sizes = check_workload(definition, workload, task.name)
        return source_of(definition, workload, sizes)
    specs = workload.inputs if workload is not None else task.inputs
    inputs = ",\n        ".join(_drawn(spec) for spec in specs)
    footer = f"def get_inputs():\n    return [\n        {inputs},\n    ]\n"
    if task.op is None:
        return f"{_module(task, str(task.module), specs)}\n\n{footer}{CONSTRUCTOR}"
    write = _operator if is_dotted_name(task.op, argument_names(specs)) else _expression_of
    return f"{write(task, task.op.strip(), specs)}\n\n{footer}{CONSTRUCTOR}"


def packages_of(task: Task) -> tuple[str, ...]:
    """Where the package of the task's operator or module lies, if it is not an installed one.

    A folder, or the file of a module that is in none. The package must have been imported.
    """
    name = task.module or task.op
    top = sys.modules.get(re.split(r"[.:]", name.strip())[0]) if name else None
    homes = list(getattr(top, "__path__", [])) or [getattr(top, "__file__", None)]
    paths = [Path(home).resolve() for home in homes if home]
    known = [Path(sysconfig.get_path(one)).resolve() for one in ("purelib", "platlib", "stdlib")]
    installed = [path for path in paths if any(path.is_relative_to(one) for one in known)]
    return tuple(str(path) for path in paths if path not in installed)


def _expression_of(task: Task, op: str, specs: tuple[InputSpec, ...]) -> str:
    where, names = f"{task.name}: op", argument_names(specs)
    try:
        tree = read_expression(op, names)
    except ValueError as error:
        raise BadInput(where, f"{error}.") from error
    for name in dotted_names(tree):
        _require_function(name, where)
    for name in methods(tree):
        _require_method(name, where)
    imports = ["import math"] if any(n.startswith("math") for n in dotted_names(tree)) else []
    return "\n".join([
        '"""An expression, written out as a reference."""', "",
        *imports, *([""] if imports else []), "import torch", "", "",
        "class Model(torch.nn.Module):",
        f"    def forward(self, {', '.join(names)}):",
        f"        return {ast.unparse(tree)}", "",
    ])  # fmt: skip


def _require_function(name: str, where: str) -> None:
    """Complain unless a dotted name is a function of tensors, a dtype or a number.

    Raises:
        BadInput: it is something else, or nothing.
    """
    home, _, last = name.rpartition(".")
    if not home:
        raise BadInput(
            where, f"{name} alone is a module.", f"Name one of its functions: {name}.exp"
        )
    found = _attribute(math if home == "math" else torch, name.split(".")[1:], where, name)
    if isinstance(found, torch.dtype | torch.memory_format | torch.layout | int | float):
        return
    if inspect.isclass(found):
        raise BadInput(where, f"{name} is a class.", f"Write module: {home}:{last}")
    # Of torch's own top, its native functions and those of torch.functional alone.
    native = home != "torch" or isinstance(found, types.BuiltinFunctionType)
    native = native or getattr(found, "__module__", "") == "torch.functional"
    if home not in (*SPACES, "math") or last in NO_FUNCTIONS or not callable(found) or not native:
        mend = "Write a reference file."
        raise BadInput(
            where, f"{name} is not a function of tensors that an expression may use.", mend
        )


def _require_method(name: str, where: str) -> None:
    if name in NO_METHODS:
        raise BadInput(where, f".{name} leaves the tensors, which an expression can't.")
    if name not in PARTS and not hasattr(torch.Tensor, name):
        near = difflib.get_close_matches(name, dir(torch.Tensor), n=1)
        mend = f'Did you mean "{near[0]}"?' if near else ""
        raise BadInput(where, f"a tensor has no {name}.", mend)


def _operator(task: Task, op: str, specs: tuple[InputSpec, ...]) -> str:
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
    names = argument_names(specs)
    given = [*names, *(f"{k}={_expression(v)}" for k, v in task.arguments.items())]
    imports = sorted({"torch", holder.__name__})
    return "\n".join([
        f'"""{op}, written out as a reference."""', "",
        *(f"import {name}" for name in imports), "", "",
        "class Model(torch.nn.Module):",
        f"    def forward(self, {', '.join(names)}):",
        f"        return {op}({', '.join(given)})", "",
    ])  # fmt: skip


def _module(task: Task, name: str, specs: tuple[InputSpec, ...]) -> str:
    where = f"{task.name}: module"
    home, _, class_name = name.partition(":")
    parts = home.split(".")
    _require_identifiers([*parts, class_name], where, name, "torch.nn:LayerNorm")
    holder, rest = _import_prefix(parts, where, name)
    found = _attribute(_attribute(holder, rest, where, name), [class_name], where, name)
    if not (inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        raise BadInput(where, f"{name} is not a torch.nn.Module class.")
    given = ", ".join(f"{k}={_expression(v)}" for k, v in task.arguments.items())
    names = argument_names(specs)
    # Forward is written out, so that a kernel can take its place.
    return "\n".join([
        f'"""{name}, written out as a reference."""', "",
        "import torch", "",
        f"from {home} import {class_name}", "", "",
        f"class Model({class_name}):",
        "    def __init__(self):",
        f"        super().__init__({given})", "",
        f"    def forward(self, {', '.join(names)}):",
        f"        return super().forward({', '.join(names)})", "",
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
    low = spec.low or 0
    if spec.dtype == "bool":
        return f"torch.rand({shape}) < 0.5"
    if "int" in spec.dtype:
        return f"torch.randint({low}, {spec.high}, {shape}, {dtype})"
    if spec.high is not None:
        width, start = spec.high - low, f" + {low}" if low else ""
        return f"torch.rand({shape}, {dtype}) * {width}{start}"
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
