"""The tools of tasks whose kernels the calling model writes: start, submit, status, finish."""

from concurrent.futures import Future
from typing import Annotated

import anyio
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from agents.brief import GUEST, Brief
from graph.background import why_it_stopped
from graph.drive import Interrupted
from graph.guest import NO_FIGURE, Busy, Finish, Submission, check_guest
from graph.mcp.briefing import last_submitted, standing, started, submitted
from graph.mcp.follow import Call, follow, stopped
from graph.mcp.hall import Guest, Hall
from graph.mcp.optimize import check_alone, check_task, told_to_resume
from graph.mcp.replies import Outcome, Standing, Started, Submitted
from graph.record import RunRecord
from graph.subjects import (
    Arguments,
    CandidateSource,
    Inputs,
    Minutes,
    Op,
    Reference,
    Resume,
    Settings,
    Subject,
    Target,
    Trials,
    candidate_text,
    stated_name,
)
from knowledge.errors import BadInput

TaskName = Annotated[str, Field(description="the task's name, as start_task gave it")]


class Tasks:
    """The tools, for one server."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def start_task(  # noqa: PLR0913 - a tool's parameters are its schema
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
        rules_first: Annotated[
            int,
            Field(
                ge=0,
                le=20,
                description="so many trials are Kernelwright's own rules' first; the best of them "
                "is the parent you start from",
            ),
        ] = 1,
        resume: Resume = "",
    ) -> Started:
        """Open a task in which you write the kernels for a PyTorch op, with a judge at your side.

        Gives the op, the device, the roofline, the baselines to beat, pages of the library, what
        rules of thumb would try, and the best kernel so far. Then hand candidates to
        submit_candidate, one at a time, and call finish when you have no better idea. Takes up to a
        minute: the op is traced and its baselines measured. A task that is left alone stops by
        itself; `resume` goes on with it.
        """
        if resume:
            check_alone(reference, op, inputs, arguments, trials, minutes, settings)
            folder, task = self._hall.reopened(resume)
            check_guest(task)
            guest = self._hall.welcome(task, 0, folder)
        else:
            subject = Subject(
                reference=reference, op=op, inputs=inputs, arguments=arguments, target=target
            )
            task = subject.task(self._hall, trials=trials, minutes=minutes, settings=settings)
            check_task(task)
            check_guest(task)
            guest = self._hall.welcome(task, min(rules_first, task.budget.trials - 1))
        try:
            brief = await follow(call, guest.run, guest.desk.next_turn())
            if brief is not None:
                return await anyio.to_thread.run_sync(started, self._hall, guest, brief)
        except BaseException:
            # Its caller never learns the name.
            await stopped(guest.run)
            self._hall.forget(guest)
            raise
        outcome = await _conclusion(call, self._hall, guest)
        raise ToolError(f"the task ended before it began: {outcome.summary}")

    async def submit_candidate(  # noqa: PLR0913 - a tool's parameters are its schema
        self,
        call: Call,
        task: TaskName,
        candidate: CandidateSource,
        title: Annotated[
            str, Field(max_length=200, description="what this candidate does, in a few words")
        ] = "",
        expected_speedup: Annotated[
            float | None, Field(gt=0, description="what you reckon, over the fastest baseline")
        ] = None,
        reasoning: Annotated[
            str, Field(max_length=2000, description="how you reckoned that: bytes, operations")
        ] = "",
        parent: Annotated[
            int | None, Field(description="the trial that this one was made from, if any")
        ] = None,
    ) -> Submitted:
        """Have a kernel of yours compiled, verified on hidden inputs, timed and profiled.

        Costs one trial of the task's budget, and takes from a second (a kernel that is wrong) to
        half a minute (one that is right). Gives the verdict, the speedup over the fastest baseline
        with its 95% interval, what bounds the kernel, and what to try next. Source that is no
        candidate at all is refused without costing a trial.
        """
        guest = self._hall.guest(task)
        source = candidate_text(candidate, self._hall.base)
        before = guest.desk.brief
        known = {one.number for one in before.trials} if before is not None else set()
        if parent is not None and parent not in known:
            raise BadInput(
                f"parent {parent}", f"is no trial of this task; there are {sorted(known)}."
            )
        given = Submission(
            source=source,
            title=title.strip() or stated_name(source),
            technique=title.strip()[:40],
            expected_speedup=expected_speedup or 1.0,
            arithmetic=reasoning.strip() or NO_FIGURE,
            parent=parent,
            author=_client(call),
        )
        turn = _handed_in(guest, given)
        brief = await follow(call, guest.run, turn)
        if brief is not None:
            return await anyio.to_thread.run_sync(submitted, self._hall, guest, brief, known)
        return last_submitted(await _record(call, self._hall, guest), known, guest)

    async def task_status(self, task: TaskName) -> Standing:
        """Say how a task stands: what was tried, the best so far, what is left of the budget."""
        return standing(self._hall.guest(task))

    async def finish(self, call: Call, task: TaskName) -> Outcome:
        """End a task: confirm its best kernel with a new process and new seeds, and export it.

        Gives the confirmed speedup, the drop-in's path and source, and the report's path. Where
        none is confirmed faster, the best if it read no slower, else the op itself.
        """
        guest = self._hall.guest(task)
        if not guest.run.ended.done():
            await follow(call, guest.run, _handed_in(guest, Finish()))
        return await _conclusion(call, self._hall, guest)


def _handed_in(guest: Guest, given: Submission | Finish) -> "Future[Brief | None]":
    try:
        return guest.desk.hand_in(given)
    except Busy:
        if guest.run.ended.done():
            error = guest.run.ended.exception()
            why = why_it_stopped(error) if error is not None else "it is finished"
            mend = f"start_task with resume={guest.name} goes on." if error is not None else ""
            raise BadInput(f"task {guest.name}", f"has ended: {why}.", mend) from None
        raise BadInput(
            f"task {guest.name}", "is at work on a candidate.", "Ask again when it is done."
        ) from None


async def _record(call: Call, hall: Hall, guest: Guest) -> RunRecord:
    """The record of a guest's run, once it has ended."""
    try:
        record = await follow(call, guest.run, guest.run.ended)
    except Interrupted as stop:
        raise told_to_resume("start_task", stop) from stop
    hall.forget(guest)
    return record


async def _conclusion(call: Call, hall: Hall, guest: Guest) -> Outcome:
    return Outcome.of(await _record(call, hall, guest))


def _client(call: Call) -> str:
    """Who writes the kernels, as the client calls itself."""
    params = call.session.client_params
    name = params.client_info.name if params is not None and params.client_info else ""
    return " ".join(name.split())[:60] or GUEST
