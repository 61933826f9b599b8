"""With `approve`, no plan is spent without a person's word."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command
from typer.testing import CliRunner

from agents.brief import Plan
from agents.crew import Crew
from graph.approval import Request, answer_to, edited_plan
from graph.build import build_graph
from graph.drive import checkpointer
from graph.folder import RunFolder
from graph.run import app
from graph.state import RunInput
from graph.workbench import Workbenches
from knowledge.pattern import Step
from tests.graph.conftest import LIMITS, RIGHT, ScriptedCrew
from tools.task import InputSpec, Task

PLAN = Plan(
    id="p1",
    title="one loop",
    steps=(Step(pattern="row_loop", parameters={"sweeps": 2, "streamed": False}),),
    expected_speedup=2.0,
    arithmetic="",
)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("yes", "the answer is not one"),
        ({"do": "dance"}, "the answer is not one"),
        ({"do": "accept", "plan": "p2"}, "accept.plan: Extra inputs"),
        ({"do": "hint"}, "hint.text: Field required"),
        ({"do": "edit", "parameters": {"loop": {}}}, 'no step "loop"; its steps: row_loop'),
        ({"do": "edit", "parameters": {"row_loop": {"sweep": 1}}}, "its tunables: sweeps"),
        ({"do": "edit", "parameters": {"row_loop": {"sweeps": True}}}, "of type int"),
    ],
)
def test_what_is_no_answer_is_one_clear_line(answer: Any, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        answer_to(PLAN, answer)
    assert "\n" not in str(caught.value)


def test_an_edited_plan_has_an_id_of_its_own_and_keeps_what_was_not_changed() -> None:
    edit = answer_to(
        PLAN, {"do": "edit", "note": "no tail", "parameters": {"row_loop": {"sweeps": 3}}}
    )
    changed = edited_plan(PLAN, edit)  # type: ignore[arg-type]
    assert (changed.id, changed.title, changed.note) == ("p1e", "one loop", "no tail")
    assert changed.steps[0].parameters == {"sweeps": 3, "streamed": False}


class Editable(ScriptedCrew):
    """A script that remembers the briefs of its planner, and finds edited plans as well."""

    def __init__(self, *attempts: tuple[str, ...]) -> None:
        super().__init__(*attempts)
        self.hints: list[tuple[str, ...]] = []
        self.written: list[Plan] = []

    def plan(self, brief: Any) -> Any:
        self.hints.append(brief.hints)
        return super().plan(brief)

    def write(self, brief: Any, plan: Plan) -> Any:
        self.written.append(plan)
        return super().write(brief, plan.model_copy(update={"id": plan.id.rstrip("e")}))


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory: pytest.TempPathFactory) -> tuple[Editable, list[Any], Any]:
    """One run in which every kind of answer is given, and a wrong one."""
    answers: Iterator[Any] = iter(
        [
            {"do": "refuse", "reason": "tried by hand"},
            {"do": "hint", "text": "the rows are short"},
            "whatever",
            {"do": "edit", "title": "by hand"},
        ]
    )
    folder = tmp_path_factory.mktemp("dialogue")
    crew = Editable((RIGHT,), (RIGHT + "#",), (RIGHT + "##",))
    task = Task(name="relu", op="torch.relu", inputs=(InputSpec(shape=(64, 64)),), width=2)
    benches = Workbenches(folder / "library", Crew(crew, crew, crew, crew), LIMITS)
    config: Any = {"configurable": {"thread_id": "relu"}}
    asked = []
    try:
        run = RunFolder.create(folder, task)
        with checkpointer(run) as saver:
            graph = build_graph(benches, checkpointer=saver)
            entry = RunInput(task=task, run_dir=str(run.path), approve=True)
            state: Any = graph.invoke(entry, config)
            while waiting := state.get("__interrupt__"):
                asked.append(Request.model_validate(waiting[0].value))
                state = graph.invoke(Command(resume=next(answers, {"do": "refuse"})), config)
    finally:
        benches.close_all()
    return crew, asked, state


def test_each_plan_is_shown_before_it_is_spent(dialogue: tuple[Editable, list[Any], Any]) -> None:
    crew, asked, _ = dialogue
    assert [request.plan.id for request in asked[:4]] == ["p1", "p2", "p3", "p3"]
    assert [plan.id for plan in crew.written] == ["p3e"]


def test_a_wrong_answer_is_asked_for_again_with_the_reason(
    dialogue: tuple[Editable, list[Any], Any],
) -> None:
    _, asked, _ = dialogue
    assert asked[2].problem == ""
    assert "the answer is not one" in asked[3].problem


def test_a_hint_reaches_the_planner(dialogue: tuple[Editable, list[Any], Any]) -> None:
    crew, _, state = dialogue
    assert crew.hints[:2] == [(), ("the rows are short",)]
    assert state["hints"] == ("the rows are short",)


def test_what_was_not_spent_is_told_with_its_reason(
    dialogue: tuple[Editable, list[Any], Any],
) -> None:
    _, _, state = dialogue
    reasons = {one.plan: one.reason for one in state["unspent"]}
    assert reasons == {
        "p1": "it was refused by hand: tried by hand",
        "p2": "sent back with a hint: the rows are short",
        "p3": "changed by hand into p3e",
    }
    assert state["trials"][1].title == "by hand"


def test_approving_without_a_terminal_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("op: torch.relu\ninputs: [{shape: [64, 64]}]\n")
    result = CliRunner().invoke(
        app,
        [str(tmp_path / "task.yaml"), "--approve", "--out", str(tmp_path / "runs")],
        input="a\n",
    )
    assert result.exit_code == 2
    assert "needs a terminal" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
