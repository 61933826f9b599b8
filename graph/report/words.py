"""How a run is put into words and numbers: the screen and the HTML report both speak through here.

Every sentence is derived from the record, and a run that found nothing faster says so first.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, assert_never

from graph.record import BASELINE_PLAN, Estimate, RunRecord, Status, Usage
from tools.task import Budget
from tools.verdict import (
    BuildFailed,
    Cheated,
    Comparison,
    Compiled,
    ContractBroken,
    Correct,
    Crashed,
    Implausible,
    JudgeError,
    TimedOut,
    TimerMismatch,
    Timing,
    Trial,
    Verdict,
    WrongOutput,
)

BASELINE_NAMES = {
    "eager": "eager",
    "compile": "torch.compile",
    "max-autotune": "torch.compile, tuned",
    "fastest": "the fastest of each",
    "cudagraphs": "torch.compile, tuned, in CUDA graphs",
}
_CLAUSES = {
    "wrong output": "gave wrong output",
    "implausible": "read implausibly fast",
    "clocks disagree": "made the clocks disagree",
    "judge error": "met an error of the judge",
}
LOG_HEAD = 1500
LOG_TAIL = 2500
LOG_WINDOW = 10_000

Tone = Literal["good", "plain", "bad", "warn"]

TONES: dict[Status, Tone] = {
    "faster": "good", "correct": "plain", "compiled": "plain", "failed": "warn"
}  # fmt: skip


class VerdictWords(NamedTuple):
    """A verdict as shown: a few words, their colour, one sentence, and bounded program output."""

    label: str
    tone: Tone
    sentence: str
    log: str = ""


def describe(verdict: Verdict) -> VerdictWords:
    """Any verdict in words."""
    match verdict:
        case Correct():
            return _describe_correct(verdict)
        case Compiled():
            return _describe_compiled(verdict)
        case BuildFailed() | Crashed() | JudgeError():
            return _describe_with_log(verdict)
        case TimedOut(deadline_s=deadline):
            sentence = f"A call took longer than its deadline of {deadline:.3g} s."
            return VerdictWords("timed out", "bad", sentence)
        case WrongOutput(detail=detail):
            return VerdictWords("wrong output", "bad", clip(detail))
        case ContractBroken(detail=detail):
            return VerdictWords("broke the contract", "bad", clip(detail))
        case Cheated(check=check, detail=detail):
            return VerdictWords("cheated", "bad", f"It failed the check “{check}”: {clip(detail)}")
        case Implausible(candidate_ms=candidate_ms, floor_ms=floor_ms):
            floor = f"below the physical floor of {milliseconds(floor_ms)}"
            return VerdictWords("implausible", "bad", f"{milliseconds(candidate_ms)} is {floor}.")
        case TimerMismatch(detail=detail):
            return VerdictWords("clocks disagree", "bad", clip(detail))
        case _:
            assert_never(verdict)


def _describe_with_log(verdict: BuildFailed | Crashed | JudgeError) -> VerdictWords:
    log = clip(verdict.log)
    match verdict:
        case BuildFailed():
            sentence = "The source did not parse, import or compile."
            return VerdictWords("did not build", "bad", sentence, log)
        case Crashed():
            return VerdictWords("crashed", "bad", "The runner died or raised an error.", log)
        case JudgeError():
            sentence = "The judge's own machinery failed; this says nothing about the candidate."
            return VerdictWords("judge error", "warn", sentence, log)
        case _:
            assert_never(verdict)


def _describe_correct(verdict: Correct) -> VerdictWords:
    cases = f"{len(verdict.cases)} cases passed" if verdict.cases else "Every case passed"
    wobble = (
        ""
        if verdict.deterministic
        else " Its output varies from call to call, within the tolerance."
    )
    if verdict.timing is None:
        return VerdictWords("correct, not timed", "plain", f"{cases}; it was not timed.{wobble}")
    if verdict.timing.faster:
        return VerdictWords("correct, faster", "good", f"{cases}.{wobble}")
    return VerdictWords("correct", "plain", f"{cases}, but no win over every baseline.{wobble}")


def _describe_compiled(verdict: Compiled) -> VerdictWords:
    count = len(verdict.kernels)
    what = f"{count} kernel{'s' if count != 1 else ''} for {verdict.device}"
    sentence = f"Compiled {what}; {clip(verdict.logic)}. It was not run on the device."
    return VerdictWords("compiled, not timed", "plain", sentence)


def clip(text: str) -> str:
    """Program output, bounded: its beginning and its end, without control characters."""
    # Of a log of megabytes, only what may be shown is looked at.
    middle = max(0, len(text) - 2 * LOG_WINDOW)
    looked_at = text[:LOG_WINDOW] + text[-LOG_WINDOW:] if middle else text
    clean = "".join(
        character for character in looked_at if character in "\n\t" or character.isprintable()
    )
    if len(clean) <= LOG_HEAD + LOG_TAIL:
        return clean.strip()
    left_out = len(clean) + middle - LOG_HEAD - LOG_TAIL
    return f"{clean[:LOG_HEAD]}\n… {left_out} characters left out …\n{clean[-LOG_TAIL:]}".strip()


def milliseconds(value: float) -> str:
    """A time with three significant digits, in the unit a person would choose."""
    if value >= 1000:
        return f"{_significant(value / 1000)} s"
    if value >= 0.1:
        return f"{_significant(value)} ms"
    return f"{_significant(value * 1000)} µs"


def times(ratio: float) -> str:
    """A speedup, e.g. `2.31×`."""
    return f"{_significant(ratio)}×"


def interval(comparison: Comparison) -> str:
    """The 95% interval of a speedup, e.g. `2.25–2.38`."""
    return f"{_significant(comparison.low)}–{_significant(comparison.high)}"


def percent(fraction: float) -> str:
    """A share, in whole percent unless it is small."""
    return f"{fraction:.1%}" if 0 < abs(fraction) < 0.095 else f"{fraction:.0%}"


def duration(seconds: float) -> str:
    """A wall time as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def money_text(usd: float, unpriced: Sequence[str] = ()) -> str:
    """Money as far as it is known, e.g. `$0.41`, and for which models it is not."""
    text = f"${usd:.2f}" if usd >= 0.01 or usd == 0 else "under $0.01"
    if not unpriced:
        return text
    missing = f"price of {', '.join(unpriced)} unknown"
    return f"{text}, {missing}" if usd else missing


