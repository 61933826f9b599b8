"""From a live module to an `OpGraph`: `torch.export`, made functional, nothing decomposed.

Strict export reads forward's Python and comes first. Where it meets Python that it can't read,
forward is run on tensors without values, which refuses whatever hangs on values; and then once more
with what masks select in fixed shapes (`selection.py`). What that gives is compared with the module
itself, for it can't see what forward takes from elsewhere.

Composite operators (`softmax`, `layer_norm`, `cross_entropy_loss`, ...) stay whole, because that is
the level at which patterns recognise them. Runs inside the judge's process, where the user's own
reference is loaded.
"""

import contextlib
import copy
import functools
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from knowledge.opgraph import DTYPE_BYTES, Argument, Atom, Node, OpGraph, Ref, TensorSpec
from tools.agreement import agrees, contradicts
from tools.packing import NotPacked, is_none, packing_of
from tools.reference import plain_tensors
from tools.selection import Selections

EMBEDDED_CONSTANT_ELEMENTS = 4096
# The exporter's own notes on types and sizes, one before every `.float()`: they make nothing, and
# would count as readers of what they look at. The emitted module checks its inputs instead.
NOTES = ("aten._assert_tensor_metadata", "aten.sym_constrain", "aten._assert_scalar")


class Untraceable(Exception):
    """The op has no static graph; the message is one sentence that says what stopped the tracer."""


def trace(
    module: torch.nn.Module,
    inputs: tuple[Any, ...],
    others: Iterable[tuple[Any, ...]] | None = None,
    *,
    constructed: Mapping[str, torch.Tensor] | None = None,
    returned: Any = None,
) -> OpGraph:
    """The functional graph of `module(*inputs)` at these shapes, in the mode the module is in.

    Args:
        module: the reference; it must live in an importable (registered) Python module.
        inputs: what forward is given; tensors may have any strides, other arguments are baked in.
        others: further inputs, drawn when they are wanted, on which a graph that strict export
            can't make is held against the module; without any, no such graph is made.
        constructed: the plain attributes that the constructor made, which any other instance will
            have too; None where no forward has run yet, which might have made some.
        returned: what forward returns on these inputs, where that is known: a graph that makes
            something else is none.

    Raises:
        Untraceable: data-dependent control flow, unsupported calls, a constant that is too large
            to embed, or a forward that does something else when it is exported.
    """
    known = plain_tensors(module) if constructed is None else constructed
    try:
        graph = _convert(_export(module, inputs, strict=True), module, known)
        if returned is not None and contradicts(graph, module, inputs, returned):
            raise Untraceable("forward does something else when torch.export runs it")
        return graph
    except _Stopped as stopped:
        if others is None:
            raise Untraceable(str(stopped)) from stopped
        first = stopped
    drawn: list[tuple[Any, ...]] | None = None
    # Running forward may change what the module holds.
    for copied in (copy.deepcopy, _selecting):
        apart = copied(module)
        try:
            graph = _convert(_export(apart, inputs, strict=False), apart, known)
        except (_Stopped, Untraceable):
            continue
        drawn = [inputs, *others] if drawn is None else drawn
        if all(agrees(graph, module, given) for given in drawn):
            return graph
    raise Untraceable(str(first)) from first


def _selecting(module: torch.nn.Module) -> torch.nn.Module:
    """A copy whose forward has fixed shapes, also where a mask selects: see `Selections`."""
    apart = copy.deepcopy(module)
    forward = apart.forward

    @functools.wraps(forward)
    def selecting(*args: Any, **kwargs: Any) -> Any:
        with Selections():
            return forward(*args, **kwargs)

    apart.forward = selecting
    return apart


class _Stopped(Exception):
    """The exporter gave up, or found no shapes; the message is a sentence on what stopped it."""


