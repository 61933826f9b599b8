"""One problem of a suite, from its task to its row, each step in a process of its own."""

import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agents.llm.exchange import Exchange
from eval.neighbours import neighbours
from eval.problem import Problem
from eval.process import Ended, Execute, Limits, execute
from eval.rows import SLACK_S, Broken, Row, Skipped, row_from
from graph.accounts import usage_of
from graph.folder import RunFolder
from graph.journal import legible_exchanges
from knowledge.device import present_gpu
from knowledge.errors import BadInput
from tools.estimate import Estimate, Scaled
from tools.task import Task, device_of

# On fake tensors nothing is computed: what takes longer than this will not end.
FOOTPRINT_S = 120.0
# Each further kernel of somebody else's for the same problem.
SAMPLE_S = 120.0
# Large tensors are drawn, copied and compared for a while, by a system that is slow to map memory
# above all.
GIB_S = 30.0
GPU_SHARE = 0.9
SLUG_LENGTH = 60


@dataclass(frozen=True)
class Arrangement:
    """How the problems of an evaluation are run.

    Args:
        out: its folder.
        memory_bytes: that one problem may take; None for no limit.
        scale_inputs: make a problem smaller that does not fit.
        look_first: reckon what a problem takes before it is run.
        wall_s: for one problem; None for its budget and some slack.
        candidates: kernels by the problem's name; None where the problems are to be solved.
    """

    out: Path
    memory_bytes: int | None = None
    scale_inputs: bool = False
    look_first: bool = True
    wall_s: float | None = None
    candidates: Mapping[str, tuple[Path, ...]] | None = None

    def execute(self) -> Execute:
        """What runs a command within the limits."""
        return partial(execute, limits=Limits(memory_bytes=self.memory_bytes))


def folder_of(problem: Problem, out: Path) -> Path:
    """A problem's own folder: its number keeps names apart that differ in odd characters alone."""
    slug = re.sub(r"[^\w.-]+", "-", problem.task.name).strip("-.")[:SLUG_LENGTH] or "problem"
    return out / "problems" / f"{problem.number:03d}-{slug}"


def run_problem(problem: Problem, arrangement: Arrangement, run: Execute) -> Row:
    """A problem's row, whatever its processes do.

    Args:
        problem: what is run.
        arrangement: how.
        run: how a command is run.
    """
    task = problem.task
    if arrangement.candidates is not None and not arrangement.candidates.get(task.name):
        told = "the folder of candidates holds none for this problem"
        return _labelled(
            Broken(name=task.name, seconds=0.0, reason="no_candidate", error=told), problem
        )
    folder = folder_of(problem, arrangement.out)
    # Left by an evaluation that was stopped in the middle of it.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_task(task, folder)
    scaled: tuple[Scaled, ...] = ()
    needed = 0
    if arrangement.look_first:
        limit = _limit_for(task, arrangement.memory_bytes)
        looked = _look(task, folder, limit, arrangement.scale_inputs, run)
        if not isinstance(looked, Estimate):
            return _labelled(looked, problem)
        scaled, needed = looked.scaled, looked.needed or 0
        if looked.source is not None:
            assert task.reference is not None
            (folder / "reference.py").write_text(looked.source, encoding="utf-8")
            # The modules that it imports from beside it come with its smaller copy.
            for one in neighbours(task.reference, looked.source):
                place = folder / one.relative_to(task.reference.parent)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(one, place)
            task = task.model_copy(update={"reference": (folder / "reference.py").resolve()})
            _write_task(task, folder)
    command, deadline_s = _command(task, folder, arrangement, needed)
    ended = run(command, arrangement.wall_s or deadline_s, folder / "problem.log")
    row = row_from(problem.task.name, ended)
    if isinstance(row, Broken):
        # What it spent stands in no document, since it wrote none.
        row = row.model_copy(update=_spent_in(folder / "run"))
    # What a judge that was killed had no time to clear away.
    for left in (*folder.glob("run/*/scratch"), *folder.glob("judge-*")):
        shutil.rmtree(left, ignore_errors=True)
    return _labelled(row, problem, scaled)


