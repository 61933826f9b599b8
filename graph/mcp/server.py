"""The server: which tools and resources there are, and how a mistake is told."""

import difflib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import ValidationError

from graph.mcp.bench import Lookers
from graph.mcp.hall import Hall
from graph.mcp.lookup import Lookups
from graph.mcp.optimize import Optimizer
from graph.mcp.tasks import Tasks
from knowledge.errors import BadInput
from tools.judge.client import JudgeDied

INSTRUCTIONS = """Kernelwright makes PyTorch ops faster and proves it with a judge that kernels
cannot reach. Two ways: `optimize` has its own crew do all of the work. Or you write the kernels:
`start_task` gives the op, the device, the roofline, the baselines and a good kernel to start from;
hand candidates to `submit_candidate`, which says whether they are right, how fast they are, what
bounds them and what to try next; then `finish` confirms the best and exports it. `judge`,
`compile` and `profile` look at any kernel; `search_knowledge` and `device` say what is known.
An op is given as source in the convention `class Model`, `get_inputs()`, `get_init_inputs()`; a
kernel as source with `class ModelNew`. Figures are the judge's: quote them with their interval."""

WORKS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
LOOKS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
COMPLAINTS = 3


class Server(MCPServer[Any]):
    """Tells every mistake of a caller's in one line, and no traceback."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool.

        Raises:
            ToolError: the call is wrong, or what it asks for can't be done.
            UnexpectedToolError: the fault is the server's; its log has the traceback.
        """
        await self._check_names(name, arguments)
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, BadInput | JudgeDied | ToolError):
                raise ToolError(_one_line(str(cause))) from cause
            if isinstance(cause, ValidationError):
                raise ToolError(_misfits(name, cause)) from cause
            if isinstance(error, UnexpectedToolError):
                raise UnexpectedToolError(
                    f"{name} failed inside the server, and its log says why; the call may be right"
                ) from cause
            raise

    async def _check_names(self, name: str, arguments: dict[str, Any]) -> None:
        """Find a misspelt tool or argument, which would be passed over in silence.

        Raises:
            ToolError: there is one.
        """
        tools = {tool.name: tool.input_schema for tool in await self.list_tools()}
        if name not in tools:
            raise ToolError(f"there is no tool {name[:60]!r}{_nearest(name, tools)}")
        known = tools[name].get("properties", {})
        for argument in arguments:
            if argument not in known:
                near = _nearest(argument, known)
                raise ToolError(f"{name} has no argument {argument[:60]!r}{near}")


def _nearest(word: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; there are: {', '.join(known)}"


def _misfits(name: str, error: ValidationError) -> str:
    told = [
        f"{'.'.join(map(str, one['loc'])) or 'arguments'}: "
        f"{one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()[:COMPLAINTS]
    ]
    return _one_line(f"{name}: {'; '.join(told)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def build_server(hall: Hall) -> Server:
    """The server, not yet speaking to anybody."""
    server = Server(
        "kernelwright",
        title="Kernelwright",
        description="Makes PyTorch ops faster, and proves it",
        instructions=" ".join(INSTRUCTIONS.split()),
        version=_version(),
        log_level="WARNING",
    )
    optimizer, tasks, lookers, lookups = Optimizer(hall), Tasks(hall), Lookers(hall), Lookups(hall)
    working: tuple[Callable[..., Any], ...] = (
        optimizer.optimize,
        tasks.start_task,
        tasks.submit_candidate,
        tasks.finish,
    )
    looking: tuple[Callable[..., Any], ...] = (
        tasks.task_status,
        lookers.judge,
        lookers.compile,
        lookers.profile,
        lookups.search_knowledge,
        lookups.device,
    )
    for tool in working:
        server.add_tool(tool, annotations=WORKS, description=_told(tool))
    for tool in looking:
        server.add_tool(tool, annotations=LOOKS, description=_told(tool))
    for uri, read, kind in (
        ("kernelwright://pages", lookups.list_pages, "text/plain"),
        ("kernelwright://pages/{+name}", lookups.page, "text/markdown"),
        ("kernelwright://runs", lookups.list_runs, "text/plain"),
        ("kernelwright://runs/{run}/report", lookups.report, "text/html"),
        ("kernelwright://runs/{run}/{file}", lookups.run_file, "text/plain"),
    ):
        server.resource(uri, mime_type=kind, description=_told(read))(read)
    return server


def _told(tool: Callable[..., Any]) -> str:
    """A docstring as a description: its paragraphs, without the source's line breaks."""
    paragraphs = (tool.__doc__ or "").strip().split("\n\n")
    return "\n\n".join(" ".join(one.split()) for one in paragraphs)


def _version() -> str:
    try:
        return version("kernelwright")
    except PackageNotFoundError:
        return ""
