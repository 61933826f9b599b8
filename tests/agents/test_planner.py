"""The playbook's planner: what it tries first, what it tries next, and when it stops."""

import pytest

from agents.brief import Brief, Plan
from agents.playbook.planner import PATIENCE, WORTH_MEASURING, PlaybookPlanner
from agents.playbook.recipes import (
    cook,
    enumerate_recipes,
    pattern_order,
    situation_of,
    variants,
)
from knowledge.loops.cost import Machine, program_ms
from knowledge.opgraph import line_of
from knowledge.program import Program
from knowledge.store import Library
from tests.graph import builders
from tests.patterns.workshop import SITUATION, build, function, reference
from tools.task import InputSpec, Task
from tools.verdict import Comparison, Correct, Timing, Trial, WrongOutput


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> PlaybookPlanner:
    return PlaybookPlanner(Library.open(tmp_path_factory.mktemp("library")))


def brief(plans: tuple[Plan, ...] = (), trials: tuple[Trial, ...] = (), width: int = 2) -> Brief:
    inputs = (InputSpec(shape=(builders.ROWS, builders.COLUMNS)),)
    task = Task(name="softmax", op="torch.softmax", inputs=inputs, width=width)
    return Brief(
        task=task, device=builders.device(), facts=builders.facts(),
        baselines=builders.baselines(), roofline=builders.roofline(), plans=plans, trials=trials,
        trials_left=10, seconds_left=100.0,
    )  # fmt: skip


def measured(number: int, plan: Plan, speedup: float) -> Trial:
    """A trial of a plan that was right and so much faster than both baselines."""
    comparisons = tuple(
        Comparison(
            baseline=name, baseline_ms=10.0, candidate_ms=10.0 / speedup, speedup=speedup,
            low=speedup * 0.99, high=speedup * 1.01, blocks=20,
        )
        for name in ("eager", "compile")
    )  # fmt: skip
    timing = Timing(
        candidate_ms=10.0 / speedup,
        comparisons=comparisons,
        noise=0.01,
        page_faults=0.0,
        checked_outputs=4,
    )
    return builders.trial(number, Correct(timing=timing), plan=plan.id)


def test_algebra_comes_first_and_what_places_outputs_last() -> None:
    order = pattern_order()
    assert order[0] == "algebra"
    assert order[-2:] == ("row_loop", "output_pages")


def test_the_first_plans_are_the_best_by_arithmetic(planner: PlaybookPlanner) -> None:
    planning = planner.plan(brief())
    assert 1 <= len(planning.plans) <= 2
    first = planning.plans[0]
    assert "row_loop" in [step.pattern for step in first.steps]
    assert f"{first.expected_speedup:.2f}x" in first.arithmetic
    assert {refusal.pattern for refusal in planning.refused}.isdisjoint(
        step.pattern for step in first.steps
    )


def test_once_something_is_measured_its_tunables_are_tried(planner: PlaybookPlanner) -> None:
    (plan, *_) = planner.plan(brief()).plans
    after = brief((plan,), (measured(1, plan, plan.expected_speedup),), width=8)
    tried = planner.plan(after).plans
    same = [p for p in tried if [s.pattern for s in p.steps] == [s.pattern for s in plan.steps]]
    assert same
    for variant in same:
        pairs = zip(variant.steps, plan.steps, strict=True)
        changed = [(a, b) for a, b in pairs if a != b]
        assert len(changed) == 1


def test_nothing_is_planned_twice(planner: PlaybookPlanner) -> None:
    seen: tuple[Plan, ...] = ()
    trials: tuple[Trial, ...] = ()
    for _ in range(12):
        plans = planner.plan(brief(seen, trials)).plans
        if not plans:
            break
        assert not [plan for plan in plans if plan.steps in [other.steps for other in seen]]
        for plan in plans:
            seen = (*seen, plan)
            trials = (*trials, measured(len(seen), plan, 2.0 + 0.1 * len(seen)))
    else:
        pytest.fail("it never stops")


