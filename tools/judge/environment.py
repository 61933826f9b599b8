"""The judge as an environment for whoever trains a model: a task in, kernels judged, rewards out.

A training loop asks much and around the clock, from many threads and with whatever a policy thinks
up. So nothing is believed but verdicts; one kernel is timed at a time on a machine; judges, their
memory and their disk are bounded; and what fails in the judge itself is tried again, and is never a
reward. No torch here: the judge's own processes load it.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from tools.candidate import Candidate, backend_of
from tools.judge.assignment import (
    Known,
    check_here,
    check_telling,
    seats_for,
    task_at,
    text_of,
    unreadable,
)
from tools.judge.client import Judge, JudgeClosed, JudgeDied
from tools.judge.panel import Panel
from tools.judge.reward import reward_of
from tools.judge.seats import Seats
from tools.judge.turns import Turns
from tools.judge.whole import judge_of
from tools.judge.wire import JudgeLimits
from tools.task import Task, device_of, subject_digest
from tools.told import told_to_agents
from tools.verdict import Cheated, Correct, JudgeError, TimedOut, Verdict

STEPS = 8
# Of one request, opening a judge and measuring its baselines included: the judge has closer limits
# of its own for everything a kernel does, so whoever takes longer is stuck.
DEADLINE_S = 900.0
TRIES = 3
# Compiled kernels are kept as long as a judge is open.
MOST_COMPILED = 256 << 20
AT_THE_ROOF = 0.95

Answer = TypeVar("Answer")

SEATS = Seats()


class JudgeLost(Exception):
    """The judge failed at this every time, which says nothing of the kernel.

    The step may be taken again, or the sample left out.
    """


class Observation(Frozen):
    """What a policy may be shown.

    `text` is the task after `reset`, the judge's words after a step; no seed, no input, no path.
    `verdict` is for the trainer's own records, None after `reset`.
    """

    text: str
    step: int
    verdict: Verdict | None = None


class Step(NamedTuple):
    """What came of a kernel."""

    observation: Observation
    reward: float
    done: bool


class Environment:
    """Judges kernels for one task at a time, and gives rewards (`tools.judge.reward`).

    To be closed, and used by one thread at a time; others may have environments of their own, in
    this process and in others.

    Args:
        folder: scratch; None for one of its own, which goes with it.
        steps: kernels an episode may try.
        confirm: measure what reads faster once more, in a new process under new seeds, and reward
            that. It takes seconds, and is what luck and most cheats fail at.
        deadline_s: for one request to the judge, once it has its turn.
        limits: of the judge, for its own deadlines and time for measuring; None for the usual.
        seats: how many judges may be open; None for those that this process shares.
        turns: at the machine; None for those that this user's processes share.
    """

    def __init__(  # noqa: PLR0913 - each has a default that is right for most
        self,
        folder: Path | None = None,
        *,
        steps: int = STEPS,
        confirm: bool = True,
        deadline_s: float = DEADLINE_S,
        limits: JudgeLimits | None = None,
        seats: Seats | None = None,
        turns: Turns | None = None,
    ) -> None:
        if steps < 1:
            raise ValueError(f"an episode of {steps} steps has none to take")
        self._own = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="kernelwright-"))
        self._steps = steps
        self._confirm = confirm
        self._deadline_s = deadline_s
        self._limits = limits
        self._seats = seats or SEATS
        self._turns = turns or Turns()
        self._lock = threading.Lock()
        self._task: Task | None = None
        self._written = ""
        self._known: Known | None = None
        self._judge: Judge | Panel | None = None
        self._opened = 0
        self._taken = 0
        self._done = True
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def reset(self, task: Task | Path | str) -> Observation:
        """Begin an episode on a task: what is to be made fast, and what it is held against.

        Args:
            task: a task, or the path of a task file or of a reference. The same task as before
                finds its judge as it was, so that the episode begins at once.

        Raises:
            BadInput: it can't be judged or timed here, or a verdict on it says nothing: a wrong
                kernel would pass, or its output is the same for all inputs.
            JudgeLost: the judge failed every time.
        """
        with self._lock:
            self._check_open()
            asked = task if isinstance(task, Task) else task_at(Path(task))
            check_here(asked)
            written = subject_digest(asked)
            if (asked, written) != (self._task, self._written):
                self._done = True
                self._drop()
                self._seats.leave(self)
                self._known, self._task, self._written = None, asked, written
            try:
                with self._seats.taken(self, seats_for(asked)):
                    known = self._insist(self._prepared)
                check_telling(asked, known.facts)
            except BadInput:
                self._drop()
                self._seats.leave(self)
                self._known, self._task = None, None
                raise
            self._taken, self._done = 0, False
            return Observation(text=text_of(asked, known), step=0)

    def step(self, source: str) -> Step:
        """Have a kernel judged: a Python module that defines `ModelNew`.

        The episode is over when its steps are used up, at the roofline, and with a kernel that
        cheats.

        Raises:
            RuntimeError: there is no episode, or it is over.
            JudgeLost: the judge failed every time. The step was not taken.
        """
        with self._lock:
            self._check_open()
            if self._done or self._task is None:
                raise RuntimeError("the episode is over, or none was begun: call reset(task)")
            verdict: Verdict | None = unreadable(source)
            if verdict is None:
                candidate = Candidate(source=source, backend=backend_of(source))
                with self._seats.taken(self, seats_for(self._task)):
                    verdict = self._insist(lambda: self._judged(candidate))
                    self._tidy()
            reward = reward_of(verdict)
            assert reward is not None, "what has no reward is tried again, or raised"
            self._taken += 1
            self._done = (
                self._taken >= self._steps
                or isinstance(verdict, Cheated)
                or self._is_at_the_roof(verdict)
            )
            told = Observation(text=told_to_agents(verdict), step=self._taken, verdict=verdict)
            return Step(told, reward, self._done)

    def close(self) -> None:
        """End the judge with everything it started; twice is fine."""
        with self._lock:
            self._closed = self._done = True
            self._drop()
            self._seats.leave(self)
            if self._own:
                shutil.rmtree(self._folder, ignore_errors=True)

    def give_way(self) -> None:
        """Close the judge while it is idle, for another's sake; `Seats` calls this."""
        self._drop()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the environment is closed")

    def _judged(self, candidate: Candidate) -> Verdict:
        """A verdict with the figures that a reward needs."""
        self._prepared()
        with self._turns.judging():
            verdict = self._ask(lambda judge: judge.verify(candidate))
        if isinstance(verdict, TimedOut):
            # It may have been slow because others were at work.
            with self._turns.timing():
                verdict = self._ask(lambda judge: judge.verify(candidate))
        if not isinstance(verdict, Correct):
            return verdict
        baselines = self._prepared().baselines
        names = tuple(row.name for row in baselines.rows if row.median_ms is not None)
        with self._turns.timing():
            timed = self._ask(lambda judge: judge.measure(candidate, names))
            wins = isinstance(timed, Correct) and timed.timing is not None and timed.timing.faster
            if wins and self._confirm:
                timed = self._ask(lambda judge: judge.confirm(candidate))
        if isinstance(timed, Correct):
            cases, same = verdict.cases, verdict.deterministic
            timed = timed.model_copy(update={"cases": cases, "deterministic": same})
        return timed

    def _prepared(self) -> Known:
        """What is known of the task, its judge open; a judge is opened while nobody times."""
        assert self._task is not None, "asked within an episode, or as one begins"
        if self._judge is None or self._known is None:
            with self._turns.timing():
                facts = self._ask(lambda judge: judge.examine())
                self._known = Known(facts, *self._ask(lambda judge: judge.survey()))
        return self._known

    def _insist(self, work: Callable[[], Answer]) -> Answer:
        """The answer, by a new judge where one is lost, a few times.

        Raises:
            JudgeLost: it was lost every time.
        """
        said = ""
        for _ in range(TRIES):
            try:
                answer = work()
            except (JudgeDied, JudgeClosed) as error:
                said = str(error) or f"it did not answer within {self._deadline_s:g} s"
            except BadInput as error:
                # What was fine before is not to blame when a judge ends while it begins anew.
                if self._known is None:
                    raise
                said = str(error)
            except BaseException:
                # Of a request that was interrupted, the answer would be taken for the next one's.
                self._drop()
                raise
            else:
                if not isinstance(answer, JudgeError):
                    return answer
                said = answer.log
            self._drop()
        last = said.strip().splitlines()
        raise JudgeLost(f"the judge was lost {TRIES} times ({last[-1][:200] if last else '?'})")

    def _ask(self, request: Callable[[Judge | Panel], Answer]) -> Answer:
        """One request, within the deadline.

        Raises:
            JudgeClosed: it took longer.
            JudgeDied: the judge's machinery failed twice.
        """
        if self._judge is None:
            self._judge = self._new_judge()
        with _within(self._deadline_s, self._judge.abandon):
            return request(self._judge)

    def _new_judge(self) -> Judge | Panel:
        assert self._task is not None, "asked within an episode, or as one begins"
        self._opened += 1
        # What `auto` means is decided once: the judge is told.
        kind = device_of(self._task, "task: target").kind
        told = self._task.model_copy(update={"target": kind})
        scratch = self._folder / f"judge-{self._opened}"

        return judge_of(told, scratch, self._limits)

    def _drop(self) -> None:
        """Close the judge, and leave nothing of it on the disk."""
        judge, self._judge = self._judge, None
        if judge is not None:
            judge.close()
            shutil.rmtree(self._folder / f"judge-{self._opened}", ignore_errors=True)

    def _tidy(self) -> None:
        """Begin a new judge where the last one's compiled kernels have filled their share."""
        place = self._folder / f"judge-{self._opened}"
        total = 0
        for file in place.rglob("compiled/*"):
            with suppress(OSError):
                total += file.stat().st_size
        if total > MOST_COMPILED:
            self._drop()

    def _is_at_the_roof(self, verdict: Verdict) -> bool:
        if not isinstance(verdict, Correct) or verdict.timing is None or self._known is None:
            return False
        return self._known.roofline.fraction(verdict.timing.lead.candidate_ms) >= AT_THE_ROOF


@contextmanager
def _within(seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """Give up on what takes longer."""
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