def spending_text(usage: Usage) -> str:
    """What models took, in a clause."""
    if not usage.shares:
        return "not asked"
    calls = sum(share.calls for share in usage.shares)
    asked = f"asked {calls} time{'s' if calls != 1 else ''}"
    return f"{asked}, {usage.tokens:,} tokens, {money_text(usage.usd, usage.unpriced)}"


def estimate_text(estimate: Estimate, budget: Budget) -> str:
    """What a run costs at most, and where its caps are."""
    return (
        f"at most about {estimate.calls} calls, {estimate.tokens:,} tokens, "
        f"{money_text(estimate.usd, estimate.unpriced)}; "
        f"never over {budget.tokens:,} tokens or ${budget.usd:.2f}"
    )


def quantity(value: float) -> str:
    """Three significant digits where there are that many, and never an exponent."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if abs(value) >= 0.001 else "0" if value == 0 else f"{value:.1e}"


def _significant(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if magnitude >= 9.995 else f"{value:.2f}"


def baseline_name(name: str) -> str:
    """A baseline as readers know it."""
    return BASELINE_NAMES.get(name, name)


class Headline(NamedTuple):
    """What was found: the line in large type, and the sentences under it."""

    title: str
    sentence: str


def headline(record: RunRecord) -> Headline:
    """The run's result in plain words, whatever it is."""
    if not record.finished:
        return _unfinished(record)
    if record.status == "failed":
        return _failed(record)
    if record.status == "compiled":
        return _compiled(record)
    if record.timing is None:
        return Headline(
            "A correct kernel, not timed",
            f"Trial {record.winner} passed every case, but no time could be measured for it.",
        )
    if record.status == "faster":
        return _faster(record, record.timing)
    if record.winner is not None and record.trial(record.winner).plan == BASELINE_PLAN:
        return _kept(record)
    return _correct(record.timing)


def _unfinished(record: RunRecord) -> Headline:
    """The best so far, which no second measurement has confirmed."""
    title = "Not finished"
    timed = [trial for trial in record.trials if trial.speedup is not None]
    best = max(timed, key=lambda trial: trial.speedup or 0.0, default=None)
    if best is None or best.speedup is None:
        found = f"{_of(len(record.trials))} {tally(record.trials)}." if record.trials else ""
        return Headline(title, f"The run stopped ({record.ended}). {found}".strip())
    return Headline(
        title,
        f"The run stopped ({record.ended}). Of {len(record.trials)} trials the best so far is "
        f"trial {best.number}, which read {times(best.speedup)} and is not confirmed.",
    )


def _compiled(record: RunRecord) -> Headline:
    assert record.winner is not None
    trial = record.trial(record.winner)
    promise = record.plan(trial.plan).expected_speedup
    return Headline(
        f"Compiled for {record.device.title}, not timed",
        f"{describe(trial.verdict).sentence} By arithmetic it should take {times(1 / promise)} of "
        "what the op takes call by call; that is no measurement.",
    )


