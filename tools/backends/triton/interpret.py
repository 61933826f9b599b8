"""Check a candidate's logic without a GPU: Triton's interpreter on small inputs, against float64.

A fraction of a millisecond a program is slow, so inputs of more than 262,144 elements keep 2 of
their batch. What passes here may still be slow, imprecise or refused on a device.
"""

from collections.abc import Sequence

from pydantic import ValidationError

from knowledge.opgraph import Frozen
from tools.backends.jailed import ask

SECONDS = 120.0
COMMAND = ("tools.backends.triton.child", "interpreting")


class Candidate(Frozen):
    """A candidate with the reference whose inputs it is run on.

    `inputs` is an expression for other inputs, over the names of the reference's module; its value
    is a list.
    """

    candidate: str
    reference: str
    inputs: str = ""


class Interpreted(Frozen):
    """A candidate ran: what is wrong with its outputs, one sentence each; none if it agrees."""

    complaints: tuple[str, ...]


class NotInterpreted(Frozen):
    """A candidate could not be run, and why; `line` is the candidate's, 0 where it is not known."""

    line: int
    message: str


class _Answer(Frozen):
    complaints: tuple[str, ...] = ()
    failure: NotInterpreted | None = None


class _Answers(Frozen):
    answers: tuple[_Answer, ...]


def interpret(
    candidates: Sequence[Candidate], seconds: float = SECONDS
) -> list[Interpreted | NotInterpreted]:
    """Run candidates under the interpreter, all in one process, which costs seconds to start."""
    job = {"candidates": [one.model_dump() for one in candidates]}
    found = ask(COMMAND, job, seconds, {"TRITON_INTERPRET": "1"})
    try:
        answers = _Answers.model_validate(found).answers if not isinstance(found, str) else ()
    except ValidationError:
        found, answers = "its answer has another form", ()
    if len(answers) != len(candidates):
        reason = found if isinstance(found, str) else "it did not answer for every candidate"
        return [NotInterpreted(line=0, message=f"The interpreter failed: {reason}.")] * len(
            candidates
        )
    return [answer.failure or Interpreted(complaints=answer.complaints) for answer in answers]
