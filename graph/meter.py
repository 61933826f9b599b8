"""The clock of a run: wall time worked and time on the device, on the disk and so over restarts."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from graph.ledger import Ledger
from knowledge.opgraph import Frozen
from tools.ahead import AheadOfTime
from tools.candidate import Candidate
from tools.facts import Baselines, ReferenceFacts, Roofline, WorkloadFacts
from tools.judge.client import Judge
from tools.judge.panel import Panel
from tools.judge.turns import Turns
from tools.verdict import BuildFailed, Profile, Verdict

Reply = TypeVar("Reply")


class Lap(Frozen):
    """A stretch of work. `device_seconds` is what the judge had the device for, 0 for the rest."""

    what: str
    candidate: str = ""
    wall_seconds: float
    device_seconds: float = 0.0


class Meter:
    """Adds up laps; the sum goes on where a killed process left it.

    Time is lost with a process that is killed only from its last lap on: a lap ends with every node
    and with every request to the judge.
    """

    def __init__(self, path: Path) -> None:
        self._ledger = Ledger(path)
        lines, _ = self._ledger.recover()
        laps: list[Lap] = []
        for line in lines:
            # What a full disk cut short, or another release wrote, is not counted.
            with suppress(ValidationError):
                laps.append(Lap.model_validate_json(line))
        self._wall = sum(lap.wall_seconds for lap in laps)
        self._device = sum(lap.device_seconds for lap in laps)
        self._since = time.monotonic()
        self._lock = threading.Lock()

    @property
    def wall_seconds(self) -> float:
        """Worked so far, by every process that this run had."""
        with self._lock:
            return self._wall + time.monotonic() - self._since

    @property
    def device_seconds(self) -> float:
        """For which the judge had the device so far."""
        with self._lock:
            return self._device

    def lap(self, what: str, candidate: str = "", device_seconds: float = 0.0) -> None:
        """End a lap, and start the next."""
        with self._lock:
            now = time.monotonic()
            wall, self._since = now - self._since, now
            self._wall += wall
            self._device += device_seconds
        self._ledger.append(
            Lap(
                what=what, candidate=candidate, wall_seconds=wall, device_seconds=device_seconds
            ).model_dump_json()
        )

    def forget(self) -> None:
        """Start the next lap now: what passed since the last one was nobody's work."""
        with self._lock:
            self._since = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What passes within this block is taken off the lap: the run works on nothing."""
        began = time.monotonic()
        yield
        with self._lock:
            now = time.monotonic()
            # Another thread of this run may have waited too, or ended the lap meanwhile.
            self._since = min(self._since + now - began, now)


class Lane:
    """The turn at the device that several runs of one process take; waiting for it is no work.

    Args:
        lock: all those runs have it; a thread that has the turn may take it again.
        meter: of one of them.
    """

    def __init__(self, lock: threading.RLock, meter: Meter) -> None:
        self._lock = lock
        self._meter = meter

    def __enter__(self) -> None:
        with self._meter.waiting():
            self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


# What reads a clock, or runs under one that other work would disturb.
TIMING = ("survey", "measure", "profile", "confirm")


class Queue:
    """Turns at a device that several processes share; waiting for one is no work.

    Args:
        turns: theirs.
        meter: of this process's run.
        on_cpu: the device is the CPU, so that compiling disturbs it as well.
    """

    def __init__(self, turns: Turns, meter: Meter, *, on_cpu: bool) -> None:
        self._turns = turns
        self._meter = meter
        self._on_cpu = on_cpu

    @contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """Within this block a request of that name disturbs nobody, and nobody disturbs it."""
        if what == "build" and not self._on_cpu:
            yield
            return
        with ExitStack() as held:
            with self._meter.waiting():
                held.enter_context(
                    self._turns.timing() if what in TIMING else self._turns.judging()
                )
            yield


class MeteredJudge:
    """A judge whose requests are counted, one at a time; compiling leaves the device free.

    Args:
        judge: does the work. For a device that is not here, no device is had.
        meter: is told of every request that ended.
        lane: is taken for whatever needs the device; None where no other run may want it.
        queue: the same among processes.
    """

    def __init__(
        self,
        judge: Judge | AheadOfTime | Panel,
        meter: Meter,
        lane: Lane | None = None,
        queue: Queue | None = None,
    ) -> None:
        self._queue = queue
        self._judge = judge
        self._meter = meter
        self._lane: AbstractContextManager[None] = lane or nullcontext()
        self._on_device = judge.on_device if isinstance(judge, Panel) else isinstance(judge, Judge)
        # The judge makes its callers wait too; here, so that waiting isn't taken for device time.
        self._turn = threading.Lock()

    def examine(self) -> ReferenceFacts:
        """The facts of the reference."""
        return self._timed("examine", None, self._judge.examine)

    def survey(self) -> tuple[Baselines, Roofline]:
        """Baselines and roofline."""
        return self._timed("survey", None, self._judge.survey)

    def workloads(self) -> tuple[WorkloadFacts, ...]:
        """What is known of each workload, where there are several."""
        panel = self._judge
        if not isinstance(panel, Panel):
            return ()
        return self._timed("survey", None, lambda: panel.workloads)

    def build(self, candidate: Candidate) -> BuildFailed | None:
        """Compile a candidate; None where nothing is wrong."""
        return self._timed("build", candidate, lambda: self._judge.build(candidate), device=False)

    def verify(self, candidate: Candidate) -> Verdict:
        """Judge its correctness."""
        return self._timed("verify", candidate, lambda: self._judge.verify(candidate))

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Verdict:
        """Time it."""
        return self._timed(
            "measure", candidate, lambda: self._judge.measure(candidate, against, to_beat)
        )

    def profile(self, candidate: Candidate) -> Profile | None:
        """Where its time goes."""
        return self._timed("profile", candidate, lambda: self._judge.profile(candidate))

    def confirm(self, candidate: Candidate) -> Verdict:
        """Judge and time it again."""
        return self._timed("confirm", candidate, lambda: self._judge.confirm(candidate))

    def alone(self) -> AbstractContextManager[None]:
        """Within this block no other process times anything, and nothing of theirs is timed."""
        return nullcontext() if self._queue is None else self._queue.turn("profile")

    def abandon(self) -> None:
        """End it at once, also while it works: whoever waits for it gets `JudgeClosed`."""
        self._judge.abandon()

    def close(self) -> None:
        """End the judge with everything it started; twice is fine."""
        self._judge.close()

    def _timed(
        self,
        what: str,
        candidate: Candidate | None,
        ask: Callable[[], Reply],
        *,
        device: bool = True,
    ) -> Reply:
        queued = nullcontext() if self._queue is None else self._queue.turn(what)
        with self._lane if device else nullcontext(), queued, self._turn:
            began = time.monotonic()
            try:
                return ask()
            finally:
                took = time.monotonic() - began if device and self._on_device else 0.0
                self._meter.lap(what, candidate.digest if candidate else "", took)
