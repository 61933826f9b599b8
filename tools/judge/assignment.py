"""What a training environment is set to: a task it can reward, and how a policy is told of it."""

from pathlib import Path
from typing import NamedTuple

from knowledge.device import present_gpu
from knowledge.errors import BadInput
from tools.facts import Baselines, ReferenceFacts, Roofline, telling_nothing
from tools.task import Task, device_of, load_task, parse_task
from tools.verdict import BuildFailed

LONGEST_SOURCE = 1 << 20


class Known(NamedTuple):
    """What the judge found of the task before the first kernel."""

    facts: ReferenceFacts
    baselines: Baselines
    roofline: Roofline


def seats_for(task: Task) -> int:
    """How many judges are open for a task: one for each workload."""
    return max(1, len(task.workloads))


def unreadable(source: str) -> BuildFailed | None:
    """Why a source is none that the judge could be sent."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        return BuildFailed(log="the candidate is not text in UTF-8")
    if size > LONGEST_SOURCE:
        return BuildFailed(log=f"the candidate has {size:,} bytes, of at most {LONGEST_SOURCE:,}")
    return None


def task_at(path: Path) -> Task:
    """The task that a path names: a task file, or a reference.

    Raises:
        BadInput: there is neither.
    """
    if path.suffix in (".yaml", ".yml"):
        return load_task(path)
    return parse_task({"name": path.stem, "reference": str(path)}, str(path), Path.cwd())


def check_here(task: Task) -> None:
    """Rewards are measured, so the device has to be here.

    Raises:
        BadInput: it is not.
    """
    device = device_of(task, f"task {task.name}: target")
    if device.kind != "cpu" and device != present_gpu():
        raise BadInput(
            f"task {task.name}: target",
            f"{device.title} is not here, and rewards are measured.",
            "Use a device of this machine.",
        )


def check_telling(task: Task, facts: ReferenceFacts) -> None:
    """Whoever is rewarded on a task that can't tell right from wrong learns to be wrong.

    Raises:
        BadInput: this is such a task.
    """
    if caution := telling_nothing(facts.cautions):
        raise BadInput(
            f"task {task.name}", f"earns no rewards: {caution}.", "Leave it out of training."
        )


def text_of(task: Task, known: Known) -> str:
    """The task as a policy is told it."""
    device = device_of(task, "task: target")
    times = ", ".join(
        f"{row.name} {row.median_ms:.4g} ms"
        for row in known.baselines.rows
        if row.median_ms is not None
    )
    lines = [
        f"Make this module faster on {device.title}. Answer with one Python module that defines "
        "class ModelNew(torch.nn.Module), with the constructor and the forward of Model.",
        f"```python\n{known.facts.source.strip()}\n```",
        f"Baselines: {times}. The roofline is at {known.roofline.floor_ms:.4g} ms.",
        *(f"Caution: {caution}." for caution in known.facts.cautions),
    ]
    return "\n".join(lines)