def _spent_in(runs: Path) -> dict[str, float]:
    """What models took in the runs of a folder, and what that cost, by a row's fields."""
    said: list[Exchange] = []
    for run in runs.glob("*"):
        with suppress(OSError):
            said += legible_exchanges(RunFolder(run).exchanges)
    usage = usage_of(said, 0.0, None)
    return {"tokens": usage.tokens, "usd": usage.usd}


def _labelled(row: Row, problem: Problem, scaled: tuple[Scaled, ...] = ()) -> Row:
    marks: dict[str, Any] = {"labels": problem.labels}
    if not isinstance(row, Skipped):
        marks["scaled"] = scaled
    return row.model_copy(update=marks)


def _write_task(task: Task, folder: Path) -> None:
    text = yaml.safe_dump(task.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    (folder / "task.yaml").write_text(text, encoding="utf-8")


def _command(
    task: Task, folder: Path, arrangement: Arrangement, needed: int
) -> tuple[list[str], float]:
    """What runs a problem, and the seconds it may take whose tensors need so many bytes."""
    file = str(folder / "task.yaml")
    slack_s = SLACK_S + GIB_S * needed / 2**30
    if arrangement.candidates is not None:
        samples = arrangement.candidates[task.name]
        command = [sys.executable, "-m", "eval.judged", file, *map(str, samples)]
        # Each workload has baselines of its own, and every kernel is judged on it.
        seconds = (slack_s + SAMPLE_S * len(samples)) * max(1, len(task.workloads))
        return [*command, "--out", str(folder)], seconds
    command = [sys.executable, "-m", "graph.run", file, "--json", "--out", str(folder / "run")]
    return command, task.budget.minutes * 60 + slack_s


def _limit_for(task: Task, memory_bytes: int | None) -> int | None:
    """Bytes for a task's tensors; None where they are nobody's worry here.

    For a device that is elsewhere the op is traced, and its logic tried on small inputs alone.
    """
    try:
        device = device_of(task, task.name)
    except BadInput:
        return memory_bytes
    if device.kind == "cpu":
        return memory_bytes
    if present_gpu() is None:
        return None
    own = int(device.memory_gib * GPU_SHARE * 2**30)
    return own if memory_bytes is None else min(own, memory_bytes)


def _look(task: Task, folder: Path, limit: int | None, scale: bool, run: Execute) -> Estimate | Row:
    """What a problem takes, or its row where it takes too much, or does not end.

    Whatever else is wrong with it, the run itself says better.
    """
    command = [sys.executable, "-m", "tools.footprint", str(folder / "task.yaml")]
    command += ["--limit", str(limit)] if limit is not None else []
    # What workloads say of sizes stands above the file's own.
    command += ["--scale"] if scale and task.reference is not None and not task.workloads else []
    ended = run(command, FOOTPRINT_S, folder / "footprint.log")
    if ended.stopped:
        return _stuck(task, ended)
    if ended.code != 0:
        return Estimate(unknown=ended.log.strip()[-300:])
    try:
        found = Estimate.model_validate_json(ended.output)
    except ValidationError:
        return Estimate(unknown="the estimate can't be read")
    if limit is not None and found.needed is not None and found.needed > limit:
        return Skipped(name=task.name, seconds=ended.seconds, error=_too_large(found, limit, scale))
    return found


def _stuck(task: Task, ended: Ended) -> Row:
    row = row_from(task.name, ended)
    assert isinstance(row, Broken)
    before = "importing, constructing and calling it on tensors without data"
    return row.model_copy(update={"error": f"{before}: {row.error}"})


def _too_large(found: Estimate, limit: int, scale: bool) -> str:
    assert found.footprint is not None
    parts = found.footprint
    told = (
        f"judging it takes about {gib(found.needed or 0)}, and {gib(limit)} is what one problem may"
        f" take here (inputs {gib(parts.inputs)}, weights {gib(parts.weights)}, outputs "
        f"{gib(parts.outputs)}, between them {gib(parts.working)}, and several copies of each)"
    )
    mend = "no size constant of its file makes it smaller" if scale else "--scale-inputs may help"
    return f"{told}; {mend}"


def gib(count: int) -> str:
    """A number of bytes as a person says it."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"
