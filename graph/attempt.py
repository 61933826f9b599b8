"""One attempt: `code -> compile -> verify -> measure -> profile`, `debug` back to `compile`.

A rejected candidate becomes a trial in `debug`, a correct one in `profile`; either way it is
written down once, under a number of its own, before anything else happens.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agents.brief import Plan
from agents.llm.exchange import Spent
from graph.events import Event, NodeStarted, Note, Repaired, TrialJudged, keep
from graph.journal import at_work
from graph.record import Repair, Unspent
from graph.state import AttemptOutput, AttemptState
from graph.workbench import Workbench, Workbenches
from tools.candidate import Candidate
from tools.judge.client import JudgeDied
from tools.profile.ladder import Subject, climb
from tools.verdict import BuildFailed, Compiled, Correct, JudgeError, Profile, Trial, Verdict

# A disturbance (memory being compacted, another process) shows as an interval this wide.
TOO_WIDE = 1.25
# With less of a run's time left, it is spent on trials.
INSTRUMENT_SECONDS = 120.0


class AttemptNodes:
    """The nodes of the subgraph; they return new values and keep nothing."""

    def __init__(self, benches: Workbenches) -> None:
        self._benches = benches

    def code(self, state: AttemptState) -> AttemptState:
        """The coder writes the candidate; a plan that no model can be paid for stays unspent."""
        bench, plan, began = self._bench(state), state["plan"], time.monotonic()
        number = bench.folder.claim_trial(plan)
        announce(NodeStarted(node="code", detail=f"#{number} {plan.title}", trial=number))
        verdict: Verdict | None = None
        try:
            with at_work("coder", plan.id, number):
                candidate = bench.crew.coder.write(state["brief"], plan)
        except Spent as error:
            bench.folder.release_trial(number)
            return _unspent(plan, str(error))
        except ValueError as error:
            # A plan that doesn't fit the op, or a model's answer without a module in it, is one
            # attempt's failure, not the run's.
            candidate = Candidate(source=f"# It could not be written: {error}\n", backend="torch")
            verdict = BuildFailed(log=f"the plan could not be carried out: {error}")
        return {
            "candidate": candidate,
            "number": number,
            "parent": plan.parent,
            "repair": 0,
            "worked": time.monotonic() - began,
            "verdict": verdict,
        }

    def compile(self, state: AttemptState) -> AttemptState:
        """Build what has to be built; only a failure is a verdict."""
        announce(_started("compile", state))
        judge, began = self._bench(state).judge, time.monotonic()
        verdict: Verdict | None
        try:
            verdict = judge.build(state["candidate"])
        except JudgeDied as death:
            verdict = JudgeError(log=str(death))
        return {"verdict": verdict, "worked": _worked(state, began)}

    def verify(self, state: AttemptState) -> AttemptState:
        """Compare with the float64 oracle."""
        announce(_started("verify", state))
        began = time.monotonic()
        verdict = self._bench(state).judge.verify(state["candidate"])
        return {"verdict": verdict, "worked": _worked(state, began)}

    def measure(self, state: AttemptState) -> AttemptState:
        """Time against the fastest baseline, and read where the time goes.

        The reading is of this measurement, and the judge that made it may be gone after a restart.
        """
        announce(_started("measure", state))
        verified, best = state["verdict"], state["brief"].baselines.best
        assert best is not None, "what is not timed is not measured"
        judge, began = self._bench(state).judge, time.monotonic()
        to_beat = _to_beat(state["brief"].trials)
        with self._bench(state).quiet:
            timed = judge.measure(state["candidate"], (best.name,), to_beat)
        if _undecided(timed, to_beat):
            # Replaced, never the better of the two: the second reading stands whatever it says.
            announce(Note(text=f"#{state['number']} is measured again: its interval is too wide"))
            with self._bench(state).quiet:
                timed = judge.measure(state["candidate"], (best.name,))
        reading: Profile | None = None
        if isinstance(timed, Correct) and isinstance(verified, Correct):
            try:
                reading = judge.profile(state["candidate"])
            except JudgeDied:
                announce(Note(text=f"#{state['number']} is timed and not profiled: the judge died"))
            timed = timed.model_copy(
                update={"cases": verified.cases, "deterministic": verified.deterministic}
            )
        return {"verdict": timed, "reading": reading, "worked": _worked(state, began)}

    def profile(self, state: AttemptState) -> AttemptState:
        """Write the trial down, and have the profiler say what holds it back."""
        announce(_started("profile", state))
        bench = self._bench(state)
        reading = state.get("reading")
        if reading is not None and bench.instruments and _worth_instruments(state):
            reading = _read_instruments(bench, state, reading)
        trial = self._record(bench, state, reading)
        recorded: AttemptState = {"trials": {trial.number: trial}}
        if trial.profile is None:
            return recorded
        try:
            with at_work("profiler", trial.plan, trial.number):
                diagnosis = bench.crew.profiler.explain(state["brief"], trial)
        except Spent as error:
            return {**recorded, "spent": str(error)}
        return {**recorded, "diagnoses": (diagnosis,)}

    def debug(self, state: AttemptState) -> AttemptState:
        """Write the failed trial down and, while repairs are left, ask for a mended candidate."""
        bench, began = self._bench(state), time.monotonic()
        failed = self._record(bench, state)
        recorded: AttemptState = {"trials": {failed.number: failed}, "verdict": failed.verdict}
        used = state["repair"] + 1
        if used > state["brief"].task.budget.repairs or used >= state["allowance"]:
            return recorded
        if bench.time_spent(state["brief"].task.budget):
            return recorded
        announce(_started("debug", state))
        brief = state["brief"]
        # What this attempt has tried itself was not known when it began.
        so_far = brief.model_copy(
            update={
                "plans": (*brief.plans, *state.get("plans", ())),
                "trials": (*brief.trials, *state.get("trials", {}).values()),
            }
        )
        try:
            with at_work("debugger", failed.plan, failed.number):
                repaired = bench.crew.debugger.repair(so_far, state["plan"], failed)
        except Spent as error:
            return {**recorded, "spent": str(error)}
        if repaired is None:
            return recorded
        mended, candidate, action = repaired
        plan = mended.model_copy(update={"id": f"{state['plan'].id.partition('r')[0]}r{used}"})
        announce(Repaired(failed_trial=failed.number, action=action))
        return {
            **recorded,
            "repairs": (Repair(failed_trial=failed.number, action=action),),
            "plans": (plan,),
            "plan": plan,
            "candidate": candidate,
            "number": bench.folder.claim_trial(plan),
            "parent": failed.number,
            "repair": used,
            "worked": time.monotonic() - began,
            "verdict": None,
            "reading": None,
        }

    def _bench(self, state: AttemptState) -> Workbench:
        return self._benches.of(state["run_dir"], state["brief"].task)

    def _record(
        self, bench: Workbench, state: AttemptState, profile: Profile | None = None
    ) -> Trial:
        verdict = state["verdict"]
        assert verdict is not None, "a trial is recorded after it was judged"
        plan = state["plan"]
        trial = Trial(
            number=state["number"],
            plan=plan.id,
            title=plan.title,
            pattern=plan.pattern,
            parent=state["parent"],
            repair=state["repair"],
            candidate=state["candidate"],
            verdict=verdict,
            profile=profile,
            seconds=state["worked"],
        )
        bench.folder.write_trial(trial)
        announce(TrialJudged.of(trial))
        return trial


def accepted(verdict: Verdict | None) -> bool:
    """Whether nothing has been held against the candidate so far."""
    return verdict is None or isinstance(verdict, Correct)


def after_code(state: AttemptState) -> Literal["compile", "debug", "__end__"]:
    """On to the compiler, unless nothing could be written, or nothing may be asked any more."""
    if "candidate" not in state:
        return "__end__"
    return "compile" if accepted(state["verdict"]) else "debug"


def after_compile(state: AttemptState) -> Literal["verify", "debug"]:
    """On to verification unless the build failed."""
    return "verify" if accepted(state["verdict"]) else "debug"


def after_verify(state: AttemptState) -> Literal["measure", "profile", "debug"]:
    """Only correct candidates are timed; what could only be compiled is written down as it is."""
    if isinstance(state["verdict"], Compiled):
        return "profile"
    return "measure" if accepted(state["verdict"]) else "debug"


def after_measure(state: AttemptState) -> Literal["profile", "debug"]:
    """Only honest timings are profiled."""
    return "profile" if accepted(state["verdict"]) else "debug"


def after_debug(state: AttemptState) -> Literal["compile", "__end__"]:
    """Back to the compiler with a mended candidate, else done."""
    return "compile" if state["verdict"] is None else "__end__"


def _undecided(verdict: Verdict, to_beat: float) -> bool:
    """Whether a timing says too little to tell if the candidate is worth building on."""
    if not isinstance(verdict, Correct) or verdict.timing is None or verdict.timing.stopped_early:
        return False
    comparison = verdict.timing.against_best
    wide = comparison.high > TOO_WIDE * comparison.low
    return wide and comparison.low <= to_beat <= comparison.high


def _to_beat(trials: Sequence[Trial]) -> float:
    """The speedup that the best trial has for certain; what lies wholly behind it is let go.

    With none, that of the baseline itself.
    """
    lows = [trial.timing.against_best.low for trial in trials if trial.timing is not None]
    return max([1.0, *lows])


def _worth_instruments(state: AttemptState) -> bool:
    """Whether a trial leads, and there is time: reading instruments takes some seconds."""
    verdict, brief = state["verdict"], state["brief"]
    if not isinstance(verdict, Correct) or verdict.timing is None or verdict.timing.stopped_early:
        return False
    speeds = [trial.speedup or 0.0 for trial in brief.trials]
    leads = verdict.timing.against_best.speedup > max(speeds, default=0.0)
    return leads and brief.seconds_left > INSTRUMENT_SECONDS


def _read_instruments(bench: Workbench, state: AttemptState, profile: Profile) -> Profile:
    """The judge's profile with what the best instrument of this machine says."""
    facts = state["brief"].facts
    subject = Subject(
        candidate=state["candidate"], reference=facts.source, moved_bytes=facts.moved_bytes
    )
    with bench.quiet, bench.judge.alone():
        return climb(subject, state["brief"].device).added_to(profile)


