"""Events as lines of plain text: for pipes and logs, and for what the live view says aside."""

from typing import assert_never

from graph.events import (
    Concluded,
    Estimated,
    Event,
    NodeStarted,
    Note,
    Planned,
    Prepared,
    Repaired,
    Spending,
    TrialJudged,
)
from graph.report.words import (
    baseline_name,
    describe,
    duration,
    estimate_text,
    interval,
    milliseconds,
    spending_text,
    times,
)
from tools.verdict import Comparison, Correct, Verdict

LONGEST = 300


def plain_line(event: Event) -> str:
    """An event as one line of plain text."""
    match event:
        case NodeStarted(node=node, detail=detail):
            return f"{node}: {detail}" if detail else node
        case Prepared():
            return f"measured: {baselines_text(event)}"
        case Planned(plans=plans):
            titles = "; ".join(
                f"{plan.title} (expected {times(plan.expected_speedup)})" for plan in plans
            )
            return f"plans: {titles}" if plans else "plans: nothing worth trying is left"
        case TrialJudged():
            return f"trial {event.number}: {_verdict_text(event)}: {event.title}"
        case Repaired(failed_trial=failed_trial, action=action):
            return f"repair of trial {failed_trial}: {one_line(action)}"
        case Concluded(status=status, ended=ended, trials=trials):
            return f"concluded: {status}, {trials} trials, {one_line(ended)}"
        case Estimated():
            return f"estimate: {estimate_text(event.estimate, event.budget)}"
        case Spending(usage=usage, seconds=seconds):
            device = f"{usage.device_seconds:.0f} s on the device"
            return f"spent: {duration(seconds)}, {device}, models {spending_text(usage)}"
        case Note(text=text):
            return one_line(text)
        case _:
            assert_never(event)


def one_line(text: str) -> str:
    """A text without line breaks, bounded."""
    return " ".join(text.split())[:LONGEST]


def baselines_text(event: Prepared) -> str:
    """What is to be beaten, and what can't be."""
    rows = [f"{baseline_name(row.name)} {time_text(row.median_ms)}" for row in event.baselines.rows]
    roof = event.roofline
    return " · ".join((*rows, f"roofline {milliseconds(roof.floor_ms)}, {roof.bound}-bound"))


def time_text(ms: float | None) -> str:
    """A time that there may be none of."""
    return milliseconds(ms) if ms is not None else "not measured"


def comparison_of(verdict: Verdict) -> Comparison | None:
    """A verdict's comparison with the fastest baseline, where it was timed."""
    if isinstance(verdict, Correct) and verdict.timing is not None:
        return verdict.timing.against_best
    return None


def _verdict_text(event: TrialJudged) -> str:
    words, comparison = describe(event.verdict), comparison_of(event.verdict)
    if comparison is None:
        last_words = one_line(words.log.splitlines()[-1] if words.log else words.sentence)
        return f"{words.label} ({last_words[:160]})"
    return f"{words.label}, {times(comparison.speedup)} ({interval(comparison)})"
