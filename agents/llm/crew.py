"""Who thinks in a run: rules, models, or both, role by role.

A plan says who made it and a candidate who wrote it, and the crew goes by that: what the rules
planned they also write, mend and read, unless a model was put in that role alone. In a hybrid crew
the playbook's planner goes first, and what it found is what the model's planner starts from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agents.brief import Brief, Diagnosis, Plan, Planning, promises_enough
from agents.crew import Coder, Crew, Debugger, Planner, Profiler
from agents.llm.coder import ModelCoder
from agents.llm.debugger import ModelDebugger
from agents.llm.exchange import Journal, Role
from agents.llm.models import Model, make_models
from agents.llm.planner import ModelPlanner
from agents.llm.profiler import ModelProfiler
from agents.llm.talk import Talk
from agents.llm.tools import Bench
from agents.playbook.coder import PlaybookCoder
from agents.playbook.debugger import PlaybookDebugger
from agents.playbook.planner import PlaybookPlanner
from agents.playbook.profiler import PlaybookProfiler
from knowledge.store import Library
from tools.candidate import Candidate
from tools.task import PLAYBOOK, Task
from tools.verdict import Trial

# The most of a run's trials that go to the rules before a model is asked.
SHARE = 0.5


@dataclass(frozen=True)
class RulesPlanner:
    """The playbook's planner in a crew with models: it is told of its own plans alone."""

    rules: Planner

    def plan(self, brief: Brief) -> Planning:
        """The rules' plans."""
        return self.rules.plan(own_brief(brief))


class HybridPlanner:
    """The rules first; the model once they have nothing left, or have had their share of trials.

    A model that has no plan is not asked again: the rules go on with what is left.
    """

    def __init__(self, rules: Planner, model: Planner) -> None:
        self._rules = rules
        self._model = model
        self._given_up = False

    def plan(self, brief: Brief) -> Planning:
        """The rules' plans, and no more than their share; then the model's."""
        handed_over = any(_is_models(plan) for plan in brief.plans)
        left = int(brief.task.budget.trials * SHARE) - len(brief.trials)
        if self._given_up:
            return self._rules.plan(brief)
        if handed_over or left < 1:
            return self._handed_over(brief)
        planning = self._rules.plan(brief)
        if not planning.plans or _is_last_resort(planning):
            return self._handed_over(brief, planning)
        return planning.model_copy(update={"plans": planning.plans[:left]})

    def _handed_over(self, brief: Brief, ruled: Planning | None = None) -> Planning:
        """The model's plans; where it has none, the rules'."""
        answer = self._model.plan(brief)
        if any(promises_enough(plan, brief) for plan in answer.plans):
            return answer
        self._given_up = True
        rest = ruled or self._rules.plan(brief)
        # What promises too little is put aside where plans are spent, and stays in the report.
        return rest.model_copy(
            update={
                "plans": (*rest.plans, *answer.plans),
                "refused": (*rest.refused, *answer.refused),
            }
        )


def own_brief(brief: Brief) -> Brief:
    """What the rules know of a run: their own plans, and how those fared."""
    plans = tuple(plan for plan in brief.plans if plan.maker == PLAYBOOK)
    known = {plan.id for plan in plans}
    trials = tuple(trial for trial in brief.trials if trial.plan in known)
    return brief.model_copy(update={"plans": plans, "trials": trials})


def _is_models(plan: Plan) -> bool:
    """Whether a model planned it, not only mended it."""
    return plan.maker != PLAYBOOK and bool(plan.instructions)


def _is_last_resort(planning: Planning) -> bool:
    """Whether all that the rules know is to leave the op as it is."""
    return all(not plan.steps for plan in planning.plans)


@dataclass(frozen=True)
class CoderByMaker:
    """The rules write their own plans, the model its own."""

    rules: Coder
    model: Coder

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        """The candidate that carries out `plan`.

        Raises:
            ValueError: it can't be written.
        """
        return (self.rules if plan.maker == PLAYBOOK else self.model).write(brief, plan)


@dataclass(frozen=True)
class DebuggerByAuthor:
    """What the rules wrote they mend, as long as they know how; all else is the model's, if any."""

    rules: Debugger
    model: Debugger | None

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        """A changed plan, its candidate, and what was changed; None when out of ideas."""
        if trial.candidate.author == plan.maker == PLAYBOOK:
            mended = self.rules.repair(own_brief(brief), plan, trial)
            if mended is not None:
                return mended
        return self.model.repair(brief, plan, trial) if self.model is not None else None


@dataclass(frozen=True)
class ProfilerByAuthor:
    """The rules read the rules' kernels, the model its own."""

    rules: Profiler
    model: Profiler

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        """Which bound the trial is at, and what is left."""
        ruled = trial.candidate.author == PLAYBOOK
        return (self.rules if ruled else self.model).explain(brief, trial)


def model_crew(
    task: Task,
    library: Library,
    bench: Bench,
    journal: Journal,
    models: Mapping[str, Model] | None = None,
) -> Crew:
    """The crew that a task asks for, with a model in at least one role.

    Args:
        task: says who thinks in which role, and whether the rules go first.
        library: is asked by planners, and by models through their tools.
        bench: tries what models draft.
        journal: keeps what models said, and the books.
        models: by their ids; None means that they are made here.

    Raises:
        BadInput: a model can't be used here; one line says what to install or to set.
    """
    hired = make_models(task, "task") if models is None else models
    return _Hiring(task, library, bench, journal, hired).crew()


class _Hiring:
    """Fills the roles one by one."""

    def __init__(
        self,
        task: Task,
        library: Library,
        bench: Bench,
        journal: Journal,
        models: Mapping[str, Model],
    ) -> None:
        self._task = task
        self._library = library
        self._bench = bench
        self._journal = journal
        self._models = models
        self._hybrid = task.way_of_thinking == "hybrid"
        self._coder = PlaybookCoder()

    def crew(self) -> Crew:
        return Crew(self._planner(), self._the_coder(), self._debugger(), self._profiler())

    def _talk(self, role: Role) -> Talk | None:
        model: Model | None = self._models.get(self._task.model.of(role))
        return Talk(model, role, self._journal) if model is not None else None

    def _planner(self) -> Planner:
        rules, talk = RulesPlanner(PlaybookPlanner(self._library)), self._talk("planner")
        if talk is None:
            return rules
        model = ModelPlanner(talk, self._library)
        return HybridPlanner(rules, model) if self._hybrid else model

    def _the_coder(self) -> Coder:
        talk = self._talk("coder")
        if talk is None:
            return self._coder
        model = ModelCoder(talk, self._library, self._bench)
        # Beside a planner of rules, a model in this role is there to write what they plan.
        alone = self._task.model.of("planner") == PLAYBOOK
        return model if alone else CoderByMaker(self._coder, model)

    def _debugger(self) -> Debugger:
        rules, talk = PlaybookDebugger(self._coder), self._talk("debugger")
        if talk is None:
            return DebuggerByAuthor(rules, None)
        return DebuggerByAuthor(rules, ModelDebugger(talk, self._library, self._bench))

    def _profiler(self) -> Profiler:
        rules, talk = PlaybookProfiler(), self._talk("profiler")
        if talk is None:
            return rules
        model = ModelProfiler(talk, self._library)
        return ProfilerByAuthor(rules, model) if self._hybrid else model