def _export(
    module: torch.nn.Module, inputs: tuple[Any, ...], *, strict: bool
) -> torch.export.ExportedProgram:
    torch.compiler.reset()
    with silence(), torch.no_grad(), written_out():
        try:
            exported = torch.export.export(module, inputs, strict=strict)
            program: torch.export.ExportedProgram = exported.run_decompositions({})
        except Exception as error:
            what = plain_sentence(str(error)) or f"{type(error).__name__} without a message"
            raise _Stopped(what) from error
    return program


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the exporter's warnings and the graphs that it prints when it fails to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Have torch's transformer layers make their calls one by one, and not as a single one.

    Without gradients a layer in eval is one call to eager and exporter alike, which is no graph.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# What the exporter says first, and what that means to whoever wrote the op.
_MEANINGS = (
    ("data-dependent branching", "which way forward goes depends on the values of a tensor"),
    ("could not guard on data-dependent", "what forward does depends on the values of a tensor"),
    ("could not extract specialized", "a size or a number depends on the values of a tensor"),
    ("dynamic shape operator", "a shape depends on the values of a tensor"),
    ("builtin operator", "forward calls a function of Python that has no graph"),
    ("graph break", "forward calls something that has no graph"),
)
_FRAME = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+), in \w+\n\s*(?P<code>[^\n]+)')
_CODE_LIMIT = 120


def plain_sentence(said: str) -> str:
    """What stopped the exporter, and where in the op's own file, on one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return ""
    words = lines[0][:300]
    meaning = next((told for mark, told in _MEANINGS if mark in said.lower()), "")
    own = [one for one in _FRAME.finditer(said) if "site-packages" not in one["path"]]
    where = f", on line {own[-1]['line']}: {own[-1]['code'].strip()[:_CODE_LIMIT]}" if own else ""
    if meaning and not where:
        return f"{meaning} ({words})"
    return f"{meaning or words}{where}"


def _convert(
    program: torch.export.ExportedProgram,
    module: torch.nn.Module,
    known: Mapping[str, torch.Tensor],
) -> OpGraph:
    entering = _entering_nodes(program)
    position = 0
    nodes: list[Node] = []
    for fx in program.graph.nodes:
        if fx.op == "placeholder":
            kind, target = entering[fx.name]
            if kind == "constant" and _is_rebuilt(program.constants[target], known.get(target)):
                kind = "buffer"
            if kind == "input":
                target, position = str(position), position + 1
                if not isinstance(fx.meta["val"], torch.Tensor):
                    continue
            nodes.append(
                Node(name=fx.name, kind=kind, target=target, result=_result(fx.meta["val"]),
                     data=_constant_data(program, target) if kind == "constant" else None)
            )  # fmt: skip
        elif fx.op == "call_function" and not str(fx.target).startswith(NOTES):
            nodes.append(
                Node(name=fx.name, kind="call", target=str(fx.target),
                     args=tuple(_argument(a) for a in fx.args),
                     kwargs={k: _argument(v) for k, v in fx.kwargs.items()},
                     result=_result(fx.meta.get("val"), str(fx.target)))
            )  # fmt: skip
        elif fx.op not in ("call_function", "output"):
            raise Untraceable(
                f"the graph holds a {fx.op} node ({fx.name}), which has no plain form"
            )
    return _finish(program, module, _fold_getitem(nodes))


_KINDS: dict[InputKind, Literal["input", "parameter", "buffer", "constant"]] = {
    InputKind.USER_INPUT: "input",
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}


def _entering_nodes(
    program: torch.export.ExportedProgram,
) -> dict[str, tuple[Literal["input", "parameter", "buffer", "constant"], str]]:
    entering = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind not in _KINDS:
            raise Untraceable(
                f"input {spec.arg.name} is a {spec.kind.name.lower()}, which has no plain form"
            )
        entering[spec.arg.name] = (_KINDS[spec.kind], spec.target or "")
    return entering


def _is_rebuilt(constant: Any, attribute: torch.Tensor | None) -> bool:
    """Whether a constant is an attribute that the constructor makes, so that it is read there.

    A single number is written out all the same: patterns ask what it is.
    """
    return (
        attribute is not None
        and attribute.numel() > 1
        and attribute.dtype == constant.dtype
        # Without data, as an op too large to be here is traced, name and shape have to do.
        and attribute.shape == constant.shape
        and (attribute.is_meta or constant.is_meta or torch.equal(attribute, constant))
    )


def _constant_data(program: torch.export.ExportedProgram, target: str) -> list[float | int | bool]:
    value = program.constants[target]
    if not isinstance(value, torch.Tensor) or value.numel() > EMBEDDED_CONSTANT_ELEMENTS:
        raise Untraceable(f"constant {target} is too large to write into a source file")
    data: list[float | int | bool] = value.detach().reshape(-1).tolist()
    return data


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """Shape, dtype and strides of a tensor, real or fake.

    Raises:
        Untraceable: its dtype is one that no pattern knows.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise Untraceable(f"tensors of {dtype} have no place in a kernel yet")
    return TensorSpec(
        shape=tuple(int(n) for n in tensor.shape),
        dtype=dtype,
        strides=tuple(int(n) for n in tensor.stride()),
    )


