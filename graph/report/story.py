"""The story of a run, told in twenty seconds: from the op to what won, and whether to believe it.

Everything is derived from the record; what was not measured is said not to have been.
"""

import math
from typing import NamedTuple

from graph.record import BASELINE_PLAN, RunRecord
from graph.report import workloads
from graph.report.kin import Bases, lineage
from graph.report.words import (
    Tone,
    baseline_name,
    bound_of,
    clip,
    describe,
    duration,
    interval,
    milliseconds,
    money_text,
    percent,
    quantity,
    tally,
    times,
)
from knowledge.opgraph import OpGraph, TensorSpec
from tools.task import PLAYBOOK
from tools.verdict import Compiled, Correct, Timing, Trial

CALLS_NAMED = 6
TENSORS_NAMED = 3
# An interval as wide as this share of the speedup tells of a machine that did other work.
WIDE = 0.25


class Chapter(NamedTuple):
    """One line of the story: what it is about, what there is to know, and what lies behind it."""

    about: str
    line: str
    detail: str


class Check(NamedTuple):
    """A reason to believe the result, or not to."""

    tone: Tone
    text: str


class Belief(NamedTuple):
    """Whether to believe the headline, in a few words, and why."""

    answer: str
    tone: Tone
    checks: list[Check]


def chapters(record: RunRecord, bases: Bases) -> list[Chapter]:
    """What op, on what, what there was to beat, what was tried, what won, and where."""
    told = [_op(record), _machine(record), _rivals(record), _tried(record), _won(record, bases)]
    return [*told, _workloads(record)] if record.workloads else told


def _op(record: RunRecord) -> Chapter:
    facts, roof = record.facts, record.roofline
    calls = _calls(facts.graph) if facts.graph is not None else "no graph as a whole"
    work = f"at least {_bytes(roof.moved_bytes)} moved, {_count(roof.flops)} operations a call"
    takes = f"{_tensors(facts.inputs)} → {_tensors(facts.outputs)}"
    if record.workloads:
        takes += f" on {clip(record.workloads[0].name)}, which leads"
    work += _in_the_mean(record)
    return Chapter("The op", f"{record.task.name}: {calls}", f"{takes}; {work}")


def _in_the_mean(record: RunRecord) -> str:
    """Of what a figure is, where there are several workloads."""
    return ", in the mean of all workloads" if record.workloads else ""


def _calls(graph: OpGraph) -> str:
    """The operators of a graph in order, e.g. `mul → gelu → sum`."""
    names = [node.target.split(".") for node in graph.nodes if node.kind == "call"]
    short = [parts[1] if parts[0] == "aten" and len(parts) > 1 else parts[-1] for parts in names]
    shown = " → ".join(short[:CALLS_NAMED])
    more = len(short) - CALLS_NAMED
    return f"{shown} and {more} more" if more > 0 else shown or "no call at all"


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    shown = [
        f"{'×'.join(str(size) for size in spec.shape) or 'a scalar'} {spec.dtype}"
        for spec in specs[:TENSORS_NAMED]
    ]
    more = len(specs) - TENSORS_NAMED
    return ", ".join([*shown, *([f"{more} more"] if more > 0 else [])])


def _bytes(size: int) -> str:
    return _scaled(size, ("B", "kB", "MB", "GB", "TB"))


def _count(number: int) -> str:
    return _scaled(number, ("", "thousand", "million", "billion", "trillion"))


def _scaled(value: int, units: tuple[str, ...]) -> str:
    power = min(len(units) - 1, int(math.log(value * 1.0006, 1000))) if value > 0 else 0
    return f"{value / 1000**power:.3g} {units[power]}".strip()


def _machine(record: RunRecord) -> Chapter:
    roof, device = record.roofline, record.device
    ceilings = f"{quantity(roof.bandwidth_gbps)} GB/s, {quantity(roof.peak_gflops)} GFLOP/s"
    if record.status == "compiled" or record.baselines.best is None:
        return Chapter("On", device.title, f"{ceilings} by its data sheet; it was not here")
    noise = f"the same code against itself reads within {percent(record.baselines.noise)}"
    return Chapter("On", device.title, f"{ceilings}, as measured; {noise}")


