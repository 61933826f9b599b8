"""A kernel in flashinfer-bench's schema: a Definition, its Workloads, and the kernel as a Solution.

There, an op is a function of tensors, so a module's weights are arguments, after those of forward.
The reference is run, to see what its inputs, weights and outputs are.
"""

import inspect
import json
import keyword
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from knowledge.errors import BadInput
from tools.axes import axes_of, columns_of
from tools.export import Shipment, kernel_text
from tools.folders import written_whole
from tools.reference import LoadedReference, load, named_tensors, tensors_of
from tools.runner.handover import absent_from

SCHEMA_DTYPES = ("float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "bool")
SCALAR_DTYPES = {bool: "bool", int: "int64", float: "float32"}
SEED = 0
# Values of so many elements tell a normal distribution from another.
TELLING = 1000
NEAR = 0.1

CALL = '''


import functools as _functools

import torch as _torch


@_functools.cache
def _model(device):
    """A module on this device, and where its weights are kept."""
    _torch.manual_seed({seed})
    model = {construct}.to(device)
    for part in model.modules():
        for key, value in list(vars(part).items()):
            if isinstance(value, _torch.Tensor):
                vars(part)[key] = value.to(device)
    spots = []
    for path, _, key in (name.rpartition(".") for name in {state!r}):
        owner = model.get_submodule(path)
        spots.append((owner._parameters if key in owner._parameters else owner._buffers, key))
    return model, spots


def run({arguments}):
    _made, _spots = _model({device}.device)
    for (_holder, _key), _tensor in zip(_spots, [{weights}]):
        _holder[_key] = _tensor
    with _torch.no_grad():
        return {returned}
'''
# A Definition names tensors alone: where the op returns None beside them, it is left out.
PRESENT = """


def _present(returned):
    kept = [one for one in _torch.utils._pytree.tree_leaves(returned) if one is not None]
    return kept[0] if len(kept) == 1 else tuple(kept)
"""


@dataclass(frozen=True)
class Argument:
    """One argument of `run`: its name there, its value, and the weight that it is, if it is one."""

    name: str
    value: torch.Tensor | bool | int | float
    weight: str = ""


def write_flashinfer(shipment: Shipment, parent: Path, op_type: str) -> Path:
    """Write a data set of one definition into a new folder.

    Args:
        shipment: the kernel.
        parent: folder in which it is made.
        op_type: the schema's category, the name of the op's heaviest call for instance.

    Returns:
        The new folder, the root of a `TraceSet`.

    Raises:
        BadInput: the op has no form in that schema, or the folder is there already.
    """
    name = _slug(shipment.subject)
    where = f"{shipment.subject}: --flashinfer"
    if shipment.updates:
        raise BadInput(
            where, f"the op changes {shipment.updates[0]}, and a Definition has no form for that."
        )
    if shipment.in_place:
        raise BadInput(where, "the op writes to its inputs, and a Definition has no form for that.")
    op_type = _slug(op_type)
    loaded = load(shipment.reference, shipment.origin or shipment.subject)
    model, inputs = loaded.build(SEED), loaded.inputs(SEED)
    arguments = _arguments(loaded, model, inputs, where)
    columns = columns_of(shipment.signatures, loaded, model, inputs)
    fixed = {
        i: tuple(a.value.shape)
        for i, a in enumerate(arguments)
        if isinstance(a.value, torch.Tensor) and a.weight
    }
    axes, shapes = axes_of(columns, [isinstance(a.value, torch.Tensor) for a in arguments], fixed)
    returned = loaded.run(model, inputs, SEED)
    outputs = tensors_of(returned)
    absent = bool(absent_from(returned))
    given = {a.name: _spec(a, shapes[: len(arguments)][i], where) for i, a in enumerate(arguments)}
    out_names = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
    definition = {
        "name": name,
        "op_type": op_type,
        "axes": axes,
        "inputs": given,
        "outputs": {
            out: {"shape": shapes[len(arguments) + i], "dtype": _dtype(outputs[i], where)}
            for i, out in enumerate(out_names)
        },
        "reference": shipment.reference + _call("Model", loaded, arguments, absent),
        "tags": ["source:kernelwright"],
        "description": f"{shipment.subject}, as a function of its inputs and weights",
    }
    solution = _solution(shipment, name, loaded, arguments, absent)
    workload, tensors = _workload(name, op_type, axes, arguments, shapes)
    files: dict[str, str | bytes] = {
        f"definitions/{op_type}/{name}.json": _json(definition),
        f"solutions/kernelwright/{op_type}/{name}/{solution['name']}.json": _json(solution),
        f"workloads/{op_type}/{name}.jsonl": json.dumps(
            {"definition": name, "workload": workload, "solution": None, "evaluation": None}
        ) + "\n",
    }  # fmt: skip
    if tensors:
        files[f"blob/workloads/{op_type}/{name}/{workload['uuid']}.safetensors"] = save(tensors)
    return written_whole(parent / f"{name}-flashinfer", files)


def _is_name(text: str) -> bool:
    """Whether a parameter of a function can be called that."""
    return text.isidentifier() and not keyword.iskeyword(text)


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower(), flags=re.ASCII).strip("_") or "op"


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _arguments(
    loaded: LoadedReference, model: torch.nn.Module, inputs: Sequence[Any], where: str
) -> list[Argument]:
    """Forward's inputs, by the names that forward has for them, then the weights."""
    parameters = [*inspect.signature(loaded.module.Model.forward).parameters.values()][1:]
    own = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    found = []
    for place, value in enumerate(inputs):
        if not isinstance(value, torch.Tensor) and type(value) not in SCALAR_DTYPES:
            raise BadInput(
                where,
                f"an input is a {type(value).__name__}; a Definition has tensors and numbers.",
            )
        found.append(Argument(own[place] if place < len(own) else f"input_{place}", value))
    for path, tensor in named_tensors(model).items():
        slug = _slug(path)
        found.append(Argument(slug if _is_name(slug) else f"weight_{slug}", tensor.detach(), path))
    if len({one.name for one in found}) < len(found):
        found = [Argument(f"{a.name}_{i}", a.value, a.weight) for i, a in enumerate(found)]
    return found


