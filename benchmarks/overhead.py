"""`python -m benchmarks.overhead`: what an attempt costs beside its tools and its model.

A run of the real graph with the real judge, library, checkpoints and journal. Its crew asks a model
that answers at once, with prompts and answers of the usual size, and searches the library as a
planner does. What is left of the time when the judge's is taken off is the house's own.
"""

import hashlib
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from langchain_core.runnables import RunnableConfig
from rich.console import Console
from rich.table import Table

from agents.brief import Brief, Diagnosis, Plan, Planning
from agents.crew import Crew
from agents.llm.exchange import Exchange, Journal, Role, Usage
from agents.playbook.profiler import PlaybookProfiler
from graph.build import build_graph
from graph.drive import checkpointer
from graph.events import NodeStarted, append_event
from graph.folder import RunFolder
from graph.meter import Lap
from graph.state import RunInput
from graph.workbench import Workbench, Workbenches
from knowledge.store import Library
from tools.candidate import Candidate
from tools.judge.wire import JudgeLimits
from tools.task import Budget, InputSpec, Task
from tools.verdict import Trial

ASKED_MS = 150.0
PROMPT = "x" * 30_000
ANSWER = "y" * 12_000
LIMITS = JudgeLimits(timing_s=0.3, preparation_s=1)
SOURCE = """import torch

class ModelNew(torch.nn.Module):
    def forward(self, x0):
        return x0.clamp(min=0.0)  # {number}
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Asking:
    """A crew that asks a model for everything, and gets its answer at once."""

    def __init__(self, library: Library, journal: Journal, attempts: int) -> None:
        self._library = library
        self._journal = journal
        self._attempts = attempts

    def plan(self, brief: Brief) -> Planning:
        """The next attempt, with pages that speak of it."""
        number = len(brief.plans) + 1
        for words in ("relu memory bound on x86-64 avx512", "fused row loop", "page faults"):
            self._library.search(words, 3)
        self._ask("planner", f"plan {number}")
        if number > self._attempts:
            return Planning(plans=())
        plan = Plan(
            id=f"p{number}",
            title=f"attempt {number}",
            steps=(),
            expected_speedup=2.0,
            arithmetic="",
        )
        return Planning(plans=(plan,))

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        """Right, and new to the judge."""
        self._ask("coder", plan.id)
        return Candidate(source=SOURCE.format(number=plan.id), backend="torch")

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> None:
        """Nothing is rejected here."""

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        """As the playbook does, after a question."""
        self._ask("profiler", trial.plan)
        return PlaybookProfiler().explain(brief, trial)

    def _ask(self, role: Role, about: str) -> None:
        key = hashlib.sha256(f"{role} {about}".encode()).hexdigest()
        if self._journal.find(key) is not None:
            return
        self._journal.admit("none", 8_000, 3_000)
        self._journal.keep(
            Exchange(
                key=key,
                role=role,
                plan=about,
                model="none",
                messages=({"type": "human", "data": {"content": PROMPT}},),
                reply={"type": "ai", "data": {"content": ANSWER}},
                usage=Usage(input_tokens=8_000, output_tokens=3_000, usd=0.0),
                seconds=0.0,
                when=datetime.now(UTC).isoformat(),
            )
        )


class Clocked:
    """A judge whose requests are timed."""

    def __init__(self, judge: Any) -> None:
        self._judge = judge
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        request = getattr(self._judge, name)

        def timed(*arguments: Any) -> Any:
            began = time.monotonic()
            try:
                return request(*arguments)
            finally:
                self.seconds += time.monotonic() - began

        return timed


class ClockedBenches(Workbenches):
    """Workbenches whose judge is clocked."""

    clock: Clocked | None = None

    def of(self, run_dir: str, task: Task) -> Workbench:
        """The workbench, its judge clocked once."""
        bench = super().of(run_dir, task)
        if self.clock is None:
            self.clock = Clocked(bench.judge)
            object.__setattr__(bench, "judge", self.clock)
        return bench


def measure(attempts: int, base: Path) -> tuple[float, float]:
    """Seconds of the house's own and of the judge's, per attempt, between preparing and the end."""
    task = Task(
        name="overhead",
        op="torch.relu",
        inputs=(InputSpec(shape=(64, 64)),),
        width=1,
        budget=Budget(trials=attempts, minutes=60, tokens=10**9),
    )
    folder = RunFolder.create(base, task)

    def crew(of: Task, library: Library, journal: Journal) -> Crew:
        asking = Asking(library, journal, attempts)
        return Crew(asking, asking, asking, asking)

    benches = ClockedBenches(None, crew, LIMITS)
    config: RunnableConfig = {"configurable": {"thread_id": "overhead"}, "recursion_limit": 10_000}
    began = judged = total = in_judge = 0.0
    try:
        with checkpointer(folder) as saver:
            graph = build_graph(benches, checkpointer=saver)
            entry = RunInput(task=task, run_dir=str(folder.path))
            stream = graph.stream(
                entry, config, stream_mode="custom", subgraphs=True, durability="sync"
            )
            for _, told in stream:
                event: Any = told
                append_event(folder.events, event)
                assert benches.clock is not None or not began
                if isinstance(event, NodeStarted) and event.node == "plan" and not began:
                    began, judged = (
                        time.monotonic(),
                        benches.clock.seconds if benches.clock else 0.0,
                    )
                if isinstance(event, NodeStarted) and event.node == "confirm" and benches.clock:
                    total = time.monotonic() - began
                    in_judge = benches.clock.seconds - judged
    finally:
        benches.close_all()
    laps = [Lap.model_validate_json(line) for line in folder.spent.read_text().splitlines()]
    done = sum(lap.what == "verify" for lap in laps)
    return (total - in_judge) / done, in_judge / done


@app.command()
def main(
    attempts: Annotated[int, typer.Option(help="how many to take the mean of")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="figures as one JSON document")] = False,
) -> None:
    """Print what an attempt costs beside its tools and its model; it should be under 150 ms."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as base:
        own, judge = measure(attempts, Path(base))
    if as_json:
        told = {"attempts": attempts, "own_ms": own * 1e3, "judge_ms": judge * 1e3}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("an attempt", "ms"):
        table.add_column(heading, justify="right" if heading == "ms" else "left")
    table.add_row("graph, retrieval, journal, checkpoints", f"{own * 1e3:.0f}")
    table.add_row(f"asked: under {ASKED_MS:.0f}", "met" if own * 1e3 < ASKED_MS else "missed")
    table.add_row("the judge, beside it", f"{judge * 1e3:.0f}")
    Console().print(table)


if __name__ == "__main__":
    app()
