"""What each part of the report shows, worked out from the record: the templates only lay it out.

Everything that a program or a model wrote is bounded here; the templates escape it.
"""

from typing import NamedTuple

from markupsafe import Markup

from agents.brief import Citation, Plan
from graph.record import RunRecord
from graph.report.limits import Limits
from graph.report.pages import Pages, html_of, label_of
from graph.report.source import highlight_module
from graph.report.words import (
    TONES,
    Tone,
    baseline_name,
    bound_of,
    clip,
    duration,
    interval,
    milliseconds,
    money_text,
    percent,
    shortened,
    times,
)
from knowledge.pattern import Parameter, Step
from tools.verdict import Correct, Trial


class Card(NamedTuple):
    """A key figure: what it is, the figure, and what to hold it against."""

    label: str
    value: str
    detail: str


def cards(record: RunRecord) -> list[Card]:
    """The row of key figures under the headline."""
    found = [_speedup_card(record, row.name) for row in reversed(record.baselines.rows)]
    passed = sum(isinstance(trial.verdict, Correct) for trial in record.trials)
    budget, usage = record.task.budget, record.usage
    return [
        *found,
        _roofline_card(record),
        Card("Trials", f"{len(record.trials)}", f"{passed} correct, budget {budget.trials}"),
        Card("Wall time", duration(record.seconds), f"budget {duration(budget.minutes * 60)}"),
        Card(
            "Model cost",
            "unknown" if usage.unpriced else money_text(usage.usd),
            f"{usage.tokens:,} tokens" if usage.shares else "no model was called",
        ),
    ]


def _speedup_card(record: RunRecord, baseline: str) -> Card:
    label = f"Over {baseline_name(baseline)}"
    comparisons = record.timing.comparisons if record.timing else ()
    for comparison in comparisons:
        if comparison.baseline == baseline:
            return Card(label, times(comparison.speedup), f"95% {interval(comparison)}")
    failed = [row.failed for row in record.baselines.rows if row.name == baseline and row.failed]
    return Card(label, "–", "it could not be measured" if failed else "nothing to compare")


def _roofline_card(record: RunRecord) -> Card:
    bound = bound_of(record)
    detail = f"bound {milliseconds(bound.ms)}, {bound.kind}-bound"
    if bound.fraction is None:
        return Card("Roofline", "–", detail)
    return Card("Of the roofline", percent(bound.fraction), detail)


class Bar(NamedTuple):
    """One horizontal bar; `share` is its length in percent of the longest."""

    name: str
    tone: str
    value: str
    share: float
    note: str


def bars(record: RunRecord) -> list[Bar]:
    """Times of baselines, winner and the roofline's bound.

    Baselines are quoted from the confirmation where there is one: only that was interleaved with
    the winner.
    """
    confirmed = {c.baseline: c for c in record.timing.comparisons} if record.timing else {}
    rows: list[tuple[str, str, float | None, str]] = []
    for row in record.baselines.rows:
        against = confirmed.get(row.name)
        rows.append(
            (
                baseline_name(row.name),
                "baseline",
                against.baseline_ms if against else row.median_ms,
                row.failed,
            )
        )
    if record.timing:
        rows.append((f"kernel (trial {record.winner})", "winner", record.timing.candidate_ms, ""))
    bound = bound_of(record)
    rows.append(("memory bound" if bound.rewritten else "roofline bound", "bound", bound.ms, ""))
    longest = max(ms for _, _, ms, _ in rows if ms is not None)
    return [
        Bar(name, tone, milliseconds(ms), 100 * ms / longest, "")
        if ms is not None
        else Bar(name, tone, "not measured", 0.0, clip(note))
        for name, tone, ms, note in rows
    ]


def parts_sentence(record: RunRecord) -> str:
    """What was done about an op that has no graph."""
    parts = record.facts.parts
    if not parts:
        return (
            "No module inside it has one that takes a good part of the time, so no pattern applies."
        )
    named = ", ".join(f"{part.title} ({percent(part.share)} of the time)" for part in parts)
    return f"Traced on their own, and planned by their share: {clip(named)}."


def plan_of(record: RunRecord, trial: Trial) -> Plan | None:
    """The plan that a trial carried out, if the record still has it."""
    return next((plan for plan in record.plans if plan.id == trial.plan), None)


def reason(plan: Plan, limits: Limits) -> str:
    """Why a plan was thought worth a trial, as far as there is room."""
    return shortened(clip(plan.arithmetic), limits.reason)


def labels_of(trial: Trial) -> tuple[str, ...]:
    """What a reader must know before she ships the candidate, each once."""
    return tuple(dict.fromkeys((*trial.candidate.labels, *trial.verdict.labels)))


def capital(text: str) -> str:
    """A label as the beginning of a sentence; the rest of it stays as it is written."""
    return clip(text[:1].upper() + text[1:])


def step_text(step: Step) -> str:
    """A step as the report names it, e.g. `row_loop (accumulate double)`."""
    settings = ((key, _setting(value)) for key, value in step.parameters.items())
    tuned = ", ".join(f"{key} {value}" for key, value in settings if value)
    name = f"{step.part}: {step.pattern}" if step.part else step.pattern
    return f"{name} ({tuned})" if tuned else name


