"""A run whose kernels somebody outside writes: the caller of an API in the place of the crew.

The graph is the usual one. Its planner interrupts the run and is resumed with a `Submission`, which
the coder hands to the judge; what the rules read off the verdict is told to whoever wrote it. A
`Desk` is where the run's thread and its callers meet.
"""

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, Literal

from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from agents.brief import GUEST, Brief, Plan, Planning
from agents.crew import Coder, Crew, Debugger, Planner
from agents.llm.crew import own_brief
from agents.llm.exchange import Spent
from agents.playbook.coder import PlaybookCoder
from agents.playbook.debugger import PlaybookDebugger
from agents.playbook.planner import PlaybookPlanner
from agents.playbook.profiler import PlaybookProfiler
from graph.events import Event
from graph.folder import RunFolder, write_whole
from graph.workbench import Stopping, Workbenches
from knowledge.errors import BadInput
from knowledge.store import Library
from tools.candidate import Candidate, backend_of
from tools.task import PLAYBOOK, Task
from tools.verdict import Trial

# What the run waits for, by the name of the tool that brings it.
WANTED = "submit_candidate"
FINISHED = "whoever wrote the kernels called it finished"
NO_FIGURE = "No gain was reckoned beforehand."
SOURCE_LIMIT = 400_000


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Submission(_Given):
    """A kernel to be judged, as the run is resumed with it."""

    do: Literal["submit"] = "submit"
    source: str = Field(min_length=1, max_length=SOURCE_LIMIT)
    title: str = Field(min_length=1, max_length=200)
    technique: str = Field("", max_length=80)
    expected_speedup: float = Field(1.0, gt=0)
    arithmetic: str = Field(NO_FIGURE, max_length=2_000)
    parent: int | None = None
    author: str = Field(GUEST, min_length=1, max_length=80)


class Finish(_Given):
    """Confirm the best kernel, and end the run."""

    do: Literal["finish"] = "finish"


Given = Annotated[Submission | Finish, Field(discriminator="do")]
GIVEN: TypeAdapter[Given] = TypeAdapter(Given)


class Busy(Exception):
    """The run does not wait for anything now."""


class Desk:
    """Where a run waits for its guest; thread-safe.

    Args:
        idle_seconds: for so long the run waits, then it stops, and can be resumed.
    """

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._condition = threading.Condition()
        self._waits = False
        self._given: Given | None = None
        self._left = ""
        self._turn: Future[Brief | None] = Future()
        self.brief: Brief | None = None

    @property
    def waits(self) -> bool:
        """Whether the run waits for a kernel now."""
        with self._condition:
            return self._waits and self._given is None

    def next_turn(self) -> "Future[Brief | None]":
        """When the run waits next, with all that is known then; None once it has ended."""
        with self._condition:
            return self._turn

    def hand_in(self, given: Given) -> "Future[Brief | None]":
        """Give the run what it waits for; the answer is when it waits again.

        Raises:
            Busy: it does not wait.
        """
        with self._condition:
            if not self._waits or self._given is not None:
                raise Busy
            self._given, self._turn = given, Future()
            self._condition.notify_all()
            return self._turn

    def leave(self, why: str) -> None:
        """Nobody comes any more: the run stops when it next waits."""
        with self._condition:
            self._left = why
            self._condition.notify_all()

    def close(self) -> None:
        """The run has ended: whoever waits for its next turn hears of it."""
        with self._condition:
            self._waits = False
            if not self._turn.done():
                self._turn.set_result(None)

    def wait(self) -> Given:
        """On the run's thread: wait for the guest.

        Raises:
            Stopping: nobody came.
        """
        with self._condition:
            self._waits = True
            if not self._turn.done():
                self._turn.set_result(self.brief)
            self._condition.wait_for(lambda: self._given or self._left, self._idle_seconds)
            self._waits = False
            given, self._given = self._given, None
            if given is None:
                minutes = self._idle_seconds / 60
                raise Stopping(self._left or f"nothing was handed in for {minutes:g} minutes")
            return given


