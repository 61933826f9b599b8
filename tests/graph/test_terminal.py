"""On the terminal, a plan is shown, and what a person types becomes an answer."""

import io
from typing import Any

import pytest
from rich.console import Console

from agents.brief import Plan
from graph.approval import Request
from graph.drive import Terminal
from graph.screen import Screen
from graph.terminal import DEAF, ask
from graph.workbench import Stopping
from knowledge.pattern import Step
from tests.graph import builders

PLAN = Plan(
    id="p1",
    title="one loop",
    steps=(Step(pattern="row_loop", parameters={"sweeps": 2, "streamed": False}),),
    expected_speedup=2.0,
    arithmetic="One sweep instead of two [bold].",
)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks about the plan with these lines typed in, and returns the answer and what was shown."""

    def answer(*lines: str, plan: Plan = PLAN) -> tuple[dict[str, Any], str]:
        left = iter(lines)
        monkeypatch.setattr("builtins.input", lambda *prompt: next(left))
        console = Console(file=io.StringIO(), force_terminal=False, width=100)
        given = ask(Request(plan=plan, trials_left=3), console)
        assert isinstance(console.file, io.StringIO)
        return given, console.file.getvalue()

    return answer


def test_a_plan_is_shown_with_what_it_promises_and_accepted_by_an_empty_line(typed: Any) -> None:
    answer, shown = typed("")
    assert answer == {"do": "accept"}
    for told in (
        "one loop",
        "2.00×",
        "3 trials left",
        "row_loop (sweeps 2, streamed off)",
        "[bold]",
    ):
        assert told in shown


def test_what_is_no_choice_is_asked_again(typed: Any) -> None:
    answer, _ = typed("perhaps", "r", "tried by hand")
    assert answer == {"do": "refuse", "reason": "tried by hand"}


def test_only_what_is_changed_of_the_tunables_is_sent(typed: Any) -> None:
    answer, _ = typed("e", "", "mind the tail", "3", "")
    assert answer == {
        "do": "edit",
        "title": "one loop",
        "note": "mind the tail",
        "parameters": {"row_loop": {"sweeps": 3}},
    }


def test_a_tunable_of_the_wrong_kind_is_told_and_asked_again(typed: Any) -> None:
    answer, shown = typed("e", "", "", "many", "", "a")
    assert answer == {"do": "accept"}
    assert "row_loop.sweeps is a value of type int, not 'many'" in shown


def test_a_hint_for_the_playbook_is_said_to_fall_on_deaf_ears(typed: Any) -> None:
    answer, shown = typed("h", "rows are short")
    assert answer == {"do": "hint", "text": "rows are short"}
    assert DEAF in " ".join(shown.split())
    _, shown = typed("h", "rows are short", plan=PLAN.model_copy(update={"maker": "test:model"}))
    assert DEAF not in " ".join(shown.split())


def test_the_end_of_the_input_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*prompt: object) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    monkeypatch.setattr("graph.drive.check_terminal", lambda: None)
    asked = Request(plan=PLAN, trials_left=3).model_dump(mode="json")
    with (
        Screen(builders.a_win().task, quiet=True) as screen,
        pytest.raises(Stopping, match="the input ended"),
    ):
        Terminal(screen).answer(asked)
