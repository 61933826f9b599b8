"""One question to a model, asked so that it is never paid for twice and never breaks the budget.

A question's key is made of the model, its settings, the tools it is offered and the messages. What
a tool answered does not count: it follows from the call, up to what a clock read. So a run that
goes on after a restart finds its paid answers without measuring again, and with them what the
tools said at the time.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from agents.llm.exchange import Exchange, Journal, Role, Spent, Unreachable, Usage
from agents.llm.models import Model
from knowledge.outage import is_broken_line, may_pass

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
# No text has more tokens than half its bytes, so that what is admitted can't be exceeded.
BYTES_PER_TOKEN = 2
# Of the statuses that no other attempt mends, those that say who or what is not let in.
SHUT_OUT = (401, 402, 403, 404)
# A server never heard these; by name, since clients bring httpx along under several.
UNHEARD = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError")
# A limit that waiting does not lift.
NO_CREDIT = "insufficient_quota"
# What servers say in a 400 of a key that they don't take, for which others have 401.
KEYS_IN_400 = ("api_key_invalid", "api key not valid", "api key expired", "incorrect api key")
WHY_LIMIT = 300


class Refused(Exception):
    """The model's server will not answer this question: it is too long, or wrongly put."""


@dataclass
class Offer:
    """What a model is given besides the messages: tools, and the form its answer should have."""

    tools: Sequence[BaseTool] = ()
    schema: type[BaseModel] | None = None


@dataclass
class Talk:
    """A role's line to its model.

    Args:
        model: who answers.
        role: who asks.
        journal: keeps the books.
        sleep: waits between attempts.
    """

    model: Model
    role: Role
    journal: Journal
    sleep: Callable[[float], None] = time.sleep
    # Ways of asking that the model's server has turned down or taken, in this process.
    _turned_down: set[str] = field(default_factory=set)
    _taken: set[str] = field(default_factory=set)

    def ask(
        self,
        messages: Sequence[BaseMessage],
        offer: Offer,
        plan: str,
        answer_tools: Callable[[], Sequence[ToolMessage]] = tuple,
    ) -> list[BaseMessage]:
        """The messages with what the tools said, and the model's reply as the last.

        Args:
            messages: what was said so far.
            offer: tools, and the form of the answer.
            plan: the id of the plan that is being carried out.
            answer_tools: what the calls in the last message give; only asked where the reply to
                them is not known yet.

        Raises:
            Spent: the budget does not allow the call.
            Unreachable: there is no answer after every retry.
            Refused: the server turns the question down.
        """
        ways = [way for way in _ways(self.model, offer) if way not in self._turned_down]
        pending = _blank_answers(messages)
        for way in ways:
            key = self._key([*messages, *pending], offer, way)
            known = self.journal.find(key)
            if known is not None:
                return _whole(known)
        full = [*messages, *(answer_tools() if pending else ())]
        for way in ways:
            try:
                exchange = self._invoke(full, offer, way, plan)
            except Refused:
                if way == ways[-1] or way in self._taken:
                    raise
                # It may be the tools or the form that it can't take.
                self._turned_down.add(way)
                continue
            self.journal.keep(exchange)
            self._taken.add(way)
            return _whole(exchange)
        raise Refused("every way of asking was turned down")

    def _invoke(self, messages: list[BaseMessage], offer: Offer, way: str, plan: str) -> Exchange:
        model = self.model
        if model.chat is None:
            raise Unreachable(f"{model.id} is not there to be asked")
        try:
            runnable = _bound(model.chat, offer, way)
        except NotImplementedError as error:
            raise Refused(f"{model.id} has no way to be offered {way}") from error
        began = time.monotonic()
        reply = _plain(self._try(runnable, messages, plan, _most_tokens(messages, offer)))
        return Exchange(
            key=self._key(messages, offer, way),
            role=self.role,
            plan=plan,
            model=model.id,
            messages=tuple(_json(messages_to_dict(messages))),
            reply=_json(message_to_dict(reply)),
            usage=self._usage(messages, offer, reply),
            seconds=time.monotonic() - began,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _try(
        self, runnable: Runnable[Any, Any], messages: list[BaseMessage], plan: str, most: int
    ) -> AIMessage:
        """A reply, after as many attempts as it takes and the settings and the budget allow."""
        # Where calls are traced, these are found by who asked and for what.
        named: RunnableConfig = {"run_name": self.role, "metadata": {"plan": plan}}
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self.model.retries + 1),
            wait=_wait,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            answer = retrying(self._attempt, runnable, messages, named, most)
        except Spent:
            raise
        # Providers raise classes of their own; what they mean is in the status, if there is one.
        except Exception as error:
            cut = _cut_off(error)
            if cut is not None:
                return cut
            why, status = _why(error), _status(error)
            if status is None and not _may_pass(error):
                raise
            if _may_pass(error) or _is_shut_out(error):
                raise Unreachable(f"{self.model.id} can't be reached: {why}") from error
            raise Refused(f"{self.model.id} turned the question down: {why}") from error
        reply = answer["raw"] if isinstance(answer, dict) else answer
        if not isinstance(reply, AIMessage):
            raise TypeError(f"{self.model.id} answered with a {type(reply).__name__}")
        return reply

    def _attempt(
        self,
        runnable: Runnable[Any, Any],
        messages: list[BaseMessage],
        named: RunnableConfig,
        most: int,
    ) -> Any:
        """One call, which takes `most` tokens at most besides its answer; each may be charged."""
        self.journal.admit(self.model.id, most, self.model.max_tokens)
        try:
            return runnable.invoke(messages, named)
        except Exception as error:
            if _cut_off(error) is None:
                self.journal.release(billed=_may_be_billed(error))
            raise

    def _usage(self, messages: list[BaseMessage], offer: Offer, reply: AIMessage) -> Usage:
        """As the server tells it, else estimated."""
        told = reply.usage_metadata
        if told and told["input_tokens"] + told["output_tokens"] > 0:
            spent = told["input_tokens"], told["output_tokens"]
        else:
            offered = len(_offered(offer).encode()) // 4
            spent = (
                count_tokens_approximately(messages) + offered,
                count_tokens_approximately([reply]),
            )
        usd = self.model.prices.usd(self.model.id, *spent)
        return Usage(input_tokens=spent[0], output_tokens=spent[1], usd=usd)

    def _key(self, messages: Sequence[BaseMessage], offer: Offer, way: str) -> str:
        asked = {
            "model": self.model.id,
            "settings": self.model.settings,
            "way": way,
            "offer": _offered(offer) if way != "text" else "",
            "messages": [_identity(message) for message in messages],
        }
        return sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _ways(model: Model, offer: Offer) -> list[str]:
    """How the question may be put, the best way first.

    `tools`: with tools, one of which takes the answer where it has a form; `schema`: the answer is
    held to a schema; `text`: in words alone.
    """
    ways = ["tools"] if offer.tools and model.calls_tools else []
    ways += ["schema"] if offer.schema is not None and model.structures else []
    return [*ways, "text"]


