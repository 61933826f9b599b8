"""What happens during a run: the screen shows these, and `events.jsonl` keeps them, one a line.

An event is a small fact for people who watch. The run never reads one back to decide anything; its
state does that.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from agents.brief import Plan
from graph.ledger import Ledger
from graph.record import Estimate, Status, Usage
from knowledge.opgraph import Frozen
from knowledge.pattern import Refusal
from tools.facts import Baselines, Roofline
from tools.secrets import redact
from tools.task import Budget
from tools.verdict import Trial, Verdict


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Happening(Frozen):
    """What every event carries: when it happened, ISO 8601 in UTC."""

    at: str = Field(default_factory=_now)


class NodeStarted(Happening):
    """A node of the graph began its work; `detail` says on what, e.g. a candidate's title.

    `trial` is the number of the trial it works on; None for the nodes of the run itself.
    """

    kind: Literal["node_started"] = "node_started"
    node: str
    detail: str = ""
    trial: int | None = None


class Prepared(Happening):
    """The reference was traced and its baselines measured."""

    kind: Literal["prepared"] = "prepared"
    device: str
    baselines: Baselines
    roofline: Roofline
    untraceable: str = ""
    cautions: tuple[str, ...] = ()


class Planned(Happening):
    """The planner answered; no plans means that nothing worth trying is left."""

    kind: Literal["planned"] = "planned"
    plans: tuple[Plan, ...]
    refused: tuple[Refusal, ...] = ()


class TrialJudged(Happening):
    """A candidate has its verdict: a `Trial` without its source, which lies under `trials/`."""

    kind: Literal["trial_judged"] = "trial_judged"
    number: int
    plan: str
    pattern: str
    title: str
    parent: int | None = None
    repair: int = 0
    verdict: Verdict
    roofline_fraction: float | None = None
    seconds: float

    @classmethod
    def of(cls, trial: Trial) -> "TrialJudged":
        """The event that announces `trial`."""
        return cls(
            number=trial.number,
            plan=trial.plan,
            pattern=trial.pattern,
            title=trial.title,
            parent=trial.parent,
            repair=trial.repair,
            verdict=trial.verdict,
            roofline_fraction=trial.profile.roofline_fraction if trial.profile else None,
            seconds=trial.seconds,
        )


class Repaired(Happening):
    """The debugger changed something after `failed_trial`."""

    kind: Literal["repaired"] = "repaired"
    failed_trial: int
    action: str


class Concluded(Happening):
    """The run is over and its files are written."""

    kind: Literal["concluded"] = "concluded"
    status: Status
    ended: str
    trials: int
    seconds: float


class Estimated(Happening):
    """What the run costs at most, reckoned before it starts; none where no model thinks."""

    kind: Literal["estimated"] = "estimated"
    estimate: Estimate
    budget: Budget


class Spending(Happening):
    """What the run took so far, restarts and all: `seconds` worked, models and device."""

    kind: Literal["spending"] = "spending"
    usage: Usage
    seconds: float


class Note(Happening):
    """Something a person should know that no other event says."""

    kind: Literal["note"] = "note"
    text: str


Event = Annotated[
    NodeStarted
    | Prepared
    | Planned
    | TrialJudged
    | Repaired
    | Concluded
    | Estimated
    | Spending
    | Note,
    Field(discriminator="kind"),
]

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


# Where the events of this context are kept, if the nodes themselves are to keep them.
_log: ContextVar[Path | None] = ContextVar("log", default=None)


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Within this block, `keep` writes to an `events.jsonl`: nobody else reads the stream."""
    token = _log.set(path)
    try:
        yield
    finally:
        _log.reset(token)


def keep(event: Event) -> None:
    """Write an event down, where `kept_in` says that this is for the node to do."""
    path = _log.get()
    if path is not None:
        append_event(path, event)


def append_event(path: Path, event: Event) -> None:
    """Add one line to an `events.jsonl`; a reader sees the whole line or nothing of it.

    Attempts that run side by side write at once, so a line is one call to the system.
    """
    line = redact(event.model_dump_json()).encode() + b"\n"
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        while line:
            line = line[os.write(log, line) :]
    finally:
        os.close(log)


def read_events(path: Path) -> list[Event]:
    """Every event of a run so far, in order.

    Raises:
        pydantic.ValidationError: a line is no event.
    """
    return [parse_event(line) for line in path.read_bytes().split(b"\n") if line]


def legible_events(path: Path) -> list[dict[str, Any]]:
    """The events of a run as plain objects, whichever release wrote them.

    What can't be read is left out, were it the whole file: the last line of a run at work may be
    half there.
    """
    try:
        lines = Ledger(path).whole_lines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def parse_event(line: bytes) -> Event:
    """An event from its line.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _EVENT.validate_json(line)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_EVENT.json_schema(), indent=2) + "\n")