def announce(event: Event) -> None:
    """Tell whoever watches the run, and its log where the node keeps one."""
    keep(event)
    get_stream_writer()(event)


def _unspent(plan: Plan, reason: str) -> AttemptState:
    return {"unspent": (Unspent(plan=plan.id, reason=reason),), "spent": reason}


def _worked(state: AttemptState, began: float) -> float:
    return state["worked"] + time.monotonic() - began


def _started(node: str, state: AttemptState) -> NodeStarted:
    number = state["number"]
    return NodeStarted(node=node, detail=f"#{number} {state['plan'].title}", trial=number)


def unguarded(node: Any) -> Any:
    """A node as it is."""
    return node


def build_attempt(
    benches: Workbenches, guard: Callable[[Any], Any] = unguarded
) -> CompiledStateGraph[AttemptState, None, AttemptState, AttemptOutput]:
    """The compiled subgraph; `guard` is what each node is wrapped into."""
    nodes = AttemptNodes(benches)
    graph = StateGraph(AttemptState, output_schema=AttemptOutput)
    graph.add_node("code", guard(nodes.code))
    graph.add_node("compile", guard(nodes.compile))
    graph.add_node("verify", guard(nodes.verify))
    graph.add_node("measure", guard(nodes.measure))
    graph.add_node("profile", guard(nodes.profile))
    graph.add_node("debug", guard(nodes.debug))
    graph.add_edge(START, "code")
    graph.add_conditional_edges("code", after_code)
    graph.add_conditional_edges("compile", after_compile)
    graph.add_conditional_edges("verify", after_verify)
    graph.add_conditional_edges("measure", after_measure)
    graph.add_conditional_edges("debug", after_debug)
    graph.add_edge("profile", END)
    return graph.compile()
