"""A definition and one workload, written out as a reference in the field's convention."""

import ast
from collections.abc import Mapping

from tools.definition import Definition, Tensor
from tools.workload import FileGiven, Given, RandomGiven, ScalarGiven, Workload

# Integers are drawn from these, as the schema's own tools do; indices should come from a file.
RANGES = {"int8": (-128, 128), "uint8": (0, 256)}
OTHER_INTEGERS = (-1024, 1024)


def source_of(definition: Definition, workload: Workload, sizes: Mapping[str, int]) -> str:
    """The reference's text: the definition's own code, and `Model` around its `run`.

    Args:
        definition: the op.
        workload: what inputs are; those that it leaves out are random.
        sizes: of every axis.
    """
    names = list(definition.inputs)
    inputs = [
        _drawn(tensor, workload.given.get(name, RandomGiven(type="random")), sizes)
        for name, tensor in definition.inputs.items()
    ]
    from_file = any(isinstance(given, FileGiven) for given in workload.given.values())
    call = f"run({', '.join(names)})"
    before, after = _imports(definition.reference)
    returned = [f"return {call}"]
    if _returns_a_dict(definition.reference):
        outputs = ", ".join(f'made["{name}"]' for name in definition.outputs)
        returned = [f"made = {call}", f"return ({outputs},)"]
    return "\n".join([
        _docstring(definition), "",
        *before, definition.reference.strip("\n"), *after, "", "",
        "class Model(torch.nn.Module):",
        f"    def forward(self, {', '.join(names)}):",
        *(f"        {line}" for line in returned), "", "",
        "def get_inputs():",
        *(["    from safetensors.torch import load_file", ""] if from_file else []),
        "    return [",
        *(f"        {text}," for text in inputs),
        "    ]", "", "",
        "def get_init_inputs():",
        "    return []", "",
    ])  # fmt: skip


def _docstring(definition: Definition) -> str:
    text = f"{definition.name}, a definition in the flashinfer-bench schema, as a reference."
    if definition.description:
        text += f"\n\n{definition.description.strip()}\n"
    escaped = text.replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{escaped}"""'


def _imports(reference: str) -> tuple[list[str], list[str]]:
    """`import torch`, before or after the definition's code, where that doesn't have it itself."""
    body = ast.parse(reference).body
    if any(
        alias.name == "torch" and alias.asname is None
        for node in body
        if isinstance(node, ast.Import)
        for alias in node.names
    ):
        return [], []
    # An import from __future__ must be the first in its file.
    future = any(isinstance(one, ast.ImportFrom) and one.module == "__future__" for one in body)
    return ([], ["", "import torch"]) if future else (["import torch", ""], [])


def _returns_a_dict(reference: str) -> bool:
    """Whether `run` returns its outputs by name."""
    run = next(
        node
        for node in ast.parse(reference).body
        if isinstance(node, ast.FunctionDef) and node.name == "run"
    )
    returns = [node for node in ast.walk(run) if isinstance(node, ast.Return)]
    return any(isinstance(node.value, ast.Dict) for node in returns)


def _drawn(tensor: Tensor, given: Given, sizes: Mapping[str, int]) -> str:
    """An expression for one input."""
    match given:
        case ScalarGiven(value=value):
            return repr(float(value) if "float" in tensor.dtype else value)
        case FileGiven():
            return f"load_file({given.path!r})[{given.tensor_key!r}]"
        case RandomGiven():
            shape = [sizes[axis] for axis in tensor.shape or ()]
            made = _random(shape, tensor.dtype)
            return made if tensor.shape is not None else f"({made}).item()"


def _random(shape: list[int], dtype: str) -> str:
    if dtype == "bool":
        return f"torch.rand({shape}) < 0.5"
    if "int" in dtype:
        low, high = RANGES.get(dtype, OTHER_INTEGERS)
        return f"torch.randint({low}, {high}, {shape}, dtype=torch.{dtype})"
    return f"torch.randn({shape}, dtype=torch.{dtype})"
