"""A scripted crew that asks an imagined model through the run's journal, and pays for each call."""

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from agents.brief import Brief, Diagnosis, Plan, Planning
from agents.crew import Crew
from agents.llm.exchange import Exchange, Journal, Role, Usage
from graph.workbench import CrewMaker
from tests.graph.conftest import ScriptedCrew
from tools.candidate import Candidate
from tools.verdict import Trial

MODEL = "test:imagined"
TOKENS_IN, TOKENS_OUT = 100, 20
USD = 0.001
# Whatever was measured before, these plans promise more.
PROMISING = {"maker": MODEL, "expected_speedup": 1000.0}

Listener = Callable[[Role, str], None]


def ignore(role: Role, plan: str) -> None:
    """Nothing happens."""


def price(model: str, input_tokens: int, output_tokens: int) -> float | None:
    """A cent for a thousand tokens."""
    return (input_tokens + output_tokens) * 1e-5


class Speaking(ScriptedCrew):
    """Each role asks before it does what the script says.

    Args:
        journal: of the run.
        paid: gets one line for every call that a provider would have billed.
        attempts: the script.
        before: is told role and plan before a call that is not paid yet.
        after: is told them once the answer is kept or found.
    """

    def __init__(
        self,
        journal: Journal,
        paid: Path,
        attempts: tuple[tuple[str, ...], ...],
        before: Listener = ignore,
        after: Listener = ignore,
    ) -> None:
        super().__init__(*attempts)
        self.journal = journal
        self.paid = paid
        self.before = before
        self.after = after

    def plan(self, brief: Brief) -> Planning:
        eager = brief.baselines.rows[0].median_ms
        self.ask("planner", "", f"eager takes {eager} ms, {len(brief.plans)} plans were made")
        planning = super().plan(brief)
        made = tuple(plan.model_copy(update=PROMISING) for plan in planning.plans)
        return planning.model_copy(update={"plans": made})

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        self.ask("coder", plan.id, f"write {plan.id}")
        return super().write(brief, plan)

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        self.ask("debugger", plan.id, f"mend trial {trial.number}")
        return super().repair(brief, plan, trial)

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        self.ask("profiler", trial.plan, f"explain trial {trial.number}")
        return super().explain(brief, trial)

    def ask(self, role: Role, plan: str, text: str) -> str:
        key = sha256(f"{role} {text}".encode()).hexdigest()
        found = self.journal.find(key)
        if found is None:
            self.before(role, plan)
            self.journal.admit(MODEL, TOKENS_IN, TOKENS_OUT)
            with self.paid.open("a") as bills:
                bills.write(f"{role} {text}\n")
            found = exchange(key, role, plan, text)
            self.journal.keep(found)
        self.after(role, plan)
        return str(found.reply["data"]["content"])


def exchange(key: str, role: Role, plan: str, text: str, usd: float | None = USD) -> Exchange:
    return Exchange(
        key=key,
        role=role,
        plan=plan,
        model=MODEL,
        messages=({"type": "human", "data": {"content": text}},),
        reply={"type": "ai", "data": {"content": f"an answer to: {text}"}},
        usage=Usage(input_tokens=TOKENS_IN, output_tokens=TOKENS_OUT, usd=usd),
        seconds=0.5,
        when=datetime.now(UTC).isoformat(),
    )


def speaking_crew(
    paid: Path, *attempts: tuple[str, ...], before: Listener = ignore, after: Listener = ignore
) -> CrewMaker:
    """Makes the crew for `Workbenches`."""

    def make(task: object, library: object, journal: Journal) -> Crew:
        crew = Speaking(journal, paid, attempts, before, after)
        return Crew(crew, crew, crew, crew)

    return make
