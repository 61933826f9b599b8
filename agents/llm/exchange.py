"""What passes between a role and its model, and who keeps the books.

The crew talks through a `Journal`. The graph's journal writes every exchange down before its answer
is used: spending is then counted over restarts, a question that a killed run had paid for is not
paid for again, and a run can be played again without a model.
"""

from typing import Any, Literal, Protocol

from pydantic import Field

from knowledge.opgraph import Frozen

Role = Literal["planner", "coder", "debugger", "profiler"]


class Usage(Frozen):
    """What one call cost. `usd` is None where the model's price is unknown, never a guess."""

    input_tokens: int
    output_tokens: int
    usd: float | None = None


class Exchange(Frozen):
    """One question to a model and its answer.

    `messages` and `reply` are in LangChain's own dictionary form (`messages_to_dict`).
    """

    key: str = Field(
        description="SHA-256 of model, settings, tools and messages; what a tool answered counts "
        "by its call alone"
    )
    role: Role
    plan: str = Field("", description="id of the plan that is being carried out; empty in planning")
    model: str
    messages: tuple[dict[str, Any], ...]
    reply: dict[str, Any]
    usage: Usage
    seconds: float
    when: str


class Spent(Exception):
    """A budget is used up, or the next call could break it. The message says which, as a clause."""


class Unreachable(Exception):
    """The model could not be reached after every retry: the run is parked, and can be resumed."""


class Journal(Protocol):
    """Remembers exchanges and guards the budget of one run."""

    def find(self, key: str) -> Exchange | None:
        """The answer to this very question, if it was given before and not yet used again.

        A question that is asked twice in one run gets two answers; after a restart they come back
        in the order in which they were given.
        """

    def admit(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """Let a call through that may take this many tokens at most.

        Raises:
            Spent: it could break the budget of tokens or of money.
        """

    def release(self, *, billed: bool) -> None:
        """The admitted call got no answer.

        Args:
            billed: it may be charged for all the same, and counts for what it was admitted for.
        """

    def keep(self, exchange: Exchange) -> None:
        """Write an exchange down; it is on the disk when this returns."""
