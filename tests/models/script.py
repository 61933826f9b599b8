"""What a scripted model is asked and what it answers, whichever API carries it.

A *script* plays a model: it reads a `Question` and gives an `Answer`. It decides from what the
question says, as a model would, so that it goes on working when a prompt is worded anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants called; `id` is what the result must quote."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn of the conversation; `answers` is the id of the call that a tool's turn is for."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""


@dataclass(frozen=True)
class Tool:
    """A tool on offer; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One request.

    `must_call` is the name of the tool that has to be called, "*" for any of them, empty for none.
    `shape` is the JSON schema that the text of the answer has to follow, None for free text.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    must_call: str = ""
    shape: Mapping[str, Any] | None = None
    streamed: bool = False

    @property
    def text(self) -> str:
        """All that was said so far, turn after turn."""
        return "\n\n".join(message.text for message in self.messages)

    @property
    def tokens(self) -> int:
        """Its size, by the rule of thumb of four characters a token."""
        return tokens_of(self.text)

    def tool(self, name: str) -> Tool | None:
        """The tool of that name, if it is on offer."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def complaint(self) -> str:
        """What the providers would refuse the request for, as a sentence; empty if nothing.

        Every call of a tool must be answered right after the turn that made it, before anything
        else is said, and no other answers may stand there.
        """
        open_calls: set[str] = set()
        for message in self.messages:
            if message.role == "tool":
                if message.answers not in open_calls:
                    return f"a tool's turn answers {message.answers!r}, which was not called"
                open_calls.discard(message.answers)
                continue
            if open_calls:
                return f"tool calls without an answer: {', '.join(sorted(open_calls))}"
            open_calls = {call.id for call in message.calls}
        if open_calls:
            return f"tool calls without an answer: {', '.join(sorted(open_calls))}"
        if not any(message.role == "user" for message in self.messages):
            return "there is no user's turn"
        return ""


@dataclass(frozen=True)
class Says:
    """Text, tool calls or both, after `delay_s` seconds.

    `cut` ends the text where a limit on the length of answers would.
    """

    text: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    delay_s: float = 0.0
    cut: bool = False

    @property
    def tokens(self) -> int:
        """Its size, by the same rule as the question's."""
        return tokens_of(self.text) + sum(tokens_of(str(call)) for call in self.calls)


@dataclass(frozen=True)
class Refuses:
    """An error with its HTTP status; `retry_after_s` says when to come back."""

    status: int
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True)
class HangsUp:
    """The connection is closed without an answer."""


Answer = Says | Refuses | HangsUp


class Script(Protocol):
    """Plays a model."""

    def answer(self, question: Question) -> Answer:
        """What the model says to this question."""


def tokens_of(text: str) -> int:
    """About how many tokens a text is; an empty one is still one."""
    return max(1, len(text) // CHARACTERS_A_TOKEN)
