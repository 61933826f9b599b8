"""The gauntlet: one candidate in one new runner, through every case of an exam."""

import secrets
import time
from collections.abc import Iterator, Sequence

import torch

from tools.candidate import Candidate
from tools.judge.buffers import InputSets, same_bits
from tools.judge.case import Case
from tools.judge.contract import broken_promise
from tools.judge.exam import Exam
from tools.judge.lane import Lane, Program
from tools.judge.runners import RUNNER_FAILURES, RunnerDied, RunnerFailed, RunnerForged, RunnerLate
from tools.judge.trial import FATAL, MakeLane
from tools.verdict import (
    BuildFailed,
    CaseResult,
    Cheated,
    ContractBroken,
    Correct,
    Crashed,
    JudgeError,
    TimedOut,
    Verdict,
    WrongOutput,
)

REPEATS = 2
# Calls that an earlier output must outlast, at least, and less than twice as many.
LEAST_HELD = 6
SEGMENTATION_FAULT = "signal 11"
WRITES = "forward writes to its input, which the reference leaves as it is"
# Where the runner is given inputs of another shape or layout than the two sets it alternates.
SPARE = 2
# On a device, a result is read at once on the same stream, and, in one case, again after this long.
LATE_SECONDS = 0.05
LATE = "what the same stream reads right after forward is not what is there once all work is done"
ILLEGAL = "illegal memory access"
TOLD_LIMIT = 160
REFUSES = {
    "shape": "made for the given shapes only: {told}",
    "layout": "takes ordinary contiguous inputs only: {told}",
}

