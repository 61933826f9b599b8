"""What the planner makes of earlier runs: what it starts from, puts last, and cites."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.playbook.hindsight import look_back, transplant
from agents.playbook.planner import PlaybookPlanner
from agents.playbook.recipes import Recipe, enumerate_recipes, situation_of, variants
from knowledge.experience import fingerprint, signature
from knowledge.experience.tried import Tried
from knowledge.pattern import Step
from knowledge.program import Backend
from knowledge.store import Library
from tests.agents.test_planner import brief, measured
from tests.graph import builders
from tests.patterns.workshop import SITUATION, build, function

OWN = fingerprint(builders.graph())
OPS = signature(builders.graph())


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """A library without pages."""
    opened = Library.open(tmp_path / "library", project=tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    given = brief()
    return enumerate_recipes(builders.graph(), builders.REFERENCE, situation_of(given))[0]


@pytest.fixture(scope="module")
def found_variants(recipes: list[Recipe]) -> list[Recipe]:
    """What varying the best recipe's tunables leads to: recipes that no first plan has."""
    situation = situation_of(brief())
    found = variants(builders.graph(), builders.REFERENCE, situation, recipes[0].steps)
    assert found
    return found


def tried(steps: tuple[Step, ...], **changes: object) -> Tried:
    values: dict[str, object] = {
        "run_id": "r1", "trial": 1, "fingerprint": OWN, "signature": OPS,
        "device": builders.device().name, "architecture": builders.device().architecture,
        "title": "", "steps": steps, "verdict": "correct", "when": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Tried.model_validate(values | changes)


def won(steps: tuple[Step, ...], speedup: float = 1.5, **changes: object) -> Tried:
    figures = {"speedup": speedup, "low": speedup * 0.98, "high": speedup * 1.02}
    return tried(steps, **{"confirmed": True, "won": True} | figures | changes)


def first_steps(library: Library, width: int = 1) -> list[tuple[Step, ...]]:
    return [plan.steps for plan in PlaybookPlanner(library).plan(brief(width=width)).plans]


def test_without_experience_the_arithmetic_decides(library: Library, recipes: list[Recipe]) -> None:
    (plan,) = PlaybookPlanner(library).plan(brief(width=1)).plans
    assert plan.steps == recipes[0].steps
    assert "Experience" not in plan.arithmetic
    assert "such ops" not in plan.arithmetic


def test_what_only_compiled_is_no_failure(library: Library, recipes: list[Recipe]) -> None:
    library.memory.keep([tried(recipes[0].steps, verdict="compiled")])
    assert not look_back(library, builders.graph(), builders.device()).was_rejected(
        recipes[0].steps
    )
    assert first_steps(library) == [recipes[0].steps]


def test_what_won_on_this_very_op_is_planned_first(
    library: Library, recipes: list[Recipe], found_variants: list[Recipe]
) -> None:
    winner = found_variants[-1].steps
    assert winner not in [recipe.steps for recipe in recipes]
    library.memory.keep([won(winner)])
    (plan,) = PlaybookPlanner(library).plan(brief(width=1)).plans
    assert plan.steps == winner
    assert f"the same steps gave 1.50x on {OPS} on this device in run r1" in plan.arithmetic
    assert "won 1 of 1 run" in plan.arithmetic


def test_a_lesson_alone_is_enough(library: Library, recipes: list[Recipe]) -> None:
    last = recipes[-1].steps
    lesson = won(last).lesson
    assert lesson is not None
    library.remember(lesson)
    assert first_steps(library) == [last]


def test_what_won_on_an_op_like_it_is_planned_first(
    library: Library, found_variants: list[Recipe]
) -> None:
    winner = found_variants[0].steps
    library.memory.keep([won(winner, fingerprint="another size")])
    assert first_steps(library) == [winner]


def test_what_won_on_this_op_goes_before_what_won_on_its_like(
    library: Library, recipes: list[Recipe], found_variants: list[Recipe]
) -> None:
    library.memory.keep([won(found_variants[0].steps, 5.0, fingerprint="another size")])
    library.memory.keep([won(recipes[-1].steps, 1.2, run_id="r2")])
    assert first_steps(library) == [recipes[-1].steps]


def test_among_ops_as_alike_the_recipe_that_won_most_often_leads(
    library: Library, recipes: list[Recipe]
) -> None:
    once, often = recipes[0].steps, recipes[-1].steps
    assert [step.pattern for step in once] != [step.pattern for step in often]
    library.memory.keep([won(once, 5.0, fingerprint="a small one")])
    for number in range(3):
        library.memory.keep([won(often, 1.4, fingerprint="a size", run_id=f"often-{number}")])
    assert first_steps(library) == [often]


@pytest.mark.parametrize(
    "changes",
    [{"signature": "linear sum", "fingerprint": "x"}, {"device": "another-cpu"},
     {"confirmed": False, "won": False}],
    ids=["another op", "another device", "not confirmed"],
)  # fmt: skip
def test_only_what_was_confirmed_on_such_ops_here_moves_a_plan(
    library: Library,
    recipes: list[Recipe],
    found_variants: list[Recipe],
    changes: dict[str, object],
) -> None:
    library.memory.keep([won(found_variants[-1].steps, 9.0, **changes)])
    assert first_steps(library) == [recipes[0].steps]


def test_steps_that_were_wrong_on_this_op_come_last_and_are_not_lost(
    library: Library, recipes: list[Recipe]
) -> None:
    wrong = recipes[0].steps
    # Without the rejection they would lead, as they won on an op like it.
    library.memory.keep([won(wrong, 5.0, fingerprint="a size", run_id="r0")])
    assert first_steps(library) == [wrong]
    library.memory.keep([tried(wrong, verdict="wrong_output")])
    planned = first_steps(library, width=16)
    assert len(planned) > 1
    assert planned[-1] == wrong
    plan = PlaybookPlanner(library).plan(brief(width=16)).plans[-1]
    assert "failed once in 2 trials" in plan.arithmetic
    assert "wrong_output" in plan.arithmetic


def test_steps_that_were_right_since_are_trusted_again(
    library: Library, recipes: list[Recipe]
) -> None:
    library.memory.keep([tried(recipes[0].steps, verdict="crashed")])
    later = tried(recipes[0].steps, run_id="r2", when="2026-02-01T00:00:00+00:00")
    library.memory.keep([later])
    assert not look_back(library, builders.graph(), builders.device()).was_rejected(
        recipes[0].steps
    )


def test_failures_on_ops_like_it_make_a_recipe_wait(
    library: Library, recipes: list[Recipe]
) -> None:
    best, second = recipes[0], recipes[1]
    assert [step.pattern for step in best.steps] != [step.pattern for step in second.steps]
    many = [
        tried(best.steps, trial=number, fingerprint="another size", verdict="crashed")
        for number in range(1, 500)
    ]
    library.memory.keep(many)
    planned = first_steps(library, width=16)
    assert planned[0] != best.steps
    assert best.steps in planned


def test_where_nothing_was_faster_on_this_op_what_won_on_its_like_does_not_lead(
    library: Library, recipes: list[Recipe], found_variants: list[Recipe]
) -> None:
    library.memory.keep([won(found_variants[-1].steps, fingerprint="another size")])
    library.memory.keep(
        [tried(recipes[0].steps, run_id="r2", speedup=0.7, low=0.69, high=0.71),
         tried((), run_id="r2", trial=2, speedup=1.0, low=0.99, high=1.01, confirmed=True)]
    )  # fmt: skip
    (plan,) = PlaybookPlanner(library).plan(brief(width=1)).plans
    assert plan.steps not in (recipes[0].steps, found_variants[-1].steps)
    assert "Nothing was faster on this op in run r2" in plan.arithmetic


def test_other_devices_of_the_kind_are_cited_and_decide_nothing(
    library: Library, recipes: list[Recipe]
) -> None:
    library.memory.keep([won(recipes[0].steps, device="another-cpu")])
    (plan,) = PlaybookPlanner(library).plan(brief(width=1)).plans
    assert plan.steps == recipes[0].steps
    assert "On such ops on other devices of this kind it won 1 of 1 run" in plan.arithmetic


def test_the_repair_that_worked_is_cited(library: Library, recipes: list[Recipe]) -> None:
    library.memory.keep([won(recipes[0].steps, mended="wrong_output", repair="sums in double")])
    (plan,) = PlaybookPlanner(library).plan(brief(width=1)).plans
    assert "mended once by: sums in double" in plan.arithmetic


def test_after_the_winner_the_search_goes_on_from_it(
    library: Library, found_variants: list[Recipe]
) -> None:
    library.memory.keep([won(found_variants[0].steps)])
    planner = PlaybookPlanner(library)
    (plan,) = planner.plan(brief(width=1)).plans
    after = planner.plan(brief((plan,), (measured(1, plan, 3.0),), width=4)).plans
    assert after
    assert all(other.steps != plan.steps for other in after)


def test_a_transplanted_tunable_is_one_that_this_op_offers(recipes: list[Recipe]) -> None:
    loop = next(s for s in recipes[0].steps if s.pattern == "row_loop")
    strange = loop.model_copy(update={"parameters": {**loop.parameters, "only": "a_b_c"}})
    situation = situation_of(brief())
    moved = transplant(builders.graph(), builders.REFERENCE, situation, (strange,))
    assert moved is not None
    assert "a_b_c" not in moved.steps[0].parameters.values()


@pytest.mark.parametrize("name", ["matmul", "a pattern of long ago"])
def test_a_pattern_that_does_not_fit_is_left_out(recipes: list[Recipe], name: str) -> None:
    situation = situation_of(brief())
    strange = Step(pattern=name)
    for steps, left in (((strange,), None), ((*recipes[0].steps, strange), recipes[0].steps)):
        moved = transplant(builders.graph(), builders.REFERENCE, situation, steps)
        assert (moved and moved.steps) == left


@pytest.mark.parametrize(
    ("language", "kept"), [("cpp", ["matmul"]), ("triton", ["matmul"]), ("cuda", ["row_loop"])]
)
def test_a_pattern_is_planned_where_its_kernels_can_be_written(
    language: Backend, kept: list[str]
) -> None:
    given = "torch.randn(256, 256), torch.randn(256, 256)"
    source = function("a, b", "torch.relu(a @ b)", given)
    situation = SITUATION.model_copy(update={"language": language})
    steps = Step(pattern="matmul"), Step(pattern="row_loop")
    moved = transplant(build(source, ()).graph, source, situation, steps)
    assert moved is not None
    assert [step.pattern for step in moved.steps] == kept


def test_a_tunable_that_is_no_longer_offered_leads_back_to_one_that_is(
    library: Library, recipes: list[Recipe]
) -> None:
    loop = recipes[-1].steps[0]
    old = loop.model_copy(update={"parameters": {**loop.parameters, "exp": "by table"}})
    library.memory.keep([won((old, *recipes[-1].steps[1:]), fingerprint="another size")])
    assert first_steps(library) == [recipes[-1].steps]
