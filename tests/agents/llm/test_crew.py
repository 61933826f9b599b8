"""Who thinks: rules, a model, or both, and when the one hands over to the other."""

from typing import Any

import pytest

from agents.brief import Brief, Plan, Planning
from agents.llm.coder import ModelCoder
from agents.llm.crew import (
    CoderByMaker,
    DebuggerByAuthor,
    HybridPlanner,
    ProfilerByAuthor,
    RulesPlanner,
    model_crew,
    own_brief,
)
from agents.llm.debugger import ModelDebugger
from agents.llm.planner import ModelPlanner
from agents.llm.profiler import ModelProfiler
from agents.playbook.coder import PlaybookCoder
from agents.playbook.profiler import PlaybookProfiler
from knowledge.pattern import Refusal
from knowledge.store import Library
from tests.agents.llm.scripted import MODEL_ID, MemoryJournal, brief, model_plan
from tests.agents.llm.test_tools import Bench
from tests.graph import builders
from tools.candidate import Candidate
from tools.verdict import Trial, WrongOutput

RULED = builders.plan(1, "One fused loop", "row_loop")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library.open(tmp_path_factory.mktemp("library"))


class Planner:
    """Gives these plans, round by round, and then none."""

    def __init__(self, *rounds: tuple[Plan, ...]) -> None:
        self.rounds = list(rounds)
        self.asked: list[Brief] = []

    def plan(self, brief: Brief) -> Planning:
        self.asked.append(brief)
        refused = (Refusal(pattern="all else", reason="It would gain nothing."),)
        return Planning(plans=self.rounds.pop(0) if self.rounds else (), refused=refused)


def crew(library: Library, **settings: Any) -> Any:
    settings.setdefault("base_url", "http://127.0.0.1:9/v1")
    return model_crew(brief(settings=settings).task, library, Bench(), MemoryJournal())


def test_one_model_makes_a_hybrid_crew(library: Library) -> None:
    made = crew(library, model="openai:local")
    assert isinstance(made.planner, HybridPlanner)
    assert isinstance(made.coder, CoderByMaker)
    assert isinstance(made.debugger, DebuggerByAuthor)
    assert isinstance(made.profiler, ProfilerByAuthor)


def test_a_crew_of_models_has_models_in_every_role(library: Library) -> None:
    made = crew(library, model="openai:local", crew="model")
    assert isinstance(made.planner, ModelPlanner)
    assert isinstance(made.profiler, ModelProfiler)
    assert isinstance(made.debugger.model, ModelDebugger)


def test_a_model_in_one_role_leaves_the_others_to_the_rules(library: Library) -> None:
    made = crew(library, model={"coder": "openai:local"})
    assert isinstance(made.planner, RulesPlanner)
    assert isinstance(made.coder, ModelCoder)
    assert isinstance(made.profiler, PlaybookProfiler)
    assert made.debugger.model is None


def test_the_rules_go_first_and_the_model_takes_over_when_they_are_done() -> None:
    rules, model = Planner((RULED,)), Planner((model_plan(),))
    planner = HybridPlanner(rules, model)
    assert planner.plan(brief()).plans == (RULED,)
    won = builders.trial(1, builders.correct(builders.timing(6.0)), plan=RULED.id)
    assert planner.plan(brief((RULED,), (won,))).plans == (model_plan(),)
    assert model.asked[0].trials == (won,)


def test_the_rules_have_at_most_half_of_the_trials() -> None:
    rules = Planner((RULED, RULED, RULED), (RULED,))
    planner = HybridPlanner(rules, Planner((model_plan(),)))
    settings = {"budget": {"trials": 4}, "width": 3}
    assert len(planner.plan(brief(settings=settings)).plans) == 2
    wrong = tuple(
        builders.trial(number, WrongOutput(detail="all of it"), plan=RULED.id) for number in (1, 2)
    )
    assert planner.plan(brief((RULED,), wrong, settings=settings)).plans == (model_plan(),)


def test_once_handed_over_the_rules_are_not_asked_again() -> None:
    rules = Planner((RULED,))
    planner = HybridPlanner(rules, Planner((model_plan(id="m2"),)))
    assert planner.plan(brief((RULED, model_plan()))).plans == (model_plan(id="m2"),)
    assert rules.asked == []


