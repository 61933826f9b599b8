"""Takes a function or module: by its source if it can be, else by its graph."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from knowledge.errors import BadInput
from tools.capture.examples import NotWritable, drawn
from tools.capture.graphed import graph_text
from tools.capture.written import function_text

FUNCTION = "function"
INSTEAD = (
    "Write it as a file with class Model, get_inputs() and get_init_inputs(), and give its path."
)


@dataclass(frozen=True)
class Taken:
    """A subject as a reference file; `how` says by what it was taken, as a clause."""

    name: str
    reference: Path
    how: str


def take(subject: Any, inputs: Any, folder: Path) -> Taken:
    """Write `reference.py`, and `state.safetensors` where there are weights, into a folder.

    Args:
        subject: a function, or an instance of a module in the mode that it is used in.
        inputs: example arguments: a tensor, a sequence of arguments, or a mapping by name.
        folder: of the files; made if it is missing.

    Raises:
        BadInput: it can't be taken; the line says why, and what to do instead.
    """
    name = name_of(subject)
    if not callable(subject) or isinstance(subject, type):
        mend = "Give a function, or an instance of a torch.nn.Module."
        raise BadInput(name, "is not a function or a module instance.", mend)
    arguments = positional(subject, inputs)
    if not any(isinstance(one, torch.Tensor) for one in torch.utils._pytree.tree_leaves(arguments)):
        raise BadInput("inputs", "hold no tensor.", "Give the tensors that it is called with.")
    state = folder / "state.safetensors"
    try:
        body, tensors, how = _body(subject, arguments, state)
        given = ",\n        ".join(drawn(one, f"input {at}") for at, one in enumerate(arguments))
    except NotWritable as error:
        raise BadInput(name, f"can't be taken as it is: {error}.", INSTEAD) from error
    source = "\n".join([
        f'"""{name}, taken by {how}."""', "", body, "",
        f"def get_inputs():\n    return [\n        {given},\n    ]", "", "",
        "def get_init_inputs():\n    return []", "",
    ])  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    if tensors:
        save_file(tensors, state)
        # A runner is another user, who reads the weights that it starts with.
        state.chmod(0o644)
    reference = folder / "reference.py"
    reference.write_text(source, encoding="utf-8")
    return Taken(name, reference, how)


def _body(
    subject: Any, arguments: tuple[Any, ...], state: Path
) -> tuple[str, dict[str, torch.Tensor], str]:
    if not isinstance(subject, torch.nn.Module):
        names = [f"x{at}" for at in range(len(arguments))]
        try:
            text = function_text(subject, FUNCTION)
        except NotWritable:
            pass
        else:
            call = f"return {FUNCTION}({', '.join(names)})"
            signature = ", ".join(["self", *names])
            model = (
                f"class Model(torch.nn.Module):\n    def forward({signature}):\n        {call}\n"
            )
            return f"{text}\n\n{model}", {}, "its own source"
    text, tensors = graph_text(subject, arguments, state)
    return text, tensors, "its graph, as torch.export reads it at these shapes"


def name_of(subject: Any) -> str:
    """What to call it: the name of a function or of a module's class, as one word."""
    name = getattr(subject, "__name__", "") or type(subject).__name__
    return "lambda" if name == "<lambda>" else str(name)


def positional(subject: Any, inputs: Any) -> tuple[Any, ...]:
    """Example inputs as the positional arguments of a call.

    Raises:
        BadInput: they don't fit the signature.
    """
    if isinstance(inputs, torch.Tensor):
        return (inputs,)
    if isinstance(inputs, Mapping):
        target = subject.forward if isinstance(subject, torch.nn.Module) else subject
        try:
            bound = inspect.signature(target).bind(**inputs)
        except (TypeError, ValueError) as error:
            raise BadInput("inputs", f"don't fit {name_of(subject)}: {error}.") from error
        bound.apply_defaults()
        if bound.kwargs:
            raise BadInput("inputs", "name keyword-only arguments, which can't be taken.")
        return bound.args
    if not isinstance(inputs, list | tuple):
        mend = "Give a tensor, a list of arguments, or a mapping by name."
        raise BadInput("inputs", f"are a {type(inputs).__qualname__}.", mend)
    return tuple(inputs)
