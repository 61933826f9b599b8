"""Where a run goes next: pure functions of the state."""

from typing import Literal

from langgraph.types import Send

from graph.nodes import brief_of
from graph.state import RunState


def after_plan(state: RunState) -> list[Send] | Literal["conclude"]:
    """One attempt per plan, the trials that are left shared among them; with no plan, the end."""
    plans = state["next_plans"]
    if not plans:
        return "conclude"
    brief = brief_of(state)
    share = max(1, brief.trials_left // len(plans))
    return [
        Send(
            "attempt",
            {"run_dir": state["run_dir"], "brief": brief, "plan": plan, "allowance": share},
        )
        for plan in plans
    ]
