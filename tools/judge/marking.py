"""Marking: what a kernel returned for a case, held against the truth about it.

How far off an element may be is the task's tolerance. It is wider on stretched values for which the
op is ill conditioned, and whole numbers that hang on last bits are held against nobody.
"""

from dataclasses import replace

import torch

from tools.judge.case import Case, typical_errors
from tools.judge.compare import (
    EXACT,
    Expected,
    Match,
    Undecided,
    compare,
    luckless,
    strained,
    undecided_among,
    usual_size,
)
from tools.judge.subject import Subject
from tools.task import Tolerance
from tools.verdict import CaseResult

# However much slack a case has, an element may never be off by more than this part of its scale.
WIDEST = 2.0**-6
# How much longer the slack of a case may make the yardstick.
MOST_SLACK = 16.0
# An error of more than this part of what is allowed, on stretched values, is asked whether it is
# the kernel's or the op's: it may be a miss by the next seed.
CLOSE = 0.5
# The error and the size of each group of an output, as `Expected` has them.
Condition = tuple[torch.Tensor, torch.Tensor]
# Of an output on values as the op's author drew them, so much may hang on last bits.
MOST_OPEN = 0.5


class Marker:
    """Marks what a candidate returns for the cases of one exam.

    Args:
        subject: the reference.
        cases: the exam's, of which the first has ordinary values; others may follow.
        typical: the reference's usual relative error for each output.
        chance: for moving inputs by their last bits.
    """

    def __init__(
        self, subject: Subject, cases: list[Case], typical: list[float], chance: torch.Generator
    ) -> None:
        self.subject = subject
        self._cases = cases
        self._typical = typical
        self._chance = chance
        self._conditions: dict[str, tuple[Condition, ...]] = {}
        self._open: dict[str, tuple[Undecided | None, ...]] = {}

    def mark(
        self, outputs: tuple[torch.Tensor, ...], case: Case, name: str = ""
    ) -> tuple[CaseResult, str]:
        """Compare all outputs of one call; the result, and what to tell of a miss."""
        matches = self._matches(outputs, case.expected, case.typical, case.slack)
        if case.stretched and (not _passed(matches) or _worst(matches) > CLOSE):
            shaken = self._shaken(case)
            fairly = self._matches(outputs, shaken, typical_errors(shaken), case.slack, fair=True)
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
            for output, truth, *errors in zip(
                outputs, expected, self._typical, typical, strict=True
            )
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
                matches, outputs, case.expected, self.undecided(case), strict=True
            )
        ]

    def undecided(self, case: Case) -> tuple[Undecided | None, ...]:
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
        found = found or [*oracle.shaken(model, inputs, self._chance, yardstick)]
        pairs = zip(case.expected, self._cases[0].expected, strict=True)
        known = tuple(
            undecided_among(
                expected,
                [one[place] for one in found],
                ordinary,
                most=1.0 if case.stretched else MOST_OPEN,
            )
            for place, (expected, ordinary) in enumerate(pairs)
        )
        if any(case is one for one in self._cases):
            self._open[case.name] = known
        return known

    def _shaken(self, case: Case) -> tuple[Expected, ...]:
        """The case's truth, the reference held to be no luckier than its op's condition allows.

        Two scores of an attention that are large and nearly equal, say: which of them wins hangs on
        their last bits. Asked for after a miss or nearly one, for it takes several runs in float64.
        """
        if case.name not in self._conditions:
            usual = [usual_size(ordinary) for ordinary in self._cases[0].expected]
            known = list(map(luckless, case.expected, usual))
            for truths in self.subject.oracle.shaken(case.weights.model, case.inputs, self._chance):
                known = list(map(strained, known, truths))
            self._conditions[case.name] = tuple((one.error, one.size) for one in known)
        return tuple(
            replace(expected, error=error, size=size)
            for expected, (error, size) in zip(
                case.expected, self._conditions[case.name], strict=True
            )
        )

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
        typical = max(self._typical, default=0.0)
        match = compare(value, expected, typical, task.tolerance, task.precision)
        return CaseResult(name=name, passed=match.passed, worst=match.worst), match.detail


def _passed(matches: list[Match]) -> bool:
    return all(match.passed for match in matches)


def _worst(matches: list[Match]) -> float:
    return max((match.worst for match in matches), default=0.0)
