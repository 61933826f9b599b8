"""Check a candidate's logic without a GPU: Triton's interpreter on small inputs, against float64.

A fraction of a millisecond a program is slow, so inputs of more than 262,144 elements keep 2 of
their batch. What passes here may still be slow, imprecise or refused on a device.
"""

from collections.abc import Sequence

from knowledge.opgraph import Frozen
from tools.backends.jailed import ask_each

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


def interpret(
    candidates: Sequence[Candidate], seconds: float = SECONDS
) -> list[Interpreted | NotInterpreted]:
    """Run candidates under the interpreter, all in one process, which costs seconds to start."""
    job = {"candidates": [one.model_dump() for one in candidates]}
    environment = {"TRITON_INTERPRET": "1"}
    answers = ask_each(COMMAND, job, _Answer, len(candidates), seconds, environment)
    if isinstance(answers, str):
        error = NotInterpreted(line=0, message=f"The interpreter failed: {answers}.")
        return [error] * len(candidates)
    return [answer.failure or Interpreted(complaints=answer.complaints) for answer in answers]
