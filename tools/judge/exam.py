"""An exam: the correctness cases of one task under one set of secret seeds, with their answers.

Written once and put to every candidate of a session, which is safe because a candidate leaves its
jail with nothing; a confirmation gets an exam of its own.
"""

import contextlib
import copy
import functools
import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch

from tools.judge.answers import Answers, Recalled
from tools.judge.case import Case, Weights
from tools.judge.compare import Expected, relative_errors, typical_error
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
from tools.judge.marking import Marker
from tools.judge.oracle import CannotRun, Truth, own
from tools.judge.room import CASES
from tools.judge.runners import RUNNER_FAILURES
from tools.judge.subject import Subject
from tools.judge.trial import Trial
from tools.judge.variants import (
    Which,
    offset,
    other_sizes,
    same_layout,
    turned,
    with_special,
)
from tools.reference import tensors_of

# What truths may take, and the inputs of further cases; of a device's memory, this part for each.
TRUTHS_LIMIT, INPUTS_LIMIT = 1 << 31, 1 << 32
DEVICE_MEMORY_PART = 8
# An exam never has more cases than this.
MOST_CASES = 20
# So many times what all cases take is time enough, however much longer they take from then on.
PLENTY = 3
# A changed input is of use only while most of what comes out is still a number.
MOSTLY = 0.5


