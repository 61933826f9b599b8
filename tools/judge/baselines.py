"""The baselines of a measuring ground: a lane each, made on first use and stopped between uses."""

import contextlib
from collections.abc import Mapping

from tools.facts import BaselineName
from tools.judge.blocks import Arm
from tools.judge.case import Weights
from tools.judge.clock import Clock
from tools.judge.lane import Lane, Program
from tools.judge.pool import Pool
from tools.judge.runners import RUNNER_FAILURES, RunnerFailed, RunnerLate
from tools.judge.subject import Subject
from tools.judge.trial import MakeLane

EAGER, AGAIN, COMPILE = "eager", "eager again", "compile"
# torch's modes by the baseline's name. With CUDA graphs a result is copied out of the graph's
# memory, which the next call overwrites: no drop-in may leave it there.
MODES = {"max-autotune": "max-autotune-no-cudagraphs", "cudagraphs": "max-autotune"}
REASON_LIMIT = 300


class BaselineFailed(Exception):
    """A baseline that was asked for can't be measured; the message says why."""


class BaselineLanes:
    """The lanes of the baselines, and of whatever else is timed under the same conditions.

    Args:
        subject: the reference.
        weights: what every lane is given.
        pool: the inputs that every lane has bound.
        make_lane: gives a runner loaded with a program.
        inherited: baselines' lanes of an earlier ground, by name, which are taken over.
    """

    def __init__(
        self,
        subject: Subject,
        weights: Weights,
        pool: Pool,
        make_lane: MakeLane,
        inherited: Mapping[str, Lane],
    ) -> None:
        self.subject = subject
        self._weights = weights
        self._pool = pool
        self._make_lane = make_lane
        self._lanes: dict[str, Lane] = {}
        self._inherited = dict(inherited)
        self._failed: dict[str, str] = {}

    def adopt(self, name: str, lane: Lane) -> None:
        """Take a baseline's lane over that was set to work before there was a ground."""
        self._inherited[name] = lane

    def available(self) -> tuple[str, ...]:
        """Those of the baselines that work here."""
        timer = Clock(self._pool)
        found = []
        for name in (EAGER, *self.compiled):
            with contextlib.suppress(BaselineFailed):
                self.arm(name, timer)
                found.append(name)
        return tuple(found)

    def failure_of(self, name: str) -> str:
        """Why a baseline can't be had; empty where it can, or was not asked for yet."""
        return self._failed.get(name, "")

    @property
    def compiled(self) -> tuple[BaselineName, ...]:
        """The ways of torch.compile that are measured.

        Tuning chooses among kernels of products and convolutions: many on a GPU, few on a CPU,
        where it is another compilation for little, and left out unless the task asks for it.
        """
        on_gpu = self.subject.device.type != "cpu"
        asked = self.subject.task.autotune
        if not (on_gpu if asked is None else asked):
            return ("compile",)
        return ("compile", "max-autotune", "cudagraphs") if on_gpu else ("compile", "max-autotune")

    def arm(self, name: str, timer: Clock) -> Arm:
        """A baseline, its lane made on first use, or anew where it died while it was idle.

        Raises:
            BaselineFailed: it can't be had.
        """
        if name in self._failed:
            raise BaselineFailed(self._failed[name])
        self.forget_ended()
        try:
            if name not in self._lanes:
                self._lanes[name] = self._inherit(name) or self.prepare(self._program(name))
                self._lanes[name].runner.trusted = True
            arm = Arm(name, self._lanes[name])
            timer.warm_up(arm)
        except RUNNER_FAILURES as failure:
            self.drop(name)
            reason = " ".join(str(failure).split())[-REASON_LIMIT:]
            self._failed[name] = f"{name} does not work here: {reason}"
            raise BaselineFailed(self._failed[name]) from failure
        return arm

    def _program(self, name: str) -> Program:
        return self.subject.program(
            compile_it=name == COMPILE or name in MODES, mode=MODES.get(name)
        )

    def _inherit(self, name: str) -> Lane | None:
        """An earlier ground's lane, given these weights and inputs: it spares a compilation."""
        lane = self._inherited.pop(name, None)
        if lane is None:
            return None
        try:
            self._fit(lane)
        except (RunnerFailed, RunnerLate):
            # The program's own doing, and no other in another runner.
            lane.close()
            raise
        except RUNNER_FAILURES:
            lane.close()
            return None
        return lane

    def prepare(self, program: Program) -> Lane:
        """A new lane for any program, under the conditions of the baselines; the caller's to close.

        Raises:
            Exception: one of `RUNNER_FAILURES`.
        """
        lane = self._make_lane(program, self._weights)
        try:
            self._fit(lane)
        except RUNNER_FAILURES:
            lane.close()
            raise
        return lane

    def _fit(self, lane: Lane) -> None:
        lane.give_weights(self._weights.tensors)
        lane.bind(self._pool.sets)
        lane.expect(self.subject.owed, self._pool.burst)

    def drop(self, name: str) -> None:
        """End a lane that will not be used again, unless it was found ended already."""
        if (lane := self._lanes.pop(name, None)) is not None:
            lane.close()

    def forget_ended(self) -> None:
        """Lanes whose processes are gone are made anew when they are next asked for."""
        for name, lane in list(self._lanes.items()):
            if lane.ended:
                self.drop(name)

    def hand_over(self) -> dict[str, Lane]:
        """The lanes in use, which are from then on whoever's takes them over."""
        lanes, self._lanes = self._lanes, {}
        return lanes

    def close(self) -> None:
        """End the lanes."""
        for lane in (*self._lanes.values(), *self._inherited.values()):
            lane.close()
        self._lanes.clear()
        self._inherited.clear()
