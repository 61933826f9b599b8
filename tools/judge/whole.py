"""All that a judge says of one candidate: its verdict, with times where it is right."""

from pathlib import Path
from typing import NamedTuple

from tools.candidate import Candidate
from tools.facts import Baselines
from tools.judge.client import Judge
from tools.judge.combine import combined_baselines
from tools.judge.panel import Panel
from tools.judge.wire import JudgeLimits
from tools.task import Task
from tools.verdict import Correct, Verdict


class Judgement(NamedTuple):
    """A verdict and what to read it by; `baselines` are None where nothing was timed."""

    cautions: tuple[str, ...]
    baselines: Baselines | None
    verdict: Verdict


def judge_of(task: Task, scratch: Path, limits: JudgeLimits | None = None) -> Judge | Panel:
    """The judge of a task, or of several workloads one each; to be closed."""
    if len(task.workloads) > 1:
        return Panel(task, scratch, lambda one, folder: Judge(one, folder, limits))
    return Judge(task, scratch, limits)


def judge_whole(judge: Judge | Panel, candidate: Candidate, *, timed: bool) -> Judgement:
    """Verify a candidate and, where that passes and is wanted, time it against every baseline.

    Raises:
        BadInput: the reference can't be loaded, run or judged.
    """
    cautions = judge.cautions()
    verdict = judge.verify(candidate)
    if not isinstance(verdict, Correct) or not timed:
        return Judgement(cautions, None, verdict)
    baselines, _ = judge.survey()
    if isinstance(judge, Panel):
        baselines = combined_baselines(judge.workloads)
    names = tuple(row.name for row in baselines.rows if row.median_ms is not None)
    measured = judge.measure(candidate, names)
    if isinstance(measured, Correct):
        measured = verdict.model_copy(update={"timing": measured.timing})
    return Judgement(cautions, baselines, measured)
