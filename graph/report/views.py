"""What each part of the report shows, worked out from the record: the templates only lay it out.

Everything that a program or a model wrote is bounded here; the templates escape it.
"""

from typing import NamedTuple

from markupsafe import Markup

from agents.brief import Citation, Diagnosis, Plan
from graph.record import RunRecord
from graph.report.source import highlight_module
from graph.report.words import (
    TONES,
    Tone,
    VerdictWords,
    baseline_name,
    bound_of,
    clip,
    describe,
    duration,
    interval,
    milliseconds,
    money_text,
    percent,
    times,
)
from knowledge.pattern import Parameter, Step
from tools.verdict import Compiled, Correct, Profile, Trial, Verdict

BEST_SOURCE_LIMIT = 40_000
# Shared by all attempts, so that a long run's page stays under a megabyte.
ATTEMPT_SOURCES_LIMIT = 60_000
ATTEMPT_SOURCE_LIMIT = 12_000


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


class Attempt(NamedTuple):
    """One trial as a row that opens."""

    trial: Trial
    words: VerdictWords
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
    source: Markup
    winner: bool


def attempts(record: RunRecord) -> list[Attempt]:
    """Every trial in order."""
    allowance = min(ATTEMPT_SOURCE_LIMIT, ATTEMPT_SOURCES_LIMIT // max(1, len(record.trials)))
    return [_attempt(record, trial, allowance) for trial in record.trials]


def _attempt(record: RunRecord, trial: Trial, allowance: int) -> Attempt:
    timing = trial.verdict.timing if isinstance(trial.verdict, Correct) else None
    best = timing.against_best if timing else None
    plan = plan_of(record, trial)
    return Attempt(
        trial=trial,
        words=describe(trial.verdict),
        steps=[step_text(step) for step in plan.steps] if plan else [trial.pattern],
        origin=_origin(trial),
        speedup=times(best.speedup) if best else "",
        interval=interval(best) if best else "",
        time=milliseconds(timing.candidate_ms) if timing else "",
        fraction=_fraction(trial.profile),
        figures=[*_figures(trial.profile), *_uses(trial.verdict)],
        mend=" ".join(clip(r.action) for r in record.repairs if r.failed_trial == trial.number),
        outcome=_outcome(record, trial),
        diagnosis=next((d for d in record.diagnoses if d.trial == trial.number), None),
        labels=labels_of(trial),
        source=highlight_module(trial.candidate.source, allowance),
        winner=trial.number == record.winner,
    )


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


def labels_of(trial: Trial) -> tuple[str, ...]:
    """What a reader must know before she ships the candidate, each once."""
    return tuple(dict.fromkeys((*trial.candidate.labels, *trial.verdict.labels)))


def capital(text: str) -> str:
    """A label as the beginning of a sentence; the rest of it stays as it is written."""
    return clip(text[:1].upper() + text[1:])


_BOTTLENECKS = {
    "memory": "held back by memory traffic",
    "compute": "held back by arithmetic",
    "latency": "held back by latency",
    "pages": "held back by page faults",
    "none": "at its bound",
}


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """What bounds a trial, in one sentence."""
    return f"{_BOTTLENECKS[diagnosis.bottleneck]}, {times(diagnosis.headroom)} the bound's time."


def step_text(step: Step) -> str:
    """A step as the report names it, e.g. `row_loop (sweeps 2)`."""
    tuned = ", ".join(f"{key} {_setting(value)}" for key, value in step.parameters.items())
    name = f"{step.part}: {step.pattern}" if step.part else step.pattern
    return f"{name} ({tuned})" if tuned else name


def _setting(value: Parameter) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _origin(trial: Trial) -> str:
    start = f"from trial {trial.parent}" if trial.parent is not None else "from the reference"
    return f"{start}, repair {trial.repair}" if trial.repair else start


def _fraction(profile: Profile | None) -> str:
    if profile is None:
        return ""
    return percent(profile.roofline_fraction)


def _uses(verdict: Verdict) -> list[tuple[str, str]]:
    """What each kernel takes of the device that it was compiled for."""
    if not isinstance(verdict, Compiled):
        return []
    found = []
    for kernel in verdict.kernels:
        told = [
            f"{kernel.registers} registers",
            f"{kernel.spilled_bytes} bytes spilled",
            f"{_binary(kernel.shared_bytes)} shared",
        ]
        if kernel.threads:
            told.append(f"{kernel.threads} threads a block")
        if kernel.occupancy:
            told.append(f"{percent(kernel.occupancy)} of the warps resident")
        if kernel.tensor_core:
            told.append(f"{kernel.tensor_core} instructions for tensor cores")
        found.append((f"{clip(kernel.function)}, {kernel.architecture}", ", ".join(told)))
    return found


def _figures(profile: Profile | None) -> list[tuple[str, str]]:
    if profile is None:
        return []
    return [
        ("Achieved", f"{profile.achieved_gbps:,.1f} GB/s, {profile.achieved_gflops:,.1f} GFLOP/s"),
        ("Roofline", f"{_fraction(profile)}, {profile.bound}-bound"),
        (
            "Page faults",
            f"{profile.page_faults:,.0f} a call, {milliseconds(profile.page_fault_ms)}",
        ),
        ("Read by", profile.rung),
        *(("Note", clip(note)) for note in profile.notes),
    ]


class Cited(NamedTuple):
    """A page of the library, and what leaned on it, e.g. `for trials 1, 3`."""

    source: str
    title: str
    passage: str
    used: str


def cited(record: RunRecord) -> list[Cited]:
    """Every passage that a plan cites, each once, in the order of first use."""
    pages: dict[tuple[str, str], Citation] = {}
    plans: dict[tuple[str, str], set[str]] = {}
    for plan in record.plans:
        for citation in plan.citations:
            key = (citation.source, citation.passage)
            pages.setdefault(key, citation)
            plans.setdefault(key, set()).add(plan.id)
    return [
        Cited(page.source, page.title, clip(page.passage), _used(record, plans[key]))
        for key, page in pages.items()
    ]


def _used(record: RunRecord, plans: set[str]) -> str:
    numbers = [str(trial.number) for trial in record.trials if trial.plan in plans]
    if not numbers:
        return "for a plan that was not tried"
    return f"for trial{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def best_source(record: RunRecord) -> Markup | None:
    """The winner's source, highlighted."""
    if record.winner is None:
        return None
    return highlight_module(record.trial(record.winner).candidate.source, BEST_SOURCE_LIMIT)


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
            "The same code against itself reads within "
            f"{percent(record.baselines.noise)} on this machine.",
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


def machine(record: RunRecord) -> list[tuple[str, str]]:
    """Device, ceilings and versions."""
    device, roof = record.device, record.roofline
    caches = ", ".join(f"{name.upper()} {_binary(size)}" for name, size in device.caches.items())
    pages = {
        "machine": "as the machine comes",
        "huge": "huge pages for baselines and kernels alike",
    }
    return [
        ("Device", f"{device.title} ({device.architecture})"),
        ("Memory", f"{device.memory_gib:g} GiB" + (f"; {caches}" if caches else "")),
        ("Features", ", ".join(device.features) or "not known"),
        ("Pages", pages[record.task.pages]),
        ("Bandwidth", f"{roof.bandwidth_gbps:,.1f} GB/s"),
        ("Peak", f"{roof.peak_gflops:,.1f} GFLOP/s"),
        ("Page fault", f"{roof.fault_us:.2f} µs"),
        ("Measured by", roof.measured),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
    ]


def _binary(size: int) -> str:
    return f"{size / 2**20:.4g} MiB" if size >= 2**20 else f"{size / 2**10:.4g} KiB"


def commands(record: RunRecord) -> list[tuple[str, str]]:
    """What to type to see the same again."""
    found = [("The whole run", f"python -m graph.run {record.run_dir}/task.yaml")]
    if record.winner is not None:
        found.append(
            ("The kernel's own test", f"python -m pytest {record.run_dir}/best/test_kernel.py")
        )
        if record.task.reference is not None:
            judged = (
                f"python -m tools.judge {record.task.reference} {record.run_dir}/best/kernel.py"
            )
            found.append(("The judge alone", judged))
    return found


def tone_of(record: RunRecord) -> Tone:
    """How the headline is coloured."""
    return TONES[record.status]
