"""A coder with a model behind it, and what its answers and the debugger's have in common."""

import re

from langchain_core.messages import BaseMessage

from agents.brief import Brief, Plan
from agents.llm import prompts, views
from agents.llm.replies import Malformed, newest_draft, read_module, text_of
from agents.llm.talk import Refused, Talk
from agents.llm.tools import Bench, Toolbox
from agents.llm.turn import Turn
from knowledge.store import Library
from tools.candidate import Candidate, backend_of

LABELS, LABEL_LIMIT = 5, 160
_LABEL = re.compile(r"^\s*(?:[-*] )?Label: *(.+?)\s*$", re.MULTILINE | re.IGNORECASE)


class ModelCoder:
    """Writes what a plan says, whoever made it."""

    def __init__(self, talk: Talk, library: Library, bench: Bench) -> None:
        self._talk = talk
        self._library = library
        self._bench = bench

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        """The candidate that carries out `plan`.

        Raises:
            ValueError: the model gave no module, also when asked once more.
            Spent: the budget does not allow the call.
            Unreachable: there is no answer after every retry.
        """
        parent = views.parent_of(brief, plan)
        base = parent.candidate.source if parent else None
        pages = views.pages_for(brief, self._library, f"{plan.title} {plan.technique}")
        toolbox = Toolbox(brief, self._library, self._bench, base, self._talk.model.tool_calls)
        try:
            source, said = Turn(self._talk, toolbox, plan.id).take(
                prompts.for_coder(brief, plan, pages), lambda dialogue: module_in(dialogue, base)
            )
        except Refused as error:
            raise ValueError(str(error)) from error
        return candidate_of(source, said, plan.labels, self._talk.model.id)


def module_in(dialogue: list[BaseMessage], base: str | None) -> tuple[str, str]:
    """The newest module of a conversation, and the words of its last message.

    Raises:
        Malformed: there is none, or the last message begins one that can't be read.
    """
    said = text_of(dialogue[-1])
    before = newest_draft(dialogue[:-1], base)
    try:
        return read_module(said, before or base), said
    except Malformed:
        # A closing word after a draft that was tried is an answer too; a broken block is not.
        if before is None or "```" in said or "<<<<" in said:
            raise
        return before, said


def candidate_of(source: str, said: str, labels: tuple[str, ...], maker: str) -> Candidate:
    """A module as the judge gets it: its language by its marks, and what its maker says of it."""
    told = [" ".join(label.split())[:LABEL_LIMIT] for label in _LABEL.findall(said)]
    kept = dict.fromkeys((*labels, *told[:LABELS], f"written by {maker}"))
    return Candidate(source=source, backend=backend_of(source), labels=tuple(kept), author=maker)
