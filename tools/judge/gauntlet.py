"""The gauntlet: one candidate in one new runner, through every case of an exam."""

from collections.abc import Callable

import torch

from tools.candidate import Candidate
from tools.judge.contract import broken_promise
from tools.judge.exam import Case, Exam, Weights
from tools.judge.lane import InputSets, Lane, Program
from tools.judge.runners import RUNNER_FAILURES, RunnerDied, RunnerFailed, RunnerForged, RunnerLate
from tools.runner.memory import as_bytes
from tools.verdict import (
    BuildFailed,
    CaseResult,
    Cheated,
    ContractBroken,
    Correct,
    Crashed,
    TimedOut,
    Verdict,
    WrongOutput,
)

REPEATS = 2
SEGMENTATION_FAULT = "signal 11"
WRITES = "forward writes to its input, which the reference leaves as it is"

MakeLane = Callable[[Program, Weights], Lane]


class Rejected(Exception):
    """A verdict other than `Correct`, on its way out of nested checks."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(verdict.kind)


def verdict_of(failure: Exception) -> Verdict:
    """The verdict for what a runner did instead of replying.

    Raises:
        Exception: the failure itself, where it is none of a runner's.
    """
    match failure:
        case RunnerDied():
            return Crashed(log=str(failure))
        case RunnerLate():
            return TimedOut(deadline_s=failure.deadline_s)
        case RunnerFailed() if failure.stage == "import":
            return BuildFailed(log=str(failure))
        case RunnerFailed():
            return Crashed(log=str(failure))
        case RunnerForged():
            return Cheated(check="protocol", detail=str(failure))
        case _:
            raise failure


class Gauntlet:
    """Puts an exam to a candidate.

    Args:
        exam: the cases.
        make_lane: gives a new runner, loaded with a program and these weights' seed.
    """

    def __init__(self, exam: Exam, make_lane: MakeLane) -> None:
        self.exam = exam
        self.make_lane = make_lane
        self.results: list[CaseResult] = []
        self.deterministic = True

    def run(self, candidate: Candidate) -> Verdict:
        """Judge a candidate's correctness."""
        program = Program(candidate.source, "ModelNew")
        try:
            homeless = self._all_cases(program)
            if homeless:
                self._rebuilt(program)
        except Rejected as rejected:
            return rejected.verdict
        except RunnerDied as died:
            if SEGMENTATION_FAULT in str(died) and self._writes_to_inputs(program):
                return ContractBroken(detail=WRITES)
            return verdict_of(died)
        except RUNNER_FAILURES as failure:
            return verdict_of(failure)
        return Correct(cases=tuple(self.results), deterministic=self.deterministic)

    def _all_cases(self, program: Program) -> bool:
        """Every case in one runner; True where some weights could not be given to it by name."""
        exam = self.exam
        sets = InputSets([case.inputs for case in exam.cases[:2]], exam.subject.private)
        lane = None
        try:
            lane = self.make_lane(program, exam.first)
            homeless = lane.give_weights(exam.first.tensors)
            lane.bind(sets)
            held = exam.first
            for number, case in enumerate(exam.cases):
                if case.weights is not held:
                    if homeless:
                        continue
                    lane.give_weights(case.weights.tensors)
                    held = case.weights
                place = number % 2
                if number > 1 and not sets.rewrite(place, case.inputs):
                    lane.bind(sets, only=place)
                self._case(lane, place, case)
                if number == 1:
                    self._held_output(lane)
                    self._few_changed(lane, sets)
            return bool(homeless)
        finally:
            if lane is not None:
                lane.close()
            sets.close()

    def _case(self, lane: Lane, place: int, case: Case) -> None:
        first: list[torch.Tensor] = []
        for repeat in range(REPEATS):
            self._collect(lane, place, repeat)
            if repeat == 0:
                self._mark(lane, case)
                first = [tensor.clone() for tensor in lane.outputs]
            elif not _same_bytes(first, lane.outputs):
                self.deterministic = False
                self._mark(lane, case)

    def _collect(self, lane: Lane, place: int, pattern: int, slot: int = 0) -> None:
        lane.poison(pattern)
        lane.call(place, slot)
        self._copy(lane, slot)

    def _copy(self, lane: Lane, slot: int) -> None:
        reply, _ = lane.collect(slot, claims=True)
        if broken := broken_promise(reply, self.exam.subject):
            raise Rejected(ContractBroken(detail=broken))

    def _mark(self, lane: Lane, case: Case) -> None:
        result, detail = self.exam.mark(lane.outputs, case.expected, case.name)
        self.results.append(result)
        if not result.passed:
            raise Rejected(WrongOutput(detail=detail, cases=tuple(self.results)))

    def _held_output(self, lane: Lane) -> None:
        """An output must still be right after forward was called again on other inputs."""
        lane.poison(0)
        lane.call(0, slot=0)
        lane.call(1, slot=1)
        self._copy(lane, slot=0)
        result, _ = self.exam.mark(lane.outputs, self.exam.cases[0].expected, "held output")
        self._copy(lane, slot=1)
        self.results.append(result)
        if not result.passed:
            detail = "an output that was returned earlier changes when forward is called again"
            raise Rejected(Cheated(check="output reuse", detail=detail))

    def _few_changed(self, lane: Lane, sets: InputSets) -> None:
        """A few elements change in the buffers that the candidate has just seen."""
        case = self.exam.few_changed
        if case is None:
            return
        sets.rewrite(0, case.inputs)
        self._collect(lane, 0, 1)
        result, detail = self.exam.mark(lane.outputs, case.expected, case.name)
        self.results.append(result)
        if result.passed:
            return
        stale, _ = self.exam.mark(lane.outputs, self.exam.cases[0].expected, case.name)
        if stale.passed:
            detail = (
                "forward returns the answer to inputs of which a few elements have changed since"
            )
            raise Rejected(Cheated(check="cached answer", detail=detail))
        raise Rejected(WrongOutput(detail=detail, cases=tuple(self.results)))

    def _rebuilt(self, program: Program) -> None:
        """For a candidate with other names for its weights: constructed under another seed."""
        case = self.exam.rebuilt
        sets = InputSets([case.inputs], self.exam.subject.private)
        lane = None
        try:
            lane = self.make_lane(program, case.weights)
            lane.give_weights(case.weights.tensors)
            lane.bind(sets)
            self._case(lane, 0, case)
        finally:
            if lane is not None:
                lane.close()
            sets.close()

    def _writes_to_inputs(self, program: Program) -> bool:
        """Whether a candidate that died of a write had written to a sealed input.

        It is tried once more, on private copies that it may write to.
        """
        case = self.exam.cases[0]
        sets = InputSets([case.inputs], private=True)
        lane = None
        try:
            lane = self.make_lane(program, case.weights)
            lane.give_weights(case.weights.tensors)
            lane.bind(sets)
            lane.call(0)
            return lane.collect(watch=True)[0].get("changed") is True
        except RUNNER_FAILURES:
            return False
        finally:
            if lane is not None:
                lane.close()
            sets.close()


def _same_bytes(left: list[torch.Tensor], right: tuple[torch.Tensor, ...]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(as_bytes(a), as_bytes(b)) for a, b in pairs if a.numel())
