"""The tool `optimize`: a whole run of Kernelwright's own crew."""

import asyncio

from mcp.server.mcpserver.exceptions import ToolError

from agents.llm.models import check_models
from graph.drive import Interrupted
from graph.mcp.follow import Call, follow, stopped
from graph.mcp.hall import Hall
from graph.mcp.replies import Outcome
from graph.subjects import (
    Arguments,
    Inputs,
    Minutes,
    Op,
    Reference,
    Resume,
    Settings,
    Subject,
    Target,
    Trials,
)
from knowledge.errors import BadInput
from tools.task import Task, device_of, language_of


class Optimizer:
    """The tool, for one server."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def optimize(  # noqa: PLR0913 - a tool's parameters are its schema
        self,
        call: Call,
        reference: Reference = "",
        op: Op = "",
        inputs: Inputs = None,
        arguments: Arguments = None,
        target: Target = "auto",
        trials: Trials = None,
        minutes: Minutes = None,
        settings: Settings = None,
        resume: Resume = "",
    ) -> Outcome:
        """Make a PyTorch op faster without your help, and prove it.

        Kernelwright's own crew plans, writes, verifies and times kernels for the op, confirms the
        best in a new process with new seeds, and exports it as a drop-in module with a report.
        Takes minutes; progress says what is happening, and first of all where the run lies.
        Cancelling ends the work and its processes: what was finished is kept, and `resume` with the
        run's folder or id goes on. The kernel is judged
        against the better of eager and torch.compile; a kernel that is not faster is not called so.
        To write the kernels yourself, use start_task instead.
        """
        if resume:
            check_alone(reference, op, inputs, arguments, trials, minutes, settings)
            folder, task = self._hall.reopened(resume)
            run = self._hall.optimise(task, folder)
        else:
            subject = Subject(
                reference=reference, op=op, inputs=inputs, arguments=arguments, target=target
            )
            task = subject.task(self._hall, trials=trials, minutes=minutes, settings=settings)
            check_task(task)
            run = self._hall.optimise(task)
        try:
            return Outcome.of(await follow(call, run, run.ended))
        except asyncio.CancelledError:
            await stopped(run)
            raise
        except Interrupted as stop:
            raise told_to_resume("optimize", stop) from stop


def check_alone(*given: object) -> None:
    """Complain of what is given beside `resume`.

    Raises:
        BadInput: something is.
    """
    if any(given):
        raise BadInput("resume", "goes alone: the run's own task says what to do.")


def check_task(task: Task) -> None:
    """Find now what would end the run at once.

    Raises:
        BadInput: the device or its language is unknown, or a model lacks its key.
    """
    language_of(task, device_of(task, "target"), "call")
    check_models(task, "call")


def told_to_resume(tool: str, stop: Interrupted) -> ToolError:
    """That a run stopped, where it lies, and what goes on with it."""
    path = stop.folder.path
    return ToolError(
        f"the run stopped: {stop.why}; it lies in {path}; {tool} with resume={path.name} goes on "
        "with it"
    )
