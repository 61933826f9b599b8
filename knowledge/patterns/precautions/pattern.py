"""What a rejected kernel is made with on its next try; the debugger takes it, never the planner."""

from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.program import Precautions, Program

NAME = "precautions"


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """None: nothing gets faster by them."""
    return Refusal(pattern=NAME, reason="Nothing was rejected, so there is nothing to guard from.")


def apply(program: Program, step: Step) -> Program:
    """The program under the precautions that the step names.

    Raises:
        ValueError: there is no such precaution.
    """
    taken = {**program.precautions.model_dump(), **step.parameters}
    named = ", ".join(name.replace("_", " ") for name, value in step.parameters.items() if value)
    return program.changed(
        precautions=Precautions.model_validate(taken),
        steps=(*program.steps, f"as a precaution: {named or 'nothing'}"),
    )
