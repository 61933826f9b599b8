"""Waiting for work on threads, in an event loop: with progress for the client, and its cancel."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import anyio
from mcp.server.mcpserver import Context

from graph.background import Background
from graph.lines import plain_line
from graph.mcp.hall import STOP_SECONDS, Hall

Outcome = TypeVar("Outcome")

# Clients give up on a call of which they hear nothing.
HEARTBEAT_SECONDS = 10.0
Call = Context[Any, Any]


async def follow(call: Call, run: Background, awaited: "Future[Outcome]") -> Outcome:
    """Tell the client of a run's events until a future of that run is done, and give its result.

    First of all it is told where the run lies, since a call that is cancelled has no answer. A
    client that cancels leaves the run as it is: what becomes of it is its caller's to say.
    """
    loop = asyncio.get_running_loop()
    news: asyncio.Queue[str] = asyncio.Queue()

    def post(line: str) -> None:
        # The loop may be gone when a run that outlived its client ends.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(news.put_nowait, line)

    end_listening = run.listen(lambda event: post(plain_line(event)))
    awaited.add_done_callback(lambda _: post(""))
    began, budget = time.monotonic(), run.task.budget.minutes * 60
    said = f"run {run.folder.path}"
    try:
        await _tell(call, 0.0, budget, said)
        while not awaited.done():
            with contextlib.suppress(TimeoutError):
                said = await asyncio.wait_for(news.get(), HEARTBEAT_SECONDS) or said
            await _tell(call, time.monotonic() - began, budget, said)
        return awaited.result()
    finally:
        end_listening()


async def _tell(call: Call, seconds: float, budget: float, said: str) -> None:
    """Progress in seconds of the run's budget of time, which its end may exceed."""
    await call.report_progress(seconds, max(budget, seconds), said)


async def stopped(run: Background) -> None:
    """End a run and its processes, although the call that awaited it is cancelled."""
    run.stop()
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(run.join, STOP_SECONDS)


async def errand(
    call: Call, hall: Hall, work: Callable[[], Outcome], abandon: Callable[[], None]
) -> Outcome:
    """Work on a thread of the hall's; a client that cancels has it abandoned.

    Args:
        call: is told every now and then that there is work.
        hall: has the threads.
        work: what is done.
        abandon: makes `work` end soon, whatever it does; called from another thread, also at the
            hall's end.
    """
    done, loop = asyncio.Event(), asyncio.get_running_loop()

    def land(_: object) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    future = hall.send(work, abandon)
    future.add_done_callback(land)
    began = time.monotonic()
    try:
        while not future.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), HEARTBEAT_SECONDS)
            await call.report_progress(time.monotonic() - began, None, "at work")
    except asyncio.CancelledError:
        abandon()
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_SECONDS):
            await done.wait()
        raise
    return future.result()