def _bound(chat: BaseChatModel, offer: Offer, way: str) -> Runnable[Any, Any]:
    if way == "tools":
        offered: list[BaseTool | type[BaseModel]] = [*offer.tools]
        if offer.schema is not None:
            offered.append(offer.schema)
        return chat.bind_tools(offered)
    if way == "schema" and offer.schema is not None:
        # As a plain schema: given the class, OpenAI's client raises on what does not fit it, and
        # the answer, which is paid for, is lost.
        form = convert_to_openai_tool(offer.schema)["function"]
        schema = {"title": form["name"], "description": form["description"], **form["parameters"]}
        return chat.with_structured_output(schema, include_raw=True)
    return chat


def _blank_answers(messages: Sequence[BaseMessage]) -> list[ToolMessage]:
    """An empty answer for each tool call of the last message, which has none yet."""
    last = messages[-1]
    return [ToolMessage(content="", tool_call_id=identity) for identity in calls_in(last)]


def calls_in(message: BaseMessage) -> Iterator[str]:
    """The ids of a message's tool calls, malformed ones too: each is owed an answer."""
    if isinstance(message, AIMessage):
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            yield call["id"] or ""


def _identity(message: BaseMessage) -> dict[str, Any]:
    """What of a message makes a question another one."""
    if isinstance(message, ToolMessage):
        return {"answers": message.tool_call_id}
    found: dict[str, Any] = {"type": message.type, "content": message.content}
    if isinstance(message, AIMessage):
        found["calls"] = [(call["name"], call["args"]) for call in message.tool_calls]
        found["malformed"] = [call["args"] for call in message.invalid_tool_calls]
    return found


