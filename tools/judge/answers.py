"""Truths about an exam's cases: small ones are kept, large ones worked out again when asked for.

A truth takes three times what a float32 op returns, and an exam has three cases at least. An op
that returns gigabytes is judged all the same: one truth is in memory at a time, and each question
costs two runs of the reference, which at that size take little beside what is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tools.judge.compare import Expected
from tools.judge.oracle import Oracle, Truth
from tools.judge.room import CASES

Model = torch.nn.Module


class Answers:
    """What the oracle says, as one exam remembers it.

    Args:
        oracle: is asked.
        limit: bytes that the truths of an exam's ordinary cases may take. Where the first of them
            says that they would take more, none is kept.
    """

    def __init__(self, oracle: Oracle, limit: int) -> None:
        self._oracle = oracle
        self._limit = limit
        self.large: bool | None = None
        self._last: tuple[Recalled, Truth] | None = None

    def ask(self, model: Model, inputs: tuple[Any, ...]) -> "Truth | Recalled":
        """The truth for these weights and inputs, neither of which may change from then on.

        Raises:
            CannotRun: the reference raises on these inputs.
            torch.OutOfMemoryError: the device has no room for that now.
        """
        self.put_away()
        truth = self._oracle.answer(model, inputs)
        if self.large is None:
            self.large = CASES * truth.nbytes > self._limit
        if not self.large:
            return truth
        recalled = Recalled(self, model, inputs, truth.like, truth.absent, truth.finite)
        self._last = recalled, truth
        return recalled

    def recall(self, recalled: "Recalled") -> Truth:
        """The truth that `ask` spoke of, worked out again unless it was the last one.

        Raises:
            CannotRun, torch.OutOfMemoryError: as `ask`.
        """
        if self._last is None or self._last[0] is not recalled:
            self.put_away()
            self._last = recalled, self._oracle.answer(recalled.model, recalled.inputs)
        return self._last[1]

    def put_away(self) -> None:
        """Free the one that is remembered because it is large."""
        self._last = None


@dataclass(frozen=True, eq=False)
class Recalled:
    """A large truth, with the attributes of a `Truth`, worked out when they are asked for."""

    answers: Answers = field(repr=False)
    model: Model = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    like: tuple[torch.Tensor, ...]
    absent: tuple[int, ...]
    finite: int

    @property
    def nbytes(self) -> int:
        """As `Truth.nbytes`: nothing, while nobody asks."""
        return 0

    @property
    def expected(self) -> tuple[Expected, ...]:
        """As `Truth.expected`."""
        return self.answers.recall(self).expected

    @property
    def reference(self) -> Sequence[torch.Tensor]:
        """As `Truth.reference`."""
        return self.answers.recall(self).reference
