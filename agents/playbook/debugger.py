"""The playbook's debugger: from a failure to the smallest change that could mend it.

What to try, and in which order, is read from the verdict; a change that changes nothing, or leads
to steps already tried in this run, is passed over. The last resort is to leave steps out, one at a
time, so that a wrong pattern cannot take the right ones down with it.
"""

from collections.abc import Iterator

from agents.brief import Brief, Plan
from agents.playbook.coder import PlaybookCoder
from agents.playbook.mends import PRECAUTIONS, Steps, mends_for
from knowledge.pattern import Step
from tools.candidate import Candidate
from tools.verdict import (
    BuildFailed,
    Correct,
    Implausible,
    JudgeError,
    TimerMismatch,
    Trial,
    Verdict,
)


class PlaybookDebugger:
    """Repairs by rule; the coder writes what it decides."""

    def __init__(self, coder: PlaybookCoder) -> None:
        self._coder = coder

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        """The first mend that leads somewhere new."""
        if isinstance(trial.verdict, Correct | JudgeError):
            return None
        tried = [plan.steps, *(other.steps for other in brief.plans)]
        sources = {trial.candidate.source}
        for steps, sentence in ways_out(plan.steps, trial.verdict):
            if steps in tried:
                continue
            mended = plan.model_copy(update={"steps": steps})
            try:
                candidate = self._coder.write(brief, mended)
            except ValueError:
                # A later step may need what was left out, or find nothing to change without it.
                continue
            if candidate.source not in sources:
                return mended, candidate, sentence
        return None


def ways_out(steps: Steps, verdict: Verdict) -> Iterator[tuple[Steps, str]]:
    """Changed steps that could mend the failure, each with a sentence on it, likeliest first."""
    changed = steps
    for mend in mends_for(verdict):
        # Mends add up: if wider sums did not help, the next attempt keeps them and changes exp too.
        before, changed = changed, mend.change(changed)
        if changed != before:
            yield changed, mend.sentence
    for at in _suspects(steps, verdict):
        yield (*steps[:at], *steps[at + 1 :]), f"left {_named(steps[at])} out"
    for part in reversed(list(dict.fromkeys(step.part for step in steps))):
        others = tuple(step for step in steps if step.part != part)
        if others:
            yield others, f"left {part} as it is"
    for kept in range(len(steps) - 2, 0, -1):
        yield steps[:kept], f"left all after {_named(steps[kept - 1])} out"


def _named(step: Step) -> str:
    return f"{step.pattern} of {step.part}" if step.part else step.pattern


def _suspects(steps: Steps, verdict: Verdict) -> list[int]:
    """Positions of steps to leave out, one at a time, the likeliest culprit first.

    What a build log names comes first; where too little was done for the time to be believed, the
    algebra that left it out; where work was put off, what decides where results lie. Otherwise the
    newest.
    """
    places = [at for at, step in enumerate(steps) if step.pattern != PRECAUTIONS]
    if len(places) < 2:
        return []
    named = ""
    match verdict:
        case BuildFailed(log=log):
            named = log
        case Implausible():
            named = "algebra"
        case TimerMismatch():
            named = "output_pages"
        case _:
            pass
    return sorted(places, key=lambda at: (steps[at].pattern not in named, -at))
