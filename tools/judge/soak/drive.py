"""The soak itself: candidates one by one, some with a kill in the middle, each verdict checked."""

import contextlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import psutil

from tools.judge.client import Judge
from tools.judge.soak.kinds import KINDS, REFERENCES, Kind, Suspect, suspect
from tools.judge.soak.watch import (
    Memory,
    Resource,
    judge_counts,
    judge_memory,
    memory,
    settled,
    worker_of,
    zygote_of,
)
from tools.judge.wire import JudgeLimits
from tools.task import parse_task
from tools.verdict import Verdict

# Deadlines that a call of microseconds never meets, and a hanging one soon.
LIMITS = JudgeLimits(
    call_s=1.5, first_call_s=1.5, load_s=20.0, compile_s=60.0, preparation_s=2.0, timing_s=0.3
)
FIRST_GUESS_SECONDS = 0.03
# Far above every deadline: a verdict that has not come by then will not come.
STUCK_SECONDS = 120.0
CHECKS = 10

Target = Literal["worker", "zygote"]


@dataclass(frozen=True)
class Plan:
    """What a soak is to do; the same plan draws the same candidates and kills."""

    candidates: int
    seed: int
    references: int
    kills: int


@dataclass(frozen=True)
class Answer:
    """What became of one candidate; `fault` is empty where its verdict is its own and right."""

    suspect: Suspect
    got: str
    seconds: float
    killed: str
    fault: str = ""


@dataclass
class Findings:
    """All that a soak has learned so far."""

    answers: list[Answer] = field(default_factory=list)
    checks: list[dict[str, int]] = field(default_factory=list)
    readings: list[Memory] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def faults(self) -> list[Answer]:
        """Candidates whose verdict was lost, wrong, or another's."""
        return [answer for answer in self.answers if answer.fault]

    @property
    def resources(self) -> list[Resource]:
        """Every figure, with its growth."""
        return [*judge_counts(self.checks, len(self.answers)), *judge_memory(self.readings)]

    @property
    def passed(self) -> bool:
        """No verdict lost or wrong, no leak, nothing left behind, no death that was not asked."""
        leaks = [resource for resource in self.resources if resource.leak]
        return not (self.faults or leaks or self.deaths or any(self.left.values()))


class Killer:
    """Kills one process of a judge while a verdict is awaited, once."""

    def __init__(self, victim: psutil.Process, delay_s: float) -> None:
        self.struck = False
        self._victim = victim
        self._delay_s = delay_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _wait(self) -> None:
        if self._over.wait(self._delay_s) or not self._victim.is_running():
            return
        self.struck = True
        with contextlib.suppress(psutil.NoSuchProcess):
            self._victim.kill()
            while self._victim.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.001)


class Bench:
    """One reference with its judge, and the processes that it is known to have."""

    def __init__(self, index: int, folder: Path, stack: ExitStack) -> None:
        self.reference = REFERENCES[index]
        self.scratch = (folder / self.reference.name / "scratch").resolve()
        home = self.scratch.parent
        home.mkdir()
        (home / "reference.py").write_text(self.reference.source, encoding="utf-8")
        raw = {"name": self.reference.name, "reference": "reference.py"}
        task = parse_task(raw, self.reference.name, home)
        self.judge = stack.enter_context(Judge(task, self.scratch, LIMITS))
        self.known: dict[Target, int] = {}

    def process(self, target: Target) -> psutil.Process | None:
        """Its worker or its zygote, if there is one now."""
        worker = worker_of(self.scratch)
        return worker if target == "worker" or worker is None else zygote_of(worker)

    def strangers(self, killed: str) -> list[str]:
        """Which processes were replaced although nobody had killed them."""
        found: list[str] = []
        targets: tuple[Target, ...] = ("worker", "zygote")
        for target in targets:
            if killed in (target, "worker"):
                self.known.pop(target, None)
            process = self.process(target)
            if process is None:
                continue
            if self.known.get(target, process.pid) != process.pid:
                found.append(target)
            self.known[target] = process.pid
        return found


