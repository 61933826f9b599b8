"""An exam: the correctness cases of one task under one set of secret seeds, with their answers.

Written once and put to every candidate of a session, which is safe because a candidate leaves its
jail with nothing; a confirmation gets an exam of its own.
"""

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from tools.judge.compare import (
    EXACT,
    Expected,
    Match,
    Undecided,
    compare,
    luckless,
    relative_errors,
    typical_error,
    undecided_among,
    usual_size,
)
from tools.judge.inputs import (
    DISTRIBUTIONS,
    Distribution,
    Perturbation,
    changed,
    generator,
    has_floats,
    redraw_weights,
    secret_seed,
)
from tools.judge.oracle import CannotRun, Truth, own
from tools.judge.subject import Subject
from tools.judge.variants import (
    Which,
    offset,
    other_sizes,
    same_layout,
    turned,
    with_special,
)
from tools.reference import named_tensors, tensors_of
from tools.task import Tolerance
from tools.verdict import CaseResult

ORDINARY = 3
MEMORY_LIMIT = 1 << 31
DEVICE_MEMORY_PART = 8
# An exam never has more cases than this.
MOST_CASES = 20
PLENTY = 3
# A changed input is of use only while most of what comes out is still a number.
MOSTLY = 0.5
# However much slack a case has, an element may never be off by more than this part of its scale.
WIDEST = 2.0**-6
# How much longer the slack of a case may make the yardstick.
MOST_SLACK = 16.0
# An error of more than this part of what is allowed, on stretched values, is asked whether it is
# the kernel's or the op's: it may be a miss by the next seed.
CLOSE = 0.5

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
    truth: Truth
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
        return _typical(self.expected)

    @property
    def about(self) -> str:
        """What is out of the ordinary, in words that leave the very distribution secret."""
        if "weights" in self.name:
            return "weights drawn anew"
        if self.stretched:
            return "values larger, smaller or more alike than get_inputs() draws"
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
    def like(self) -> tuple[torch.Tensor, ...]:
        """The outputs' shapes and dtypes, without their values."""
        return tuple(tensor.to("meta") for tensor in self.truth.reference)