def _offered(offer: Offer) -> str:
    offered = [convert_to_openai_tool(tool) for tool in offer.tools]
    offered += [convert_to_openai_tool(offer.schema)] if offer.schema else []
    return json.dumps(offered, sort_keys=True)


def _most_tokens(messages: list[BaseMessage], offer: Offer) -> int:
    """More input tokens than the messages and tools can have."""
    said = json.dumps([_identity(m) | {"content": m.content} for m in messages], default=str)
    return len(said.encode()) // BYTES_PER_TOKEN + len(_offered(offer).encode()) // BYTES_PER_TOKEN


def _whole(exchange: Exchange) -> list[BaseMessage]:
    return list(messages_from_dict([*exchange.messages, exchange.reply]))


def _plain(reply: AIMessage) -> AIMessage:
    """A reply without what can't be written down: parsed objects beside the text they came from."""
    kept = {name: value for name, value in reply.additional_kwargs.items() if name != "parsed"}
    told = ("finish_reason", "stop_reason", "done_reason", "model_name", "model", "model_provider")
    metadata = {key: reply.response_metadata[key] for key in told if key in reply.response_metadata}
    return AIMessage(
        content=reply.content,
        tool_calls=reply.tool_calls,
        invalid_tool_calls=reply.invalid_tool_calls,
        usage_metadata=reply.usage_metadata,
        id=reply.id,
        additional_kwargs=kept,
        response_metadata=metadata,
    )


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _cut_off(error: Exception) -> AIMessage | None:
    """What a model had said when its answer became too long, where its client raises for that."""
    completion = getattr(error, "completion", None)
    if completion is None:
        return None
    reply = AIMessage(completion.choices[0].message.content or "")
    if completion.usage is not None:
        given, taken = completion.usage.prompt_tokens, completion.usage.completion_tokens
        reply.usage_metadata = UsageMetadata(
            input_tokens=given, output_tokens=taken, total_tokens=given + taken
        )
    return reply


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error, by whatever name the provider's class keeps it."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        # A server may answer 200 and say in the body what went wrong; clients raise that as it is.
        body = one.args[0] if one.args and isinstance(one.args[0], dict) else {}
        places = ((one, "status_code"), (response, "status_code"), (one, "code"))
        told = [getattr(holder, name, None) for holder, name in places]
        for value in (*told, body.get("code")):
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt may do better."""
    if NO_CREDIT in str(error):
        return False
    status = _status(error)
    if status is not None:
        return may_pass(status)
    return any(map(is_broken_line, _chain(error)))


def _may_be_billed(error: BaseException) -> bool:
    """Whether the server may have answered what nobody waited for any more."""
    unheard = any(type(one).__name__ in UNHEARD for one in _chain(error))
    return _status(error) is None and not unheard


def _is_shut_out(error: BaseException) -> bool:
    """Whether who asks, or what model is asked, is not let in, whatever the question."""
    status, told = _status(error), str(error).lower()
    if status == 404 and "tool" in told:
        # Where many servers stand behind one, none of them may take tools.
        return False
    return status in SHUT_OUT or NO_CREDIT in told or _is_of_a_key(error)


def _is_of_a_key(error: BaseException) -> bool:
    """Whether the server does not take the key."""
    status, told = _status(error), str(error).lower()
    return status in (401, 403) or (status == 400 and any(said in told for said in KEYS_IN_400))


def _wait(state: RetryCallState) -> float:
    """As long as the server asks for, else twice as long each time."""
    error = state.outcome.exception() if state.outcome else None
    for one in _chain(error) if error else ():
        headers = getattr(getattr(one, "response", None), "headers", None) or {}
        asked = headers.get("retry-after")
        if asked and str(asked).replace(".", "", 1).isdigit():
            return min(float(asked), LONGEST_WAIT_S)
    return float(min(FIRST_WAIT_S * 2 ** (state.attempt_number - 1), LONGEST_WAIT_S))


def _why(error: BaseException) -> str:
    status = _status(error)
    if _is_of_a_key(error):
        # What the server says of a key may quote it.
        return f"status {status}: the key was not accepted"
    told = " ".join(str(error).split())[:WHY_LIMIT] or type(error).__name__
    return f"status {status}: {told}" if status else told
