"""What happens during a run: the screen shows these, and `events.jsonl` keeps them, one a line.

An event is a small fact for people who watch. The run never reads one back to decide anything; its
state does that.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from agents.brief import Plan
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
    """A node of the graph began its work; `detail` says on what, e.g. a candidate's title."""

    kind: Literal["node_started"] = "node_started"
    node: str
    detail: str = ""


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


def append_event(path: Path, event: Event) -> None:
    """Add one line to an `events.jsonl`; a reader sees the whole line or nothing of it."""
    with path.open("a", encoding="utf-8") as log:
        log.write(redact(event.model_dump_json()) + "\n")


def read_events(path: Path) -> list[Event]:
    """Every event of a run so far, in order.

    Raises:
        pydantic.ValidationError: a line is no event.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_EVENT.validate_json(line) for line in lines if line]
