"""What forward is given, as a task file says it: inputs, and workloads, which are sets of them.

Parsed and checked for itself; what fits the task's own subject is checked in `tools/task.py`.
"""

import difflib
import keyword
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)

from knowledge.opgraph import DTYPE_BYTES

# Names that an input can't have: they mean something else where forward is written.
TAKEN = ("self", "torch", "math")
OWN_KEYS = ("name", "inputs", "constants", "axes", "given")


class Section(BaseModel):
    """A part of the task file: immutable, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(Section):
    """One generated argument of forward, for tasks that name an operator or a module."""

    shape: tuple[int, ...] = Field(description="sizes; [] is a scalar tensor")
    dtype: str = Field("float32", description="a torch dtype by its name")
    low: int | float | None = Field(None, description="least value drawn; 0 where `high` is given")
    high: int | float | None = Field(
        None, description="values are drawn from [low, high): integers always, floats if it's given"
    )
    name: str | None = Field(None, description="what an expression calls it; None: input_0, ...")

    @field_validator("dtype", mode="before")
    @classmethod
    def _plain_name(cls, value: Any) -> Any:
        return value.removeprefix("torch.") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(size < 1 for size in self.shape):
            raise ValueError(f"shape {list(self.shape)} has a size below 1")
        if self.dtype not in DTYPE_BYTES:
            near = difflib.get_close_matches(self.dtype, DTYPE_BYTES, n=1)
            mend = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(DTYPE_BYTES)}"
            raise ValueError(f'dtype "{self.dtype}" is unknown; {mend}')
        self._check_range()
        if self.name is not None and not is_plain_name(self.name):
            raise ValueError(f'an input can\'t be called "{self.name}"')
        return self

    def _check_range(self) -> None:
        whole = "int" in self.dtype
        if whole and self.high is None:
            raise ValueError(f"dtype {self.dtype} needs high: values are drawn from [0, high)")
        if self.low is not None and self.high is None:
            raise ValueError("low needs high: values are drawn from [low, high)")
        if self.high is None:
            return
        if self.dtype.startswith(("bool", "complex")):
            raise ValueError(f"low and high mean nothing to dtype {self.dtype}")
        if whole and any(isinstance(bound, float) for bound in (self.low, self.high)):
            raise ValueError(f"dtype {self.dtype} needs whole numbers as low and high")
        if self.high <= (self.low or 0):
            raise ValueError(f"high {self.high} is not above low {self.low or 0}")

    @property
    def sizes(self) -> str:
        """The shape in short, e.g. `4096x64`."""
        return "x".join(map(str, self.shape)) or "scalar"


def is_plain_name(name: str) -> bool:
    """Whether an argument of forward may be called so."""
    return name.isidentifier() and not keyword.iskeyword(name) and name not in TAKEN


class RandomGiven(Section):
    """A definition's input that is drawn at random."""

    type: Literal["random"]


class ScalarGiven(Section):
    """A definition's input that is a number."""

    type: Literal["scalar"]
    value: StrictBool | StrictInt | StrictFloat


class FileGiven(Section):
    """A definition's input that lies in a safetensors file; the path is absolute once parsed."""

    type: Literal["safetensors"]
    path: str = Field(min_length=1)
    tensor_key: str = Field(min_length=1)


Given = Annotated[RandomGiven | ScalarGiven | FileGiven, Field(discriminator="type")]


class Workload(Section):
    """One set of inputs; all of a task's are verified and timed.

    Which of its parts it has follows from the task's subject: `inputs` for an operator or a module,
    `constants` for a file, `axes` and `given` for a definition.
    """

    name: str = Field(min_length=1, description="what reports call it; made up if not given")
    inputs: tuple[InputSpec, ...] = ()
    constants: dict[str, Any] = Field({}, description="values for the file's own constants")
    axes: dict[str, int] = Field({}, description="sizes of a definition's var axes")
    given: dict[str, Given] = Field({}, description="a definition's inputs; else drawn at random")

    @model_validator(mode="before")
    @classmethod
    def _sorted_out(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict):
            return value
        raw = dict(value)
        of_definition = "uuid" in raw or bool(raw.get("axes")) or _are_given(raw.get("inputs"))
        if (uuid := raw.pop("uuid", None)) is not None:
            raw.setdefault("name", str(uuid))
        if of_definition and isinstance(raw.get("inputs"), dict):
            raw["given"] = raw.pop("inputs")
        constants = {key: raw.pop(key) for key in list(raw) if key not in OWN_KEYS}
        if constants:
            raw["constants"] = {**_mapping(raw.get("constants")), **constants}
        if "inputs" in raw:
            raw["inputs"] = named(raw["inputs"])
        raw.setdefault("name", _made_up(raw))
        return raw


def named(inputs: Any) -> Any:
    """Inputs as a list, each with its name, where they were given as a mapping by name."""
    if not isinstance(inputs, dict):
        return inputs
    return [
        {**spec, "name": name} if isinstance(spec, dict) else spec for name, spec in inputs.items()
    ]


def _made_up(raw: dict[str, Any]) -> str:
    """A name from what sets a workload apart, e.g. `N=4096` or `64x4096, 4096`."""
    if sizes := {**_mapping(raw.get("constants")), **_mapping(raw.get("axes"))}:
        return ", ".join(f"{key}={value}" for key, value in sizes.items())
    inputs = raw.get("inputs")
    shapes = [
        spec["shape"]
        for spec in (inputs if isinstance(inputs, list | tuple) else ())
        if isinstance(spec, dict) and isinstance(spec.get("shape"), list | tuple)
    ]
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes) or "as given"


def _are_given(inputs: Any) -> bool:
    """Whether these are a definition's inputs: each says by its type where it is from."""
    return isinstance(inputs, dict) and any(
        isinstance(one, dict) and "type" in one for one in inputs.values()
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
