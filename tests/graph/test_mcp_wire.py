"""The server as a process: over standard input and output, and over HTTP on loopback."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import ReadResourceResult, TextResourceContents

from graph.folder import RunFolder
from tests.graph.conftest import RIGHT
from tests.graph.mcp_bench import RELU, ask, words
from tools.runner.jail import PROJECT

DEADLINE_SECONDS = 30.0
HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT)}


class Cancelled(Exception):
    """The test's client gave up on a call."""


async def cancel_optimize(client: Client) -> str:
    """Start a run, cancel it once it prepares, and say which run it was."""
    heard: list[str] = []
    prepares = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")
        if "prepare" in (message or ""):
            prepares.set()

    async def call() -> None:
        await client.call_tool("optimize", {**RELU, "trials": 2}, progress_callback=hear)

    async with anyio.create_task_group() as calls:
        calls.start_soon(call)
        with anyio.fail_after(DEADLINE_SECONDS):
            await prepares.wait()
        # The judge's process, and what it starts, need a moment to be there.
        await anyio.sleep(1.0)
        calls.cancel_scope.cancel()
    return heard[0].removeprefix("run ")


def descendants(name: str, earlier: set[psutil.Process]) -> list[psutil.Process]:
    """Processes that came of this one since, whose command names a file or module."""
    found = []
    for one in set(psutil.Process().children(recursive=True)) - earlier:
        try:
            if any(name in part for part in one.cmdline()):
                found.append(one)
        except psutil.Error:
            continue
    return found


def gone_within(seconds: float, name: str, earlier: set[psutil.Process]) -> bool:
    end = time.monotonic() + seconds
    while descendants(name, earlier):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def conversation(
    tmp_path_factory: pytest.TempPathFactory, new_library: Callable[[], Path]
) -> dict[str, Any]:
    """A whole session over standard input and output: a task of a guest's, then a cancelled run."""
    folder = tmp_path_factory.mktemp("stdio")
    (folder / "runs").mkdir()
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "tests.graph.mcp_served", str(folder / "runs"), str(new_library())],
        env=environment(),
        cwd=PROJECT,
    )
    told: dict[str, Any] = {"runs": folder / "runs"}
    # Other tests' judges, which last as long as the session.
    earlier = set(psutil.Process().children(recursive=True))

    async def talk() -> None:
        async with Client(command) as client:
            told["tools"] = [tool.name for tool in (await client.list_tools()).tools]
            told["start"] = await ask(client, "start_task", **RELU, trials=2, rules_first=0)
            task = told["start"]["task"]
            told["submit"] = await ask(client, "submit_candidate", task=task, candidate=RIGHT)
            told["finish"] = await ask(client, "finish", task=task)
            told["cancelled"] = await cancel_optimize(client)
            told["judge_ended"] = await anyio.to_thread.run_sync(
                gone_within, 60.0, "tools.judge.service", earlier
            )
            # The server is there for the next call.
            told["device"] = await ask(client, "device", name="cpu")
            told["open"] = await ask(client, "start_task", **RELU, trials=2, rules_first=0)
            # Those that are orphaned when the server ends are found no more from here.
            told["processes"] = list(set(psutil.Process().children(recursive=True)) - earlier)
            told["with_judge"] = bool(descendants("tools.judge.service", earlier))

    anyio.run(talk)
    _, told["left"] = psutil.wait_procs(told["processes"], timeout=60.0)
    return told


def test_a_task_runs_from_start_to_finish_over_stdio(conversation: dict[str, Any]) -> None:
    assert "optimize" in conversation["tools"]
    assert conversation["submit"]["verdict"]["accepted"]
    assert conversation["finish"]["status"] in ("faster", "correct")
    assert Path(conversation["finish"]["report"]).is_file()


def test_a_cancelled_run_leaves_no_process_and_can_be_resumed(
    conversation: dict[str, Any],
) -> None:
    assert conversation["judge_ended"]
    assert conversation["device"]["kind"] == "cpu"
    folder, task = RunFolder.reopen(conversation["runs"] / conversation["cancelled"])
    assert task.budget.trials == 2
    with folder.held():
        assert folder.checkpoint.is_file()
    assert not folder.scratch.exists()


def test_a_server_that_ends_takes_its_open_tasks_processes_with_it(
    conversation: dict[str, Any],
) -> None:
    assert conversation["with_judge"]
    assert len(conversation["processes"]) > 2
    assert conversation["left"] == []
    folder, _ = RunFolder.reopen(conversation["runs"] / conversation["open"]["task"])
    with folder.held():
        assert folder.checkpoint.is_file()