def _rivals(record: RunRecord) -> Chapter:
    compared = record.timing.comparisons if record.timing is not None else ()
    confirmed = {one.baseline: one.baseline_ms for one in compared}
    known = {
        row.name: confirmed.get(row.name, row.median_ms)
        for row in record.baselines.rows
        if row.median_ms is not None
    }
    bound = bound_of(record)
    roof = f"the {bound.kind} roof allows {milliseconds(bound.ms)}"
    if not known:
        return Chapter("To beat", "Nothing could be timed", roof[:1].upper() + roof[1:])
    order = sorted(known, key=lambda name: known[name] or 0.0)
    told = [f"{baseline_name(name)} {milliseconds(known[name] or 0.0)}" for name in order]
    line = f"{told[0]}{_in_the_mean(record)}"
    return Chapter("To beat", line, "; ".join([*told[1:], roof]))


def _tried(record: RunRecord) -> Chapter:
    tried = record.tried
    budget = record.task.budget
    spent = f"{len(tried)} of {budget.trials} trials in {duration(record.seconds)}"
    right = sum(isinstance(trial.verdict, Correct) for trial in tried)
    compiled = sum(isinstance(trial.verdict, Compiled) for trial in tried)
    rejected = tuple(t for t in tried if not isinstance(t.verdict, Correct | Compiled))
    counts = [
        *([f"{right} right"] if right or not compiled else []),
        *([f"{compiled} compiled"] if compiled else []),
        *([tally(rejected)] if rejected else []),
    ]
    line = f"{spent}: {', '.join(counts)}" if tried else f"{spent}"
    end = "it ended because" if record.finished else "it stopped:"
    return Chapter("Tried", line, f"{_minds(record)}; {end} {clip(record.ended)}")


def _minds(record: RunRecord) -> str:
    makers = dict.fromkeys(p.maker for p in record.plans if p.id != BASELINE_PLAN)
    models = [
        *(maker for maker in makers if maker != PLAYBOOK),
        *(share.model for share in record.usage.shares if share.model not in makers),
    ]
    named = dict.fromkeys(models)
    if not named:
        return "By rules alone, no model was asked"
    rules = "rules and " if PLAYBOOK in makers else ""
    usage = record.usage
    return f"By {rules}{', '.join(named)}, {money_text(usage.usd, usage.unpriced)}"


def _won(record: RunRecord, bases: Bases) -> Chapter:
    if record.winner is None:
        leader = leader_of(record)
        if leader is None:
            return Chapter("Won", "Nothing", "Keep using the baseline.")
        return Chapter("Ahead", f"trial {leader}, not confirmed", _way(record, bases, leader))
    trial, timing = record.trial(record.winner), record.timing
    named = f"trial {trial.number}, {clip(trial.title)}"
    if trial.plan == BASELINE_PLAN:
        ahead = leader_of(record)
        way = f"The best tried: {_way(record, bases, ahead)}" if ahead is not None else ""
        return Chapter("Won", f"Nothing; handed over is {clip(trial.title)}", way)
    if timing is None:
        return Chapter("Chosen", named, "By arithmetic alone: it was not timed.")
    best = timing.against_best
    line = f"{named}: {milliseconds(timing.candidate_ms)}, {times(best.speedup)} ({interval(best)})"
    line += _in_the_mean(record)
    about = "Won" if record.status == "faster" else "Best"
    return Chapter(about, line, _way(record, bases, trial.number))


def _workloads(record: RunRecord) -> Chapter:
    number = leader_of(record) if record.winner is None else record.winner
    ahead = record.trial(number) if number is not None else None
    return Chapter("Workloads", *workloads.in_short(record, ahead))


def leader_of(record: RunRecord) -> int | None:
    """The winner, or where nothing that was tried won, the fastest trial as first measured."""
    if record.winner is not None and record.trial(record.winner).plan != BASELINE_PLAN:
        return record.winner
    timed = [t for t in record.trials if t.speedup is not None and t.plan != BASELINE_PLAN]
    best = max(timed, key=lambda trial: trial.speedup or 0.0, default=None)
    return best.number if best is not None else None


def _way(record: RunRecord, bases: Bases, number: int) -> str:
    """The way from the reference to a trial, as first measured."""
    steps = [_step(record.trial(one)) for one in lineage(bases, number)]
    shown = steps if len(steps) <= 5 else [*steps[:2], "…", *steps[-2:]]
    return " → ".join(["reference", *shown])


