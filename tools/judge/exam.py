"""An exam: the correctness cases of one task under one set of secret seeds, with their answers.

Written once and put to every candidate of a session, which is safe because a candidate leaves its
jail with nothing; a confirmation gets an exam of its own.
"""

import copy
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tools.judge.compare import Expected, Match, compare, relative_errors, typical_error
from tools.judge.inputs import (
    CHANGES,
    Perturbation,
    changed,
    generator,
    has_floats,
    redraw_weights,
    secret_seed,
)
from tools.judge.oracle import CannotRun, Truth, own
from tools.judge.subject import Subject
from tools.verdict import CaseResult

ORDINARY = 3
MEMORY_LIMIT = 1 << 31
# A changed input is of use only while most of what comes out is still a number.
FINITE_SHARE = 0.5


@dataclass(frozen=True)
class Weights:
    """One state of the module: the seed it was constructed under, and its tensors by name."""

    seed: int
    model: torch.nn.Module

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers, those that are not saved included."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}


@dataclass(frozen=True)
class Case:
    """Inputs and the truth about them."""

    name: str
    weights: Weights
    inputs: tuple[Any, ...]
    expected: tuple[Expected, ...]


class Exam:
    """All cases.

    `first` are the weights that most of them use, `typical` is the reference's usual relative error
    for each output.
    """

    def __init__(self, subject: Subject, seconds: float) -> None:
        self.subject = subject
        seed = secret_seed()
        self.first = Weights(seed, subject.loaded.build(seed))
        self.cases: list[Case] = []
        self._chance = generator()
        self.few_changed: Case | None = None
        self._write(seconds)

    def _write(self, seconds: float) -> None:
        began = time.monotonic()
        samples: list[list[torch.Tensor]] = []
        held = 0
        fresh = self._fresh_weights()
        for number in range(ORDINARY):
            inputs = self.subject.loaded.inputs(secret_seed())
            weights = fresh if number == 2 and fresh is not None else self.first
            truth = self.subject.oracle.answer(weights.model, inputs)
            samples.append([relative_errors(expected) for expected in truth.expected])
            name = "fresh weights" if weights is fresh else f"ordinary {number + 1}"
            held += self._add(name, weights, inputs, truth)
        self.typical = [typical_error(list(outputs)) for outputs in zip(*samples, strict=True)]
        each = (time.monotonic() - began) / ORDINARY
        self.few_changed = self._few_changed(self.cases[0]) if 2 * each < seconds else None
        for name, change in CHANGES:
            over = time.monotonic() - began + each > seconds
            if over or held > MEMORY_LIMIT:
                return
            inputs = self.subject.loaded.inputs(secret_seed())
            if not has_floats(inputs):
                return
            inputs = changed(inputs, change, self._chance)
            try:
                truth = self.subject.oracle.answer(self.first.model, inputs)
            except CannotRun:
                continue
            if _finite_share(truth) >= FINITE_SHARE:
                held += self._add(name, self.first, inputs, truth)

    def _few_changed(self, case: Case) -> Case | None:
        """The same inputs but for a few elements; None where the reference refuses them."""
        inputs = own(case.inputs)
        tensors: list[torch.Tensor] = [
            leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)
        ]
        Perturbation(tensors, sum(tensor.numel() for tensor in self.subject.outputs)).apply()
        try:
            truth = self.subject.oracle.answer(case.weights.model, inputs)
        except CannotRun:
            return None
        return Case("a few elements changed", case.weights, inputs, truth.expected)

    def _add(self, name: str, weights: Weights, inputs: tuple[Any, ...], truth: Truth) -> int:
        self.cases.append(Case(name, weights, inputs, truth.expected))
        return sum(expected.truth.nbytes for expected in truth.expected)

    def _fresh_weights(self) -> Weights | None:
        if not any(True for _ in self.first.model.parameters()):
            return None
        model = copy.deepcopy(self.first.model)
        redraw_weights(model, self._chance)
        return Weights(self.first.seed, model)

    @cached_property
    def rebuilt(self) -> Case:
        """A case under another construction seed, for weights that cannot be given by name."""
        seed = secret_seed()
        weights = Weights(seed, self.subject.loaded.build(seed))
        inputs = self.subject.loaded.inputs(secret_seed())
        truth = self.subject.oracle.answer(weights.model, inputs)
        return Case("rebuilt weights", weights, inputs, truth.expected)

    def mark(
        self, outputs: tuple[torch.Tensor, ...], expected: tuple[Expected, ...], name: str
    ) -> tuple[CaseResult, str]:
        """Compare all outputs of one call; the result, and what to tell of a miss."""
        task = self.subject.task
        matches = [
            compare(output, truth, typical, task.tolerance, task.precision)
            for output, truth, typical in zip(outputs, expected, self.typical, strict=True)
        ]
        worst = max((match.worst for match in matches), default=0.0)
        result = CaseResult(name=name, passed=all(m.passed for m in matches), worst=worst)
        return result, _told(matches)


def _told(matches: list[Match]) -> str:
    several = len(matches) > 1
    return "; ".join(
        f"output {number}: {match.detail}" if several else match.detail
        for number, match in enumerate(matches)
        if not match.passed
    )


def _finite_share(truth: Truth) -> float:
    total = sum(tensor.numel() for tensor in truth.reference)
    finite = sum(
        int(tensor.isfinite().sum()) if tensor.dtype.is_floating_point else tensor.numel()
        for tensor in truth.reference
    )
    return finite / max(1, total)