def test_where_the_model_has_no_plan_the_rules_go_on_and_it_is_not_asked_again() -> None:
    rules, model = Planner((RULED,), (RULED,)), Planner()
    planner = HybridPlanner(rules, model)
    settings = {"budget": {"trials": 1}}
    first = planner.plan(brief(settings=settings))
    assert first.plans == (RULED,)
    assert len(first.refused) == 2
    assert planner.plan(brief(settings=settings)).plans == (RULED,)
    assert len(model.asked) == 1


def test_a_model_that_promises_too_little_does_not_end_what_the_rules_have_left() -> None:
    meek = model_plan(expected_speedup=1.0)
    rules, model = Planner((RULED, RULED), (RULED,)), Planner((meek,))
    planner = HybridPlanner(rules, model)
    settings = {"budget": {"trials": 2}}
    assert planner.plan(brief(settings=settings)).plans == (RULED,)
    won = (builders.trial(1, builders.correct(builders.timing(6.0)), plan=RULED.id),)
    after = brief((RULED,), won, settings=settings)
    assert planner.plan(after).plans == (RULED, meek)
    planner.plan(after)
    assert len(model.asked) == 1


def test_a_last_resort_waits_for_the_model() -> None:
    as_it_is = builders.plan(1, "the op as the library does it")
    planner = HybridPlanner(Planner((as_it_is,)), Planner((model_plan(),)))
    assert planner.plan(brief()).plans == (model_plan(),)


def test_the_rules_know_their_own_plans_alone() -> None:
    mended = model_plan(id="plan-1r1", instructions="")
    trials = (
        builders.trial(1, WrongOutput(detail="all of it"), plan=RULED.id),
        builders.trial(2, builders.correct(builders.timing(6.0)), plan=mended.id),
    )
    own = own_brief(brief((RULED, mended), trials))
    assert own.plans == (RULED,)
    assert [trial.number for trial in own.trials] == [1]


class Role:
    """Every role but the planner's; says who was asked."""

    def __init__(self, name: str, mends: bool = True) -> None:
        self.name = name
        self.mends = mends

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        return Candidate(source=self.name, backend="torch")

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        return (plan, self.write(brief, plan), self.name) if self.mends else None

    def explain(self, brief: Brief, trial: Trial) -> Any:
        return self.name


def by_author(author: str) -> Trial:
    trial = builders.trial(1, WrongOutput(detail="all of it"))
    candidate = trial.candidate.model_copy(update={"author": author})
    return trial.model_copy(update={"candidate": candidate})


def test_plans_are_written_by_those_who_made_them() -> None:
    coder = CoderByMaker(Role("rules"), Role("model"))
    assert coder.write(brief(), RULED).source == "rules"
    assert coder.write(brief(), model_plan()).source == "model"


def test_the_rules_mend_their_own_first_and_then_the_model_does() -> None:
    ruled, models = by_author("playbook"), by_author(MODEL_ID)

    def mended(rules: Role, plan: Plan, trial: Trial) -> str:
        repaired = DebuggerByAuthor(rules, Role("model")).repair(brief(), plan, trial)
        assert repaired is not None
        return repaired[2]

    assert mended(Role("rules"), RULED, ruled) == "rules"
    assert mended(Role("rules", mends=False), RULED, ruled) == "model"
    assert mended(Role("rules"), RULED, models) == "model"
    assert mended(Role("rules"), model_plan(), models) == "model"
    assert DebuggerByAuthor(Role("rules"), None).repair(brief(), RULED, models) is None


def test_kernels_are_read_by_those_who_wrote_them() -> None:
    profiler: Any = ProfilerByAuthor(Role("rules"), Role("model"))
    assert profiler.explain(brief(), by_author("playbook")) == "rules"
    assert profiler.explain(brief(), by_author(MODEL_ID)) == "model"


def test_a_playbook_coder_never_gets_a_models_plan(library: Library) -> None:
    with pytest.raises(ValueError, match="needs a model as coder"):
        crew(library, model={"planner": "openai:local"})


def test_the_rules_write_theirs_with_no_model_asked(library: Library) -> None:
    made = crew(library, model="openai:local")
    (plan, *_) = made.planner.plan(brief()).plans
    written = made.coder.write(brief(), plan)
    assert written == PlaybookCoder().write(brief(), plan)
    assert written.author == "playbook"
