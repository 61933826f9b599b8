"""`--approve`: before a plan is spent, the run waits for a person's word.

The graph interrupts itself with a `Request`, and goes on when it is resumed with an `Answer`, both
as JSON: on the terminal by `graph.run`, elsewhere by whoever drives LangGraph's HTTP API
(`{"command": {"resume": {"do": "accept"}}}`). An answer that is no `Answer` is asked for again,
with one line that says what is wrong with it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agents.brief import Plan
from graph.record import Unspent
from knowledge.pattern import Parameter

LONGEST = 4_000
EXAMPLES = (
    '{"do": "accept"}',
    '{"do": "refuse", "reason": "..."}',
    '{"do": "hint", "text": "..."}',
    '{"do": "edit", "note": "...", "parameters": {"<step>": {"<tunable>": 1}}}',
)
# What a person types who sees only a box for text.
WORDS = ("accept", "refuse")


class Request(BaseModel):
    """What the run asks: may this plan be spent?"""

    kind: Literal["approve_plan"] = "approve_plan"
    plan: Plan
    trials_left: int = Field(description="before it")
    problem: str = Field("", description="what was wrong with the last answer; empty at first")
    answers: tuple[str, ...] = Field(EXAMPLES, description="what it can be resumed with")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Accept(_Answer):
    """Spend the plan as it is."""

    do: Literal["accept"] = "accept"


class Edit(_Answer):
    """Spend the plan, changed: what is not given stays."""

    do: Literal["edit"]
    title: str | None = Field(None, min_length=1, max_length=200)
    note: str = Field(
        "", max_length=LONGEST, description="for the coder, who is told it with the plan"
    )
    parameters: dict[str, dict[str, Parameter]] = Field(
        {}, description="tunables by the pattern of a step, e.g. {row_loop: {accumulate: double}}"
    )


class Refuse(_Answer):
    """Don't spend it; the planner knows that it was proposed, and proposes something else."""

    do: Literal["refuse"]
    reason: str = Field("", max_length=LONGEST)


class Hint(_Answer):
    """Don't spend it; the planner is asked anew, and told this."""

    do: Literal["hint"]
    text: str = Field(min_length=1, max_length=LONGEST)


Answer = Annotated[Accept | Edit | Refuse | Hint, Field(discriminator="do")]
ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
REFUSED = "it was refused by hand"


class Decided(BaseModel):
    """What became of a round of plans."""

    plans: tuple[Plan, ...] = ()
    edited: tuple[Plan, ...] = ()
    unspent: tuple[Unspent, ...] = ()
    hints: tuple[str, ...] = ()


def decide(plans: tuple[Plan, ...], trials_left: int) -> Decided:
    """Ask about each plan in turn. Runs again from its start whenever an answer arrives."""
    kept: list[Plan] = []
    edited: list[Plan] = []
    unspent: list[Unspent] = []
    hints: list[str] = []
    for plan in plans:
        answer = _ask(plan, trials_left - len(kept))
        match answer:
            case Accept():
                kept.append(plan)
            case Edit():
                changed = edited_plan(plan, answer)
                kept.append(changed)
                edited.append(changed)
                unspent.append(Unspent(plan=plan.id, reason=f"changed by hand into {changed.id}"))
            case Refuse(reason=reason):
                why = f"{REFUSED}: {reason}" if reason else REFUSED
                unspent.append(Unspent(plan=plan.id, reason=why))
            case Hint(text=text):
                unspent.append(Unspent(plan=plan.id, reason=f"sent back with a hint: {text}"))
                hints.append(text)
    return Decided(
        plans=tuple(kept), edited=tuple(edited), unspent=tuple(unspent), hints=tuple(hints)
    )


def _ask(plan: Plan, trials_left: int) -> Answer:
    problem = ""
    while True:
        request = Request(plan=plan, trials_left=trials_left, problem=problem)
        given = interrupt(request.model_dump(mode="json"))
        try:
            return answer_to(plan, given)
        except ValueError as error:
            problem = str(error)


def answer_to(plan: Plan, given: Any) -> Answer:
    """What a person said of a plan.

    Raises:
        ValueError: it is no answer, or does not fit the plan; the message is one clear line.
    """
    if given in WORDS:
        given = {"do": given}
    try:
        answer = ANSWER.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = " ".join(first["msg"].split())
        raise ValueError(
            f"the answer is not one{f' ({place}: {said})' if place else f' ({said})'}; "
            f"for example: {', '.join(EXAMPLES)}"
        ) from None
    if isinstance(answer, Edit):
        known = {step.pattern: step.parameters for step in plan.steps}
        for pattern, parameters in answer.parameters.items():
            if pattern not in known:
                steps = ", ".join(known) or "none"
                raise ValueError(f'the plan has no step "{pattern}"; its steps: {steps}')
            _check_tunables(pattern, known[pattern], parameters)
    return answer


def _check_tunables(
    pattern: str, known: Mapping[str, Parameter], given: Mapping[str, Parameter]
) -> None:
    for name, value in given.items():
        if name not in known:
            tunables = ", ".join(known) or "none"
            raise ValueError(f'step {pattern} has no tunable "{name}"; its tunables: {tunables}')
        if type(value) is not type(known[name]):
            wanted = type(known[name]).__name__
            raise ValueError(f"{pattern}.{name} is a value of type {wanted}, not {value!r}")


def edited_plan(plan: Plan, edit: Edit) -> Plan:
    """The plan as a person changed it, under an id of its own."""
    steps = tuple(
        step.model_copy(
            update={"parameters": {**step.parameters, **edit.parameters.get(step.pattern, {})}}
        )
        for step in plan.steps
    )
    return plan.model_copy(
        update={
            "id": f"{plan.id}e",
            "title": edit.title or plan.title,
            "steps": steps,
            "note": edit.note or plan.note,
        }
    )