def _dtype(tensor: torch.Tensor, where: str) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in SCHEMA_DTYPES:
        raise BadInput(
            where, f"{dtype} is no dtype of that schema.", f"It has {', '.join(SCHEMA_DTYPES)}."
        )
    return dtype


def _spec(argument: Argument, shape: list[str] | None, where: str) -> dict[str, Any]:
    value = argument.value
    if isinstance(value, torch.Tensor):
        return {"shape": shape, "dtype": _dtype(value, where)}
    return {"shape": None, "dtype": SCALAR_DTYPES[type(value)]}


def _workload(
    name: str,
    op_type: str,
    axes: dict[str, Any],
    arguments: Sequence[Argument],
    shapes: Sequence[Any],
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The task's own workload; values that random ones can't stand in for go with it."""
    sizes = {
        axis: size
        for argument, shape in zip(arguments, shapes, strict=False)
        if isinstance(argument.value, torch.Tensor)
        for axis, size in zip(shape, argument.value.shape, strict=True)
        if axes[axis]["type"] == "var"
    }
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"kernelwright/{name}/{sorted(sizes.items())}"))
    path = f"blob/workloads/{op_type}/{name}/{identity}.safetensors"
    inputs: dict[str, Any] = {}
    kept: dict[str, torch.Tensor] = {}
    for argument in arguments:
        value = argument.value
        if not isinstance(value, torch.Tensor):
            inputs[argument.name] = {"type": "scalar", "value": value}
        elif _is_normal(value):
            inputs[argument.name] = {"type": "random"}
        else:
            kept[argument.name] = value.contiguous().clone()
            inputs[argument.name] = {
                "type": "safetensors", "path": path, "tensor_key": argument.name,
            }  # fmt: skip
    return {"axes": sizes, "inputs": inputs, "uuid": identity}, kept


def _is_normal(tensor: torch.Tensor) -> bool:
    """Whether the schema's random values, which are normal, may stand for these."""
    if not tensor.is_floating_point() or tensor.numel() < TELLING:
        return False
    values = tensor.double()
    inside = (values.abs() < 1).double().mean().item()
    # 68.3% of a normal distribution lie within one deviation, 57.7% of an even one.
    return (
        abs(values.mean().item()) < NEAR
        and abs(values.std().item() - 1) < NEAR
        and abs(inside - 0.683) < NEAR / 2
    )


def _call(model: str, loaded: LoadedReference, arguments: Sequence[Argument], absent: bool) -> str:
    """The end of a module that has a class: `run`, which calls it; `absent`: None is left out."""
    given: Any = getattr(loaded.module, "get_init_inputs", list)()
    positional, named = loaded.init_arguments(SEED)
    if isinstance(given, dict):
        construct = f"{model}(**get_init_inputs())"
    elif named:
        construct = f"(lambda given: {model}(*given[0], **given[1]))(get_init_inputs())"
    else:
        construct = f"{model}(*get_init_inputs())" if positional else f"{model}()"
    inputs = [one.name for one in arguments if not one.weight]
    weights = [one for one in arguments if one.weight]
    first = next(one.name for one in arguments if isinstance(one.value, torch.Tensor))
    called = f"_made({', '.join(inputs)})"
    return CALL.format(
        seed=SEED,
        construct=construct,
        state=tuple(one.weight for one in weights),
        arguments=", ".join(one.name for one in arguments),
        device=first,
        weights=", ".join(one.name for one in weights),
        returned=f"_present({called})" if absent else called,
    ) + (PRESENT if absent else "")


def _solution(
    shipment: Shipment,
    name: str,
    loaded: LoadedReference,
    arguments: Sequence[Argument],
    absent: bool,
) -> dict[str, Any]:
    digest = shipment.candidate.digest[:10]
    on_gpu = shipment.candidate.backend in ("triton", "cuda")
    call = _call("ModelNew", loaded, arguments, absent)
    main = (
        '"""Calls the drop-in in kernel.py with these weights."""\n\nfrom .kernel import ModelNew'
    )
    if "get_init_inputs" in call:
        main += "\nfrom .reference import get_init_inputs"
    return {
        "name": f"{name}_kernelwright_{digest}",
        "definition": name,
        "author": "kernelwright",
        "spec": {
            # Python that brings a compiler of its own, even where it holds C++ or CUDA C++.
            "language": "triton" if shipment.candidate.backend == "triton" else "python",
            "target_hardware": [shipment.device or "cuda", "cuda"] if on_gpu else ["cpu"],
            "entry_point": "main.py::run",
            "dependencies": [],
            "destination_passing_style": False,
        },
        "sources": [
            {"path": "main.py", "content": main + call},
            {"path": "kernel.py", "content": kernel_text(shipment)},
            {"path": "reference.py", "content": shipment.reference},
        ],
        "description": f"Kernelwright, SHA-256 {shipment.candidate.digest}",
    }
