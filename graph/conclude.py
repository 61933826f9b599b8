"""The end of a run: the winner is measured anew, and what was confirmed is remembered."""

from datetime import UTC, datetime
from pathlib import Path

from graph.record import RunRecord
from graph.strategy import ranked
from graph.workbench import Workbench
from knowledge.experience import Lesson, fingerprint, signature
from tools.verdict import Correct, Trial

CONFIRMATIONS = 3


def confirm_winner(
    bench: Workbench, trials: list[Trial]
) -> tuple[int | None, Correct | None, tuple[str, ...]]:
    """The fastest trial that stands when it is judged anew.

    Trials are taken in order of measured speed. The first that is confirmed faster than every
    baseline wins; if none of the first few is, the one with the best confirmed figure does, and the
    run ends as `correct`.

    Returns:
        The winner's number, its confirmation, and sentences about those that fell.
    """
    standing: list[tuple[Trial, Correct]] = []
    notes: list[str] = []
    for trial in ranked(trials)[:CONFIRMATIONS]:
        verdict = bench.judge.confirm(trial.candidate)
        if not isinstance(verdict, Correct) or verdict.timing is None:
            notes.append(f"trial {trial.number} was not confirmed ({verdict.kind})")
            continue
        standing.append((trial, verdict))
        if verdict.timing.faster:
            return trial.number, verdict, tuple(notes)
        notes.append(f"trial {trial.number} is not faster when measured again")
    if not standing:
        return None, None, tuple(notes)
    trial, verdict = max(standing, key=lambda pair: _speedup(pair[1]))
    return trial.number, verdict, tuple(notes)


def _speedup(verdict: Correct) -> float:
    assert verdict.timing is not None
    return verdict.timing.against_best.speedup


def remember(bench: Workbench, record: RunRecord) -> None:
    """Keep what the winner teaches; only confirmed figures teach."""
    timing, graph = record.timing, record.facts.graph
    if record.winner is None or timing is None or graph is None:
        return
    trial = record.trial(record.winner)
    best = timing.against_best
    bench.library.remember(
        Lesson(
            fingerprint=fingerprint(graph),
            signature=signature(graph),
            device=record.device.name,
            title=trial.title,
            steps=record.plan(trial.plan).steps,
            verdict=record.status,
            speedup=best.speedup,
            low=best.low,
            high=best.high,
            confirmed=timing.confirmed,
            run_id=Path(record.run_dir).name,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    )
