"""Where a run goes next: pure functions of the state."""

from typing import Literal

from langgraph.types import Send

from graph.nodes import brief_of
from graph.state import RunState


def after_plan(state: RunState) -> list[Send] | Literal["approve", "confirm"]:
    """To a person, if one has a say, else to the attempts; with no plan, the end."""
    if not state["next_plans"]:
        return "confirm"
    return "approve" if state.get("approve") else attempts(state)


def after_approve(state: RunState) -> list[Send] | Literal["plan"]:
    """To what was approved; where nothing was, the planner is asked anew."""
    return attempts(state) if state["next_plans"] else "plan"


def attempts(state: RunState) -> list[Send]:
    """One attempt per plan, the trials that are left shared among them."""
    plans, brief = state["next_plans"], brief_of(state)
    share = max(1, brief.trials_left // len(plans))
    return [
        Send(
            "attempt",
            {"run_dir": state["run_dir"], "brief": brief, "plan": plan, "allowance": share},
        )
        for plan in plans
    ]