def _kept(record: RunRecord) -> Headline:
    """Nothing was faster, and the baseline itself is what is handed over."""
    assert record.winner is not None
    kept = record.trial(record.winner)
    tried = [trial for trial in record.trials if trial.number != record.winner]
    speeds = [trial.speedup for trial in tried if trial.speedup is not None]
    best = f"The best of {len(tried)} read {times(max(speeds))}." if speeds else "None was right."
    return Headline("No faster kernel was found", f"{best} What is handed over is {kept.title}.")


def _faster(record: RunRecord, timing: Timing) -> Headline:
    best = timing.against_best
    confirmed = (
        "confirmed in a new process with new inputs"
        if timing.confirmed
        else "measured once and not confirmed"
    )
    sentence = f"95% interval {interval(best)}, {confirmed}{_roofline_clause(record)}."
    return Headline(f"{times(best.speedup)} faster than {_rivals(timing)}", sentence)


def _rivals(timing: Timing) -> str:
    best = timing.against_best
    if timing.workloads:
        return f"{baseline_name(best.baseline)}, in the mean of {len(timing.workloads)} workloads"
    if len(timing.comparisons) == 1:
        return f"{baseline_name(best.baseline)}, the only baseline that could be measured"
    rank = "faster" if len(timing.comparisons) == 2 else "fastest"
    return f"{baseline_name(best.baseline)}, the {rank} baseline"


class Bound(NamedTuple):
    """The bound that applies to the winner, or to the op where none won, and the share reached."""

    kind: Literal["memory", "compute"]
    ms: float
    fraction: float | None
    rewritten: bool


def bound_of(record: RunRecord) -> Bound:
    """Which bound the run is held against.

    A winner faster than the op's own operations at peak has rewritten them away; only memory still
    bounds it.
    """
    roof = record.roofline
    if record.timing is None:
        return Bound(roof.bound, roof.floor_ms, None, rewritten=False)
    measured = record.timing.candidate_ms
    kind = roof.bound_at(measured)
    ms = roof.memory_ms if kind == "memory" else roof.compute_ms
    return Bound(kind, ms, roof.fraction(measured), rewritten=kind != roof.bound)


def _roofline_clause(record: RunRecord) -> str:
    bound = bound_of(record)
    if bound.fraction is None:
        return ""
    if bound.rewritten:
        roof = "memory roof, with most of the op's arithmetic rewritten away"
    else:
        roof = "roofline"
    return f"; {percent(bound.fraction)} of this machine's {roof}"


def _correct(timing: Timing) -> Headline:
    best = timing.against_best
    rival = f"{baseline_name(best.baseline)} (95% interval {interval(best)})"
    reading = f"read {times(best.speedup)} against {rival}"
    if best.high < 1:
        how = f"The best correct candidate was slower: it {reading}."
    elif best.low > 1:
        noise = percent(timing.noise)
        how = f"The best correct candidate {reading}, within this machine's own noise of {noise}."
    else:
        how = f"The best correct candidate {reading}: no difference that could be measured."
    return Headline("No faster kernel was found", f"{how} Keep using the baseline.")


def _failed(record: RunRecord) -> Headline:
    if not record.trials:
        return Headline(
            "No kernel was judged",
            f"The run ended before any candidate had a verdict: {record.ended}.",
        )
    if all(isinstance(trial.verdict, JudgeError) for trial in record.trials):
        return Headline(
            "The judge could not do its work",
            "Its own machinery failed on every candidate, so nothing is known about any of them.",
        )
    passed = [trial for trial in record.trials if isinstance(trial.verdict, Correct)]
    if passed:
        number = record.winner or passed[0].number
        return Headline(
            "No kernel was confirmed",
            f"Trial {number} passed its first judging but not the second, independent one, "
            "so it does not count.",
        )
    count = len(record.trials)
    return Headline(
        "No correct kernel was found",
        f"{_of(count)} {tally(record.trials)}. Keep using the baseline.",
    )


def _of(count: int) -> str:
    return "The one candidate judged:" if count == 1 else f"Of {count} candidates judged:"


def tally(trials: tuple[Trial, ...]) -> str:
    """How many trials ended in which verdict, e.g. `3 gave wrong output, 1 crashed`."""
    labels = (describe(trial.verdict).label for trial in trials)
    counts = Counter(_CLAUSES.get(label, label) for label in labels)
    return ", ".join(f"{count} {clause}" for clause, count in counts.most_common())


def shortened(text: str, most: int) -> str:
    """A text's beginning and end, or all of it."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … {text[len(text) - half :]}"
