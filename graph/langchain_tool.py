"""`as_tool()`: optimising an op as a tool of a LangChain agent's."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.tools import StructuredTool, ToolException
from pydantic import BaseModel

from graph.background import Background
from graph.build import RUNS
from graph.drive import Interrupted, way_on
from graph.folder import RunFolder
from graph.mcp.replies import Outcome
from graph.state import RunInput
from graph.subjects import (
    Arguments,
    Inputs,
    Minutes,
    Op,
    Reference,
    Settings,
    Subject,
    Target,
    Trials,
)
from graph.workbench import Workbenches
from knowledge.errors import BadInput

NAME = "optimize_pytorch_op"
DESCRIPTION = (
    "Make a PyTorch op faster and prove it: Kernelwright writes kernels for it, verifies them on "
    "hidden inputs against a float64 oracle, times them against the better of eager and "
    "torch.compile, and confirms the best in a new process. Takes minutes. Answers with JSON: "
    "status (faster, correct, compiled, failed), speed with its 95% interval, the kernel's source, "
    "and where kernel and report lie."
)


class OptimizeArguments(BaseModel):
    """Which op, for which device, within which budget."""

    reference: Reference = ""
    op: Op = ""
    inputs: Inputs = None
    arguments: Arguments = None
    target: Target = "auto"
    trials: Trials = None
    minutes: Minutes = None
    settings: Settings = None


@dataclass(frozen=True)
class _Place:
    base: Path
    runs: Path


def as_tool(
    *, out: Path | str = RUNS, library: Path | str | None = None, name: str = NAME
) -> StructuredTool:
    """A tool for a LangChain agent, sync and async.

    A wrong argument is answered with one line for the model to read.

    Args:
        out: the folder in which runs are made.
        library: the library's folder; None for the user's own.
        name: what the agent calls it by.
    """
    runs = Path(out)
    folder = Path(library) if library is not None else None

    def begin(given: dict[str, Any]) -> Background:
        asked = OptimizeArguments.model_validate(given)
        subject = Subject(**asked.model_dump(exclude={"trials", "minutes", "settings"}))
        try:
            task = subject.task(
                _Place(Path.cwd(), runs),
                trials=asked.trials,
                minutes=asked.minutes,
                settings=asked.settings,
            )
            made = RunFolder.create(runs, task)
        except BadInput as error:
            raise ToolException(str(error)) from error
        entry = RunInput(task=task, run_dir=str(made.path))
        benches = Workbenches(folder, instruments=True)
        return Background(made, task, entry, benches).start()

    def run(**given: Any) -> str:
        begun = begin(given)
        try:
            return _told(begun)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"the run was stopped; {way_on(begun.folder)}")
            begun.stop()
            raise

    async def arun(**given: Any) -> str:
        begun = await asyncio.to_thread(begin, given)
        try:
            await asyncio.shield(asyncio.wrap_future(begun.ended))
        except asyncio.CancelledError as cancelled:
            cancelled.add_note(f"the run was stopped; {way_on(begun.folder)}")
            begun.stop()
            raise
        except (BadInput, Interrupted):
            pass
        return _told(begun)

    return StructuredTool.from_function(
        run,
        arun,
        name=name,
        description=DESCRIPTION,
        args_schema=OptimizeArguments,
        handle_tool_error=True,
    )


def _told(run: Background) -> str:
    """How a run ended, for a model.

    Raises:
        ToolException: it did not end as it should.
    """
    try:
        return Outcome.of(run.ended.result()).model_dump_json()
    except BadInput as error:
        raise ToolException(str(error)) from error
    except Interrupted as stop:
        raise ToolException(f"the run stopped: {stop}") from stop
