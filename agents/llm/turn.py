"""A turn of a role: it asks, lets the model use its tools, and asks once more where it must."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel

from agents.llm.prompts import words
from agents.llm.replies import Malformed, answered
from agents.llm.talk import Offer, Talk
from agents.llm.tools import Toolbox

Read = TypeVar("Read")


@dataclass(frozen=True)
class Turn:
    """One role's turn on one matter.

    `plan` is the id of the plan that is being carried out; empty in planning.
    """

    talk: Talk
    toolbox: Toolbox
    plan: str = ""

    def take(
        self,
        messages: Sequence[BaseMessage],
        read: Callable[[list[BaseMessage]], Read],
        form: type[BaseModel] | None = None,
    ) -> Read:
        """What `read` makes of the conversation, whose last message is the model's answer.

        An answer that can't be read is asked for once more, with the reason.

        Raises:
            Malformed: the second answer can't be read either.
            Refused: the model's server turns the question down.
            Spent: the budget does not allow the call.
            Unreachable: there is no answer after every retry.
        """
        offer = Offer(self.toolbox.tools if self.talk.model.tool_calls else (), form)
        dialogue = self._until_answered(list(messages), offer)
        try:
            return read(dialogue)
        except Malformed as malformed:
            last = dialogue[-1]
            assert isinstance(last, AIMessage), "a conversation ends with the model's answer"
            again = answered(last, words("once_more.md", error=str(malformed)))
            return read(self._until_answered([*dialogue, *again], offer))

    def _until_answered(self, dialogue: list[BaseMessage], offer: Offer) -> list[BaseMessage]:
        """The conversation, up to a message that calls no tool which does work."""
        # Each round but the last has at least one call, and what is over the cap is told so once.
        for _ in range(self.talk.model.tool_calls + 2):
            dialogue = self._ask(dialogue, offer)
            last = dialogue[-1]
            assert isinstance(last, AIMessage), "the model's reply comes last"
            if not _wants_work(last, offer):
                return dialogue
        return dialogue

    def _ask(self, dialogue: list[BaseMessage], offer: Offer) -> list[BaseMessage]:
        return self.talk.ask(dialogue, offer, self.plan, lambda: self.toolbox.answer(dialogue))


def _wants_work(reply: AIMessage, offer: Offer) -> bool:
    """Whether a reply calls tools and does not give the answer in the same breath."""
    form = offer.schema.__name__ if offer.schema is not None else None
    named = [call["name"] for call in (*reply.tool_calls, *reply.invalid_tool_calls)]
    return bool(named) and form not in named