class Exam:
    """All cases.

    `first` are the weights that most of them use, `typical` is the reference's usual relative error
    for each output.

    Args:
        subject: the reference.
        seconds: for writing it; what does not fit is left out.
        unhurried: called as soon as it is plain that there is time for all cases, even if they take
            much longer from then on.
    """

    def __init__(
        self, subject: Subject, seconds: float, unhurried: Callable[[], None] = lambda: None
    ) -> None:
        self.subject = subject
        seed = secret_seed()
        self.first = Weights(seed, subject.loaded.build(seed))
        self.cases: list[Case] = []
        self._chance = generator()
        self._conditions: dict[str, tuple[Expected, ...]] = {}
        self._open: dict[str, tuple[Undecided | None, ...]] = {}
        self._renewed: dict[frozenset[str], Case | None] = {}
        self.few_changed: Case | None = None
        self._write(seconds, unhurried)

    def _write(self, seconds: float, unhurried: Callable[[], None]) -> None:
        began = time.monotonic()
        samples: list[list[torch.Tensor]] = []
        fresh = self._fresh_weights()
        for number in range(ORDINARY):
            inputs = self._draw()
            weights = fresh if number == 2 and fresh is not None else self.first
            truth = self.subject.oracle.answer(weights.model, inputs)
            samples.append([relative_errors(expected) for expected in truth.expected])
            name = "fresh weights" if weights is fresh else f"ordinary {number + 1}"
            self.cases.append(Case(name, weights, inputs, truth))
        self.typical = [typical_error(list(outputs)) for outputs in zip(*samples, strict=True)]
        each = (time.monotonic() - began) / ORDINARY
        if PLENTY * MOST_CASES * each < seconds:
            unhurried()
        self.few_changed = self._few_changed(self.cases[0]) if 2 * each < seconds else None
        for propose in self._proposals():
            held = sum(expected.truth.nbytes for case in self.cases for expected in case.expected)
            if time.monotonic() - began + each > seconds or held > self._memory_limit:
                return
            case = propose()
            if case is not None:
                self.cases.append(case)

    @property
    def _memory_limit(self) -> int:
        """Bytes of truths that may be kept; a large op's ordinary cases alone may take more."""
        device = self.subject.device
        if device.type == "cpu":
            return MEMORY_LIMIT
        return int(torch.cuda.get_device_properties(device).total_memory) // DEVICE_MEMORY_PART

    def _proposals(self) -> Iterator[Callable[[], Case | None]]:
        """Further cases, in the order of what they find: a slow reference gets the first only."""
        first, second, third, *others = DISTRIBUTIONS
        yield lambda: self._changed(first)
        yield lambda: self._resized("another batch size", 0, "fewer")
        yield lambda: self._relaid("not contiguous", turned)
        yield lambda: self._changed(second)
        yield lambda: self._special("a NaN in the input", math.nan)
        yield lambda: self._resized("a batch of one", 0, "one")
        yield lambda: self._resized("a batch of one more", 0, "beside")
        yield lambda: self._relaid("at an odd address", offset)
        yield lambda: self._changed(third)
        yield lambda: self._special("an Inf in the input", math.inf)
        yield lambda: self._resized("another second dimension", 1, "beside")
        for distribution in others:
            yield functools.partial(self._changed, distribution)

    def _draw(self) -> tuple[Any, ...]:
        return self.subject.loaded.inputs(secret_seed())

    def _answer(self, inputs: tuple[Any, ...]) -> Truth | None:
        try:
            return self.subject.oracle.answer(self.first.model, inputs)
        except CannotRun:
            return None

    def _changed(self, distribution: Distribution) -> Case | None:
        inputs = self._draw()
        if not has_floats(inputs) or (distribution.ties and self._chooses):
            return None
        inputs = changed(inputs, distribution.change, self._chance)
        truth = self._answer(inputs)
        if truth is None or _finite_share(truth) < distribution.finite_share:
            return None
        slack = distribution.slack
        return Case(distribution.name, self.first, inputs, truth, slack=slack, stretched=True)

    def _resized(self, name: str, dim: int, which: Which) -> Case | None:
        """A case of another shape, if the op allows one."""
        if dim and max((leaf.dim() for leaf in tensors_of(self.cases[0].inputs)), default=0) < 3:
            return None
        for inputs in other_sizes(self._draw, dim, which):
            truth = self._answer(inputs)
            if truth is not None and _finite_share(truth) >= MOSTLY:
                return Case(name, self.first, inputs, truth, "shape")
        return None

    @property
    def _chooses(self) -> bool:
        """Whether an output counts or numbers things: among equals every choice is right."""
        return any(
            not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)
            for tensor in self.subject.outputs
        )

    def _relaid(
        self, name: str, relay: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    ) -> Case | None:
        """An ordinary case with its inputs laid out otherwise, where the reference takes them."""
        ordinary = self.cases[1]
        inputs = relay(ordinary.inputs)
        if self.subject.private or same_layout(tensors_of(inputs), tensors_of(ordinary.inputs)):
            return None
        try:
            outputs = self.subject.oracle.run(self.first.model, inputs)
        except CannotRun:
            return None
        if [t.shape for t in outputs] != [t.shape for t in ordinary.truth.reference]:
            return None
        if not self.mark(outputs, ordinary)[0].passed:
            return None
        return Case(name, self.first, inputs, ordinary.truth, "layout")

    def _special(self, name: str, value: float) -> Case | None:
        """A few elements that are no numbers.

        What becomes of a NaN binds only where every operation of the reference is arithmetic that
        carries it along: a comparison may go either way.
        """
        inputs = with_special(self._draw(), value, self._chance)
        if inputs is None:
            return None
        truth = self._answer(inputs)
        if truth is None:
            return None
        binding = math.isnan(value) and self.subject.oracle.carries_nan(self.first.model, inputs)
        return Case(name, self.first, inputs, truth, "special", binding)

    def _few_changed(self, case: Case) -> Case | None:
        """The same inputs but for a few elements; None where the reference refuses them."""
        inputs = own(case.inputs)
        elements = sum(tensor.numel() for tensor in self.subject.outputs)
        Perturbation(tensors_of(inputs), elements).touch()
        truth = self._answer(inputs)
        if truth is None:
            return None
        return Case("a few elements changed", case.weights, inputs, truth)

    def _fresh_weights(self) -> Weights | None:
        if not any(True for _ in self.first.model.parameters()):
            return None
        model = copy.deepcopy(self.first.model)
        redraw_weights(model, self._chance)
        return Weights(self.first.seed, model)

    def renewed_but(self, homeless: Sequence[str]) -> Case | None:
        """The case of fresh weights for a kernel that knows some only by names of its own.

        Those stay as they were constructed. None where no others are to be had.
        """
        key = frozenset(homeless)
        if key not in self._renewed:
            fresh = next((case for case in self.cases if case.weights is not self.first), None)
            self._renewed[key] = self._renew_but(key, fresh) if fresh is not None else None
        return self._renewed[key]

    def _renew_but(self, homeless: frozenset[str], fresh: Case) -> Case | None:
        parameters = dict(fresh.weights.model.named_parameters())
        if not parameters.keys() - homeless:
            return None
        model = copy.deepcopy(self.first.model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name not in homeless:
                    parameter.copy_(parameters[name])
        weights = Weights(self.first.seed, model)
        truth = self.subject.oracle.answer(model, fresh.inputs)
        return Case("fresh weights but for some", weights, fresh.inputs, truth)

    @cached_property
    def rebuilt(self) -> Case:
        """A case under another construction seed, for weights that cannot be given by name."""
        seed = secret_seed()
        weights = Weights(seed, self.subject.loaded.build(seed))
        inputs = self._draw()
        truth = self.subject.oracle.answer(weights.model, inputs)
        return Case("rebuilt weights", weights, inputs, truth)

    @cached_property
    def left_behind(self) -> tuple[Expected, ...]:
        """What one call on the first case leaves in the tensors that the reference updates."""
        case = self.cases[0]
        return self.subject.oracle.left_behind(
            case.weights.model, case.inputs, self.subject.updated
        )

    def mark(
        self, outputs: tuple[torch.Tensor, ...], case: Case, name: str = ""
    ) -> tuple[CaseResult, str]:
        """Compare all outputs of one call; the result, and what to tell of a miss."""
        matches = self._matches(outputs, case.expected, case.typical, case.slack)
        if case.stretched and (not _passed(matches) or _worst(matches) > CLOSE):
            shaken = self._shaken(case)
            fairly = self._matches(outputs, shaken, _typical(shaken), case.slack, fair=True)
            if _passed(fairly) or not _passed(matches):
                matches = fairly
        matches = self._settled(matches, outputs, case)
        result = CaseResult(
            name=name or case.name,
            passed=_passed(matches),
            worst=_worst(matches),
            about=case.about,
            shapes=case.shapes if case.kind == "shape" else (),
        )
        several = len(matches) > 1
        return result, "; ".join(
            f"{self.subject.name_of(place)}: {match.detail}" if several else match.detail
            for place, match in enumerate(matches)
            if not match.passed
        )

    def _matches(
        self,
        outputs: tuple[torch.Tensor, ...],
        expected: tuple[Expected, ...],
        typical: tuple[float, ...],
        slack: float,
        fair: bool = False,
    ) -> list[Match]:
        precision = self.subject.task.precision
        return [
            compare(output, truth, max(errors), self._tolerance(truth, slack, fair), precision)
            for output, truth, *errors in zip(outputs, expected, self.typical, typical, strict=True)
        ]

    def _settled(
        self, matches: list[Match], outputs: tuple[torch.Tensor, ...], case: Case
    ) -> list[Match]:
        """The same, where whole numbers that hang on last bits are not held against a kernel.

        Which of two experts with nearly equal scores comes first, or on which side of a step a
        number is rounded. Asked for after a miss, for it takes several runs in float64.
        """
        missed = [t.dtype for m, t in zip(matches, case.expected, strict=True) if not m.passed]
        if not missed or any(dtype not in EXACT for dtype in missed):
            return matches
        task = self.subject.task
        return [
            match
            if match.passed or open_ones is None
            else compare(output, truth, 0.0, task.tolerance, task.precision, open_ones)
            for match, output, truth, open_ones in zip(
                matches, outputs, case.expected, self._undecided(case), strict=True
            )
        ]

    def _undecided(self, case: Case) -> tuple[Undecided | None, ...]:
        """For each output what is open of it.

        On values that its author drew most of an op has to be decided. On stretched ones (all
        equal, say) nothing may be; these are there for what becomes of the others.
        """
        if case.name in self._open:
            return self._open[case.name]
        oracle, yardstick = self.subject.oracle, self.subject.task.tolerance.yardstick
        model, inputs = case.weights.model, case.inputs
        turned = oracle.turned(model, inputs, yardstick)
        # Moving inputs breaks ties whose order is promised, so it is the way where none is known.
        found = [turned] if turned is not None else []
        found = found or oracle.shaken(model, inputs, self._chance, yardstick)
        pairs = zip(case.expected, self.cases[0].expected, strict=True)
        known = tuple(
            undecided_among(
                expected,
                [one[place] for one in found],
                ordinary,
                most=1.0 if case.stretched else MOSTLY,
            )
            for place, (expected, ordinary) in enumerate(pairs)
        )
        if any(case is one for one in self.cases):
            self._open[case.name] = known
        return known

    def _shaken(self, case: Case) -> tuple[Expected, ...]:
        """The case's truth, the reference held to be no luckier than its op's condition allows.

        Two scores of an attention that are large and nearly equal, say: which of them wins hangs on
        their last bits. Asked for after a miss or nearly one, for it takes several runs in float64.
        """
        if case.name not in self._conditions:
            truths = self.subject.oracle.shaken(case.weights.model, case.inputs, self._chance)
            self._conditions[case.name] = tuple(
                luckless(expected, [truth[place] for truth in truths], usual_size(ordinary))
                for place, (expected, ordinary) in enumerate(
                    zip(case.expected, self.cases[0].expected, strict=True)
                )
            )
        return self._conditions[case.name]

    def _tolerance(self, truth: Expected, slack: float, fair: bool) -> Tolerance:
        """The task's tolerance, wider by `slack`, but never so wide that it says nothing.

        Where it is a `fair` yardstick, it is made longer too, within bounds.
        """
        tolerance = self.subject.task.tolerance
        if slack == 1.0 or not truth.dtype.is_floating_point:
            return tolerance
        widest = max(tolerance.epsilons, WIDEST / torch.finfo(truth.dtype).eps)
        return Tolerance(
            yardstick=tolerance.yardstick * (min(slack, MOST_SLACK) if fair else 1.0),
            epsilons=min(tolerance.epsilons * slack, widest),
        )

    def mark_state(
        self, value: torch.Tensor, expected: Expected, name: str
    ) -> tuple[CaseResult, str]:
        """As `mark`, for a tensor that the module keeps."""
        task = self.subject.task
        typical = max(self.typical, default=0.0)
        match = compare(value, expected, typical, task.tolerance, task.precision)
        return CaseResult(name=name, passed=match.passed, worst=match.worst), match.detail


def _passed(matches: list[Match]) -> bool:
    return all(match.passed for match in matches)


def _worst(matches: list[Match]) -> float:
    return max((match.worst for match in matches), default=0.0)


def _typical(expected: tuple[Expected, ...]) -> tuple[float, ...]:
    return tuple(typical_error([relative_errors(truth)]) for truth in expected)


def _finite_share(truth: Truth) -> float:
    total = sum(tensor.numel() for tensor in truth.reference)
    finite = sum(
        int(tensor.isfinite().sum()) if tensor.dtype.is_floating_point else tensor.numel()
        for tensor in truth.reference
    )
    return finite / max(1, total)
