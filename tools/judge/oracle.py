"""The truth: the reference run in float32 as it is, and in float64 for what it means.

Runs in the judge's process. Each question is answered by a fresh copy of the module, so that no
call leaves anything behind for the next.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from knowledge.errors import BadInput
from tools.judge.compare import Expected, expect
from tools.reference import LoadedReference, tensors_of
from tools.runner.memory import collapse

HIGHER = {
    torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}  # fmt: skip
NO_FLOAT64 = (
    "the reference cannot be run in float64 ({reason}), "
    "so its own float32 result stands for the truth"
)


class CannotRun(Exception):
    """The reference refuses these inputs; the case is of no use."""


@dataclass(frozen=True)
class Truth:
    """What is expected of every output, and the reference's own outputs."""

    expected: tuple[Expected, ...]
    reference: tuple[torch.Tensor, ...]


class Oracle:
    """Answers what the reference means.

    Args:
        loaded: the reference; `caution` is empty, or says that float64 is not to be had from it.
    """

    def __init__(self, loaded: LoadedReference) -> None:
        self.loaded = loaded
        self.caution = ""

    def run(self, model: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
        """The reference's outputs on a private copy of everything.

        Raises:
            CannotRun: it raises on these inputs.
        """
        try:
            returned = self.loaded.run(copy.deepcopy(model), own(inputs))
        except BadInput as error:
            raise CannotRun(error.what) from error
        return tuple(tensor.detach() for tensor in tensors_of(returned))

    def answer(self, model: torch.nn.Module, inputs: tuple[Any, ...]) -> Truth:
        """The truth for these weights and inputs.

        Raises:
            CannotRun: the reference raises on these inputs.
        """
        reference = self.run(model, inputs)
        higher = self._higher(model, inputs, reference)
        pairs = zip(higher or reference, reference, strict=True)
        return Truth(tuple(expect(truth, made) for truth, made in pairs), reference)

    def _higher(
        self, model: torch.nn.Module, inputs: tuple[Any, ...], reference: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, ...] | None:
        """The outputs in float64; None where the reference can't."""
        if self.caution:
            return None
        widened = pytree.tree_map_only(torch.Tensor, _widen, own(inputs))
        try:
            outputs = tensors_of(self.loaded.run(_double(model), widened))
        except BadInput as error:
            self.caution = NO_FLOAT64.format(reason=error.what.rstrip("."))
            return None
        for output, made in zip(outputs, reference, strict=True):
            if output.dtype != HIGHER.get(made.dtype, made.dtype) or output.shape != made.shape:
                self.caution = NO_FLOAT64.format(reason="it casts to a fixed dtype inside")
                return None
        return tuple(output.detach() for output in outputs)


def _double(model: torch.nn.Module) -> torch.nn.Module:
    """A copy in float64, plain tensor attributes included."""
    copied = copy.deepcopy(model).double()
    for module in copied.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):
                setattr(module, name, _widen(value))
    return copied


def _widen(tensor: torch.Tensor) -> torch.Tensor:
    wider = HIGHER.get(tensor.dtype)
    return tensor.to(wider) if wider is not None else tensor


def own(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs whose tensors nobody else holds, strides kept."""
    copied: tuple[Any, ...] = pytree.tree_map_only(torch.Tensor, _own_tensor, inputs)
    return copied


def _own_tensor(tensor: torch.Tensor) -> torch.Tensor:
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    collapse(made, made).copy_(collapse(tensor.detach(), made))
    return made
