"""Whether what somebody hands over is what a reference was taken of, at an earlier time."""

import ast
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tools.capture.take import positional, take
from tools.reference import load

# Parts of a reference that follow from the values of examples and weights, and from where it lies.
OF_VALUES = ("get_inputs", "drawn_tensors", "STATE")


def is_taken_of(reference: Path, subject: Any, inputs: Any) -> bool:
    """Whether the reference computes what the subject does, at inputs of these shapes.

    Other values of inputs and weights make no difference: a notebook draws them anew.

    Raises:
        BadInput: the subject can't be taken, or the reference can't be loaded.
    """
    kept = reference.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        taken = take(subject, inputs, Path(folder)).reference.read_text(encoding="utf-8")
    examples = load(kept, str(reference)).inputs(0)
    alike = _forms(examples) == _forms(positional(subject, inputs))
    return alike and _computed(kept) == _computed(taken)


def _forms(arguments: tuple[Any, ...]) -> list[Any]:
    return [
        (one.shape, one.dtype, one.stride()) if isinstance(one, torch.Tensor) else one
        for one in pytree.tree_leaves(arguments)
    ]


def _computed(source: str) -> list[str]:
    """The statements that say what is computed."""
    return [
        ast.dump(one)
        for one in ast.parse(source).body
        if not isinstance(one, ast.Expr) and _named(one) not in OF_VALUES
    ]


def _named(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0])
    return getattr(statement, "name", "")
