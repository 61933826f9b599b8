"""A lane to a runner on a device whose work goes on when a call has returned.

A burst begins with a cold cache and a stopped process, and ends when the runner says that the whole
device is idle. What it says is not believed: results are copied out only after the clock has
stopped, so work that was left undone shows in the copy, in the poison, or in the values.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tools.judge.buffers import Buffers
from tools.judge.lane import UNFIT, Lane, Program, Sample, Then
from tools.judge.runners import Runner, RunnerForged
from tools.judge.wire import JudgeLimits
from tools.runner.accelerator import Precision
from tools.runner.handover import Place


class Waiting:
    """What a lane needs of its device; the base of `site.Gpu`, and alone it is no device at all."""

    device = torch.device("cpu")

    def synchronise(self) -> None:
        """Wait until the judge's own work on the device is done."""

    def flush(self) -> None:
        """Leave nothing of what was read or written in the device's cache."""

    def moment_ns(self) -> float:
        """What the least of the judge's own work takes on the device now."""
        return 0.0


class DeviceLane(Lane):
    """As `Lane`, for a device.

    Args:
        site: the device.
        precision: of float32 products, in baselines and candidates alike.
    """

    def __init__(
        self,
        runner: Runner,
        limits: JudgeLimits,
        reference_s: float,
        site: Waiting,
        precision: Precision,
    ) -> None:
        super().__init__(runner, limits, reference_s)
        self._site = site
        self._precision = precision

    @property
    def in_force(self) -> list[str]:
        """As `Lane.in_force`; no process's memory holds what is on a device."""
        return self.runner.in_force

    def load(
        self, program: Program, arguments: tuple[Any, ...], seed: int, wait: bool = True
    ) -> None:
        """As `Lane.load`; the module is put on the device."""
        self.address = {"device": self._site.device.type, "precision": self._precision}
        super().load(program, arguments, seed, wait)

    def expect(self, like: Sequence[Place], groups: int = 1) -> None:
        """As `Lane.expect`, with buffers in the device's memory."""
        self._site.synchronise()
        self.give(Buffers(like, groups, self._site.device))

    def consume(self, place: int) -> bool:
        """Run forward once, and copy its result as whoever uses it on the same stream would.

        What a kernel still has at work elsewhere, on a stream that nobody waits for, is not in it.
        """
        self.call([place], then="consume")
        return True

    def call(self, sets: Sequence[int], slot: int = 0, then: Then = "keep") -> tuple[int, int]:
        """As `Lane.call`, after what the judge itself has begun to write."""
        self._site.synchronise()
        return super().call(sets, slot, then)

    def collect(
        self, slot: int = 0, claims: bool = False, watch: bool = False
    ) -> tuple[dict[str, Any], int]:
        """As `Lane.collect`, after what the judge itself has begun to write."""
        self._site.synchronise()
        return super().collect(slot, claims, watch)

    def state(self, names: Sequence[str]) -> tuple[str, ...]:
        """As `Lane.state`, after what the judge itself has begun to write."""
        self._site.synchronise()
        return super().state(names)

    def sample(
        self, sets: Sequence[int], finish: Callable[[], None], warm: Sequence[int] = ()
    ) -> Sample:
        """A timed burst; its results are copied out when the clock has stopped.

        The process is stopped until every value is final and the cache is cold. The clock runs
        before it wakes, so nothing can be fetched or computed beforehand; what waking takes is in
        `handshake_ns` too. Nothing is called to warm up: the device is kept awake by the flush.
        """
        self.runner.freeze()
        self.buffers.poison_sparsely()
        finish()
        faults, waited = self.runner.minor_faults(), self.runner.waited_ns()
        self._site.flush()
        self._site.synchronise()
        n = len(sets)
        began = time.perf_counter_ns()
        self.runner.thaw()
        reply, _ = self.ask_to_go(sets, 0, "keep")
        call_ns = time.perf_counter_ns() - began
        faults = self.runner.minor_faults() - faults
        waited = self.runner.waited_ns() - waited
        copy_ns = self._gather(n)
        if self.buffers.poison_left():
            raise RunnerForged("an output buffer was not filled when the runner said so")
        self.runner.freeze()
        after_ns = self._site.moment_ns()
        device_ns = reply.get("device_ns")
        return Sample(
            n, call_ns / n, copy_ns / n, reply["took_ns"] / n, faults / n, max(0, waited),
            device_ns=device_ns / n if isinstance(device_ns, int) else 0.0, after_ns=after_ns,
        )  # fmt: skip

    def _gather(self, count: int) -> int:
        message = {"op": "gather", "count": count, "groups": self.buffers.groups}
        reply, took = self.runner.ask_timed(message, self.deadline_s)
        if reply.get("fits") is not True:
            raise RunnerForged(UNFIT)
        return took

    def handshake_ns(self) -> int:
        """What it takes to wake a process that then has the device do almost nothing."""
        self.runner.freeze()
        self._site.flush()
        self._site.synchronise()
        began = time.perf_counter_ns()
        self.runner.thaw()
        self.runner.ask({"op": "noop"}, self.deadline_s)
        return time.perf_counter_ns() - began
