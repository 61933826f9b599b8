"""A definition in the flashinfer-bench schema: an op as JSON, with axes, inputs and a `run`.

https://github.com/flashinfer-ai/flashinfer-bench describes it. Read and checked here without a
tensor library; `tools/definition_source.py` writes it out as a reference.
"""

import ast
import importlib
import json
import math
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from knowledge.errors import BadInput
from knowledge.opgraph import DTYPE_BYTES
from tools.workload import FileGiven, ScalarGiven, Workload, is_plain_name

# What is left of a schema's dtypes has no arithmetic on a CPU, where the oracle lives.
UNJUDGED = ("float8_e4m3fn", "float8_e5m2", "float4_e2m1")
FILE_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
# Of a size in an expression over sizes.
MOST_EXPONENT = 64.0
DEFINED_BY_US = ("Model", "get_inputs", "get_init_inputs")


class _Part(BaseModel):
    """A part of the schema; descriptions, tags and whatever a dataset adds are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ConstAxis(_Part):
    """A size that is part of the op."""

    type: Literal["const"]
    value: int = Field(ge=1)


class VarAxis(_Part):
    """A size that a workload gives."""

    type: Literal["var"]


class ExprAxis(_Part):
    """A size that follows from others."""

    type: Literal["expr"]
    expression: str = Field(min_length=1)


Axis = Annotated[ConstAxis | VarAxis | ExprAxis, Field(discriminator="type")]


class Tensor(_Part):
    """An input or output; the shape names axes, None is a plain number."""

    shape: tuple[str, ...] | None
    dtype: str

    @field_validator("dtype")
    @classmethod
    def _judged(cls, value: str) -> str:
        if value in UNJUDGED:
            raise ValueError(
                f"dtype {value} can't be judged yet: the oracle has no arithmetic in it"
            )
        if value not in DTYPE_BYTES:
            raise ValueError(f'dtype "{value}" is unknown; known: {", ".join(DTYPE_BYTES)}')
        return value


class Definition(_Part):
    """The op. Every complaint is one sentence."""

    name: str = Field(min_length=1)
    description: str | None = None
    axes: dict[str, Axis]
    inputs: dict[str, Tensor] = Field(min_length=1)
    outputs: dict[str, Tensor] = Field(min_length=1)
    reference: str
    constraints: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if both := set(self.inputs) & set(self.outputs):
            raise ValueError(f"{min(both)} is an input and an output; names must differ")
        for name, tensor in {**self.inputs, **self.outputs}.items():
            if not is_plain_name(name):
                raise ValueError(f'"{name}" can\'t be the name of an argument')
            if unknown := [axis for axis in tensor.shape or () if axis not in self.axes]:
                raise ValueError(f'{name} has an axis "{unknown[0]}" that axes don\'t define')
        self._check_reference()
        for constraint in (*self.constraints, *self._expressions.values()):
            try:
                ast.parse(constraint, mode="eval")
            except SyntaxError as error:
                raise ValueError(f"`{constraint}` is not an expression ({error.msg})") from error
        return self

    def _check_reference(self) -> None:
        try:
            module = ast.parse(self.reference)
        except SyntaxError as error:
            raise ValueError(
                f"the reference is not Python: {error.msg}, line {error.lineno}"
            ) from error
        defined = {
            node.name: node
            for node in module.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        run = defined.get("run")
        if not isinstance(run, ast.FunctionDef):
            raise ValueError("the reference defines no function run at its top")
        if taken := [name for name in DEFINED_BY_US if name in defined]:
            raise ValueError(
                f"the reference defines {taken[0]}, a name that is needed here; rename it"
            )
        arguments = run.args
        takes = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
        if not arguments.vararg and len(takes) < len(self.inputs):
            raise ValueError(
                f"run takes {len(takes)} arguments, and there are {len(self.inputs)} inputs"
            )

    @property
    def _expressions(self) -> dict[str, str]:
        return {
            name: axis.expression for name, axis in self.axes.items() if isinstance(axis, ExprAxis)
        }

    @property
    def var_axes(self) -> tuple[str, ...]:
        """The axes whose sizes a workload gives."""
        return tuple(name for name, axis in self.axes.items() if isinstance(axis, VarAxis))

    def sizes(self, given: Mapping[str, int]) -> dict[str, int]:
        """Every axis's size, where the var axes have these.

        Raises:
            ValueError: one is missing, unknown or impossible, or a constraint does not hold.
        """
        if unknown := [name for name in given if name not in self.var_axes]:
            raise ValueError(f"{unknown[0]} is no var axis; they are {_listed(self.var_axes)}")
        if missing := [name for name in self.var_axes if name not in given]:
            raise ValueError(f"axis {missing[0]} has no value")
        found = {
            n: axis.value for n, axis in self.axes.items() if isinstance(axis, ConstAxis)
        } | dict(given)
        for name, text in self._expressions.items():
            value = reckon(text, found)
            if value is None:
                raise ValueError(f"axis {name}: `{text}` can't be reckoned from the axes before it")
            found[name] = int(value)
        for name, size in found.items():
            if size < 1:
                raise ValueError(f"axis {name} is {size}; sizes are 1 and more")
        for constraint in self.constraints:
            # Those that read a tensor's values can't be told before there are any.
            if (holds := reckon(constraint, found)) is not None and not holds:
                sizes = ", ".join(f"{name}={size}" for name, size in found.items())
                raise ValueError(f"the constraint `{constraint}` does not hold for {sizes}")
        return found


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > MOST_EXPONENT:
        raise ValueError(f"to the power of {exponent:g}")
    return base**exponent  # type: ignore[no-any-return]


_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv, ast.Mod: operator.mod,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.USub: operator.neg, ast.Not: operator.not_,
    ast.Pow: _power,
}  # fmt: skip


def reckon(text: str, sizes: Mapping[str, int]) -> float | None:
    """The value of an expression over sizes; None where it needs more than arithmetic on them."""
    try:
        return float(_value(ast.parse(text, mode="eval").body, sizes))
    except (KeyError, TypeError, SyntaxError, ZeroDivisionError, OverflowError, ValueError):
        return None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.Name(id=name):
            return sizes[name]
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_value(operand, sizes))
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, sizes), _value(right, sizes))
        case ast.BoolOp(op=op, values=values):
            results = [bool(_value(one, sizes)) for one in values]
            return all(results) if isinstance(op, ast.And) else any(results)
        case ast.Compare(left=left, ops=ops, comparators=others):
            terms = [_value(one, sizes) for one in (left, *others)]
            pairs = zip(ops, terms, terms[1:], strict=False)
            return all(_OPERATORS[type(op)](a, b) for op, a, b in pairs)
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=args):
            return (min if name == "min" else max)(_value(one, sizes) for one in args)
        case _:
            raise TypeError(f"{type(node).__name__} is not arithmetic")


def load_definition(path: Path) -> Definition:
    """Read a definition.

    Raises:
        BadInput: it can't be read, is not JSON, or is not a definition.
    """
    raw = _json(path, _text(path), "")
    try:
        return Definition.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        # A union's tag stands in the path of what is wrong inside it.
        place = ".".join(str(part) for part in first["loc"] if part not in ("const", "var", "expr"))
        what = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{path}{': ' + place if place else ''}", f"{what}.") from error


def read_workloads(path: Path, definition: str) -> list[dict[str, Any]]:
    """The workloads of a file with one JSON object a line: workloads, or traces that hold one.

    Args:
        path: the file.
        definition: lines that name another definition than this are passed over.

    Raises:
        BadInput: it can't be read, a line is not a workload, or none is left.
    """
    found: list[dict[str, Any]] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        raw = _json(path, line, f" on line {number}")
        if not isinstance(raw, dict):
            raise BadInput(str(path), f"line {number} is not an object.")
        if raw.get("definition", definition) != definition:
            continue
        workload = raw.get("workload", raw)
        if not isinstance(workload, dict) or not isinstance(workload.get("axes"), dict):
            raise BadInput(str(path), f"line {number} is not a workload: it has no axes.")
        found.append({key: workload[key] for key in ("uuid", "axes", "inputs") if key in workload})
    if not found:
        raise BadInput(str(path), f"holds no workload of {definition}.")
    return found


def with_files_found(raw: dict[str, Any], folders: tuple[Path, ...], where: str) -> dict[str, Any]:
    """A workload with the paths of its files made absolute.

    Paths are relative to the root of a data set, which is one of the folders or above one.

    Raises:
        BadInput: there is no such file.
    """
    inputs = raw.get("inputs", raw.get("given"))
    if not isinstance(inputs, dict):
        return raw
    found = {name: _with_file_found(name, one, folders, where) for name, one in inputs.items()}
    return {**raw, ("inputs" if "inputs" in raw else "given"): found}


def _with_file_found(name: str, given: Any, folders: tuple[Path, ...], where: str) -> Any:
    if not isinstance(given, dict) or not isinstance(given.get("path"), str):
        return given
    for folder in folders:
        for root in (folder, *folder.parents):
            if (path := root / given["path"]).is_file():
                return {**given, "path": str(path.resolve())}
    told = f"{name}: {given['path']} does not exist."
    raise BadInput(where, told, f"It was looked for in {folders[0]} and the folders above.")


def check_workload(definition: Definition, workload: Workload, where: str) -> dict[str, int]:
    """The size of every axis, once the workload is known to fit.

    Raises:
        BadInput: it does not fit the definition.
    """
    place = f"{where}: {workload.name}"
    try:
        sizes = definition.sizes(workload.axes)
    except ValueError as error:
        raise BadInput(place, f"{error}.") from error
    for name, given in workload.given.items():
        tensor = definition.inputs.get(name)
        if tensor is None:
            raise BadInput(
                place, f"{name} is no input; they are {_listed(tuple(definition.inputs))}."
            )
        match given:
            case ScalarGiven():
                _check_scalar(name, given, tensor, place)
            case FileGiven():
                _check_file(name, given, tensor, sizes, place)
            case _:
                pass
    return sizes


def _check_scalar(name: str, given: ScalarGiven, tensor: Tensor, place: str) -> None:
    if tensor.shape is not None:
        what = f"{name} is a tensor of {_listed(tensor.shape)}, and is given as a number."
        raise BadInput(place, what, 'Use {"type": "random"} or safetensors.')
    whole, number = "int" in tensor.dtype, given.value
    if (whole and not float(number).is_integer()) or not math.isfinite(number):
        raise BadInput(place, f"{name} is {tensor.dtype}, and is given as {number!r}.")


def _check_file(
    name: str, given: FileGiven, tensor: Tensor, sizes: Mapping[str, int], place: str
) -> None:
    if tensor.shape is None:
        told = f"{name} is a plain number, and is given as a tensor of a file."
        raise BadInput(place, told, 'Use {"type": "scalar", "value": ...}.')
    # Loaded on first use: a bare GPU machine, whose tasks are files, may lack it.
    safetensors = importlib.import_module("safetensors")
    try:
        # Reads the header alone.
        with safetensors.safe_open(given.path, framework="numpy") as file:
            keys = list(file.keys())
            if given.tensor_key not in keys:
                told = f"{name}: {given.path} has no tensor {given.tensor_key}."
                raise BadInput(place, told, f"It has {_listed(tuple(keys[:8]))}.")
            entry = file.get_slice(given.tensor_key)
            shape, kind = tuple(entry.get_shape()), entry.get_dtype()
    except (OSError, safetensors.SafetensorError) as error:
        said = " ".join(str(error).split())[:160]
        raise BadInput(place, f"{name}: {given.path} can't be read ({said}).") from error
    wanted = tuple(sizes[axis] for axis in tensor.shape)
    if shape != wanted:
        raise BadInput(
            place, f"{name} should be {list(wanted)}; {given.tensor_key} is {list(shape)}."
        )
    if FILE_DTYPES.get(kind) != tensor.dtype:
        raise BadInput(place, f"{name} should be {tensor.dtype}; {given.tensor_key} is {kind}.")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise BadInput(str(path), "is not text in UTF-8.") from error


def _json(path: Path, text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInput(str(path), f"is not JSON{place} ({error}).") from error


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
