"""The end of a run: the winner is measured anew, and what was tried is remembered."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from agents.brief import Plan
from graph.record import RunRecord
from graph.strategy import ranked
from graph.workbench import Workbench
from knowledge.experience import fingerprint, signature
from knowledge.experience.tried import Tried
from tools.task import PLAYBOOK
from tools.verdict import Compiled, Correct, JudgeError, Trial, Verdict

CONFIRMATIONS = 3


class Confirmed(NamedTuple):
    """What judging the fastest trials anew came to.

    `fallen` are the verdicts on those that were right at first and are not: they stand.
    """

    winner: int | None
    verdict: Correct | None
    fallen: dict[int, Verdict]
    notes: tuple[str, ...]


def confirm_winner(bench: Workbench, trials: list[Trial]) -> Confirmed:
    """The fastest trial that stands when it is judged anew.

    Trials that may be faster than the baseline are taken in order of measured speed. The first that
    is confirmed faster than every baseline wins; if none of the first few is, the one with the best
    confirmed figure does, and the run ends as `correct`.
    """
    standing: list[tuple[Trial, Correct]] = []
    fallen: dict[int, Verdict] = {}
    notes: list[str] = []
    hopeful = [trial for trial in ranked(trials) if _may_be_faster(trial)]
    for trial in hopeful[:CONFIRMATIONS]:
        verdict = bench.judge.confirm(trial.candidate)
        if not isinstance(verdict, Correct) or verdict.timing is None:
            notes.append(f"trial {trial.number} was not confirmed ({verdict.kind})")
            if not isinstance(verdict, Correct | JudgeError):
                fallen[trial.number] = verdict
            continue
        standing.append((trial, verdict))
        if verdict.timing.faster:
            return Confirmed(trial.number, verdict, fallen, tuple(notes))
        notes.append(f"trial {trial.number} is not faster when measured again")
    if not standing:
        return Confirmed(None, None, fallen, tuple(notes))
    trial, verdict = max(standing, key=lambda pair: _speedup(pair[1]))
    return Confirmed(trial.number, verdict, fallen, tuple(notes))


def confirm_slower(bench: Workbench, trials: list[Trial]) -> tuple[int, Correct] | None:
    """The fastest right trial, though slower than the baseline, where that can't be handed over."""
    for trial in ranked(trials)[:CONFIRMATIONS]:
        verdict = bench.judge.confirm(trial.candidate)
        if isinstance(verdict, Correct) and verdict.timing is not None:
            return trial.number, verdict
    return None


def most_promising(trials: list[Trial], plans: tuple[Plan, ...]) -> int | None:
    """The compiled trial of which the arithmetic promises most, where none could be timed."""
    promised = {plan.id: plan.expected_speedup for plan in plans}
    compiled = [trial for trial in trials if isinstance(trial.verdict, Compiled)]
    best = max(compiled, key=lambda one: (promised[one.plan], -one.number), default=None)
    return best.number if best is not None else None


def _may_be_faster(trial: Trial) -> bool:
    """Whether its first measurement leaves that open."""
    return trial.timing is not None and trial.timing.against_best.high > 1.0


def _speedup(verdict: Correct) -> float:
    assert verdict.timing is not None
    return verdict.timing.against_best.speedup


def is_no_slower(verdict: Correct | None) -> bool:
    """Whether a confirmed kernel reads no slower than the baseline.

    Who is given one that may be slower, and gains nothing for sure, is better off without it.
    """
    return verdict is not None and verdict.timing is not None and _speedup(verdict) >= 1.0


def remember(bench: Workbench, record: RunRecord) -> None:
    """Keep every judged trial in the memory; what was confirmed teaches, so it is a lesson too."""
    tried = tried_in(record)
    bench.library.memory.keep(tried)
    for lesson in filter(None, (one.lesson for one in tried)):
        bench.library.remember(lesson)


def tried_in(record: RunRecord) -> list[Tried]:
    """A finished run's trials as they are remembered."""
    graph = record.facts.graph
    bottlenecks = {one.trial: one.bottleneck for one in record.diagnoses}
    changes = {repair.failed_trial: repair.action for repair in record.repairs}
    kinds = {trial.number: trial.verdict.kind for trial in record.trials}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    identity = fingerprint(graph) if graph else record.facts.digest[:24]
    words = signature(graph) if graph else ""
    tried: list[Tried] = []
    for trial in record.trials:
        handed_over = trial.number == record.winner
        timing = record.timing if handed_over and record.timing is not None else trial.timing
        # What is remembered belongs to the graph, which is the leading workload's.
        best = timing.lead.against_best if timing is not None else None
        confirmed = handed_over and timing is not None and timing.confirmed
        mends = trial.parent if trial.repair and trial.parent in changes else None
        tried.append(
            Tried(
                run_id=Path(record.run_dir).name,
                trial=trial.number,
                fingerprint=identity,
                signature=words,
                device=record.device.name,
                architecture=record.device.architecture,
                title=trial.title,
                # Of what a model wrote, the steps that it had for a plan say too little.
                steps=record.plan(trial.plan).steps if trial.candidate.author == PLAYBOOK else (),
                verdict=trial.verdict.kind,
                speedup=best.speedup if best else None,
                low=best.low if best else None,
                high=best.high if best else None,
                confirmed=confirmed,
                won=confirmed and record.status == "faster",
                bottleneck=bottlenecks.get(trial.number, ""),
                roofline=trial.profile.roofline_fraction if trial.profile else None,
                mended=kinds[mends] if mends is not None else "",
                repair=changes[mends] if mends is not None else "",
                when=now,
            )
        )
    return tried
