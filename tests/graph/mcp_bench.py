"""What tests of the MCP server share: a hall whose runs have one judge, and its client."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import anyio
from mcp import Client
from mcp_types import CallToolResult, TextContent

from graph.mcp.hall import Hall, Settings
from graph.mcp.server import build_server
from graph.workbench import CrewMaker, Workbenches
from tests.graph.conftest import SharedBenches
from tools.judge.client import Judge

Done = TypeVar("Done")
RELU = {"op": "torch.relu", "inputs": [{"shape": [64, 64]}], "target": "cpu"}


class SharedHall(Hall):
    """A hall whose runs, all on relu, have one judge that outlasts them."""

    def __init__(self, settings: Settings, judge: Judge) -> None:
        super().__init__(settings)
        self._judge = judge

    def benches(self, crew: CrewMaker | None = None) -> Workbenches:
        return SharedBenches(self.settings.library, crew, self._judge)


def with_client(hall: Hall, talk: Callable[[Client], Coroutine[Any, Any, Done]]) -> Done:
    """What comes of a conversation of the official client's with a server in this process."""

    async def run() -> Done:
        async with Client(build_server(hall)) as client:
            return await talk(client)

    try:
        return anyio.run(run)
    finally:
        hall.close()


def words(result: CallToolResult) -> str:
    """The text of an answer."""
    return "".join(part.text for part in result.content if isinstance(part, TextContent))


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """An answer's structure; the test fails with its words where it is an error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, words(result)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """The line that a wrong call is answered with."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, words(result)
    said = words(result)
    assert "\n" not in said
    assert "Traceback" not in said
    return said


def settings(folder: Path, library: Path, **given: Any) -> Settings:
    """Of a server whose files are a test's."""
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    return Settings(runs=runs, base=folder, library=library, **given)
