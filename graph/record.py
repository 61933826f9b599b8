"""The record of a run: everything that the screen, the reports and `--json` show."""

from typing import Any, Literal

from pydantic import Field

from agents.brief import Diagnosis, Plan
from agents.llm.exchange import Role
from graph.workloads import WorkloadResult
from knowledge.device import Device
from knowledge.opgraph import Frozen
from knowledge.pattern import Refusal
from tools.facts import Baselines, ReferenceFacts, Roofline
from tools.task import Task
from tools.verdict import Compiled, Correct, Timing, Trial

SCHEMA = 1
Status = Literal["faster", "correct", "compiled", "failed"]
# The plan of the trial that is the fastest baseline itself.
BASELINE_PLAN = "baseline"


class Repair(Frozen):
    """What the debugger did between two trials of one attempt."""

    failed_trial: int
    action: str


class Unspent(Frozen):
    """A plan that was not carried out, and why, as a clause."""

    plan: str
    reason: str


class Share(Frozen):
    """What one role took of one model; `usd` is None where the model's price is unknown."""

    role: Role
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    seconds: float


class Estimate(Frozen):
    """What a run of this size costs at most, reckoned before it starts: usual calls, all trials.

    `usd` counts the models whose price is known, `unpriced` names the others.
    """

    calls: int
    tokens: int
    usd: float
    unpriced: tuple[str, ...] = ()


class Usage(Frozen):
    """What models cost, restarts and all; zero for the playbook.

    `usd` is the sum of what has a known price, `unpriced` names the models that have none.
    """

    tokens: int = 0
    usd: float = 0.0
    unpriced: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()
    device_seconds: float = 0.0
    estimate: Estimate | None = None


class RunRecord(Frozen):
    """One finished (or interrupted) run.

    `winner` is the trial that was confirmed, or the best correct one where none was faster;
    `confirmation` is the second, independent measurement of it, which is what every headline
    quotes. `ended` says why the run stopped.
    """

    schema_version: int = SCHEMA
    run_id: str
    run_dir: str
    started: str = Field(description="ISO 8601, UTC")
    versions: dict[str, str]
    task: Task
    device: Device
    facts: ReferenceFacts
    baselines: Baselines
    roofline: Roofline
    plans: tuple[Plan, ...] = ()
    refused: tuple[Refusal, ...] = ()
    trials: tuple[Trial, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    repairs: tuple[Repair, ...] = ()
    winner: int | None = None
    confirmation: Correct | None = None
    ended: str
    seconds: float
    usage: Usage = Usage()
    unspent: tuple[Unspent, ...] = ()
    hints: tuple[str, ...] = ()
    workloads: tuple[WorkloadResult, ...] = Field(
        (), description="one row each, where the task has several; baselines and roofline are means"
    )
    finished: bool = Field(True, description="False in the report of an interrupted run")

    def trial(self, number: int) -> Trial:
        """The trial of that number.

        Raises:
            KeyError: there is none.
        """
        return {trial.number: trial for trial in self.trials}[number]

    def plan(self, identity: str) -> Plan:
        """The plan of that id.

        Raises:
            KeyError: there is none.
        """
        return {plan.id: plan for plan in self.plans}[identity]

    @property
    def timing(self) -> Timing | None:
        """The confirmed figures, None where no correct kernel was timed."""
        return self.confirmation.timing if self.confirmation else None

    @property
    def status(self) -> Status:
        """`faster`: confirmed; `correct`: right, but not faster; else `failed`.

        `compiled`: for a device that is not here, so neither right nor faster as far as is known.
        """
        if self.winner is not None and isinstance(self.trial(self.winner).verdict, Compiled):
            return "compiled"
        if self.winner is None or self.confirmation is None:
            return "failed"
        if self.trial(self.winner).plan == BASELINE_PLAN:
            return "correct"
        return "faster" if self.timing is not None and self.timing.faster else "correct"

    @property
    def roofline_fraction(self) -> float | None:
        """Roofline time over the winner's confirmed time; 1 = at the bound."""
        return self.roofline.fraction(self.timing.candidate_ms) if self.timing else None

    @property
    def tried(self) -> tuple[Trial, ...]:
        """What the budget of trials was spent on: not the baseline that is handed over."""
        return tuple(trial for trial in self.trials if trial.plan != BASELINE_PLAN)

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        timing = self.timing
        by_name = {c.baseline: c.speedup for c in timing.comparisons} if timing else {}
        best = timing.against_best if timing else None
        return {
            "status": self.status,
            "task": self.task.name,
            "device": self.device.name,
            "backend": self.trial(self.winner).candidate.backend if self.winner else None,
            "speedup": {
                "eager": by_name.get("eager"),
                "compile": by_name.get("compile"),
                "best_baseline": best.speedup if best else None,
                "interval": [best.low, best.high] if best else None,
            },
            "baselines": {
                c.baseline: {"ms": c.baseline_ms, "speedup": c.speedup}
                for c in (timing.comparisons if timing else ())
            },
            "candidate_ms": timing.candidate_ms if timing else None,
            "roofline_fraction": self.roofline_fraction,
            "workloads": [
                {
                    "name": one.name,
                    "inputs": [spec.model_dump(mode="json") for spec in one.inputs],
                    "baseline": one.baseline,
                    "baseline_ms": one.baseline_ms,
                    "kernel_ms": one.kernel_ms,
                    "speedup": one.speedup,
                    "interval": list(one.interval) if one.interval else None,
                    "faster": one.faster,
                    "roofline_fraction": one.roofline_fraction,
                }
                for one in self.workloads
            ],
            "trials": len(self.tried),
            "seconds": round(self.seconds, 1),
            "usage": self.usage.model_dump(),
            "best": f"{self.run_dir}/best/kernel.py" if self.winner else None,
            "run_dir": self.run_dir,
        }
