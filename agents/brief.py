"""What agents are told and what they answer: plain values, the same for rules and for models."""

from typing import Literal

from pydantic import Field

from knowledge.device import Device
from knowledge.opgraph import Frozen
from knowledge.pattern import Refusal, Step
from tools.facts import Baselines, ReferenceFacts, Roofline, WorkloadFacts
from tools.task import PLAYBOOK, Task
from tools.verdict import Trial

# Who hands a kernel over together with its plan: somebody outside of the run's own crew.
GUEST = "guest"

# Also what pages of the library are tagged with (`bottlenecks:` in their front matter) and what a
# search is narrowed by; `none` is no page's tag. The report has words for each, and for each cause.
Bottleneck = Literal["memory", "compute", "latency", "pages", "none"]
Cause = Literal[
    "", "bandwidth", "cache bandwidth", "uncoalesced", "spills", "arithmetic", "no tensor cores",
    "divergence", "launch", "few blocks", "occupancy", "imbalance", "stalls", "library calls",
]  # fmt: skip


class Citation(Frozen):
    """A page of the library that a plan leans on: where it is, and the words that matter."""

    source: str
    title: str
    passage: str
    score: float


class Plan(Frozen):
    """One thing to try.

    `steps` is the playbook's recipe; a model's plan has none, and says in `instructions` what to
    do and in `technique` of which kind it is. `maker` made it: `playbook`, `guest`, or a model's
    id, also where that only mended what another made; `note` is what a person who approved it added
    for whoever carries it out. `expected_speedup` is over the fastest baseline, and
    `arithmetic` says how it was reckoned. `parent` is the trial to start from, None for the
    reference itself.
    """

    id: str
    title: str
    steps: tuple[Step, ...]
    expected_speedup: float
    arithmetic: str
    citations: tuple[Citation, ...] = ()
    labels: tuple[str, ...] = ()
    parent: int | None = None
    maker: str = PLAYBOOK
    note: str = ""
    instructions: str = ""
    technique: str = ""
    elsewhere: dict[str, tuple[Step, ...]] = Field(
        {}, description="for workloads that are not made by `steps`; none: as the library does it"
    )

    @property
    def pattern(self) -> str:
        """What it does, in a few words by which trials are grouped."""
        return "+".join(step.pattern for step in self.steps) or self.technique or "library"


class Diagnosis(Frozen):
    """What bounds a kernel, the evidence with its numbers, and what to do next, best move first.

    `cause` is what an instrument showed to be behind the bottleneck, empty where none did.
    """

    trial: int
    bottleneck: Bottleneck
    cause: Cause = ""
    headroom: float = Field(description="measured time over roofline time; 1 = nothing left")
    evidence: tuple[str, ...]
    moves: tuple[str, ...] = Field((), max_length=3)


class Brief(Frozen):
    """Everything an agent may know of the run so far; neither seeds nor hidden cases.

    Where a task has several `workloads`, facts, baselines and roofline are the leading one's, the
    first in the list, and a trial's timing has a mean over all.
    """

    task: Task
    device: Device
    facts: ReferenceFacts
    baselines: Baselines
    roofline: Roofline
    plans: tuple[Plan, ...] = Field((), description="every plan made so far")
    trials: tuple[Trial, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    parents: tuple[int, ...] = Field((), description="trials the strategy chose to build on")
    hints: tuple[str, ...] = Field((), description="what a person told the planner on the way")
    workloads: tuple[WorkloadFacts, ...] = Field((), description="empty where there is only one")
    trials_left: int
    seconds_left: float
    device_seconds_left: float | None = Field(None, description="None where no cap is set")


class Planning(Frozen):
    """The planner's answer: what to try now, and what was considered and refused."""

    plans: tuple[Plan, ...]
    refused: tuple[Refusal, ...] = ()


def promises_enough(plan: Plan, brief: Brief) -> bool:
    """Whether a model's plan promises a gain over the best so far that could be told from noise.

    The playbook weighs its own plans: what it expects of one is a sum, which it corrects by what
    was measured of others before it compares. What a guest hands in is written already.
    """
    speeds = [trial.speedup for trial in brief.trials if trial.speedup is not None]
    if plan.maker in (PLAYBOOK, GUEST) or not speeds:
        return True
    return plan.expected_speedup > max(speeds) * (1.0 + brief.baselines.noise)
