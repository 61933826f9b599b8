"""A judge of several workloads: one `Judge` each, asked in turn, and one answer for all.

A candidate is right only if it is right on every workload; its figures are geometric means over
them. The judges are processes of their own, opened when they are first asked. So many stay open
that their memory has a bound; one that was closed begins anew, under new seeds.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from knowledge.device import memory_bytes
from knowledge.errors import BadInput
from tools.candidate import Candidate
from tools.facts import Baselines, ReferenceFacts, Roofline, WorkloadFacts
from tools.judge.combine import combined_timing
from tools.task import Task, device_of
from tools.verdict import (
    BuildFailed,
    Compiled,
    Correct,
    JudgeError,
    Profile,
    Verdict,
    WorkloadTiming,
)

# Of the memory that there is, for each judge that stays open: it keeps its reference, the oracle's
# answers, and some processes with torch in them.
MEMORY_EACH = 4 << 30
LEAST_OPEN, MOST_ON_DEVICE = 2, 3


class OneJudge(Protocol):
    """A judge of one workload: `Judge`, or what stands in its place for an absent device."""

    def examine(self) -> ReferenceFacts:
        """The facts of the reference."""

    def cautions(self) -> tuple[str, ...]:
        """What a reader of any verdict must know."""

    def survey(self) -> tuple[Baselines, Roofline]:
        """Baselines and roofline."""

    def build(self, candidate: Candidate) -> BuildFailed | None:
        """Compile a candidate; None where nothing is wrong."""

    def verify(self, candidate: Candidate) -> Verdict:
        """Judge its correctness."""

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Verdict:
        """Time it."""

    def profile(self, candidate: Candidate) -> Profile | None:
        """Where its time goes."""

    def confirm(self, candidate: Candidate) -> Verdict:
        """Judge and time it again."""

    def close(self) -> None:
        """End it."""

    def abandon(self) -> None:
        """End it from another thread; whoever waits for an answer is told that there is none."""


class Panel:
    """The judges of a task's workloads. Not thread-safe: `MeteredJudge` lets in one at a time.

    Args:
        task: has two workloads or more.
        folder: scratch; each judge has a folder of its own in it.
        open_judge: gives the judge of a task with one workload.
        on_device: whether its requests take the device.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        open_judge: Callable[[Task, Path], OneJudge],
        *,
        on_device: bool = True,
    ) -> None:
        self.on_device = on_device
        self._task = task
        self._folder = folder
        self._open_judge = open_judge
        self._names = [workload.name for workload in task.workloads]
        # Open judges by the workload's place, the one that was asked last at the end.
        self._judges: dict[int, OneJudge] = {}
        self._known: dict[int, WorkloadFacts] = {}
        self._abandoned = False
        most = max(LEAST_OPEN, memory_bytes() // MEMORY_EACH)
        # A device has room for fewer: each has contexts, sets and truths there.
        kind = device_of(task, "task: target").kind
        self._most_open = most if kind == "cpu" else min(most, MOST_ON_DEVICE)

    @property
    def workloads(self) -> tuple[WorkloadFacts, ...]:
        """What is known of every workload, the leading one first.

        Raises:
            BadInput: a reference can't be loaded, run or judged; the line names the workload.
        """
        return tuple(self._facts_of(place) for place in range(len(self._names)))

    def examine(self) -> ReferenceFacts:
        """The facts of the leading workload, with the cautions of all.

        Raises:
            BadInput: as `workloads`.
        """
        found = [one.facts.cautions for one in self.workloads]
        facts = self._facts_of(0).facts
        return facts.model_copy(update={"cautions": self._all_cautions(found)})

    def cautions(self) -> tuple[str, ...]:
        """The cautions of all workloads; sooner there than the facts.

        Raises:
            BadInput: as `workloads`.
        """
        found = []
        for place in range(len(self._names)):
            with self._blaming(place):
                found.append(self._judge(place).cautions())
        return self._all_cautions(found)

    def _all_cautions(self, found: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        first, *others = found
        told = [
            f"on {name}: {caution}"
            for name, cautions in zip(self._names[1:], others, strict=True)
            for caution in cautions
            if caution not in first
        ]
        return (*first, *told)

    def survey(self) -> tuple[Baselines, Roofline]:
        """Baselines and roofline of the leading workload; those of the others are in `workloads`.

        Raises:
            BadInput: as `workloads`.
        """
        first = self._facts_of(0)
        return first.baselines, first.roofline

    def build(self, candidate: Candidate) -> BuildFailed | None:
        """Compile a candidate; None where nothing is wrong. It is one source for all workloads."""
        return self._judge(0).build(candidate)

    def verify(self, candidate: Candidate) -> Verdict:
        """Judge its correctness on every workload; the first rejection is the answer."""
        return self._all(lambda place: self._judge(place).verify(candidate))

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Verdict:
        """Time it on every workload.

        Where one baseline is named it is the fastest, and each workload has its own. Nothing is let
        go early: what is slow on one workload may be fast on the next.
        """
        return self._all(
            lambda place: self._judge(place).measure(candidate, self._rivals(place, against))
        )

    def profile(self, candidate: Candidate) -> Profile | None:
        """Where its time goes on the leading workload; None where it has not been measured."""
        return self._judge(0).profile(candidate)

    def confirm(self, candidate: Candidate) -> Verdict:
        """Judge and time it again on every workload."""
        return self._all(lambda place: self._judge(place).confirm(candidate))

    def close(self) -> None:
        """End all judges; twice is fine."""
        while self._judges:
            self._judges.popitem()[1].close()

    def abandon(self) -> None:
        """End all judges at once, from another thread, and those that are yet to be opened."""
        self._abandoned = True
        for judge in tuple(self._judges.values()):
            judge.abandon()

    def _all(self, ask: Callable[[int], Verdict]) -> Verdict:
        verdicts: list[Verdict] = []
        for place, name in enumerate(self._names):
            verdict = ask(place)
            if not isinstance(verdict, Correct | Compiled):
                labels = (*verdict.labels, f"rejected on the workload {name}")
                if isinstance(verdict, JudgeError):
                    labels = (*verdict.labels, f"on the workload {name}")
                return verdict.model_copy(update={"labels": labels})
            verdicts.append(verdict)
        return together(self._names, verdicts)

    def _rivals(self, place: int, against: tuple[str, ...]) -> tuple[str, ...]:
        baselines = self._facts_of(place).baselines
        if len(against) == 1:
            return (baselines.best.name,) if baselines.best is not None else against
        return tuple(
            row.name for row in baselines.rows if row.name in against and row.median_ms is not None
        )

    def _facts_of(self, place: int) -> WorkloadFacts:
        if place not in self._known:
            judge = self._judge(place)
            with self._blaming(place):
                facts = judge.examine()
                # At once: until its baselines are measured, a judge compiles them beside others.
                baselines, roofline = judge.survey()
            self._known[place] = WorkloadFacts(
                name=self._names[place], facts=facts, baselines=baselines, roofline=roofline
            )
        return self._known[place]

    @contextlib.contextmanager
    def _blaming(self, place: int) -> Iterator[None]:
        """Name the workload in a complaint about the user's input."""
        try:
            yield
        except BadInput as error:
            where = f"{error.where}: workload {self._names[place]}"
            raise BadInput(where, error.what, error.mend) from error

    def _judge(self, place: int) -> OneJudge:
        judge = self._judges.pop(place, None)
        if judge is None:
            while len(self._judges) >= self._most_open:
                # The leading one is asked most, and profiles what it measured last.
                oldest = next(place for place in self._judges if place != 0)
                self._judges.pop(oldest).close()
            one = self._task.at(self._task.workloads[place])
            judge = self._open_judge(one, self._folder / f"workload-{place + 1}")
        self._judges[place] = judge
        if self._abandoned:
            judge.abandon()
        return judge


def together(names: Sequence[str], verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several that reject nothing, all of one kind."""
    labels = tuple(dict.fromkeys(label for verdict in verdicts for label in verdict.labels))
    first = verdicts[0]
    if isinstance(first, Compiled):
        uses = {
            use.model_dump_json(): use
            for verdict in verdicts
            if isinstance(verdict, Compiled)
            for use in verdict.kernels
        }
        return first.model_copy(update={"labels": labels, "kernels": tuple(uses.values())})
    assert isinstance(first, Correct)
    right = [verdict for verdict in verdicts if isinstance(verdict, Correct)]
    timed = [
        WorkloadTiming(name=name, timing=verdict.timing)
        for name, verdict in zip(names, right, strict=True)
        if verdict.timing is not None
    ]
    cases = tuple(
        case.model_copy(update={"name": f"{name}: {case.name}"})
        for name, verdict in zip(names, right, strict=True)
        for case in verdict.cases
    )
    return first.model_copy(
        update={
            "labels": labels,
            "cases": cases,
            "deterministic": all(verdict.deterministic for verdict in right),
            "timing": combined_timing(timed) if len(timed) == len(names) else None,
        }
    )
