"""A case of an exam: inputs, the weights they meet, and the truth about what should come out."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from tools.judge.answers import Recalled
from tools.judge.compare import Expected, relative_errors, typical_error
from tools.judge.oracle import Truth
from tools.reference import named_tensors, tensors_of
from tools.runner.handover import Place, spread

Kind = Literal["values", "shape", "layout", "special"]


@dataclass(frozen=True)
class Weights:
    """One state of the module: the seed it was constructed under, and its tensors by name."""

    seed: int
    model: torch.nn.Module

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers, those that are not saved included."""
        return named_tensors(self.model)


@dataclass(frozen=True)
class Case:
    """Inputs and the truth about them.

    `kind` says what is out of the ordinary: nothing but values; another shape, which a kernel may
    refuse by raising; another layout in memory, likewise; NaN or Inf. Where not `binding`, a miss
    is told and rejects nobody. `slack` widens the tolerance. `stretched`: values that the op's
    author didn't draw, for which it may be ill conditioned.
    """

    name: str
    weights: Weights
    inputs: tuple[Any, ...]
    truth: Truth | Recalled
    kind: Kind = "values"
    binding: bool = True
    slack: float = 1.0
    stretched: bool = False

    @property
    def expected(self) -> tuple[Expected, ...]:
        """What every output is held against."""
        return self.truth.expected

    @cached_property
    def typical(self) -> tuple[float, ...]:
        """The reference's usual relative error on these very inputs, for each output.

        Values that are ill conditioned for the reference are so for every honest kernel.
        """
        return typical_errors(self.expected)

    @property
    def about(self) -> str:
        """What is out of the ordinary, in words that leave the very distribution secret."""
        if "weights" in self.name:
            return "weights drawn anew"
        if self.stretched:
            return "values larger, smaller, more alike or of another sign than get_inputs() draws"
        return {
            "shape": "inputs of another shape",
            "layout": "inputs that lie otherwise in memory",
            "special": "inputs with NaN or Inf",
            "values": "values as get_inputs() draws them",
        }[self.kind]

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the input tensors."""
        return tuple(tuple(tensor.shape) for tensor in tensors_of(self.inputs))

    @cached_property
    def like(self) -> tuple[Place, ...]:
        """The outputs' shapes and dtypes, without their values, and None where that is returned."""
        return tuple(spread(self.truth.like, self.truth.absent))


def typical_errors(expected: tuple[Expected, ...]) -> tuple[float, ...]:
    """The reference's usual relative error, for each output."""
    return tuple(typical_error([relative_errors(truth)]) for truth in expected)
