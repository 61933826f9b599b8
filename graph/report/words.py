"""How a run is put into words and numbers: the screen and the HTML report both speak through here.

Every sentence is derived from the record. Nothing is rounded up, and a run that found nothing faster says so first.
"""

from collections import Counter
from typing import Literal, NamedTuple, assert_never

from graph.record import RunRecord
from tools.verdict import (
    BuildFailed,
    Cheated,
    Comparison,
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

BASELINE_NAMES = {"eager": "eager", "compile": "torch.compile"}
LOG_HEAD = 1500
LOG_TAIL = 2500

Tone = Literal["good", "plain", "bad", "warn"]


class VerdictWords(NamedTuple):
    """A verdict as shown: a few words, how to colour them, one sentence, and the bounded program output."""

    label: str
    tone: Tone
    sentence: str
    log: str = ""


def describe(verdict: Verdict) -> VerdictWords:
    """Any verdict in words."""
    match verdict:
        case Correct():
            return _describe_correct(verdict)
        case BuildFailed(log=log):
            return VerdictWords("did not build", "bad", "The source did not parse, import or compile.", clip(log))
        case Crashed(log=log):
            return VerdictWords("crashed", "bad", "The runner died or raised an error.", clip(log))
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
            sentence = f"{milliseconds(candidate_ms)} is below the physical floor of {milliseconds(floor_ms)}."
            return VerdictWords("implausible", "bad", sentence)
        case TimerMismatch(detail=detail):
            return VerdictWords("clocks disagree", "bad", clip(detail))
        case JudgeError(log=log):
            sentence = "The judge's own machinery failed; this says nothing about the candidate."
            return VerdictWords("judge error", "warn", sentence, clip(log))
        case _:
            assert_never(verdict)


def _describe_correct(verdict: Correct) -> VerdictWords:
    cases = f"{len(verdict.cases)} cases passed" if verdict.cases else "Every case passed"
    wobble = "" if verdict.deterministic else " Its output varies from call to call, within the tolerance."
    if verdict.timing is None:
        return VerdictWords("correct, not timed", "plain", f"{cases}; it was not timed.{wobble}")
    if verdict.timing.faster:
        return VerdictWords("correct, faster", "good", f"{cases}.{wobble}")
    return VerdictWords("correct", "plain", f"{cases}; no faster than every baseline.{wobble}")


def clip(text: str) -> str:
    """Program output, bounded: its beginning and its end, without control characters."""
    clean = "".join(character for character in text if character in "\n\t" or character.isprintable())
    if len(clean) <= LOG_HEAD + LOG_TAIL:
        return clean.strip()
    left_out = len(clean) - LOG_HEAD - LOG_TAIL
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
    return f"{fraction:.1%}" if abs(fraction) < 0.095 else f"{fraction:.0%}"


def duration(seconds: float) -> str:
    """A wall time as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


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
    if record.status == "failed":
        return _failed(record)
    if record.timing is None:
        return Headline(
            "A correct kernel, not timed",
            f"Trial {record.winner} passed every case, but no time could be measured for it.",
        )
    return _faster(record, record.timing) if record.status == "faster" else _correct(record.timing)


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
    if len(timing.comparisons) == 1:
        return f"{baseline_name(best.baseline)}, the only baseline that could be measured"
    return f"{baseline_name(best.baseline)}, the {'faster' if len(timing.comparisons) == 2 else 'fastest'} baseline"


def _roofline_clause(record: RunRecord) -> str:
    fraction = record.roofline_fraction
    if fraction is None:
        return ""
    if fraction > 1:
        return "; it needs less time than the reference's own operations would at this machine's peak"
    return f"; {percent(fraction)} of this machine's roofline"


def _correct(timing: Timing) -> Headline:
    best = timing.against_best
    against = f"against {baseline_name(best.baseline)} (95% interval {interval(best)})"
    if best.high < 1:
        how = f"The best correct candidate was slower: {times(best.speedup)} {against}."
    elif best.low > 1:
        noise = percent(timing.noise)
        how = f"The best correct candidate read {times(best.speedup)} {against}, which is within this machine's own noise of {noise}."
    else:
        how = f"The best correct candidate read {times(best.speedup)} {against}: no difference that could be measured."
    return Headline("No faster kernel was found", f"{how} Keep using the baseline.")


def _failed(record: RunRecord) -> Headline:
    if not record.trials:
        return Headline("No kernel was judged", f"The run ended before any candidate had a verdict: {record.ended}.")
    passed = [trial for trial in record.trials if isinstance(trial.verdict, Correct)]
    if passed:
        number = record.winner or passed[0].number
        return Headline(
            "No kernel was confirmed",
            f"Trial {number} passed its first judging but not the second, independent one, so it does not count.",
        )
    count = len(record.trials)
    return Headline("No correct kernel was found", f"{_of(count)} {tally(record.trials)}. Keep using the baseline.")


def _of(count: int) -> str:
    return "The one candidate judged:" if count == 1 else f"Of {count} candidates judged:"


def tally(trials: tuple[Trial, ...]) -> str:
    """How many trials ended in which verdict, commonest first, e.g. `3 wrong output, 1 crashed`."""
    counts = Counter(describe(trial.verdict).label for trial in trials)
    return ", ".join(f"{count} {label}" for label, count in counts.most_common())