@pytest.fixture(scope="module")
def http(
    tmp_path_factory: pytest.TempPathFactory, new_library: Callable[[], Path]
) -> Iterator[tuple[str, str]]:
    """Address and token of `python -m graph.mcp --http`."""
    folder = tmp_path_factory.mktemp("http")
    command = [
        sys.executable, "-m", "graph.mcp", "--http", "--port", "0", "--out", str(folder / "runs"),
        "--library", str(new_library()),
    ]  # fmt: skip
    server = subprocess.Popen(
        command, cwd=folder, env=environment(), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert server.stderr is not None
    line = server.stderr.readline()
    found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/mcp), Authorization: Bearer (\S+)\n", line)
    assert found is not None, line + server.stderr.read()
    for _ in range(600):
        try:
            httpx.get(found[1])
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield found[1], found[2]
    server.send_signal(signal.SIGTERM)
    output, _ = server.communicate(timeout=DEADLINE_SECONDS)
    assert server.returncode == 0
    # Nothing but the protocol is on standard output, and HTTP's is elsewhere.
    assert output == ""


def knock(address: str, **headers: str) -> int:
    return httpx.post(address, json=HELLO, headers={**HEADERS, **headers}).status_code


def test_who_bears_the_token_is_let_in(http: tuple[str, str]) -> None:
    address, token = http

    async def talk() -> tuple[list[str], dict[str, Any], str]:
        async with (
            create_mcp_http_client({"Authorization": f"Bearer {token}"}) as through,
            Client(streamable_http_client(address, http_client=through)) as client,
        ):
            tools = [tool.name for tool in (await client.list_tools()).tools]
            found = await ask(client, "search_knowledge", query="bank conflicts", count=1)
            wrong = await client.call_tool("finish", {"task": "none"})
            return tools, found, words(wrong)

    tools, found, wrong = anyio.run(talk)
    assert "submit_candidate" in tools
    assert len(found["passages"]) == 1
    assert "is not open here" in wrong


def said_in(answer: ReadResourceResult) -> str:
    (content,) = answer.contents
    assert isinstance(content, TextResourceContents)
    return content.text


def test_an_op_is_optimized_over_http_and_read_by_whoever_comes_next(
    http: tuple[str, str],
) -> None:
    address, token = http
    heard: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    @asynccontextmanager
    async def connected() -> AsyncIterator[Client]:
        async with (
            create_mcp_http_client({"Authorization": f"Bearer {token}"}) as through,
            Client(streamable_http_client(address, http_client=through)) as client,
        ):
            yield client

    async def talk() -> tuple[dict[str, Any], str, str, str]:
        async with connected() as client:
            given = {**RELU, "trials": 1, "minutes": 2}
            done = await client.call_tool("optimize", given, progress_callback=hear)
            assert not done.is_error, words(done)
        told = done.structured_content
        assert isinstance(told, dict)
        # Another connection, which knows of the run what the answer said.
        async with connected() as client:
            runs = await client.read_resource("kernelwright://runs")
            report = await client.read_resource(told["report_uri"])
            again = await ask(client, "optimize", resume=Path(told["report"]).parent.name)
        assert again == told
        return told, said_in(runs), said_in(report), str(told["kernel_source"])

    told, runs, report, kernel = anyio.run(talk)
    assert told["status"] in ("faster", "correct")
    assert "class ModelNew" in kernel
    folder = Path(told["report"]).parent
    assert heard[0] == f"run {folder}"
    assert len(heard) > 3
    assert folder.name in runs
    assert "<html" in report
    assert (folder / "best" / "kernel.py").is_file()
    assert not (folder / "scratch").exists()


@pytest.mark.parametrize("scheme", ["", "Bearer", "Bearer wrong", "Basic {token}", "{token}"])
def test_who_does_not_is_answered_401(http: tuple[str, str], scheme: str) -> None:
    address, token = http
    given = {"Authorization": scheme.format(token=token)} if scheme else {}
    assert knock(address, **given) == 401


def test_a_page_that_led_its_own_name_to_loopback_is_refused(http: tuple[str, str]) -> None:
    address, token = http
    bearer = {"Authorization": f"Bearer {token}"}
    assert knock(address, **bearer) == 200
    assert knock(address, **bearer, Host="evil.example:80") == 421
    assert knock(address, **bearer, Origin="http://evil.example") == 403


def test_mistakes_of_the_command_are_one_line(tmp_path: Path) -> None:
    def said(*arguments: str, **variables: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "graph.mcp", "--out", str(tmp_path / "runs"), *arguments],
            env={**environment(), **variables}, cwd=tmp_path, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stderr

    code, line = said("--http", KERNELWRIGHT_MCP_TOKEN="short")
    assert (code, line.count("\n")) == (2, 1)
    assert "shorter than 16" in line
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("")
    code, line = said()
    assert (code, line.count("\n")) == (2, 1)
    assert "instead of Kernelwright's" in line
    assert "kernelwright-mcp" in line
