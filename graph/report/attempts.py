"""Every trial as a row of the attempt tree that opens, worked out from the record."""

from typing import NamedTuple

from markupsafe import Markup

from agents.brief import Diagnosis, Plan
from graph.record import RunRecord
from graph.report.diff import Changes, changes
from graph.report.kin import Base, Bases, among, lineage
from graph.report.kin import tree as rows_of
from graph.report.limits import Limits
from graph.report.profiled import diagnosis_text, figures, fraction, uses
from graph.report.source import highlight_module
from graph.report.story import leader_of
from graph.report.tree import Lines
from graph.report.views import labels_of, plan_of, step_text
from graph.report.words import (
    VerdictWords,
    clip,
    describe,
    duration,
    interval,
    milliseconds,
    shortened,
    times,
)
from tools.verdict import Trial

TIP_CHARACTERS = 220


class Compared(NamedTuple):
    """What a trial changed, against which one, and whether it was made from it."""

    base: Base
    changes: Changes


class Attempt(NamedTuple):
    """One trial as a row that opens; `opens` is False where the page has no room for more."""

    trial: Trial
    lines: Markup
    words: VerdictWords
    log: str
    steps: list[str]
    origin: str
    speedup: str
    interval: str
    time: str
    fraction: str
    figures: list[tuple[str, str]]
    mend: str
    outcome: str
    diagnosis: Diagnosis | None
    labels: tuple[str, ...]
    compared: Compared | None
    source: Markup
    tip: list[tuple[str, str]]
    winner: bool
    opens: bool


class Attempts(NamedTuple):
    """The tree: the reference's lines, then a row a trial, each below what it came of."""

    root: Markup
    width: int
    rows: list[Attempt]
    derived: bool


def attempts(record: RunRecord, bases: Bases, limits: Limits, when: dict[int, float]) -> Attempts:
    """Every trial, in the order of the tree.

    Args:
        record: of the run.
        bases: what each trial is held against.
        limits: how much text there is room for.
        when: seconds of work until a trial was judged, as far as that is known.
    """
    leader = leader_of(record)
    led = set(lineage(bases, leader)) if leader is not None else set()
    shown = _opened(record, led, limits.rows)
    rows = rows_of(among(bases, shown), leader)
    lines = Lines(rows, led & shown, record.winner)
    setting = _Setting(record, bases, limits, _opened(record, led, limits.opened))
    found: list[Attempt] = []
    for row in rows[1:]:
        attempt = _attempt(record.trial(row.number), setting)
        drawn = lines.of(row, attempt.words.tone)
        found.append(attempt._replace(lines=drawn, tip=_tip(attempt, when.get(row.number))))
    return Attempts(
        root=lines.of(rows[0], "root"),
        width=lines.width,
        rows=found,
        derived=any(base is not None and not base.recorded for base in bases.values()),
    )


def _opened(record: RunRecord, led: set[int], most: int) -> set[int]:
    """The trials that can be opened: those on the way to the leader, then the latest."""
    numbers = [trial.number for trial in record.trials]
    order = sorted(numbers, key=lambda number: (number not in led, -number))
    return set(order[:most])


class _Setting(NamedTuple):
    """What every row is made with; `opened` are the trials that can be opened."""

    record: RunRecord
    bases: Bases
    limits: Limits
    opened: set[int]


def _attempt(trial: Trial, setting: _Setting) -> Attempt:
    record, timing = setting.record, trial.timing
    best = timing.against_best if timing else None
    plan = plan_of(record, trial)
    words = describe(trial.verdict)
    opens = trial.number in setting.opened
    return Attempt(
        trial=trial,
        lines=Markup(),
        words=words,
        log=shortened(words.log, setting.limits.log),
        steps=_steps(plan, trial),
        origin=_origin(trial, setting.bases[trial.number]),
        speedup=times(best.speedup) if best else "",
        interval=interval(best) if best else "",
        time=milliseconds(timing.candidate_ms) if timing else "",
        fraction=fraction(trial.profile),
        figures=[*figures(trial.profile), *uses(trial.verdict)],
        mend=" ".join(clip(r.action) for r in record.repairs if r.failed_trial == trial.number),
        outcome=_outcome(record, trial),
        diagnosis=next((d for d in record.diagnoses if d.trial == trial.number), None),
        labels=labels_of(trial),
        compared=_compared(trial, setting) if opens else None,
        source=_source(trial, setting) if opens else Markup(),
        tip=[],
        winner=trial.number == record.winner,
        opens=opens,
    )


def _steps(plan: Plan | None, trial: Trial) -> list[str]:
    """What was done, step by step; of a model's plan, of which kind it is."""
    named = [step_text(step) for step in plan.steps] if plan else []
    return named or [clip(plan.pattern if plan else trial.pattern)]


def _compared(trial: Trial, setting: _Setting) -> Compared | None:
    base = setting.bases[trial.number]
    if base is None:
        return None
    before = setting.record.trial(base.number).candidate.source
    limit = setting.limits.each_diff(len(setting.record.trials))
    return Compared(base, changes(before, trial.candidate.source, limit))


def _source(trial: Trial, setting: _Setting) -> Markup:
    """A trial's source; empty where it is shown elsewhere on the page, or nowhere."""
    limit = setting.limits.each_source(len(setting.record.trials))
    if limit == 0 or trial.number == setting.record.winner:
        return Markup()
    return highlight_module(trial.candidate.source, limit)


def _tip(attempt: Attempt, when: float | None) -> list[tuple[str, str]]:
    """What is shown while the pointer or the keyboard rests on a row."""
    trial, compared = attempt.trial, attempt.compared
    found = [("Verdict", shortened(attempt.words.sentence, TIP_CHARACTERS))]
    if attempt.speedup:
        found.append(("Speedup", f"{attempt.speedup}, 95% {attempt.interval}"))
        share = f", {attempt.fraction} of the roofline" if attempt.fraction else ""
        found.append(("Time", f"{attempt.time} a call{share}"))
    if attempt.diagnosis:
        found.append(("Profile", diagnosis_text(attempt.diagnosis)))
    if compared:
        counts = f"{compared.changes.added} lines new, {compared.changes.removed} gone"
        found.append(("Changed", f"against trial {compared.base.number}: {counts}"))
    if attempt.mend:
        found.append(("Mended", shortened(attempt.mend, TIP_CHARACTERS)))
    judged = f"; judged at {duration(when)}" if when is not None else ""
    took = duration(trial.seconds) if trial.seconds >= 60 else f"{trial.seconds:.1f} s"
    found.append(("Took", f"{took}{judged}"))
    return found


def _outcome(record: RunRecord, trial: Trial) -> str:
    """What came of the mend of a rejected trial; empty where there was none."""
    child = next((one for one in record.trials if one.repair and one.parent == trial.number), None)
    if child is None:
        return ""
    words, timing = describe(child.verdict), child.timing
    if timing is not None:
        speed = times(timing.against_best.speedup)
        return f"It helped: trial {child.number} is right, and reads {speed}."
    same = "the same" if words.label == describe(trial.verdict).label else "another"
    return f"It did not help: trial {child.number} ended in {same} rejection, {words.label}."


def _origin(trial: Trial, base: Base | None) -> str:
    start = f"from trial {trial.parent}" if trial.parent is not None else "from the reference"
    if base is not None and not base.recorded:
        start += f", nearest to trial {base.number}"
    return f"{start}, repair {trial.repair}" if trial.repair else start