def _setting(value: Parameter) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


class Cited(NamedTuple):
    """A page of the library: what of it was cited, by what, and its text where that is at hand.

    `used` is e.g. `for trials 1, 3`.
    """

    label: str
    title: str
    passages: list[tuple[str, str]]
    used: str
    text: Markup | None


def cited(record: RunRecord, pages: Pages, limits: Limits) -> list[Cited]:
    """Every page that a plan cites, each once, in the order of first use."""
    found: dict[str, list[Citation]] = {}
    plans: dict[str, set[str]] = {}
    for plan in record.plans:
        for citation in plan.citations:
            label = label_of(citation.source)
            same = {(one.source, one.passage) for one in found.setdefault(label, [])}
            if (citation.source, citation.passage) not in same:
                found[label].append(citation)
            plans.setdefault(label, set()).add(plan.id)
    room = limits.each_page(len(found))
    return [
        Cited(
            label=label,
            title=citations[0].title,
            passages=[(_section(one.source), clip(one.passage)) for one in citations],
            used=_used(record, plans[label]),
            text=html_of(pages[label], {_section(one.source) for one in citations}, room)
            if label in pages
            else None,
        )
        for label, citations in found.items()
    ]


def _section(source: str) -> str:
    """The heading that a citation names, in small letters; empty for a page's beginning."""
    return source.partition("#")[2]


def _used(record: RunRecord, plans: set[str]) -> str:
    numbers = [str(trial.number) for trial in record.trials if trial.plan in plans]
    if not numbers:
        return "for a plan that was not tried"
    return f"for trial{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def best_source(record: RunRecord, limits: Limits) -> Markup | None:
    """The winner's source, highlighted."""
    if record.winner is None:
        return None
    return highlight_module(record.trial(record.winner).candidate.source, limits.best)


class Meter(NamedTuple):
    """What was taken of something, in words; in percent of its budget where it has one."""

    name: str
    value: str
    share: float | None


def meters(record: RunRecord) -> list[Meter]:
    """What the run took of each of its budgets."""
    budget, usage = record.task.budget, record.usage
    trials = len(record.tried)
    allowed = budget.minutes * 60
    time = f"{duration(record.seconds)} of {duration(allowed)}"
    found = [
        _meter("Trials", f"{trials} of {budget.trials}", trials, budget.trials),
        _meter("Working time", time, record.seconds, allowed),
    ]
    if budget.device_seconds is not None:
        taken = f"{duration(usage.device_seconds)} of {duration(budget.device_seconds)}"
        found.append(_meter("Device", taken, usage.device_seconds, budget.device_seconds))
    elif usage.device_seconds:
        found.append(Meter("Device", f"{duration(usage.device_seconds)}, no cap", None))
    if usage.shares:
        tokens = f"{usage.tokens:,} of {budget.tokens:,}"
        unknown = ", not counting what has no price" if usage.unpriced else ""
        money = f"{money_text(usage.usd)} of ${budget.usd:.2f}{unknown}"
        found.append(_meter("Tokens", tokens, usage.tokens, budget.tokens))
        found.append(_meter("Money", money, usage.usd, budget.usd))
    return found


def _meter(name: str, value: str, taken: float, allowed: float) -> Meter:
    return Meter(name, value, min(100.0, 100 * taken / allowed) if allowed > 0 else 100.0)


def rules(record: RunRecord) -> list[tuple[str, str]]:
    """How candidates were judged, as terms and sentences."""
    tolerance, timing, confirmation = record.task.tolerance, record.timing, record.confirmation
    isolation = (
        confirmation.isolation
        if confirmation
        else next((t.verdict.isolation for t in record.trials), "")
    )
    found = [
        ("Isolation", isolation or "not recorded"),
        (
            "Tolerance",
            "Against a float64 oracle, an element passes within "
            f"{tolerance.yardstick:g}× the reference's own worst error, or {tolerance.epsilons:g} "
            "epsilons of its dtype at the output's scale. None may miss.",
        ),
        (
            "Noise",
            f"The same code against itself reads within {percent(record.baselines.noise)} on this "
            "machine."
            if record.baselines.best is not None
            else "Not measured, as nothing was timed.",
        ),
        (
            "A win",
            "The 95% interval's lower end must clear 1 by that noise against every baseline.",
        ),
    ]
    if timing and confirmation:
        blocks = timing.against_best.blocks
        found += [
            (
                "Timing",
                f"{blocks} interleaved blocks (baseline, kernel, kernel, baseline), "
                "in separate processes.",
            ),
            (
                "Outputs",
                f"{timing.checked_outputs} outputs of timed calls were compared as well.",
            ),
            (
                "Repeatable",
                "Bit for bit"
                if confirmation.deterministic
                else "Varies from call to call, within tolerance",
            ),
        ]
    return found


def tone_of(record: RunRecord) -> Tone:
    """How the headline is coloured."""
    return TONES[record.status]
