"""An op as plain data: the graph that patterns match, prompts show and reports print.

It is the functional training IR of `torch.export`, one node a call, with nothing of torch in it, so
that it travels between processes as JSON and the rooms that reason about it need no tensor library.
`tools.trace` makes it; nothing here ever runs it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, StrictBool, StrictFloat, StrictInt, StrictStr

DTYPE_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "float32": 4, "int64": 8, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip


class Frozen(BaseModel):
    """A value: immutable, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, without what was looked up of the original."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


class TensorSpec(Frozen):
    """Shape, dtype and memory order of one tensor; `strides` counts elements."""

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a scalar."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of a dense copy."""
        return self.numel * DTYPE_BYTES[self.dtype]

    @property
    def contiguous(self) -> bool:
        """Whether elements lie in row-major order without gaps."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


class Ref(Frozen):
    """An argument that is another node's result: its name, and which of several results."""

    ref: str
    index: int | None = None


# Strict members: 2.0 stays a float and True a bool on their way through JSON.
Atom = Ref | StrictBool | StrictInt | StrictFloat | StrictStr | None
Argument = Atom | list[Atom | list[Atom]]


class Node(Frozen):
    """One call, or one thing that enters the graph.

    `kind` says where the value comes from: `input` (an argument of forward; `target` is its
    position as text), `parameter`, `buffer` or `constant` (`target` is the dotted attribute path on
    the module; a constant's values are in `data`; a tensor that the constructor keeps as a plain
    attribute is a buffer here), or `call` (`target` is the operator, e.g.
    `aten.softmax.int`). `result` is the tensor it makes, a tuple of them, or None where it makes no
    tensor.
    """

    name: str
    kind: Literal["input", "parameter", "buffer", "constant", "call"]
    target: str
    args: tuple[Argument, ...] = ()
    kwargs: dict[str, Argument] = {}
    result: TensorSpec | tuple[TensorSpec | None, ...] | None = None
    data: list[StrictBool | StrictInt | StrictFloat] | None = None

    @cached_property
    def refs(self) -> tuple[Ref, ...]:
        """Every node that this one reads, in argument order."""
        return tuple(_refs((*self.args, *self.kwargs.values())))

    @property
    def spec(self) -> TensorSpec:
        """The one tensor this node makes.

        Raises:
            TypeError: it makes none, or several.
        """
        if not isinstance(self.result, TensorSpec):
            raise TypeError(f"{self.name} ({self.target}) does not make exactly one tensor")
        return self.result


def _refs(arguments: tuple[Any, ...] | list[Any]) -> Iterator[Ref]:
    for argument in arguments:
        if isinstance(argument, Ref):
            yield argument
        elif isinstance(argument, list):
            yield from _refs(argument)


class OpGraph(Frozen):
    """A whole op: nodes in execution order, and what forward returns.

    `outputs` holds one Ref per returned tensor; `returns` says how they are packed: `tensor`,
    `tuple`, `list`, or a template of Python with a place for each, `({}, {{'y': {}}})` say.
    `mutations` maps a buffer's dotted path to the node holding its new value
    (running statistics). `training` is the module's mode, as given.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[Ref, ...]
    returns: str = "tensor"
    mutations: dict[str, str] = {}
    training: bool = True

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by their names."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def position(self) -> dict[str, int]:
        """Where each node stands in execution order."""
        return {node.name: number for number, node in enumerate(self.nodes)}

    @cached_property
    def users(self) -> dict[str, tuple[Node, ...]]:
        """For each node's name, the nodes that read it, once each, in execution order."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in {ref.ref: None for ref in node.refs}:
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def worked_out(self) -> dict[Any, Any]:
        """What was found of this graph and takes a while to find, by what was asked."""
        return {}

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The arguments of forward, in order."""
        return tuple(node for node in self.nodes if node.kind == "input")

    @cached_property
    def calls(self) -> tuple[Node, ...]:
        """The operator calls, in execution order."""
        return tuple(node for node in self.nodes if node.kind == "call")

    def packed(self, outputs: Sequence[str]) -> str:
        """What forward returns as Python, from expressions of the tensors in it."""
        places = ", ".join(["{}"] * len(outputs))
        comma = "," if len(outputs) == 1 else ""
        words = {"tensor": "{}", "list": f"[{places}]", "tuple": f"({places}{comma})"}
        return words.get(self.returns, self.returns).format(*outputs)

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """The tensors that forward returns."""
        return tuple(self.spec_of(ref) for ref in self.outputs)

    def spec_of(self, ref: Ref) -> TensorSpec:
        """The tensor behind a reference.

        Raises:
            TypeError: the node makes several tensors and the reference does not say which, or none.
        """
        node = self.by_name[ref.ref]
        if ref.index is None:
            return node.spec
        if isinstance(node.result, tuple) and (spec := node.result[ref.index]) is not None:
            return spec
        raise TypeError(f"{node.name} has no tensor {ref.index}")

    def render(self, limit: int = 60) -> str:
        """The graph as a person reads it, one node a line, at most `limit` lines."""
        lines = [line_of(node) for node in self.nodes]
        if len(lines) > limit:
            lines = [*lines[:limit], f"... {len(lines) - limit} more nodes"]
        return "\n".join([*lines, f"return {', '.join(_text(ref) for ref in self.outputs)}"])


def _text(argument: Any) -> str:
    if isinstance(argument, Ref):
        return argument.ref if argument.index is None else f"{argument.ref}[{argument.index}]"
    if isinstance(argument, list):
        return f"[{', '.join(_text(item) for item in argument)}]"
    return repr(argument)


def line_of(node: Node) -> str:
    """A node as a person reads it: what it makes, its operator, its arguments."""
    specs = node.result if isinstance(node.result, tuple) else (node.result,)
    made = ", ".join(f"{s.dtype}{list(s.shape)}" for s in specs if s is not None)
    if node.kind != "call":
        return f"{node.name}: {made} = {node.kind} {node.target}"
    given = [_text(a) for a in node.args] + [f"{k}={_text(v)}" for k, v in node.kwargs.items()]
    return f"{node.name}: {made} = {node.target}({', '.join(given)})"
