"""The playbook's debugger: from a failure to the smallest change that could mend it.

Rules are tried in order; one that changes nothing, or leads to steps already tried in this run, is
passed over. The last resort is to leave steps out, one at a time, so that a wrong pattern cannot
take the right ones down with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from agents.brief import Brief, Plan
from agents.playbook.coder import PlaybookCoder
from knowledge.pattern import Parameter, Step
from tools.candidate import Candidate
from tools.verdict import (
    BuildFailed,
    Cheated,
    ContractBroken,
    Correct,
    Crashed,
    Implausible,
    JudgeError,
    TimedOut,
    TimerMismatch,
    Trial,
    Verdict,
    WrongOutput,
)


@dataclass(frozen=True)
class Mend:
    """Set one tunable of any step that has it to a safer value."""

    parameter: str
    value: Parameter
    sentence: str


WIDER = Mend("accumulate", "double", "sums in double: the miss looks like lost low bits")
EXACT = Mend("exp", "libm", "the library's exp instead of the inline polynomial")
PLAIN_STORES = Mend("streaming", False, "plain stores instead of streaming ones")
SPLIT = Mend("precision", "tf32x3", "products of three TF32 parts, as exact as float32")
IEEE = Mend("precision", "ieee", "products in float32 itself, without tensor cores")
APART = Mend("epilogue", False, "what follows the anchor in a loop of its own")
LIBRARY = Mend("engine", "onednn", "oneDNN's routine instead of our own product")


def mends_for(verdict: Verdict) -> tuple[Mend, ...]:
    """Which tunables to make safer after a failure of this kind, likeliest cause first."""
    match verdict:
        case WrongOutput():
            return (WIDER, EXACT, PLAIN_STORES, SPLIT, IEEE, APART, LIBRARY)
        case BuildFailed():
            return (EXACT, PLAIN_STORES, APART)
        case Crashed() | TimedOut():
            return (PLAIN_STORES, APART, LIBRARY)
        case ContractBroken() | Cheated() | Implausible() | TimerMismatch():
            return ()
        case Correct() | JudgeError():
            return ()


class PlaybookDebugger:
    """Repairs by rule; the coder writes what it decides."""

    def __init__(self, coder: PlaybookCoder) -> None:
        self._coder = coder

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        """The first mend that leads somewhere new."""
        if isinstance(trial.verdict, Correct | JudgeError):
            return None
        tried = [plan.steps, *(other.steps for other in brief.plans)]
        for steps, sentence in ways_out(plan.steps, trial.verdict):
            if steps in tried:
                continue
            mended = plan.model_copy(update={"steps": steps})
            try:
                return mended, self._coder.write(brief, mended), sentence
            except ValueError:
                # A later step may need what was left out, or find nothing to change without it.
                continue
        return None


def ways_out(steps: tuple[Step, ...], verdict: Verdict) -> Iterator[tuple[tuple[Step, ...], str]]:
    """Changed steps that could mend the failure, each with a sentence on it, likeliest first."""
    changed = steps
    for mend in mends_for(verdict):
        # Mends add up: if wider sums did not help, the next attempt keeps them and changes exp too.
        changed = tuple(_with(step, mend) for step in changed)
        yield changed, mend.sentence
    for at in _suspects(steps, verdict):
        yield (*steps[:at], *steps[at + 1 :]), f"left {steps[at].pattern} out"
    for kept in range(len(steps) - 2, 0, -1):
        yield steps[:kept], f"left all after {steps[kept - 1].pattern} out"


def _suspects(steps: tuple[Step, ...], verdict: Verdict) -> list[int]:
    """Positions of steps to leave out, one at a time: what a build log names first, then newest."""
    if len(steps) < 2:
        return []
    log = verdict.log if isinstance(verdict, BuildFailed) else ""
    newest = range(len(steps) - 1, -1, -1)
    return sorted(newest, key=lambda at: steps[at].pattern not in log)


def _with(step: Step, mend: Mend) -> Step:
    if mend.parameter not in step.parameters or step.parameters[mend.parameter] == mend.value:
        return step
    return step.model_copy(update={"parameters": {**step.parameters, mend.parameter: mend.value}})
