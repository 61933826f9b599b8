"""A module, or a function, by its graph: what `torch.export` sees, printed as a class.

The tensors that it holds keep their names, so that weights go in and out by name.
"""

import copy
import operator
from pathlib import Path
from typing import Any

import torch
from torch.fx.graph import CodeGen

from tools.capture.examples import NotWritable, drawn
from tools.trace import silence, written_out

HEADER = """import contextlib
import pathlib

import torch
from torch import device, inf, nan
"""
# The constructor draws weights like those it was taken with; where their file is, it has them.
CONSTRUCTOR = """    def __init__(self):
        super().__init__()
        for name, (trained, tensor) in drawn_tensors().items():
            *places, last = name.split(".")
            holder = self
            for place in places:
                if place not in holder._modules:
                    holder.add_module(place, torch.nn.Module())
                holder = holder._modules[place]
            if trained:
                holder.register_parameter(last, torch.nn.Parameter(tensor))
            else:
                holder.register_buffer(last, tensor)
        self.train({training})
        with contextlib.suppress(ImportError, OSError):
            if pathlib.Path(STATE).is_file():
                from safetensors.torch import load_file

                self.load_state_dict(load_file(STATE), strict=False)
"""


class _Bare(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Any) -> Any:
        """Call it."""
        return self._function(*inputs)


def graph_text(
    subject: Any, inputs: tuple[Any, ...], state: Path
) -> tuple[str, dict[str, torch.Tensor]]:
    """The text of `class Model`, with what stands before it, and the tensors to be put in `state`.

    Raises:
        NotWritable: there is no graph, or its inputs or outputs are more than tensors.
    """
    module = subject if isinstance(subject, torch.nn.Module) else _Bare(subject)
    graph = _exported(module, inputs)
    tensors = _held(graph)
    forward = _forward(graph, len(inputs))
    rows = [
        f"        {name!r}: ({isinstance(one, torch.nn.Parameter)}, {drawn(one, name)}),"
        for name, one in tensors.items()
    ]
    constructor = CONSTRUCTOR.replace("{training}", str(module.training))
    text = "\n".join([
        HEADER, f"STATE = {str(state)!r}", "", "",
        "def drawn_tensors():", "    return {", *rows, "    }", "", "",
        "class Model(torch.nn.Module):", constructor, forward,
    ])  # fmt: skip
    # A tensor that two names share, or that is a piece of another, is written once for each.
    kept = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
    return text, kept


def _exported(module: torch.nn.Module, inputs: tuple[Any, ...]) -> torch.fx.GraphModule:
    """The graph as a module of its own."""
    said = ""
    for strict in (True, False):
        with silence(), torch.no_grad(), written_out():
            try:
                # Running forward may change what a module holds, and that is the user's own.
                apart = _apart(module)
                program = torch.export.export(apart, inputs, strict=strict)
                made: torch.fx.GraphModule = program.run_decompositions({}).module(
                    check_guards=False
                )
            except Exception as error:  # noqa: BLE001 - the exporter raises whatever it meets
                said = said or " ".join(str(error).split())[:200]
            else:
                return made
    raise NotWritable(f"torch.export can't make a graph of it ({said})")


def _apart(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module, without its own hooks: they are called around whatever replaces it."""
    if isinstance(module, _Bare):
        return module
    apart = copy.deepcopy(module)
    apart._forward_hooks.clear()
    apart._forward_pre_hooks.clear()
    return apart


def _held(module: torch.fx.GraphModule) -> dict[str, torch.Tensor]:
    """Every tensor that the graph reads of the module, by name."""
    found: dict[str, torch.Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(module)
            if not isinstance(value, torch.Tensor):
                raise NotWritable(f"its graph holds {node.target}, a {type(value).__qualname__}")
            found[str(node.target)] = value
        elif node.op == "call_module":
            raise NotWritable(f"its graph calls {node.target}, a module of its own")
    return found


def _forward(module: torch.fx.GraphModule, inputs: int) -> str:
    graph = module.graph
    codegen: Any = graph._codegen
    spec = codegen.pytree_info.out_spec
    places = [node for node in graph.nodes if node.op == "placeholder"]
    if len(places) != inputs:
        raise NotWritable("an input is a list, a dictionary, or something else that holds others")
    output = next(node for node in graph.nodes if node.op == "output")
    if spec.is_leaf():
        output.args = (output.args[0][0],)
    elif spec.type in (tuple, list) and all(child.is_leaf() for child in spec.children()):
        output.args = (spec.type(output.args[0]),)
    else:
        raise NotWritable("it returns something else than a tensor or a tuple of tensors")
    graph.set_codegen(CodeGen())
    text = graph.python_code("self").src
    start = text.index("def forward(")
    lines = text[start:].rstrip().splitlines()
    return "\n".join(f"    {line}" if line else "" for line in lines) + "\n"
