"""Whether the reference takes inputs that its author did not draw, found out in a runner.

An exam proposes other sizes, layouts and values, and asks the reference which of them it takes. On
a GPU the answer may be the end of whoever asked: an index out of range, or a load at an odd
address, leaves a CUDA context of no further use. So a process that can be spared is asked first.
"""

from collections.abc import Callable
from typing import Any

from tools.judge.case import Weights
from tools.judge.lane import Lane, Program
from tools.judge.runners import RUNNER_FAILURES, RunnerFailed
from tools.judge.subject import Subject

MakeLane = Callable[[Program, Weights], Lane]
# After these a device is of no use to the process that did it.
FATAL = ("CUDA error", "illegal memory access", "CUDA_ERROR", "device-side assert")


class Trial:
    """Runs the reference where a failure costs a process, and no more.

    Args:
        subject: the reference.
        make_lane: gives a runner loaded with a program.
    """

    def __init__(self, subject: Subject, make_lane: MakeLane) -> None:
        self._subject = subject
        self._make_lane = make_lane
        self._lane: Lane | None = None

    def open(self, weights: Weights) -> None:
        """Make the runner, which takes a while on a device.

        Raises:
            Exception: one of `RUNNER_FAILURES`.
        """
        if self._lane is None:
            self._lane = self._make_lane(self._subject.program(compile_it=False), weights)
            self._lane.give_weights(weights.tensors)

    def takes(self, weights: Weights, inputs: tuple[Any, ...]) -> bool:
        """Whether forward returns on these inputs; the runner is made where there is none."""
        sets = self._subject.share([inputs])
        try:
            self.open(weights)
            lane = self._lane
            assert lane is not None
            lane.bind(sets)
            # What is compiled for each shape may be compiled now.
            lane.runner.first_call_done = False
            lane.call([0], then="drop")
        except RUNNER_FAILURES as failure:
            refused = isinstance(failure, RunnerFailed)
            if not refused or any(word in str(failure) for word in FATAL):
                self.close()
            return False
        finally:
            sets.close()
        return True

    def close(self) -> None:
        """End the runner; another one is made when it is needed."""
        if self._lane is not None:
            self._lane.close()
            self._lane = None
