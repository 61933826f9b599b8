"""The real server: `langgraph dev` on this project's `langgraph.json`, in a folder of its own."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from langgraph_sdk import get_sync_client

from tools.candidate import Candidate

PROJECT = Path(__file__).resolve().parents[2]
ASSISTANT = "kernelwright"
# The server speaks to nobody but its caller.
QUIET = {
    "LANGGRAPH_NO_VERSION_CHECK": "true",
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
}
START_SECONDS, STOP_SECONDS = 90.0, 30.0


class Served:
    """A server that runs, and the folder in which it does."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        # A whole run lies between a request and its answer.
        self.client = get_sync_client(url=self.url, timeout=600)

    @property
    def assistant(self) -> str:
        """The id of the graph's own assistant."""
        (own,) = self.client.assistants.search(graph_id=ASSISTANT)
        return str(own["assistant_id"])

    def log(self) -> str:
        """What the server said so far."""
        return (self.folder / "server.log").read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """Every process that the server started and that is still there."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self) -> None:
        """Ctrl-C, and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(STOP_SECONDS)


def skip_without_studio() -> None:
    """Skip, with the reason, where the extra is not installed."""
    if importlib.util.find_spec("langgraph_api") is None:
        pytest.skip("langgraph dev is not installed: pip install -e '.[studio]'")


@contextmanager
def server(folder: Path, **environment: str) -> Iterator[Served]:
    """Start the server in `folder`, which gets runs and threads; it ends with the block."""
    for name in ("langgraph.json", "graph", "examples"):
        (folder / name).symlink_to(PROJECT / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "langgraph_cli", "dev",
        "--no-browser", "--no-reload", "--port", str(port),
    ]  # fmt: skip
    library = {"KERNELWRIGHT_LIBRARY": str(folder / "library")}
    search = {"PYTHONPATH": str(PROJECT)}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **QUIET, **library, **search, **environment},
        )  # fmt: skip
    served = Served(folder, port, process)
    try:
        _wait_for(served)
        yield served
    finally:
        served.client.close()
        try:
            served.stop()
        finally:
            process.kill()


def _wait_for(served: Served) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert served.process.poll() is None, served.log()
        try:
            if httpx.get(f"{served.url}/ok").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{served.log()}")


def winner_over_http(
    served: Served, task: Mapping[str, Any], context: Mapping[str, Any] | None = None
) -> str:
    """Run a task through the HTTP API to its end, and return the digest of the winner's source.

    Args:
        served: the server; relative paths in the task are looked up from its folder, where
            `examples/` is this project's.
        task: as a task file holds it.
        context: settings that go over it, e.g. `{"budget": {"trials": 2}}`.
    """
    client = served.client
    thread = client.threads.create()["thread_id"]
    values = client.runs.wait(
        thread, ASSISTANT, input={"task": dict(task)}, context=dict(context or {})
    )
    assert isinstance(values, dict)
    assert "__error__" not in values, values["__error__"]
    return winner_of(values).digest


def winner_of(values: Mapping[str, Any]) -> Candidate:
    """The winning candidate in a thread's state, as JSON has it."""
    winner = values["trials"][str(values["winner"])]
    return Candidate.model_validate(winner["candidate"])