class GuestPlanner:
    """Lets the rules go first, if they should, then waits for a guest's kernels.

    Args:
        desk: where the run waits.
        folder: of the run; what was handed in is kept there before it is judged.
        rules: the playbook's planner.
        rules_first: how many trials are the rules'.
    """

    def __init__(self, desk: Desk, folder: RunFolder, rules: Planner, rules_first: int) -> None:
        self._desk = desk
        self._folder = folder
        self._rules = rules
        self._rules_first = rules_first

    def plan(self, brief: Brief) -> Planning:
        """The rules' plans, then one plan for each kernel that is handed in.

        Raises:
            Spent: the guest called it finished.
        """
        left = self._rules_first - len(brief.trials)
        if left > 0 and not any(plan.maker == GUEST for plan in brief.plans):
            planning = self._rules.plan(own_brief(brief))
            if planning.plans:
                return planning.model_copy(update={"plans": planning.plans[:left]})
        self._desk.brief = brief
        asked = {"kind": WANTED, "trials_left": brief.trials_left}
        match GIVEN.validate_python(interrupt(asked)):
            case Finish():
                raise Spent(FINISHED)
            case Submission() as given:
                return Planning(plans=(self._plan_of(given, brief),))

    def _plan_of(self, given: Submission, brief: Brief) -> Plan:
        number = 1 + sum(plan.maker == GUEST for plan in brief.plans)
        plan = Plan(
            id=f"g{number}",
            title=given.title,
            steps=(),
            expected_speedup=given.expected_speedup,
            arithmetic=given.arithmetic,
            parent=given.parent,
            labels=(f"written by {given.author}",),
            maker=GUEST,
            technique=given.technique,
        )
        path = submitted(self._folder, plan)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, given.source)
        return plan


def submitted(folder: RunFolder, plan: Plan) -> Path:
    """Where the kernel that was handed in as this plan lies."""
    return folder.planning / f"{plan.id}.py"


class GuestCoder:
    """Hands what the guest wrote to the judge; the rules write what they planned."""

    def __init__(self, folder: RunFolder, rules: Coder) -> None:
        self._folder = folder
        self._rules = rules

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        """The candidate of a plan.

        Raises:
            ValueError: the rules' steps do not fit the op.
        """
        if plan.maker == PLAYBOOK:
            return self._rules.write(brief, plan)
        source = submitted(self._folder, plan).read_text(encoding="utf-8")
        return Candidate(
            source=source, backend=backend_of(source), labels=plan.labels, author=GUEST
        )


class GuestDebugger:
    """Mends what the rules wrote; the guest is told what could mend the rest."""

    def __init__(self, rules: Debugger) -> None:
        self._rules = rules

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        """The rules' mend of their own."""
        return self._rules.repair(brief, plan, trial) if plan.maker == PLAYBOOK else None


def guest_crew(desk: Desk, folder: RunFolder, library: Library, rules_first: int) -> Crew:
    """A crew that waits for its guest's kernels, and reads what is measured of them by rules."""
    coder = PlaybookCoder()
    return Crew(
        GuestPlanner(desk, folder, PlaybookPlanner(library), rules_first),
        GuestCoder(folder, coder),
        GuestDebugger(PlaybookDebugger(coder)),
        PlaybookProfiler(),
    )


class GuestAudience:
    """Watches a guest's run, and answers it with what is handed in at its desk."""

    def __init__(self, desk: Desk, folder: RunFolder, task: Task, benches: Workbenches) -> None:
        self._desk = desk
        self._folder = folder
        self._task = task
        self._benches = benches

    def handle(self, event: Event) -> None:
        """Nothing: whoever drives the run tells of its events."""

    def answer(self, asked: Any) -> Any:
        """What was handed in; a guest's time to think is not the run's.

        Raises:
            Stopping: nobody came.
        """
        given = self._desk.wait()
        self._benches.of(str(self._folder.path), self._task).meter.forget()
        return given.model_dump(mode="json")


def check_guest(task: Task) -> None:
    """Complain where a task names a model: its kernels come from whoever calls.

    Raises:
        BadInput: it does.
    """
    if task.way_of_thinking != "playbook":
        raise BadInput(
            f"{task.name}: model",
            "names a model, and here you write the kernels yourself.",
            "Leave it out, or use optimize.",
        )