def _result(
    value: Any, maker: str = "an input"
) -> TensorSpec | tuple[TensorSpec | None, ...] | None:
    if isinstance(value, torch.Tensor):
        if free_unbacked_symbols(value):
            raise _Stopped(f"the shape of what {maker} makes depends on the inputs' values")
        return spec_of(value)
    if isinstance(value, tuple | list):
        specs = tuple(_result(item, maker) for item in value)
        return tuple(spec if isinstance(spec, TensorSpec) else None for spec in specs)
    return None


def _argument(value: Any) -> Argument:
    if not isinstance(value, list | tuple):
        return _atom(value)
    return [
        [_atom(inner) for inner in item] if isinstance(item, list | tuple) else _atom(item)
        for item in value
    ]


def _atom(value: Any) -> Atom:
    if isinstance(value, torch.fx.Node):
        return Ref(ref=value.name)
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Untraceable(f"an argument of type {type(value).__name__} has no plain form")


def _fold_getitem(nodes: list[Node]) -> list[Node]:
    """Replace `operator.getitem` calls by references that carry the index."""
    taken = {
        node.name: Ref(ref=node.args[0].ref, index=int(str(node.args[1])))
        for node in nodes
        if node.kind == "call" and "getitem" in node.target and isinstance(node.args[0], Ref)
    }
    return [
        node.model_copy(
            update={
                "args": tuple(_redirect(a, taken) for a in node.args),
                "kwargs": {k: _redirect(v, taken) for k, v in node.kwargs.items()},
            }
        )
        for node in nodes
        if node.name not in taken
    ]


def _redirect(argument: Any, taken: dict[str, Ref]) -> Any:
    if isinstance(argument, Ref):
        return taken.get(argument.ref, argument)
    if isinstance(argument, list):
        return [_redirect(item, taken) for item in argument]
    return argument


def _finish(
    program: torch.export.ExportedProgram, module: torch.nn.Module, nodes: list[Node]
) -> OpGraph:
    taken = {
        fx.name: Ref(ref=fx.args[0].name, index=fx.args[1])
        for fx in program.graph.nodes
        if fx.op == "call_function" and "getitem" in str(fx.target)
    }
    outputs: list[Ref] = []
    mutations: dict[str, str] = {}
    for spec in program.graph_signature.output_specs:
        if is_none(spec.arg):
            continue
        if not isinstance(spec.arg, TensorArgument):
            raise Untraceable("forward returns something that is not a tensor")
        if spec.kind is OutputKind.USER_OUTPUT:
            outputs.append(taken.get(spec.arg.name, Ref(ref=spec.arg.name)))
        elif spec.kind is OutputKind.BUFFER_MUTATION and spec.target is not None:
            ref = taken.get(spec.arg.name, Ref(ref=spec.arg.name))
            mutations[spec.target] = ref.ref if ref.index is None else f"{ref.ref}[{ref.index}]"
        else:
            raise Untraceable(
                f"forward has a side effect: {spec.kind.name.lower().replace('_', ' ')}"
            )
    if not outputs:
        raise Untraceable("forward returns no tensor")
    try:
        returns = packing_of(program)
    except NotPacked as error:
        raise Untraceable(str(error)) from error
    return OpGraph(
        nodes=tuple(nodes), outputs=tuple(outputs), returns=returns, mutations=mutations,
        training=module.training,
    )  # fmt: skip
