"""From a live module to an `OpGraph`: strict `torch.export`, made functional, nothing decomposed.

Composite operators (`softmax`, `layer_norm`, `cross_entropy_loss`, ...) stay whole, because that is
the level at which patterns recognise them. Runs inside the judge's process, where the user's own
reference is loaded.
"""

import logging
import warnings
from collections import namedtuple
from typing import Any, Literal

import torch
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from knowledge.opgraph import Argument, Atom, Node, OpGraph, Ref, TensorSpec

EMBEDDED_CONSTANT_ELEMENTS = 4096


class Untraceable(Exception):
    """The op has no static graph; the message is one sentence that says what stopped the tracer."""


def trace(module: torch.nn.Module, inputs: tuple[Any, ...]) -> OpGraph:
    """The functional graph of `module(*inputs)` at these shapes, in the mode the module is in.

    Args:
        module: the reference; it must live in an importable (registered) Python module.
        inputs: what forward is given; tensors may have any strides, other arguments are baked in.

    Raises:
        Untraceable: data-dependent control flow, unsupported calls, or a constant that is too
            large to embed.
    """
    torch.compiler.reset()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.export").setLevel(logging.CRITICAL)
        try:
            program = torch.export.export(module, inputs, strict=True).run_decompositions({})
        except Exception as error:
            raise Untraceable(_first_sentence(error)) from error
    return _convert(program, module)


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def _convert(program: torch.export.ExportedProgram, module: torch.nn.Module) -> OpGraph:
    entering = _entering_nodes(program)
    position = 0
    nodes: list[Node] = []
    for fx in program.graph.nodes:
        if fx.op == "placeholder":
            kind, target = entering[fx.name]
            if kind == "input":
                target, position = str(position), position + 1
                if not isinstance(fx.meta["val"], torch.Tensor):
                    continue
            nodes.append(
                Node(name=fx.name, kind=kind, target=target, result=_result(fx.meta["val"]),
                     data=_constant_data(program, target) if kind == "constant" else None)
            )  # fmt: skip
        elif fx.op == "call_function":
            nodes.append(
                Node(name=fx.name, kind="call", target=str(fx.target),
                     args=tuple(_argument(a) for a in fx.args),
                     kwargs={k: _argument(v) for k, v in fx.kwargs.items()},
                     result=_result(fx.meta.get("val")))
            )  # fmt: skip
        elif fx.op != "output":
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


def _constant_data(program: torch.export.ExportedProgram, target: str) -> list[float | int | bool]:
    value = program.constants[target]
    if not isinstance(value, torch.Tensor) or value.numel() > EMBEDDED_CONSTANT_ELEMENTS:
        raise Untraceable(f"constant {target} is too large to write into a source file")
    data: list[float | int | bool] = value.detach().reshape(-1).tolist()
    return data


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """Shape, dtype and strides of a tensor, real or fake."""
    return TensorSpec(
        shape=tuple(int(n) for n in tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        strides=tuple(int(n) for n in tensor.stride()),
    )


def _result(value: Any) -> TensorSpec | tuple[TensorSpec | None, ...] | None:
    if isinstance(value, torch.Tensor):
        if free_unbacked_symbols(value):
            raise Untraceable("the shape of an intermediate result depends on the inputs' values")
        return spec_of(value)
    if isinstance(value, tuple | list):
        specs = tuple(_result(item) for item in value)
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
    return OpGraph(
        nodes=tuple(nodes), outputs=tuple(outputs), returns=_packing(program), mutations=mutations,
        training=module.training,
    )  # fmt: skip


def _packing(program: torch.export.ExportedProgram) -> Literal["tensor", "tuple", "list"]:
    out_spec = program.call_spec.out_spec
    if out_spec is None or out_spec.is_leaf():
        return "tensor"
    if out_spec.type is list and all(child.is_leaf() for child in out_spec.children()):
        return "list"
    # A named tuple, which is what torch.topk and its like return, is a tuple to whoever unpacks it.
    tuples = (tuple, namedtuple)
    named = isinstance(out_spec.type, type) and issubclass(out_spec.type, tuple)
    if (named or out_spec.type in tuples) and all(child.is_leaf() for child in out_spec.children()):
        return "tuple"
    raise Untraceable("forward returns neither a tensor nor a plain tuple or list of tensors")
