"""What flows through the graph: facts, stored once, under named reducers."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

# typing's own has no JSON schema before Python 3.12, and Studio shows one.
from typing_extensions import TypedDict

from agents.brief import Brief, Diagnosis, Plan
from graph.record import Estimate, Repair, Unspent
from knowledge.device import Device
from knowledge.pattern import Refusal
from tools.candidate import Candidate
from tools.facts import Baselines, ReferenceFacts, Roofline, WorkloadFacts
from tools.task import Task
from tools.verdict import Correct, Profile, Trial, Verdict


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A task as JSON with some keys replaced, those of its budget and model settings one by one."""
    result = {**base, **over}
    for section in ("budget", "model_settings"):
        if isinstance(base.get(section), Mapping) and isinstance(over.get(section), Mapping):
            result[section] = {**base[section], **over[section]}
    return result


def change_task(stored: Any, new: Any) -> Any:
    """The new task; a part of one, as a person gives it who forks a run, goes over the stored one.

    Raises:
        pydantic.ValidationError: the two make no task.
    """
    if isinstance(stored, Task) and isinstance(new, Mapping):
        return Task.model_validate(merged(stored.model_dump(mode="json", exclude_unset=True), new))
    return new


def add_trials(stored: Mapping[int, Trial], new: Mapping[int, Trial]) -> dict[int, Trial]:
    """Trials by number, in their order; one that is stored already keeps its first value."""
    return dict(sorted({**new, **stored}.items()))


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


def append_unspent(stored: tuple[Unspent, ...], new: tuple[Unspent, ...]) -> tuple[Unspent, ...]:
    """Plans that were not carried out, each once."""
    known = {one.plan for one in stored}
    return (*stored, *(one for one in new if one.plan not in known))


def append_hints(stored: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """What a person told the planner, each hint once."""
    return (*stored, *(hint for hint in new if hint not in stored))


def first_reason(stored: str, new: str) -> str:
    """Why models may be asked no more: what was found first is why."""
    return stored or new


class RunInput(BaseModel):
    """What a run is started with: a task, where its files go, and who has a say."""

    model_config = ConfigDict(extra="forbid")

    task: Task = Field(description="what to make fast, on what, and within which caps")
    run_dir: str = Field(
        "", description="folder for the run's files; empty: a new one is made under runs/"
    )
    approve: bool = Field(
        False, description="ask before each plan: accept, edit, refuse it, or give a hint"
    )


class RunState(TypedDict, total=False):
    """The whole run.

    Where a task has several `workloads`, facts, baselines and roofline are the leading one's.
    `seconds` and `device_seconds` are the clock's when the last node but the attempts ended,
    restarts and all. `spent` is why no model may be asked any more, empty while one may. `fallen`
    are the verdicts on trials that were right at first, and not when they were judged anew.
    `subject` is the digest of the file that was read, empty where there was none.
    """

    task: Annotated[Task, change_task]
    run_dir: str
    approve: bool
    started: str
    seconds: float
    device_seconds: float
    estimate: Estimate | None
    device: Device
    subject: str
    facts: ReferenceFacts
    baselines: Baselines
    roofline: Roofline
    workloads: tuple[WorkloadFacts, ...]
    plans: Annotated[tuple[Plan, ...], append_plans]
    next_plans: tuple[Plan, ...]
    refused: Annotated[tuple[Refusal, ...], append_refusals]
    trials: Annotated[dict[int, Trial], add_trials]
    diagnoses: Annotated[tuple[Diagnosis, ...], append_diagnoses]
    repairs: Annotated[tuple[Repair, ...], append_repairs]
    unspent: Annotated[tuple[Unspent, ...], append_unspent]
    hints: Annotated[tuple[str, ...], append_hints]
    spent: Annotated[str, first_reason]
    parents: tuple[int, ...]
    ended: str
    winner: int | None
    confirmation: Correct | None
    fallen: dict[int, Verdict]
    concluded: bool


class AttemptOutput(TypedDict, total=False):
    """What an attempt adds to the run; its plans are those that the debugger changed."""

    plans: Annotated[tuple[Plan, ...], append_plans]
    trials: Annotated[dict[int, Trial], add_trials]
    diagnoses: Annotated[tuple[Diagnosis, ...], append_diagnoses]
    repairs: Annotated[tuple[Repair, ...], append_repairs]
    unspent: Annotated[tuple[Unspent, ...], append_unspent]
    spent: Annotated[str, first_reason]


class AttemptState(AttemptOutput, total=False):
    """One plan being carried out; `number` is its present trial, `allowance` its share of them.

    `worked` is what the trial took so far in seconds; what lies between a crash and its restart is
    not in it.
    """

    run_dir: str
    brief: Brief
    plan: Plan
    allowance: int
    candidate: Candidate
    number: int
    parent: int | None
    repair: int
    worked: float
    verdict: Verdict | None
    reading: Profile | None


# Every class that a checkpoint may name; its reader refuses others.
STORED: tuple[type[BaseModel], ...] = (
    Task,
    Device,
    ReferenceFacts,
    Baselines,
    Roofline,
    WorkloadFacts,
    Plan,
    Refusal,
    Trial,
    Diagnosis,
    Repair,
    Unspent,
    Estimate,
    Profile,
    Brief,
    Candidate,
    RunInput,
    *get_args(get_args(Verdict)[0]),
)
