"""What the two wire formats have in common: how a request is read and an answer is spelled."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from tests.models.script import Question, Says, ToolCall

PIECE_CHARACTERS = 40
_numbers = itertools.count(1)


class BadRequest(Exception):
    """The request is not one that the API takes; the message says why."""


class Wire(Protocol):
    """One provider's way of writing requests and answers."""

    path: str

    def key(self, headers: Mapping[str, str]) -> str:
        """The API key in the headers, whose names are in lower case; empty if there is none."""

    def read(self, body: Mapping[str, Any]) -> Question:
        """The request.

        Raises:
            BadRequest: the API would refuse it.
        """

    def whole(self, question: Question, says: Says) -> Mapping[str, Any]:
        """The answer as one document."""

    def events(self, question: Question, says: Says, body: Mapping[str, Any]) -> Iterator[str]:
        """The answer as server-sent events, each ready to be sent."""

    def error(self, status: int, message: str) -> Mapping[str, Any]:
        """An error as one document."""


def text_of(content: str | list[Mapping[str, Any]] | None) -> str:
    """The text of a turn that is one string or a list of blocks; other blocks have none."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block.get("type") == "text")


def numbered(prefix: str) -> str:
    """An identity that no other answer of this process has."""
    return f"{prefix}{next(_numbers):06d}"


def called(says: Says, prefix: str) -> list[ToolCall]:
    """The calls of an answer, with their identities."""
    return [ToolCall(numbered(prefix), name, arguments) for name, arguments in says.calls]


def pieces(text: str) -> Iterator[str]:
    """A text as a stream brings it: bit by bit."""
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]
