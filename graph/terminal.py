"""The conversation of `--approve` on a terminal: shows a plan, and takes a person's word on it."""

import sys
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.prompt import Prompt
from rich.text import Text

from agents.brief import Plan
from graph.approval import Request, answer_to
from graph.report.views import step_text
from graph.report.words import clip, times
from knowledge.errors import BadInput
from tools.task import PLAYBOOK

CHOICES = {"a": "accept", "e": "edit", "r": "refuse", "h": "hint"}
LEGEND = "[a]ccept, [e]dit, [r]efuse, or send it back with a [h]int"
DEAF = "The playbook plans by rules: it goes on to its next plan, and can't read a hint."


def check_terminal() -> None:
    """Find out now whether a person can answer.

    Raises:
        BadInput: standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise BadInput(
            "--approve",
            "needs a terminal, and standard input is none.",
            "Leave it out, or answer through the HTTP API of langgraph dev.",
        )


def ask(request: Request, console: Console) -> dict[str, Any]:
    """Show a plan and return what the run is to be resumed with: an `Answer` as JSON."""
    plan = request.plan
    show(request, console)
    while True:
        choice = Prompt.ask(
            Text(LEGEND), console=console, choices=list(CHOICES), show_choices=False, default="a"
        )
        answer = _answer(CHOICES[choice], plan, console)
        try:
            answer_to(plan, answer)
        except ValueError as error:
            console.print(Text(str(error), style="red"))
        else:
            return answer


def show(request: Request, console: Console) -> None:
    """The plan, what it promises and why."""
    plan = request.plan
    steps = " → ".join(step_text(step) for step in plan.steps)
    lines = [
        f"expected {times(plan.expected_speedup)}, by {plan.maker}; "
        f"{request.trials_left} trials left",
        steps,
        clip(plan.arithmetic),
        *(f"Note: {label}" for label in plan.labels),
        *(f"Cites {page.title} ({page.source})" for page in plan.citations),
    ]
    if request.problem:
        console.print(Text(request.problem, style="red"))
    console.print(Text(f"Plan {plan.id}: {plan.title}", style="bold"))
    for line in filter(None, lines):
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _answer(do: str, plan: Plan, console: Console) -> dict[str, Any]:
    answer: dict[str, Any] = {"do": do}
    if do == "refuse":
        answer["reason"] = _line("Why (may be empty)", console)
    if do == "hint":
        if plan.maker == PLAYBOOK:
            console.print(Text(DEAF, style="yellow"))
        answer["text"] = _line("Hint for the planner", console)
    if do == "edit":
        if title := _line("Title", console, plan.title):
            answer["title"] = title
        answer["note"] = _line("Note for the coder", console, plan.note)
        answer["parameters"] = _tunables(plan, console)
    return answer


def _tunables(plan: Plan, console: Console) -> dict[str, dict[str, Any]]:
    """New values for the tunables of each step; an empty line keeps one."""
    changed: dict[str, dict[str, Any]] = {}
    for step in plan.steps:
        for name, value in step.parameters.items():
            text = _line(f"{step.pattern}.{name}", console, str(value))
            if text != str(value):
                changed.setdefault(step.pattern, {})[name] = _like(value, text)
    return changed


def _like(value: Any, text: str) -> Any:
    """A text as the kind of value that stands there now; what can't be read stays text."""
    if isinstance(value, bool):
        return {"true": True, "on": True, "false": False, "off": False}.get(text.lower(), text)
    try:
        return type(value)(text)
    except ValueError:
        return text


def _line(label: str, console: Console, default: str = "") -> str:
    return Prompt.ask(Text(label), console=console, default=default, show_default=bool(default))