class Exam:
    """All cases.

    `first` are the weights that most of them use, `marker` marks what a candidate makes of them.

    Args:
        subject: the reference.
        seconds: for writing it; what does not fit is left out.
        unhurried: called as soon as it is plain that there is time for all cases, even if they take
            much longer from then on.
        trial: is asked first where inputs were not drawn by the op's author, and their reference
            may end the process that runs it.
    """

    def __init__(
        self,
        subject: Subject,
        seconds: float,
        unhurried: Callable[[], None] = lambda: None,
        trial: Trial | None = None,
    ) -> None:
        self.subject = subject
        self._trial = trial
        seed = secret_seed()
        self.first = Weights(seed, subject.loaded.build(seed))
        self.cases: list[Case] = []
        self._chance = generator()
        self._answers = Answers(subject.oracle, self._limit(TRUTHS_LIMIT))
        self._renewed: dict[frozenset[str], Case | None] = {}
        self.few_changed: Case | None = None
        with self.at_trial():
            self._write(seconds, unhurried)

    @contextlib.contextmanager
    def at_trial(self) -> Iterator[None]:
        """Within this block `takes` may be asked; afterwards nobody is kept to answer it."""
        if self._trial is None:
            yield
            return
        try:
            # Where it can't be had, `takes` finds that out again and says no.
            with contextlib.suppress(*RUNNER_FAILURES):
                self._trial.open(self.first)
            yield
        finally:
            self._trial.close()

    def takes(self, inputs: tuple[Any, ...]) -> bool:
        """Whether the judge's own process may run the reference on inputs nobody has drawn."""
        return self._trial is None or self._trial.takes(self.first, inputs)

    def _write(self, seconds: float, unhurried: Callable[[], None]) -> None:
        began = time.monotonic()
        samples: list[list[torch.Tensor]] = []
        fresh = self._fresh_weights()
        for number in range(CASES):
            inputs = self._draw()
            weights = fresh if number == 2 and fresh is not None else self.first
            truth = self._answers.ask(weights.model, inputs)
            samples.append([relative_errors(expected) for expected in truth.expected])
            name = "fresh weights" if weights is fresh else f"ordinary {number + 1}"
            self.cases.append(Case(name, weights, inputs, truth))
        typical = [typical_error(list(outputs)) for outputs in zip(*samples, strict=True)]
        self.marker = Marker(self.subject, self.cases, typical, self._chance)
        each = (time.monotonic() - began) / CASES
        if PLENTY * MOST_CASES * each < seconds:
            unhurried()
        self.few_changed = self._few_changed(self.cases[0]) if 2 * each < seconds else None
        for propose in self._proposals():
            if time.monotonic() - began + each > seconds or not self._has_room:
                return
            case = propose()
            if case is not None:
                self.cases.append(case)

    def _limit(self, on_cpu: int) -> int:
        """Bytes that may be kept where a CPU's memory has room for so many."""
        device, limit = self.subject.device, on_cpu
        if device.type != "cpu":
            total = int(torch.cuda.get_device_properties(device).total_memory)
            limit = total // DEVICE_MEMORY_PART
        return min(limit, self.subject.spare_bytes // 2)

    @property
    def _has_room(self) -> bool:
        """Whether another case's inputs, and its truth if truths are kept, may be in memory."""
        further = sum(
            tensor.nbytes for case in self.cases[CASES:] for tensor in tensors_of(case.inputs)
        )
        truths = sum(case.truth.nbytes for case in self.cases)
        return truths <= self._limit(TRUTHS_LIMIT) and (
            further + self.subject.input_bytes <= self._limit(INPUTS_LIMIT)
        )

    def put_away(self) -> None:
        """Free what is remembered of a large truth: nothing is marked for a while."""
        self._answers.put_away()

    def _proposals(self) -> Iterator[Callable[[], Case | None]]:
        """Further cases, in the order of what they find: a slow reference gets the first only."""
        large, signed, mixed, tiny, *others = DISTRIBUTIONS
        yield lambda: self._changed(large)
        yield lambda: self._changed(signed)
        yield lambda: self._resized("another batch size", 0, "fewer")
        yield lambda: self._relaid("not contiguous", turned)
        yield lambda: self._changed(mixed)
        yield lambda: self._special("a NaN in the input", math.nan)
        yield lambda: self._resized("a batch of one", 0, "one")
        yield lambda: self._resized("a batch of one more", 0, "beside")
        yield lambda: self._relaid("at an odd address", offset)
        yield lambda: self._changed(tiny)
        yield lambda: self._special("an Inf in the input", math.inf)
        yield lambda: self._resized("another second dimension", 1, "beside")
        for distribution in others:
            yield functools.partial(self._changed, distribution)

    def _draw(self) -> tuple[Any, ...]:
        return self.subject.loaded.inputs(secret_seed())

    def _answer(self, inputs: tuple[Any, ...]) -> Truth | Recalled | None:
        if not self.takes(inputs):
            return None
        try:
            return self._answers.ask(self.first.model, inputs)
        except (CannotRun, torch.OutOfMemoryError):
            return None

    def _changed(self, distribution: Distribution) -> Case | None:
        drawn = self._draw()
        if not has_floats(drawn) or (distribution.ties and self._chooses):
            return None
        inputs = changed(drawn, distribution.change, self._chance)
        if all(map(operator.is_, tensors_of(inputs), tensors_of(drawn))):
            return None
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
        if not self.takes(inputs):
            return None
        try:
            outputs = self.subject.oracle.run(self.first.model, inputs)
        except CannotRun:
            return None
        if [t.shape for t in outputs] != [t.shape for t in ordinary.truth.like]:
            return None
        if not self.marker.mark(outputs, ordinary)[0].passed:
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
        truth = self._answers.ask(model, fresh.inputs)
        return Case("fresh weights but for some", weights, fresh.inputs, truth)

    @cached_property
    def rebuilt(self) -> Case:
        """A case under another construction seed, for weights that cannot be given by name."""
        seed = secret_seed()
        weights = Weights(seed, self.subject.loaded.build(seed))
        inputs = self._draw()
        truth = self._answers.ask(weights.model, inputs)
        return Case("rebuilt weights", weights, inputs, truth)

    @cached_property
    def left_behind(self) -> tuple[Expected, ...]:
        """What one call on the first case leaves in the tensors that the reference updates."""
        case = self.cases[0]
        return self.subject.oracle.left_behind(
            case.weights.model, case.inputs, self.subject.updated
        )


def _finite_share(truth: Truth | Recalled) -> float:
    return truth.finite / max(1, sum(tensor.numel() for tensor in truth.like))
