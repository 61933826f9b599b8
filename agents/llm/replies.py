"""What models answer, read: code as fenced blocks or edits, decisions as JSON in a known form.

Code never travels inside JSON, where a model has to escape every line of it. What can't be read is
`Malformed`, and its message is what the model is told when it is asked once more.
"""

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Literal, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.llm.talk import calls_in

SOURCE_LIMIT = 200_000
TOLD_LIMIT = 600
# What models that think aloud put around it.
# Some servers leave out where a thought begins.
_THOUGHT = re.compile(r"(?:<think(?:ing)?>.*?|\A(?:(?!<think).)*?)</think(?:ing)?>", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_FENCE = re.compile(r"^(```+|~~~+)[^\n]*\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)
_OPEN_FENCE = re.compile(r"^(```+|~~~+)", re.MULTILINE)
_EDIT = re.compile(
    r"^<{5,9} ?SEARCH[ \t]*\n(.*?)^={5,9}[ \t]*\n(.*?)^>{5,9} ?REPLACE[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_MARKER = re.compile(r"^<{5,9} ?SEARCH", re.MULTILINE)

Form = TypeVar("Form", bound=BaseModel)


class Malformed(ValueError):
    """An answer that can't be read; the message says why, to the one who gave it."""


class Answer(BaseModel):
    """A form that a model fills in; what it adds to it is let pass."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PlanDraft(Answer):
    """One thing to try."""

    title: str = Field(min_length=3, max_length=160, description="what is done, in one line")
    technique: str = Field(
        min_length=2, max_length=40, description="its kind in two or three words, e.g. row tiling"
    )
    instructions: str = Field(
        min_length=10, max_length=6000, description="what the coder has to do: loops, sizes, traps"
    )
    expected_speedup: float = Field(gt=0, description="over the fastest baseline")
    arithmetic: str = Field(
        max_length=1500, description="how that was reckoned: bytes, operations, bandwidth, peak"
    )
    parent: int | None = Field(None, description="number of the trial to start from, if any")
    pages: tuple[int, ...] = Field(
        (), description="numbers, as in [1], of the given pages that it leans on"
    )


class Unwanted(Answer):
    """What was considered and refused."""

    idea: str = Field(max_length=80)
    reason: str = Field(max_length=300)


class Plans(Answer):
    """What to try next, best first; an empty list says that nothing is worth trying."""

    plans: tuple[PlanDraft, ...] = Field(description="empty where nothing is worth trying")
    refused: tuple[Unwanted, ...] = ()


class Reading(Answer):
    """What bounds a kernel, and what to do next."""

    bottleneck: Literal["memory", "compute", "latency", "pages", "none"]
    evidence: tuple[str, ...] = Field((), description="sentences with the numbers they rest on")
    moves: tuple[str, ...] = Field((), description="at most three, the best first")


def text_of(message: BaseMessage) -> str:
    """What a message says, without its thoughts."""
    return _THOUGHT.sub("", str(message.text)).strip()


def read_form(reply: AIMessage, form: type[Form]) -> Form:
    """The form that a reply fills in, as a tool call or as JSON in its text.

    Raises:
        Malformed: there is none, or it does not fit.
    """
    for call in reply.tool_calls:
        if call["name"] == form.__name__:
            return _validated(call["args"], form)
    if broken := [one for one in reply.invalid_tool_calls if one["name"] == form.__name__]:
        raise Malformed(
            f"the arguments are not JSON ({broken[0]['error'] or 'cut off'})"[:TOLD_LIMIT]
        )
    return _validated(_json_in(text_of(reply), form), form)


def _validated(value: object, form: type[Form]) -> Form:
    try:
        return form.model_validate(value)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or form.__name__}: {one['msg']}"
            for one in error.errors()[:5]
        )
        raise Malformed(told[:TOLD_LIMIT]) from error


def _json_in(text: str, form: type[BaseModel]) -> object:
    """The first object with a field of the form, else the first JSON: prose has brackets too.

    Raises:
        Malformed: there is none.
    """
    fenced = [match.group(2) for match in _FENCE.finditer(text)]
    found: list[object] = []
    for one in [*reversed(fenced), *(text[each.start() :] for each in _OPENING.finditer(text))]:
        try:
            value = json.JSONDecoder().raw_decode(one.strip())[0]
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and not value.keys().isdisjoint(form.model_fields):
            return value
        found.append(value)
    if not found:
        raise Malformed("the answer holds no JSON")
    return found[0]


def read_module(text: str, base: str | None) -> str:
    """The module that a reply gives, whole or as edits of `base`.

    Args:
        text: the reply.
        base: what search/replace blocks are applied to; None where there is nothing to edit.

    Raises:
        Malformed: it holds neither, an edit does not fit, or it was cut off.
    """
    edits = [(match.group(1), match.group(2)) for match in _EDIT.finditer(text)]
    if edits or _MARKER.search(text):
        if not edits:
            raise Malformed("a SEARCH has no ======= and >>>>>>> REPLACE after it")
        if base is None:
            raise Malformed("there is no module to edit: give the whole of it in a fenced block")
        return _edited(base, edits)
    blocks = [match.group(2) for match in _FENCE.finditer(text)]
    named = [block for block in blocks if "ModelNew" in block]
    # What only uses it is an example of how to.
    whole = [block for block in named if "class ModelNew" in block] or named
    if whole:
        source = whole[-1]
    elif len(_OPEN_FENCE.findall(text)) % 2:
        raise Malformed("the fenced block has no end: the answer was cut off")
    elif blocks:
        raise Malformed("no fenced block defines ModelNew")
    else:
        raise Malformed("the answer holds no fenced block with the module")
    if len(source) > SOURCE_LIMIT:
        raise Malformed(f"the module is longer than {SOURCE_LIMIT} characters")
    return source.rstrip() + "\n"


def _edited(source: str, edits: Sequence[tuple[str, str]]) -> str:
    for number, (search, replacement) in enumerate(edits, 1):
        if not search.strip():
            raise Malformed(f"edit {number}: what to search for is empty")
        times = source.count(search)
        if times != 1:
            raise Malformed(f"edit {number}: {_misfit(source, search, times)}")
        source = source.replace(search, replacement)
    return source


def _misfit(source: str, search: str, times: int) -> str:
    """Why a text can't be replaced: the line that is not there, or how often the whole is."""
    lines = search.strip("\n").splitlines()
    if times:
        return f"the text that begins with `{lines[0].strip()[:120]}` is there {times} times"
    present = set(source.splitlines())
    for line in lines:
        if line not in present:
            return f"the module has no line `{line[:120]}`"
    return f"its lines are in the module, but not one after the other: `{lines[0].strip()[:120]}`"


def newest_draft(messages: Sequence[BaseMessage], base: str | None) -> str | None:
    """The last module that a model gave in a conversation; None where it gave none."""
    draft: str | None = None
    for message in messages:
        if not isinstance(message, AIMessage):
            continue
        with contextlib.suppress(Malformed):
            draft = read_module(text_of(message), draft or base)
        for call in message.tool_calls:
            given = call["args"].get("source")
            if isinstance(given, str) and "ModelNew" in given:
                draft = given
    return draft


def unread_code(message: BaseMessage, base: str | None) -> str:
    """Why the code in a message can't be read; empty where it can, or where there is none."""
    text = text_of(message)
    meant = "class ModelNew" in text or len(_OPEN_FENCE.findall(text)) % 2
    if not meant and not _MARKER.search(text):
        return ""
    try:
        read_module(text, base)
    except Malformed as error:
        return str(error)
    return ""


def answered(reply: AIMessage, words: str) -> list[BaseMessage]:
    """What is said to a reply: to each of its tool calls, since those are owed an answer."""
    calls = list(calls_in(reply))
    if calls:
        return [ToolMessage(content=words, tool_call_id=identity) for identity in calls]
    return [HumanMessage(words)]
