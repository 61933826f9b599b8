"""The scripted server against the real clients of two providers: what crosses the wire, and how."""

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.models.minds import Always
from tests.models.script import Answer, HangsUp, Message, Question, Refuses, Says
from tests.models.server import MODELS, ModelServer, serving

KEY = "a-key-for-tests"
LONG = "A line that is longer than one piece of a stream, so that it arrives in several.\n" * 5
Client = Callable[..., BaseChatModel]


class Bound(BaseModel):
    """What bounds a kernel."""

    name: str
    share: float


def look_up(subject: str) -> str:
    """Look a subject up."""
    return subject


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with serving(Always(Says("Nothing was put in.")), KEY) as one:
        yield one


def over_openai(server: ModelServer, **settings: Any) -> BaseChatModel:
    given = {"model": MODELS[0], "api_key": KEY, "max_retries": 0, "stream_usage": True}
    return ChatOpenAI(base_url=f"{server.address}/v1", **{**given, **settings})


def over_anthropic(server: ModelServer, **settings: Any) -> BaseChatModel:
    given = {"model": MODELS[0], "api_key": KEY, "max_retries": 0, "max_tokens": 1000}
    return ChatAnthropic(base_url=server.address, **{**given, **settings})


both = pytest.mark.parametrize("client", [over_openai, over_anthropic], ids=["openai", "anthropic"])
streamed_or_not = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])


def gathered(chat: Runnable[Any, Any], messages: list[Any], streaming: bool) -> AIMessage:
    """The answer, put together from its chunks if it is streamed."""
    if not streaming:
        reply: AIMessage = chat.invoke(messages)
        return reply
    chunks: list[AIMessageChunk] = list(chat.stream(messages))
    return sum(chunks[1:], start=chunks[0])


@both
@streamed_or_not
def test_text_and_usage_arrive_as_they_were_given(
    server: ModelServer, client: Client, streaming: bool
) -> None:
    server.script = Always(Says(LONG))
    chat = client(server)
    reply = gathered(chat, [SystemMessage("Be brief."), HumanMessage("How?")], streaming)
    assert reply.text == LONG
    asked = server.questions[-1]
    assert asked.messages == (Message("system", "Be brief."), Message("user", "How?"))
    assert asked.streamed == streaming
    usage = reply.usage_metadata
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"]) == (asked.tokens, len(LONG) // 4)


@both
@streamed_or_not
def test_a_tool_call_and_its_result_go_there_and_back(
    server: ModelServer, client: Client, streaming: bool
) -> None:
    chat = client(server).bind_tools([look_up])
    server.script = Always(Says("Let me see.", calls=(("look_up", {"subject": LONG}),)))
    asked = HumanMessage("What is a warp?")
    reply = gathered(chat, [asked], streaming)
    assert [(c["name"], c["args"]) for c in reply.tool_calls] == [("look_up", {"subject": LONG})]
    offered = server.questions[-1].tools[0]
    assert (offered.name, list(offered.parameters["properties"])) == ("look_up", ["subject"])
    result = ToolMessage("32 threads", tool_call_id=reply.tool_calls[0]["id"])
    server.script = Always(Says("32 threads."))
    gathered(chat, [asked, reply, result], streaming)
    question, call, answer = server.questions[-1].messages
    assert question.text == "What is a warp?"
    assert (call.text, call.calls[0].name) == ("Let me see.", "look_up")
    assert (answer.role, answer.text, answer.answers) == ("tool", "32 threads", call.calls[0].id)


@both
def test_several_calls_in_one_answer_are_answered_together(
    server: ModelServer, client: Client
) -> None:
    chat = client(server).bind_tools([look_up])
    server.script = Always(
        Says(calls=(("look_up", {"subject": "a"}), ("look_up", {"subject": "b"})))
    )
    reply = chat.invoke("Two things.")
    results = [ToolMessage(c["args"]["subject"], tool_call_id=c["id"]) for c in reply.tool_calls]
    server.script = Always(Says("Done."))
    assert chat.invoke([HumanMessage("Two things."), reply, *results]).text == "Done."
    assert [m.text for m in server.questions[-1].messages if m.role == "tool"] == ["a", "b"]


@both
def test_a_form_is_asked_for_by_its_schema(server: ModelServer, client: Client) -> None:
    server.script = Always(Says('{"name": "memory", "share": 0.8}'))
    form = client(server).with_structured_output(Bound, method="json_schema")
    assert form.invoke("What bounds it?") == Bound(name="memory", share=0.8)
    shape = server.questions[-1].shape
    assert shape is not None
    assert set(shape["properties"]) == {"name", "share"}