def test_it_stops_after_several_trials_without_a_gain(planner: PlaybookPlanner) -> None:
    (plan, *_) = planner.plan(brief()).plans
    others = tuple(
        plan.model_copy(update={"id": f"q{n}", "steps": (*plan.steps, *plan.steps[:n])})
        for n in range(PATIENCE)
    )
    slower = tuple(measured(2 + n, other, 1.5) for n, other in enumerate(others))
    after = brief((plan, *others), (measured(1, plan, 3.0), *slower))
    assert planner.plan(after).plans == ()


def test_when_all_else_was_wrong_the_op_itself_is_the_plan(planner: PlaybookPlanner) -> None:
    seen: tuple[Plan, ...] = ()
    trials: tuple[Trial, ...] = ()
    while plans := planner.plan(brief(seen, trials)).plans:
        seen = (*seen, *plans)
        wrong = WrongOutput(detail="everything")
        trials = tuple(builders.trial(n, wrong, plan=p.id) for n, p in enumerate(seen, 1))
        assert len(seen) < 60
    assert seen[-1].steps == ()
    # Not after some in a row that gained nothing: there was nothing to gain on.
    situation = situation_of(brief())
    recipes, _ = enumerate_recipes(builders.graph(), builders.REFERENCE, situation)
    worth = [one for one in recipes if one.speedup >= WORTH_MEASURING]
    assert len(seen) - 1 >= len(worth)


def test_a_measured_call_counts_with_its_time() -> None:
    facts = builders.facts().model_copy(update={"call_ms": {"mul": 100.0, "softmax": 11.0}})
    asked = brief().model_copy(update={"facts": facts})
    situation = situation_of(asked)
    graph = builders.graph()
    eager = next(row.median_ms for row in asked.baselines.rows if row.name == "eager")
    assert eager is not None
    assert situation.call_ms[line_of(graph.by_name["mul"])] == pytest.approx(eager * 100.0 / 111.0)
    program = Program.of(graph, builders.REFERENCE)
    assert program_ms(program, Machine.of(situation)) == pytest.approx(eager)


def test_a_product_that_was_not_timed_takes_what_torchs_own_products_take() -> None:
    given = brief()
    slow = given.roofline.model_copy(update={"product_gflops": given.roofline.peak_gflops / 2})
    situation = situation_of(given.model_copy(update={"roofline": slow}))
    assert situation.product_share == 0.5
    assert situation_of(given).product_share == 1.0
    inputs = "torch.randn(512, 512), torch.randn(512, 512)"
    program = build(function("a, b", "torch.relu(a @ b)", inputs), ()).program
    usual, half = (
        program_ms(program, Machine.of(one.model_copy(update={"call_ms": {}})))
        for one in (situation_of(given), situation)
    )
    product = 2 * 512**3 / (given.roofline.peak_gflops * 1e6)
    assert half - usual == pytest.approx(product)


def test_variants_change_one_tunable_of_the_steps_that_were_taken() -> None:
    given = brief()
    graph, situation = builders.graph(), situation_of(given)
    recipes, _ = enumerate_recipes(graph, builders.REFERENCE, situation)
    parent = recipes[0].steps
    found = variants(graph, builders.REFERENCE, situation, parent)
    assert found
    again = variants(graph, builders.REFERENCE, situation, found[0].steps)
    assert all(one.steps != found[0].steps for one in again)


def test_a_change_that_leaves_the_next_step_nothing_goes_without_it() -> None:
    source = reference(
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)\n"
        "        self.norm = nn.BatchNorm2d(32)\n"
        "        self.second = nn.Conv2d(32, 32, 3, padding=1, bias=False)\n"
        "        self.short = nn.Conv2d(16, 32, 1, stride=2, bias=False)\n"
        "        self.eval()\n"
        "    def forward(self, x):\n"
        "        inner = torch.relu(self.norm(self.first(x)))\n"
        "        return torch.relu(self.second(inner) + self.short(x))",
        "torch.randn(2, 16, 24, 24)",
    )
    graph = build(source, ()).graph
    recipes, _ = enumerate_recipes(graph, source, SITUATION)
    shorter = 0
    for recipe in recipes:
        for variant in variants(graph, source, SITUATION, recipe.steps):
            assert "class ModelNew" in cook(graph, source, variant.steps)
            shorter += len(variant.steps) < len(recipe.steps)
    assert shorter
