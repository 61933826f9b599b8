"""Measurements: a candidate timed beside the baselines, and the noise that a win has to clear."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tools.facts import Baseline, Baselines
from tools.judge import blocks, clock, plausible
from tools.judge.baselines import AGAIN, EAGER, BaselineFailed, BaselineLanes
from tools.judge.blocks import Arm
from tools.judge.case import Case
from tools.judge.clock import BaselineBroke, Clock, Kept
from tools.judge.exam import Exam
from tools.judge.gauntlet import PROTOCOL, WRITES, verdict_of
from tools.judge.lane import Lane, Program
from tools.judge.oracle import CannotRun
from tools.judge.pool import draw_pool
from tools.judge.runners import RUNNER_FAILURES, RunnerDied
from tools.judge.subject import Subject
from tools.judge.trial import MakeLane
from tools.judge.wire import JudgeLimits
from tools.runner.values import decode
from tools.verdict import (
    CaseResult,
    Cheated,
    Comparison,
    DeviceReading,
    Implausible,
    JudgeError,
    TimerMismatch,
    Timing,
    Verdict,
    WrongOutput,
)

CANDIDATE = "candidate"
# Whose worst element misses by so many tolerances loses bits on some inputs, timed or not.
NEAR_MISS = 10.0
TELLING_BLOCKS = 16
# Where a win hangs on the noise, it is read again so many times, and all readings are pooled: slow
# ops have few blocks in each, and of few blocks the interval is wide however still the machine.
HINGING_READINGS = 2


@dataclass
class Legacy:
    """What is not those of some inputs, and a ground leaves to the next.

    Its baselines' `lanes`, readings of the machine's noise (eager `against_itself`, in log ratios,
    and what followed from them), what the device's least work takes after a call while no candidate
    is alive, and the floor in ms.
    """

    lanes: dict[str, Lane] = field(default_factory=dict)
    noises: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    against_itself: list[float] = field(default_factory=list)
    floor: float | None = None

    def close(self) -> None:
        """End the lanes, where nobody takes them over."""
        for lane in self.lanes.values():
            lane.close()


class Ground:
    """Where times are taken: input sets for one state of the weights, and baselines' lanes.

    Args:
        subject: the reference.
        exam: gives the weights, and checks timed outputs.
        make_lane: gives a runner loaded with a program.
        limits: time for one measurement.
        settle: waits until nothing is being started or ended that a measurement would notice.
        legacy: what an earlier ground has left.
    """

    def __init__(
        self,
        subject: Subject,
        exam: Exam,
        make_lane: MakeLane,
        limits: JudgeLimits,
        settle: Callable[[], None],
        legacy: Legacy | None = None,
    ) -> None:
        self.subject = subject
        self.exam = exam
        self._limits = limits
        self._settle = settle
        legacy = legacy or Legacy()
        self._noises = legacy.noises
        self._idle = legacy.idle
        self._against_itself = legacy.against_itself
        self._floor = legacy.floor
        self.pool = draw_pool(exam, limits.timing_s)
        exam.put_away()
        self.sets = self.pool.sets
        self.baselines = BaselineLanes(subject, exam.first, self.pool, make_lane, legacy.lanes)

    @property
    def noise(self) -> float:
        """This machine's A/A noise on this op: read once, and again where a win hangs on it.

        Whatever disturbs the same code against itself makes them differ more, never less, so the
        least of all readings is the machine's own.

        Raises:
            BaselineFailed: the reference itself can't be run in a jail.
        """
        if not self._against_itself:
            self._measure_noise()
        return self._least_noise()

    def _least_noise(self) -> float:
        return min([*self._noises, blocks.noise_in(self._against_itself)])

    def _read_noise_again(self, comparison: Comparison, noise: float) -> float:
        """The noise on which a win hangs, from more blocks while it does.

        A reading is of the machine and never of the candidate, which it can neither see nor slow.
        """
        for _ in range(HINGING_READINGS):
            if not 1.0 < comparison.low <= 1.0 + noise:
                break
            self._measure_noise(seconds=self._limits.timing_s)
            noise = self._least_noise()
        return noise

    def survey(self) -> Baselines:
        """Measure the baselines, interleaved, with eager against itself for the noise.

        Raises:
            BaselineFailed: the reference itself can't be run in a jail.
        """
        timer = Clock(self.pool)
        arms = {EAGER: self.baselines.arm(EAGER, timer)}
        for name in self.baselines.compiled:
            with contextlib.suppress(BaselineFailed):
                arms[name] = self.baselines.arm(name, timer)
        overhead = self._measure_noise(arms)
        rows = tuple(
            Baseline(
                name=name,
                median_ms=blocks.call_ms(arms[name], overhead) if name in arms else None,
                failed=self.baselines.failure_of(name),
            )
            for name in self.baselines.compiled
        )
        eager = Baseline(name="eager", median_ms=blocks.call_ms(arms[EAGER], overhead))
        return Baselines(rows=(eager, *rows), noise=self.noise)

    def _measure_noise(
        self, arms: dict[str, Arm] | None = None, seconds: float | None = None
    ) -> float:
        """Eager against itself, other arms between; adds a reading, returns the overhead.

        Raises:
            BaselineFailed: the reference itself can't be run in a jail.
        """
        timer = Clock(self.pool)
        if seconds is None:
            seconds = self._limits.timing_s if arms else self._limits.timing_s / 2
        arms = arms or {EAGER: self.baselines.arm(EAGER, timer)}
        arms[AGAIN] = self.baselines.arm(AGAIN, timer)
        self._settle()
        try:
            with self.subject.site.turn():
                timer.run(list(arms.values()), seconds)
            overhead = clock.overhead_ns(arms[AGAIN].lane, self.pool)
        except RUNNER_FAILURES as failure:
            self.baselines.forget_ended()
            raise BaselineFailed(f"a baseline stopped working: {failure}") from failure
        finally:
            self.baselines.drop(AGAIN)
        self._idle += [one.after_ns for name in (EAGER, AGAIN) for one in arms[name].samples]
        arms.update({arm.name: arm for arm in blocks.quiet(list(arms.values()))})
        ratios = blocks.log_ratios_of(arms[EAGER], arms[AGAIN], overhead)
        self._against_itself += ratios
        # The least of several readings of few blocks each would be calm by luck: those count
        # together alone.
        if len(ratios) >= TELLING_BLOCKS:
            self._noises.append(blocks.noise_in(ratios))
        return overhead

    def measure(
        self,
        program: Program,
        against: Sequence[str],
        to_beat: float | None = None,
    ) -> Verdict | Timing:
        """Time a candidate against baselines, and check what it returned meanwhile.

        Clocks that disagree convict it only if they do so again: on a crowded machine a reply may
        be late through a whole measurement. What lies just once has gained nothing by it, since the
        time that counts is the judge's. So it is with a process that seems to have run while it was
        stopped, and with a baseline that fails.

        `to_beat` is the speedup of another candidate: one that lies wholly behind it is let go.
        With no such speedup it is timed to the end: twice as long where that leaves open if it is
        faster.
        """
        measured = self._measure_once(program, against, to_beat)
        if isinstance(measured, TimerMismatch | JudgeError) or (
            isinstance(measured, Cheated) and measured.check == PROTOCOL
        ):
            measured = self._measure_once(program, against, to_beat)
        if not isinstance(measured, Timing):
            return measured
        try:
            noise = self._read_noise_again(measured.against_best, measured.noise)
        except BaselineFailed:
            return measured
        return measured.model_copy(update={"noise": noise})

    def _measure_once(
        self, program: Program, against: Sequence[str], to_beat: float | None
    ) -> Verdict | Timing:
        timer = Clock(self.pool, watched=CANDIDATE)
        try:
            noise = self.noise
            baselines = [self.baselines.arm(name, timer) for name in against or (EAGER,)]
        except BaselineFailed as failure:
            return JudgeError(log=str(failure))
        lane = None
        try:
            lane = self.baselines.prepare(program)
            candidate = Arm(CANDIDATE, lane)
            self._settle()
            timer.warm_up(candidate)
            arms = [candidate, *baselines]
            with self._watched_device() as readings:
                stopped = timer.run(arms, self._limits.timing_s, to_beat)
                if to_beat is None and blocks.open_against(arms, noise):
                    timer.run(arms, self._limits.timing_s)
        except BaselineBroke as broke:
            self.baselines.forget_ended()
            return JudgeError(log=str(broke))
        except RUNNER_FAILURES as failure:
            if isinstance(failure, RunnerDied) and "signal 11" in str(failure):
                return verdict_of(RunnerDied(f"{failure}\n(perhaps {WRITES})"))
            return verdict_of(failure)
        finally:
            if lane is not None:
                lane.close()
        # What a dying process gives back (a device's memory above all) holds up those that live.
        self._settle()
        try:
            with self.subject.site.turn():
                overhead = clock.overhead_ns(baselines[0].lane, self.pool)
        except RUNNER_FAILURES as failure:
            self.baselines.forget_ended()
            return JudgeError(log=f"{baselines[0].name} stopped working: {failure}")
        for arm in baselines:
            arm.lane.runner.freeze()
        candidate, *baselines = blocks.quiet([candidate, *baselines])
        concluded = self._conclude(candidate, baselines, timer, (overhead, noise))
        if not isinstance(concluded, Timing):
            return concluded
        told = {"stopped_early": stopped, "readings": tuple(readings)}
        return concluded.model_copy(update=told)

    @contextlib.contextmanager
    def _watched_device(self) -> Iterator[list[DeviceReading]]:
        """Nobody else's judge measures meanwhile; what the device says before and after."""
        site = self.subject.site
        readings: list[DeviceReading] = []
        with site.turn():
            if (before := site.reading()) is not None:
                readings.append(before)
            yield readings
            if (after := site.reading()) is not None:
                readings.append(after)

    def _conclude(
        self,
        candidate: Arm,
        baselines: list[Arm],
        timer: Clock,
        measured: tuple[float, float],
    ) -> Verdict | Timing:
        overhead, noise = measured
        found = blocks.mismatch(candidate, baselines[0], overhead)
        if detail := found or blocks.device_mismatch(candidate, baselines[0], self._idle):
            return TimerMismatch(detail=detail)
        deferred = blocks.deferred_ns(candidate, baselines[0])
        milliseconds = blocks.call_ms(candidate, overhead, deferred)
        if milliseconds < self._floor_below(milliseconds):
            return Implausible(candidate_ms=milliseconds, floor_ms=self._floor or 0.0)
        wrong = self._check_kept(timer.kept, "timed call")
        if wrong := wrong or self._check_kept(timer.trapped, "call with a late change"):
            return wrong
        comparisons: tuple[Comparison, ...] = tuple(
            blocks.compare_arms(arm, candidate, overhead, deferred) for arm in baselines
        )
        return Timing(
            candidate_ms=milliseconds,
            comparisons=comparisons,
            noise=noise,
            page_faults=candidate.median(lambda sample: sample.faults),
            checked_outputs=len(timer.kept),
            device_ms=blocks.device_ms(candidate),
        )

    def _floor_below(self, milliseconds: float) -> float:
        """The floor; measured once more before it convicts, and only ever lowered."""
        if self._floor is None:
            self._floor = plausible.floor_ms(self.subject, self.sets)
        if milliseconds < self._floor:
            self._floor = min(self._floor, plausible.floor_ms(self.subject, self.sets))
        return self._floor

    def _check_kept(self, kept: Sequence[Kept], what: str) -> Verdict | None:
        """The first output of these calls that the oracle does not accept."""
        for number, call in enumerate(kept):
            inputs = decode(call.arguments, call.inputs)
            try:
                truth = self.subject.oracle.answer(self.exam.first.model, inputs)
            except CannotRun:
                continue
            case = Case(f"{what} {number + 1}", self.exam.first, inputs, truth)
            result, detail = self.exam.marker.mark(call.outputs, case)
            if not result.passed:
                return wrong_when_timed(result, detail)
        return None

    def leave(self) -> Legacy:
        """End, and give away what the ground that comes after can use."""
        lanes = self.baselines.hand_over()
        self.close()
        return Legacy(lanes, self._noises, self._idle, self._against_itself, self._floor)

    def close(self) -> None:
        """End the baselines and free the input sets."""
        self.baselines.close()
        self.sets.close()


def wrong_when_timed(result: CaseResult, detail: str) -> Verdict:
    """What a miss in a timed call says of a candidate that every untimed case was right for."""
    if result.worst <= NEAR_MISS:
        return WrongOutput(detail=f"{result.name}: {detail}", cases=(result,))
    told = f"right when checked, wrong when timed ({result.name}): {detail}"
    return Cheated(check="timed output", detail=told)
