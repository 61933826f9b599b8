"""A verdict as agents are told it: bounded, quoted, and without what would help to fool the judge.

What a compiler or a kernel printed may be written to be read as instructions by a model (no. 50 of
the catalogue of cheats), so it only ever appears as marked lines of plain text. Of a case that is
missed the kind is told; its distribution, its inputs and its seeds are not.
"""

import re
from typing import assert_never

from tools.verdict import (
    BuildFailed,
    Cheated,
    Compiled,
    ContractBroken,
    Correct,
    Crashed,
    Implausible,
    JudgeError,
    TimedOut,
    TimerMismatch,
    Verdict,
    WrongOutput,
)

TOLD_LIMIT, QUOTED_LINES, LINE_LIMIT = 2000, 24, 300
# Of a module compiled for a device that is not here: its first ones.
KERNELS = 4
MARK = "| "
# An interval as wide as this part of the speedup is no reading of the kernel alone.
WIDE = 0.2
DISTURBED = "; the interval is wide: something else was at work, and a second reading may differ"
# Escape sequences of terminals, then whatever else does not print.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


def printable(text: str) -> str:
    """The text without escape sequences, and blanks for whatever else does not print."""
    return "\n".join(
        "".join(c if c.isprintable() else " " for c in line.expandtabs(4))
        for line in _ESCAPES.sub("", text).splitlines()
    )


def quote(text: str, lines: int = QUOTED_LINES) -> str:
    """The end of a program's output as data: printable, each line marked, no more than so many."""
    kept = [line for line in printable(text).splitlines() if line.strip()]
    left = len(kept) - lines
    shown = [line[:LINE_LIMIT] for line in kept[-lines:]]
    if left > 0:
        shown.insert(0, f"({left} lines left out)")
    return "\n".join(MARK + line for line in shown)


def told_to_agents(verdict: Verdict) -> str:
    """What an agent may know of a verdict, in at most `TOLD_LIMIT` characters."""
    words = _told(verdict)
    labels = "".join(f"\nlabel: {_one_line(label)}" for label in verdict.labels)
    told = f"{verdict.kind}: {words}{labels}"
    return told if len(told) <= TOLD_LIMIT else told[: TOLD_LIMIT - 4] + " ..."


def _told(verdict: Verdict) -> str:
    match verdict:
        case Compiled():
            return _told_compiled(verdict)
        case Correct():
            return _told_correct(verdict)
        case BuildFailed() | Crashed():
            return f"it printed, quoted as data:\n{quote(verdict.log)}"
        case JudgeError():
            return "the judge's own machinery failed; this says nothing of the candidate"
        case TimedOut():
            return f"no result within {verdict.deadline_s:g} s"
        case WrongOutput():
            missed = [case for case in verdict.cases if not case.passed]
            about = missed[-1].about if missed else ""
            return _one_line(verdict.detail) + (f", on {about}" if about else "")
        case ContractBroken() | TimerMismatch():
            return _one_line(verdict.detail)
        case Cheated():
            return f"{verdict.check}: {_one_line(verdict.detail)}"
        case Implausible():
            return (
                f"{verdict.candidate_ms:.3f} ms is less than the {verdict.floor_ms:.3f} ms that "
                "moving the data takes: not all of the work is done within the call"
            )
        case _:
            assert_never(verdict)


def _one_line(text: str) -> str:
    return quote(" ".join(text.split())).removeprefix(MARK)


def _told_compiled(verdict: Compiled) -> str:
    uses = [
        f"{_one_line(one.function)}: {one.registers} registers, {one.spilled_bytes} bytes spilled, "
        f"{one.shared_bytes} bytes of shared memory"
        + (f", occupancy {one.occupancy:.0%}" if one.occupancy else "")
        for one in verdict.kernels[:KERNELS]
    ]
    told = f"compiled for {verdict.device}, not timed; {verdict.logic}"
    return "; ".join([told, *uses])


def _told_correct(verdict: Correct) -> str:
    told = "every output was right"
    if not verdict.deterministic:
        told += "; repeated calls differ in their last bits"
    if verdict.timing is None:
        return told
    rows = [
        f"{row.speedup:.3f} times as fast as {row.baseline} ({row.low:.3f} to {row.high:.3f}), "
        f"which took {row.baseline_ms:.4g} ms meanwhile"
        for row in verdict.timing.comparisons
    ]
    timing = verdict.timing
    wide = any(row.high - row.low > WIDE * row.speedup for row in verdict.timing.comparisons)
    return (
        f"{told}; {timing.candidate_ms:.4g} ms a call, {', '.join(rows)}; "
        f"noise {timing.noise:.1%}, {timing.page_faults:.0f} page faults a call"
        + (DISTURBED if wide else "")
    )
