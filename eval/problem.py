"""What a suite holds: problems, each a task with its place in the suite."""

from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from knowledge.opgraph import Frozen
from tools.task import Task


class Labels(Frozen):
    """Where in its suite a problem belongs. Scores are also given for each of these parts."""

    family: str = Field("", description="what kind of op, by the suite's own names")
    kind: Literal["", "single", "chain", "network"] = Field(
        "", description="one op, a chain of a few, or a block or network; empty where not said"
    )
    level: int | None = Field(
        None, description="how hard, by the suite's own numbers; a folder `level2` says so"
    )
    holdout: bool = Field(
        False, description="not looked at by whoever writes patterns, so that its score is honest"
    )


class Problem(NamedTuple):
    """One problem of a suite. `number` is its place among all of them, from 1."""

    task: Task
    labels: Labels = Labels()
    number: int = 0


class NotAProblem(Frozen):
    """A file in a suite's folder that is none of its problems, and why not."""

    file: str
    reason: str

    @field_validator("file", "reason", mode="before")
    @classmethod
    def _as_text(cls, value: str) -> str:
        # A file's name may be bytes that are no text.
        return value.encode("utf-8", "backslashreplace").decode()