@both
def test_a_form_is_asked_for_as_a_tool_that_must_be_called(
    server: ModelServer, client: Client
) -> None:
    server.script = Always(Says(calls=(("Bound", {"name": "memory", "share": 0.8}),)))
    form = client(server).with_structured_output(Bound, method="function_calling")
    assert form.invoke("What bounds it?") == Bound(name="memory", share=0.8)
    assert server.questions[-1].must_call == "Bound"


@both
@streamed_or_not
def test_a_cut_answer_says_that_it_was_cut(
    server: ModelServer, client: Client, streaming: bool
) -> None:
    server.script = Always(Says("It begins with", cut=True))
    told = gathered(client(server), [HumanMessage("Go on.")], streaming).response_metadata
    assert told.get("finish_reason", told.get("stop_reason")) in ("length", "max_tokens")


@pytest.mark.parametrize(
    ("status", "over_one", "over_other"),
    [
        (429, openai.RateLimitError, anthropic.RateLimitError),
        (500, openai.InternalServerError, anthropic.InternalServerError),
        (400, openai.BadRequestError, anthropic.BadRequestError),
    ],
)
def test_an_error_is_the_one_that_the_clients_know(
    server: ModelServer, status: int, over_one: type[Exception], over_other: type[Exception]
) -> None:
    server.script = Always(Refuses(status, "come back later", retry_after_s=1.5))
    with pytest.raises(over_one, match="come back later") as first:
        over_openai(server).invoke("Well?")
    with pytest.raises(over_other, match="come back later") as second:
        over_anthropic(server).invoke("Well?")
    for caught in (first, second):
        assert caught.value.response.headers["Retry-After"] == "1.5"  # type: ignore[attr-defined]


@both
def test_a_client_comes_back_when_the_server_said_so(server: ModelServer, client: Client) -> None:
    class OnceBusy:
        refused = 0

        def answer(self, question: Question) -> Answer:
            self.refused += 1
            return Says("Now.") if self.refused > 1 else Refuses(429, "busy", retry_after_s=0.01)

    with serving(OnceBusy(), KEY) as other:
        assert client(other, max_retries=1).invoke("Well?").text == "Now."
        assert [type(answer) for answer in other.answers] == [Refuses, Says]


@pytest.mark.parametrize(
    ("answer", "over_one", "over_other"),
    [
        (Says("late", delay_s=30), openai.APITimeoutError, anthropic.APITimeoutError),
        (HangsUp(), openai.APIConnectionError, anthropic.APIConnectionError),
    ],
    ids=["slow", "hangs up"],
)
def test_patience_ends_and_a_broken_line_shows(
    server: ModelServer, answer: Answer, over_one: type[Exception], over_other: type[Exception]
) -> None:
    server.script = Always(answer)
    with pytest.raises(over_one):
        over_openai(server, timeout=0.2).invoke("Well?")
    with pytest.raises(over_other):
        over_anthropic(server, timeout=0.2).invoke("Well?")


@both
def test_a_wrong_key_is_turned_away(server: ModelServer, client: Client) -> None:
    asked = len(server.questions)
    with pytest.raises((openai.AuthenticationError, anthropic.AuthenticationError)):
        client(server, api_key="another").invoke("Well?")
    assert len(server.questions) == asked


@both
def test_an_unknown_model_is_not_found(server: ModelServer, client: Client) -> None:
    with pytest.raises((openai.NotFoundError, anthropic.NotFoundError)):
        client(server, model="nobody").invoke("Well?")


@both
def test_a_call_left_without_an_answer_is_refused(server: ModelServer, client: Client) -> None:
    call = {"name": "look_up", "args": {"subject": "a"}, "id": "call_1"}
    said = [HumanMessage("What?"), AIMessage("", tool_calls=[call]), HumanMessage("Go on.")]
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)):
        client(server).bind_tools([look_up]).invoke(said)


def test_a_strict_schema_must_be_strict(server: ModelServer) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    form = {"name": "loose", "schema": schema, "strict": True}
    chat = over_openai(server).bind(response_format={"type": "json_schema", "json_schema": form})
    # LangChain adds a warning of its own to the server's words.
    with (
        pytest.warns(UserWarning, match="Invalid schema"),
        pytest.raises(openai.BadRequestError, match="additional"),
    ):
        chat.invoke("Well?")


def test_the_models_are_listed(server: ModelServer) -> None:
    document = httpx.get(f"{server.address}/v1/models").json()
    assert tuple(model["id"] for model in document["data"]) == MODELS