# What a runner is caught at that answers otherwise than it was asked.
PROTOCOL = "protocol"


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
        case RunnerFailed() if failure.stage == "device":
            return JudgeError(log=f"a runner could not use the device: {failure}")
        case RunnerFailed() if failure.stage == "import":
            return BuildFailed(log=str(failure))
        case RunnerFailed():
            return Crashed(log=str(failure))
        case RunnerForged():
            return Cheated(check=PROTOCOL, detail=str(failure))
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
        self.labels: list[str] = []
        self.deterministic = True

    def run(self, candidate: Candidate) -> Verdict:
        """Judge a candidate's correctness."""
        program = Program(candidate.source, "ModelNew", packages=self.exam.subject.packages)
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
            if ILLEGAL in str(failure) and self._writes_to_inputs(program):
                return ContractBroken(detail=WRITES)
            return verdict_of(failure)
        return Correct(
            cases=tuple(self.results),
            deterministic=self.deterministic,
            labels=tuple(dict.fromkeys(self.labels)),
        )

    def _all_cases(self, program: Program) -> bool:
        """Every case in one runner; True where some weights could not be given to it by name."""
        exam = self.exam
        sets = exam.subject.share([case.inputs for case in exam.cases[:2]])
        lane = None
        try:
            lane = self.make_lane(program, exam.first)
            homeless = lane.give_weights(exam.first.tensors)
            lane.bind(sets)
            lane.expect(exam.cases[0].like)
            held = exam.first
            for number, case in enumerate(self._usual(homeless)):
                if case.weights is not held:
                    lane.give_weights(case.weights.tensors)
                    held = case.weights
                place = number % 2
                if number > 1 and not sets.rewrite(place, case.inputs):
                    lane.bind(sets, only=place)
                self._case(lane, place, case)
                self._untouched(sets, place, case)
                if number == 1:
                    self._held_output(lane, sets)
                    self._few_changed(lane, sets)
            if held is not exam.first or exam.subject.updated:
                lane.give_weights(exam.first.tensors)
            self._left_behind(lane, sets, set(homeless))
            for case in exam.cases:
                if case.kind != "values":
                    self._unusual(lane, case)
            return bool(homeless)
        finally:
            if lane is not None:
                lane.close()
            sets.close()

    def _case(self, lane: Lane, place: int, case: Case) -> None:
        first: list[torch.Tensor] = []
        for repeat in range(REPEATS):
            self._collect(lane, place, repeat, case)
            if repeat == 0:
                self._mark(lane, case)
                first = [tensor.clone() for tensor in lane.outputs]
            elif not all(map(same_bits, first, lane.outputs)):
                self.deterministic = False
                self._mark(lane, case)

    def _collect(self, lane: Lane, place: int, pattern: int, case: Case) -> None:
        lane.buffers.poison(pattern)
        if not lane.consume(place):
            self._copy(lane, case)
            return
        early = [tensor.clone() for tensor in lane.outputs]
        if case is self.exam.cases[0]:
            time.sleep(LATE_SECONDS)
        lane.buffers.poison(pattern + 1)
        self._copy(lane, case)
        if not all(map(same_bits, early, lane.outputs)):
            raise Rejected(WrongOutput(detail=_where(case) + LATE, cases=tuple(self.results)))

    def _copy(self, lane: Lane, case: Case, slot: int = 0) -> None:
        reply, _ = lane.collect(slot, claims=True)
        if broken := broken_promise(reply, self.exam.subject, case.like):
            raise Rejected(ContractBroken(detail=_where(case) + broken))

    def _mark(self, lane: Lane, case: Case) -> None:
        result, detail = self.exam.marker.mark(lane.outputs, case)
        if not (result.passed or case.binding):
            self.labels.append(f"where there is {case.name}, the result is not the reference's")
            return
        self.results.append(result)
        if not result.passed:
            cases = tuple(self.results)
            raise Rejected(WrongOutput(detail=_where(case) + detail, cases=cases))

    def _untouched(self, sets: InputSets, place: int, case: Case) -> None:
        """Compare the judge's own copy: a seal may fail, bytes don't."""
        if not sets.holds(place, case.inputs):
            raise Rejected(ContractBroken(detail=WRITES))

    def _unusual(self, lane: Lane, case: Case) -> None:
        """A case that an honest kernel may refuse, by raising; never by a wrong answer."""
        sets = self.exam.subject.share([case.inputs])
        try:
            lane.bind(sets, first=SPARE)
            lane.expect(case.like)
            # What compiles for each shape may do so for this one.
            lane.runner.first_call_done = False
            self._case(lane, SPARE, case)
            self._untouched(sets, 0, case)
        except RunnerDied as died:
            raise Rejected(Crashed(log=f"{_where(case)}{died}")) from died
        except RunnerFailed as failure:
            ended = any(word in str(failure) for word in FATAL)
            if ended or (case.kind == "shape" and failure.stage != "refusal"):
                raise Rejected(Crashed(log=f"{_where(case)}{failure}")) from failure
            told = str(failure).strip().rpartition("\n")[2][:TOLD_LIMIT]
            usual = "raises where there is " + case.name + ": {told}"
            self.labels.append(REFUSES.get(case.kind, usual).format(told=told))
        finally:
            sets.close()

    def _held_output(self, lane: Lane, sets: InputSets) -> None:
        """An output must still be right after forward was called again on other inputs.

        Other inputs elsewhere, and then where those of the output were: a kernel may keep a buffer
        for each address.
        """
        case, subject = self.exam.cases[0], self.exam.subject
        lane.buffers.poison(0)
        lane.call([0], slot=0)
        # How many buffers a kernel would need to get round this, it can't know.
        further = LEAST_HELD + secrets.randbelow(LEAST_HELD)
        for _ in range(further):
            lane.call([1], slot=1)
        # On the CPU a call's work is done when it returns, or it is found to be deferred.
        exempt = subject.device.type == "cpu" or subject.private or any(subject.aliases)
        changed = None if exempt else self.exam.few_changed
        if changed is not None:
            sets.rewrite(0, changed.inputs)
            lane.call([0], slot=2)
        self._copy(lane, case, slot=0)
        result, _ = self.exam.marker.mark(lane.outputs, case, "held output")
        self._copy(lane, case, slot=1)
        if changed is not None:
            self._copy(lane, case, slot=2)
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
        self._collect(lane, 0, 1, case)
        result, detail = self.exam.marker.mark(lane.outputs, case)
        self.results.append(result)
        if result.passed:
            return
        stale, _ = self.exam.marker.mark(lane.outputs, self.exam.cases[0])
        if stale.passed:
            detail = (
                "forward returns the answer to inputs of which a few elements have changed since"
            )
            raise Rejected(Cheated(check="cached answer", detail=detail))
        raise Rejected(WrongOutput(detail=detail, cases=tuple(self.results)))

    def _left_behind(self, lane: Lane, sets: InputSets, homeless: set[str]) -> None:
        """What forward updates in the module, such as running statistics, is judged too."""
        exam = self.exam
        names = [name for name in exam.subject.updated if name not in homeless]
        if len(names) < len(exam.subject.updated):
            self.labels.append("what the reference updates in its module was not compared")
        if not names:
            return
        sets.rewrite(0, exam.cases[0].inputs)
        lane.call([0])
        self._copy(lane, exam.cases[0])
        lane.expect([exam.first.tensors[name].to("meta") for name in names])
        lane.buffers.poison(0)
        gone = lane.state(names)
        truths = dict(zip(exam.subject.updated, exam.left_behind, strict=True))
        for name, value in zip(names, lane.outputs, strict=True):
            result, detail = exam.marker.mark_state(value, truths[name], f"{name} after a call")
            self.results.append(result)
            if name in gone or not result.passed:
                told = f"{name} is not what the reference's forward makes of it: {detail}"
                raise Rejected(WrongOutput(detail=told, cases=tuple(self.results)))

    def _usual(self, homeless: Sequence[str]) -> Iterator[Case]:
        """The cases whose values alone are out of the ordinary; of new weights, what has a name."""
        for case in self.exam.cases:
            if case.kind != "values":
                continue
            if case.weights is self.exam.first or not homeless:
                yield case
                continue
            self._note_constant(homeless)
            renewed = self.exam.renewed_but(homeless)
            if renewed is not None:
                yield renewed

    def _note_constant(self, homeless: Sequence[str]) -> None:
        """A label where what can't be given by name looks the same under every seed."""
        tensors, others = self.exam.first.tensors, self.exam.rebuilt.weights.tensors
        alike = [
            name
            for name in homeless
            if name in tensors
            and tensors[name].numel() > 1
            and torch.equal(tensors[name], others[name])
        ]
        if alike:
            self.labels.append(f"whether it uses its own {', '.join(alike)} was not tested")

    def _rebuilt(self, program: Program) -> None:
        """For a candidate with other names for its weights: constructed under another seed."""
        case = self.exam.rebuilt
        sets = self.exam.subject.share([case.inputs])
        lane = None
        try:
            lane = self.make_lane(program, case.weights)
            lane.give_weights(case.weights.tensors)
            lane.bind(sets)
            lane.expect(case.like)
            self._case(lane, 0, case)
        finally:
            if lane is not None:
                lane.close()
            sets.close()

    def _writes_to_inputs(self, program: Program) -> bool:
        """Whether a candidate that died of a write had written to a sealed input.

        It is tried once more, on private copies that it may write to.
        """
        if self.exam.subject.private:
            return False
        case = self.exam.cases[0]
        sets = InputSets([case.inputs], private=True)
        lane = None
        try:
            lane = self.make_lane(program, case.weights)
            lane.give_weights(case.weights.tensors)
            lane.bind(sets)
            lane.expect(case.like)
            lane.call([0])
            return lane.collect(watch=True)[0].get("changed") is True
        except RUNNER_FAILURES:
            return False
        finally:
            if lane is not None:
                lane.close()
            sets.close()


def _where(case: Case) -> str:
    """What stands before the words of a rejection that ordinary inputs would not have brought."""
    return "" if case.kind == "values" else f"{case.name}: "