class Soak:
    """Runs a plan in a folder.

    Args:
        plan: what to do.
        folder: empty; each reference gets a place in it.
        tell: called after every candidate.
    """

    def __init__(self, plan: Plan, folder: Path, tell: Callable[[Answer], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._tell = tell
        self._chance = random.Random(plan.seed)
        self._took: dict[str, list[float]] = defaultdict(list)
        self.findings = Findings()

    def run(self) -> Findings:
        """Judge all candidates."""
        plan, findings = self._plan, self.findings
        empty = settled([], None)
        dealt = self._deal()
        targets: list[Target] = ["worker", "zygote"] * plan.kills
        step = plan.candidates / (plan.kills + 1)
        due = [step * (number + self._chance.uniform(0.6, 1.4)) for number in range(plan.kills)]
        with ExitStack() as stack:
            benches = [Bench(index, self._folder, stack) for index in range(plan.references)]
            scratches = [bench.scratch for bench in benches]
            self._warm_up(benches)
            findings.checks.append(settled(scratches, None))
            began = time.monotonic()
            for number, kind in enumerate(dealt):
                bench = self._chance.choice(benches)
                target = targets[0] if due and number >= due[0] else None
                answer = self._one(
                    bench, suspect(number, kind, bench.reference, self._chance), target
                )
                if target is not None and answer.killed:
                    del due[0], targets[0]
                if (number + 1) % max(1, plan.candidates // CHECKS) == 0:
                    findings.checks.append(settled(scratches, findings.checks[0]))
            if not dealt or len(dealt) % max(1, plan.candidates // CHECKS):
                findings.checks.append(settled(scratches, findings.checks[0]))
            findings.seconds = time.monotonic() - began
        after = settled([], empty)
        findings.left = {name: max(0, after[name] - empty[name]) for name in after}
        return findings

    def _deal(self) -> list[Kind]:
        """Every kind once, if there is room, and the rest by their shares."""
        drawn = self._chance.sample(KINDS, min(len(KINDS), self._plan.candidates))
        shares = [kind.share for kind in KINDS]
        drawn += self._chance.choices(KINDS, shares, k=self._plan.candidates - len(drawn))
        self._chance.shuffle(drawn)
        return drawn

    def _warm_up(self, benches: list[Bench]) -> None:
        """One plain candidate each, so that the first reading finds everything started."""
        for bench in benches:
            first = suspect(-1, KINDS[0], bench.reference, self._chance)
            self._judge(bench, first, None)
            bench.strangers("")

    def _one(self, bench: Bench, one: Suspect, target: Target | None) -> Answer:
        victim = bench.process(target) if target is not None else None
        verdict, seconds, struck = self._judge(bench, one, victim)
        killed = target or "nothing" if struck else ""
        answer = Answer(one, getattr(verdict, "kind", "none"), seconds, killed, fault(one, verdict))
        if not killed:
            self._took[one.kind.name].append(seconds)
        findings = self.findings
        findings.answers.append(answer)
        for which in bench.strangers(killed):
            findings.deaths.append(f"the {which} was replaced during candidate {one.number}")
        worker, zygote = bench.process("worker"), bench.process("zygote")
        findings.readings += memory(one.number, "worker", worker)
        findings.readings += memory(one.number, "zygote", zygote)
        self._tell(answer)
        return answer

    def _judge(
        self, bench: Bench, one: Suspect, victim: psutil.Process | None
    ) -> tuple[Verdict | Exception, float, bool]:
        """The verdict or what was raised instead, its seconds, and whether the kill fell in it."""
        usual = self._took[one.kind.name]
        expected = median(usual) if usual else FIRST_GUESS_SECONDS
        delay = self._chance.uniform(0.05, 0.95) * expected if victim else STUCK_SECONDS
        victim = victim or bench.process("worker")
        began = time.monotonic()
        if victim is None:
            verdict: Verdict | Exception = self._verify(bench, one)
            return verdict, time.monotonic() - began, False
        with Killer(victim, delay) as killer:
            verdict = self._verify(bench, one)
            seconds = time.monotonic() - began
        return verdict, seconds, killer.struck

    def _verify(self, bench: Bench, one: Suspect) -> Verdict | Exception:
        try:
            return bench.judge.verify(one.candidate)
        except Exception as error:  # noqa: BLE001 - whatever it is, a verdict was lost
            return error


def fault(one: Suspect, verdict: Verdict | Exception) -> str:
    """What is wrong with a verdict, in words; empty where it is the candidate's own, and right."""
    if isinstance(verdict, Exception):
        return f"lost: {type(verdict).__name__}: {verdict}"
    # The labels are the request's own and would hold the tag whatever ran.
    text = verdict.model_dump_json(exclude={"labels"})
    if verdict.kind != one.kind.verdict:
        return f"{verdict.kind} instead of {one.kind.verdict}: {text[:600]}"
    if one.tag not in verdict.labels:
        return f"another candidate's: {verdict.labels}"
    if missing := [word for word in one.told if word not in text]:
        return f"made by another run: {missing[0]!r} is not in {text[:600]}"
    return ""
