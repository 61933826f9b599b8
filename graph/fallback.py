"""What a run hands over where nothing it found is faster: the op itself, as it runs fastest here.

Whoever takes the kernel of a run is then never slower off than before.
"""

import time
from typing import NamedTuple

from agents.brief import Plan
from agents.playbook.coder import AS_GIVEN
from graph.record import BASELINE_PLAN
from graph.workbench import Workbench
from knowledge.emit import Unemittable, emit_as_given
from tools.candidate import Candidate
from tools.facts import Baselines
from tools.verdict import Correct, Timing, Trial

COMPILED = (
    "the reference under torch.compile, unchanged; timed outputs were checked, and not put to the "
    "gauntlet, in which it would compile anew for every shape"
)


# A tie is no reason to have whoever uses the kernel wait for a compilation.
WORTH_COMPILING = 1.05

EAGER = "eager"
# torch's modes by the baselines that a drop-in can be: one in CUDA graphs would hand out memory
# that its next call overwrites.
MODES: dict[str, str | None] = {"compile": None, "max-autotune": "max-autotune-no-cudagraphs"}


def worth_compiling(baselines: Baselines) -> str | None:
    """The compiled baseline to take in eager's place; None where eager is about as fast."""
    by_name = {row.name: row.median_ms for row in baselines.rows if row.median_ms is not None}
    found = {name: by_name[name] for name in MODES if name in by_name}
    best = min(found, key=lambda name: found[name], default=None)
    if best is None or EAGER not in by_name:
        return None
    return best if by_name[EAGER] > WORTH_COMPILING * found[best] else None


class _Kept(NamedTuple):
    """A baseline in a kernel's place: its name, its text, and the judge's verdict."""

    name: str
    candidate: Candidate
    verdict: Correct
    timing: Timing


def keep_baseline(
    bench: Workbench, source: str, baselines: Baselines
) -> tuple[Plan, Trial, Correct] | str:
    """The fastest baseline as a trial, with its verdict; or why it can't be one.

    Args:
        bench: the run's tools.
        source: the reference's text.
        baselines: as they were measured at the start.
    """
    began = time.time()
    kept = _judged(bench, source, baselines, worth_compiling(baselines) or EAGER)
    if isinstance(kept, str):
        return kept
    # What was the fastest at the start may have had luck with its memory.
    if (name := overtaken_by(kept.timing, kept.name)) is not None:
        other = _judged(bench, source, baselines, name)
        if not isinstance(other, str) and _speedup(other) > _speedup(kept):
            kept = other
    compiled = kept.name != EAGER
    plan = Plan(
        id=BASELINE_PLAN,
        title="the op under torch.compile" if compiled else "the op as the library does it",
        steps=(),
        expected_speedup=1.0,
        arithmetic="Nothing that was tried is faster than this, so it is what is handed over.",
        labels=kept.candidate.labels,
    )
    trial = Trial(
        number=bench.folder.claim_trial(plan),
        plan=plan.id,
        pattern="library",
        title=plan.title,
        parent=None,
        repair=0,
        candidate=kept.candidate,
        verdict=kept.verdict,
        seconds=time.time() - began,
    )
    bench.folder.write_trial(trial)
    return plan, trial, kept.verdict


def overtaken_by(timing: Timing, name: str) -> str | None:
    """The baseline beside which the one handed over reads much slower; None where none is."""
    others = [
        one
        for one in timing.comparisons
        if one.baseline in (EAGER, *MODES) and one.baseline != name
    ]
    best = min(others, key=lambda one: one.speedup, default=None)
    return best.baseline if best is not None and best.speedup < 1 / WORTH_COMPILING else None


def _speedup(kept: _Kept) -> float:
    return kept.timing.against_best.speedup


def _judged(bench: Workbench, source: str, baselines: Baselines, name: str) -> _Kept | str:
    """A baseline put to the judge; or why it can't be handed over, in words."""
    compiled = name != EAGER
    told = "the op under torch.compile" if compiled else "the op as it was given"
    try:
        text = emit_as_given(source, compiled=compiled, mode=MODES.get(name))
    except Unemittable as error:
        return f"{told} is not handed over ({error})"
    label = COMPILED if compiled else AS_GIVEN
    candidate = Candidate(source=text, backend="torch", labels=(label,))
    if compiled:
        # Every shape of the gauntlet would be a compilation; what it computes is torch's own.
        against = tuple(row.name for row in baselines.rows if row.median_ms is not None)
        verdict = bench.judge.measure(candidate, against)
    else:
        verdict = bench.judge.confirm(candidate)
    if not isinstance(verdict, Correct) or verdict.timing is None:
        return f"{told} is not handed over ({verdict.kind})"
    return _Kept(name, candidate, verdict, verdict.timing)
