"""What flows through the graph: facts, stored once, under named reducers."""

from collections.abc import Mapping
from typing import Annotated, TypedDict, get_args

from pydantic import BaseModel, ConfigDict, Field

from agents.brief import Brief, Diagnosis, Plan
from graph.record import Repair
from knowledge.device import Device
from knowledge.pattern import Refusal
from tools.candidate import Candidate
from tools.facts import Baselines, ReferenceFacts, Roofline
from tools.task import Task
from tools.verdict import Correct, Trial, Verdict


def add_trials(stored: Mapping[int, Trial], new: Mapping[int, Trial]) -> dict[int, Trial]:
    """Trials by number; one that is stored already keeps its first value."""
    return {**new, **stored}


def append_plans(stored: tuple[Plan, ...], new: tuple[Plan, ...]) -> tuple[Plan, ...]:
    """Plans in the order they were made, each id once."""
    known = {plan.id for plan in stored}
    return (*stored, *(plan for plan in new if plan.id not in known))


def append_refusals(stored: tuple[Refusal, ...], new: tuple[Refusal, ...]) -> tuple[Refusal, ...]:
    """Refusals, each once: later rounds repeat what the first one said."""
    return (*stored, *(refusal for refusal in new if refusal not in stored))


def append_diagnoses(
    stored: tuple[Diagnosis, ...], new: tuple[Diagnosis, ...]
) -> tuple[Diagnosis, ...]:
    """Diagnoses, one a trial."""
    known = {diagnosis.trial for diagnosis in stored}
    return (*stored, *(diagnosis for diagnosis in new if diagnosis.trial not in known))


def append_repairs(stored: tuple[Repair, ...], new: tuple[Repair, ...]) -> tuple[Repair, ...]:
    """Repairs, one a failed trial."""
    known = {repair.failed_trial for repair in stored}
    return (*stored, *(repair for repair in new if repair.failed_trial not in known))


class RunInput(BaseModel):
    """What a run is started with: a task, and where its files go."""

    model_config = ConfigDict(extra="forbid")

    task: Task
    run_dir: str = Field("", description="folder for the run's files; made if it is not there")


class RunState(TypedDict, total=False):
    """The whole run. `seconds` is the time worked up to the last lap, restarts and all."""

    task: Task
    run_dir: str
    started: str
    seconds: float
    device: Device
    facts: ReferenceFacts
    baselines: Baselines
    roofline: Roofline
    plans: Annotated[tuple[Plan, ...], append_plans]
    next_plans: tuple[Plan, ...]
    refused: Annotated[tuple[Refusal, ...], append_refusals]
    trials: Annotated[dict[int, Trial], add_trials]
    diagnoses: Annotated[tuple[Diagnosis, ...], append_diagnoses]
    repairs: Annotated[tuple[Repair, ...], append_repairs]
    parents: tuple[int, ...]
    ended: str
    winner: int | None
    confirmation: Correct | None


class AttemptOutput(TypedDict, total=False):
    """What an attempt adds to the run; its plans are those that the debugger changed."""

    plans: Annotated[tuple[Plan, ...], append_plans]
    trials: Annotated[dict[int, Trial], add_trials]
    diagnoses: Annotated[tuple[Diagnosis, ...], append_diagnoses]
    repairs: Annotated[tuple[Repair, ...], append_repairs]


class AttemptState(AttemptOutput, total=False):
    """One plan being carried out; `number` is its present trial, `allowance` its share of them."""

    run_dir: str
    brief: Brief
    plan: Plan
    allowance: int
    candidate: Candidate
    number: int
    parent: int | None
    repair: int
    began: float
    verdict: Verdict | None


# Every class that a checkpoint may name; its reader refuses others.
STORED: tuple[type[BaseModel], ...] = (
    Task,
    Device,
    ReferenceFacts,
    Baselines,
    Roofline,
    Plan,
    Refusal,
    Trial,
    Diagnosis,
    Repair,
    Brief,
    Candidate,
    RunInput,
    *get_args(get_args(Verdict)[0]),
)