def _step(trial: Trial) -> str:
    said = times(trial.speedup) if trial.speedup is not None else describe(trial.verdict).label
    return f"trial {trial.number} {said}"


def belief(record: RunRecord) -> Belief:
    """Whether to believe the headline: the answer first, then each reason with its figures."""
    if not record.finished:
        return Belief("Not yet", "warn", [Check("warn", "Nothing is confirmed: it was stopped.")])
    if record.status == "compiled":
        return _compiled(record)
    confirmation, timing = record.confirmation, record.timing
    if confirmation is None or timing is None:
        nothing = "No speed is claimed, as no kernel stood the judge's second look."
        return Belief("Nothing is claimed", "plain", [Check("plain", nothing)])
    checks = [*_right(confirmation), *_measured(record, timing), *_possible(record)]
    jail = Check("good", f"It ran in a jail: {clip(confirmation.isolation)}.")
    checks += [jail] if confirmation.isolation else []
    weak = [check for check in checks if check.tone == "warn"]
    notes = bool(record.facts.cautions or labels_of_winner(record))
    if record.status != "faster":
        return Belief("No gain is claimed", "plain", checks)
    if not timing.confirmed:
        return Belief("Only as far as one measurement goes", "warn", checks)
    if weak or notes:
        return Belief("Yes, with the notes given here", "good", checks)
    return Belief("Yes", "good", checks)


def labels_of_winner(record: RunRecord) -> tuple[str, ...]:
    """What must be known before the winner is shipped."""
    if record.winner is None:
        return ()
    trial = record.trial(record.winner)
    return tuple(dict.fromkeys((*trial.candidate.labels, *trial.verdict.labels)))


def _compiled(record: RunRecord) -> Belief:
    assert record.winner is not None
    verdict = record.trial(record.winner).verdict
    assert isinstance(verdict, Compiled)
    checks = [
        Check("warn", f"Nothing was timed: {record.device.title} is not here."),
        Check("plain", f"Its logic: {clip(verdict.logic)}."),
    ]
    return Belief("No speed is claimed", "plain", checks)


def _right(confirmation: Correct) -> list[Check]:
    cases = confirmation.cases
    if not cases:
        return [Check("warn", "No case of the gauntlet was put to it, only its timed outputs.")]
    worst = max(case.worst for case in cases)
    said = f"{len(cases)} cases pass against a float64 oracle; the worst error is {percent(worst)}"
    found = [Check("good", f"{said} of what is allowed.")]
    if not confirmation.deterministic:
        found.append(Check("warn", "Its output varies from call to call, within the tolerance."))
    return found


def _measured(record: RunRecord, timing: Timing) -> list[Check]:
    best, found = timing.against_best, []
    if timing.confirmed:
        first = record.trial(record.winner).speedup if record.winner is not None else None
        before = f"; the first reading was {times(first)}" if first is not None else ""
        again = f"Measured again in a new process on new inputs: {times(best.speedup)}{before}."
        found.append(Check("good", again))
    else:
        found.append(Check("warn", "It was measured once, and not confirmed."))
    low, noise = times(best.low), percent(timing.noise)
    rival = baseline_name(best.baseline)
    if timing.faster:
        said = (
            f"The interval's low end, {low} over {rival}, clears this machine's noise of {noise}."
        )
        found.append(Check("good", said))
    else:
        said = f"The interval's low end, {low} over {rival}, does not clear the noise of {noise}."
        found.append(Check("plain", said))
    if best.high - best.low > WIDE * best.speedup:
        said = (
            f"The interval is wide, {interval(best)}: the machine was busy, or its clock unsteady."
        )
        found.append(Check("warn", said))
    if timing.checked_outputs:
        said = f"{timing.checked_outputs} outputs of timed calls were compared with the oracle too."
        found.append(Check("good", said))
    return found


def _possible(record: RunRecord) -> list[Check]:
    """How the time stands to what the machine allows."""
    bound = bound_of(record)
    if bound.fraction is None:
        return []
    share = percent(bound.fraction)
    if bound.fraction > 1:
        why = "its data stays in a cache, or memory is faster than was measured"
        return [Check("warn", f"It reads {share} of the {bound.kind} roof: {why}.")]
    return [Check("good", f"It is physically possible: {share} of the {bound.kind} roof.")]
