"""One question: found, paid for once, tried again, or given up."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI
from openai import APIConnectionError, APITimeoutError

from agents.llm.exchange import Spent, Unreachable
from agents.llm.prices import Price, Prices
from agents.llm.replies import Plans, read_form
from agents.llm.talk import Offer, Refused, Talk
from tests.agents.llm.scripted import MODEL_ID, MemoryJournal, model, says, talk

ASKED = [HumanMessage("How fast?")]
BROKEN = httpx.ConnectError("no route")


@tool
def clock() -> str:
    """Read the clock."""
    return "never the same"


TOOLS: tuple[BaseTool, ...] = (clock,)


def test_an_answer_that_was_paid_for_is_not_asked_for_again() -> None:
    journal = MemoryJournal()
    first, _ = talk(says("fast"), journal=journal)
    assert first.ask(ASKED, Offer(), "")[-1].text == "fast"
    again, chat = talk(says("slow"), journal=journal.restarted())
    assert again.ask(ASKED, Offer(), "")[-1].text == "fast"
    assert chat.asked == []


def test_another_question_is_another_key() -> None:
    keys = set()
    for messages, offer, settings in [
        (ASKED, Offer(), {}),
        ([HumanMessage("How slow?")], Offer(), {}),
        (ASKED, Offer(TOOLS), {}),
        (ASKED, Offer(), {"temperature": 0.5}),
    ]:
        journal = MemoryJournal()
        line, _ = talk(says("fast"), journal=journal, settings=settings)
        line.ask(messages, offer, "")
        keys.add(journal.exchanges[0].key)
    assert len(keys) == 4


def test_what_a_tool_said_then_stands_and_it_is_not_run_again() -> None:
    journal = MemoryJournal()
    line, _ = talk(says("", ("clock", {})), says("noon"), journal=journal)

    def ask(one: Talk, ran: Callable[[], list[ToolMessage]]) -> list[Any]:
        called = one.ask(ASKED, Offer(TOOLS), "m1")
        return one.ask(called, Offer(TOOLS), "m1", ran)

    ask(line, lambda: [ToolMessage("12:00", tool_call_id="call-0")])
    again, chat = talk(journal=journal.restarted())

    def must_not_run() -> list[ToolMessage]:
        raise AssertionError

    dialogue = ask(again, must_not_run)
    assert [message.text for message in dialogue] == ["How fast?", "", "12:00", "noon"]
    assert chat.asked == []


def test_the_budget_is_asked_before_the_model_is() -> None:
    line, chat = talk(says("fast"), journal=MemoryJournal(tokens=1000))
    with pytest.raises(Spent):
        line.ask(ASKED, Offer(), "")
    assert chat.asked == []


def test_what_is_admitted_covers_what_is_used() -> None:
    journal = MemoryJournal()
    line, _ = talk(says("fast"), journal=journal)
    line.ask([HumanMessage("x = [1.0, 2.0]; " * 200)], Offer(TOOLS), "")
    (_, admitted, output), used = journal.admitted[0], journal.exchanges[0].usage
    assert used.input_tokens <= admitted
    assert used.output_tokens <= output


def test_usage_is_what_the_server_tells_and_its_price_what_the_list_says() -> None:
    told = AIMessage(
        "fast", usage_metadata={"input_tokens": 2000, "output_tokens": 50, "total_tokens": 2050}
    )
    prices = Prices(models={MODEL_ID: Price(input=1.0, output=10.0)})
    journal = MemoryJournal()
    line, _ = talk(told, journal=journal, prices=prices)
    line.ask(ASKED, Offer(), "m1")
    exchange = journal.exchanges[0]
    assert (exchange.usage.input_tokens, exchange.usage.output_tokens) == (2000, 50)
    assert exchange.usage.usd == pytest.approx(0.0025)
    assert (exchange.plan, exchange.model, exchange.role) == ("m1", MODEL_ID, "coder")


def test_without_a_price_nothing_is_made_up() -> None:
    journal = MemoryJournal()
    line, _ = talk(says("fast"), journal=journal)
    line.ask(ASKED, Offer(), "")
    assert journal.exchanges[0].usage.usd is None
    assert journal.exchanges[0].usage.input_tokens > 0


def test_a_broken_line_is_tried_again() -> None:
    line, chat = talk(BROKEN, BROKEN, says("fast"))
    assert line.ask(ASKED, Offer(), "")[-1].text == "fast"
    assert len(chat.asked) == 3


def test_a_line_that_stays_broken_is_unreachable() -> None:
    journal = MemoryJournal()
    line, chat = talk(BROKEN, journal=journal)
    with pytest.raises(Unreachable, match="no route"):
        line.ask(ASKED, Offer(), "")
    assert len(chat.asked) == 3
    assert journal.exchanges == []


def as_openai(kind: type[APIConnectionError], cause: str) -> APIConnectionError:
    """The client's error behind one of a transport that is not the httpx that we know."""
    error = kind(request=httpx.Request("POST", "http://nobody"))
    error.__cause__ = type(cause, (Exception,), {})("no route")
    return error


@pytest.mark.parametrize(
    ("error", "billed"),
    [
        (httpx.ReadTimeout("no answer in time"), True),
        (httpx.RemoteProtocolError("cut off"), True),
        (httpx.ConnectTimeout("nobody there"), False),
        (as_openai(APITimeoutError, "ReadTimeout"), True),
        (as_openai(APITimeoutError, "ConnectTimeout"), False),
        (as_openai(APIConnectionError, "ConnectError"), False),
        (BROKEN, False),
    ],
)
def test_an_attempt_that_the_server_may_have_answered_counts(
    error: Exception, billed: bool
) -> None:
    journal = MemoryJournal()
    line, _ = talk(error, says("fast"), journal=journal)
    line.ask(ASKED, Offer(), "")
    assert len(journal.admitted) == 2
    assert journal.released == [billed]


def test_a_call_is_not_tried_again_over_the_budget() -> None:
    # An answer may take 1000 tokens, and each attempt may have had one.
    late = httpx.ReadTimeout("no answer in time")
    line, chat = talk(late, journal=MemoryJournal(tokens=2500))
    with pytest.raises(Spent):
        line.ask(ASKED, Offer(), "")
    assert len(chat.asked) == 2


def test_a_mistake_of_our_own_is_not_taken_for_weather() -> None:
    line, chat = talk(KeyError("ours"))
    with pytest.raises(KeyError):
        line.ask(ASKED, Offer(), "")
    assert len(chat.asked) == 1


def test_a_model_without_tools_is_asked_in_words() -> None:
    line, chat = talk(says('{"plans": []}'), takes_tools=False)
    dialogue = line.ask(ASKED, Offer(TOOLS, Plans), "")
    assert read_form(dialogue[-1], Plans) == Plans(plans=())  # type: ignore[arg-type]
    assert chat.offered == [[]]


class _Server:
    """Answers each request by the next of a list: a status and headers, or text; then repeats."""

    def __init__(self, *answers: tuple[int, dict[str, str]] | str) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []

    def reply(self, body: dict[str, Any]) -> tuple[int, dict[str, str], dict[str, Any]]:
        self.bodies.append(body)
        if "tools" in body and "no tools" in self.answers:
            return 400, {}, {"error": {"message": "tools are not supported", "code": None}}
        plain = [one for one in self.answers if one != "no tools"]
        answer = plain[min(len(self.bodies), len(plain)) - 1]
        if isinstance(answer, tuple):
            code = int(answer[1].get("x-code", 0)) or None
            return answer[0], answer[1], {"error": {"message": "as scripted", "code": code}}
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": answer},
        }
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        return 200, {}, {
            "id": "1", "object": "chat.completion", "created": 0, "model": "local",
            "choices": [choice], "usage": usage,
        }  # fmt: skip


@contextmanager
def serving(server: _Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, headers, document = server.reply(body)
            data = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def openai_talk(address: str, journal: MemoryJournal, waits: list[float]) -> Talk:
    chat = ChatOpenAI(model="local", api_key="none", base_url=address, max_retries=0)  # type: ignore[arg-type]
    return Talk(model(chat), "coder", journal, sleep=waits.append)


def test_a_server_that_asks_for_patience_gets_it() -> None:
    server, waits, journal = _Server((429, {"retry-after": "7"}), (500, {}), "fast"), [], None
    with serving(server) as address:
        line = openai_talk(address, journal := MemoryJournal(), waits)
        assert line.ask(ASKED, Offer(), "")[-1].text == "fast"
    assert waits == [7.0, 2.0]
    assert journal.exchanges[0].usage.input_tokens == 7


def test_a_key_that_is_refused_parks_the_run_at_once_and_is_not_quoted() -> None:
    server, waits = _Server((401, {})), list[float]()
    with serving(server) as address, pytest.raises(Unreachable) as caught:
        openai_talk(address, MemoryJournal(), waits).ask(ASKED, Offer(), "")
    assert "the key was not accepted" in str(caught.value)
    assert waits == []


def as_gemini(said: str) -> Exception:
    """The error of Google's client, behind that of LangChain's."""
    inner = type("InvalidArgument", (Exception,), {"code": HTTPStatus.BAD_REQUEST})(f"400 {said}")
    outer = type("GeminiError", (Exception,), {})(f"Invalid argument provided: 400 {said}")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    "said",
    [
        "API key not valid. Please pass a valid API key.",
        'API key expired. Please renew the API key. [reason: "API_KEY_INVALID"]',
        "Incorrect API key provided: sk-0123.",
    ],
)
def test_a_key_that_is_refused_as_a_bad_request_parks_the_run_too(said: str) -> None:
    line, chat = talk(as_gemini(said))
    with pytest.raises(Unreachable, match="status 400: the key was not accepted") as caught:
        line.ask(ASKED, Offer(TOOLS, Plans), "")
    assert "sk-0123" not in str(caught.value)
    assert len(chat.asked) == 1


def test_another_bad_request_is_of_the_question() -> None:
    line, _ = talk(as_gemini("The input token count exceeds the maximum."))
    with pytest.raises(Refused, match="token count"):
        line.ask(ASKED, Offer(), "")


@pytest.mark.parametrize(("code", "heard"), [(502, True), (401, False)])
def test_an_error_in_the_body_of_a_good_answer_is_one(code: int, heard: bool) -> None:
    server, waits = _Server((200, {"x-code": str(code)}), "fast"), list[float]()
    with serving(server) as address:
        line = openai_talk(address, MemoryJournal(), waits)
        if heard:
            assert line.ask(ASKED, Offer(), "")[-1].text == "fast"
            assert len(waits) == 1
        else:
            with pytest.raises(Unreachable):
                line.ask(ASKED, Offer(), "")


def test_a_question_that_is_turned_down_fails_alone() -> None:
    journal = MemoryJournal()
    with serving(_Server((400, {}))) as address, pytest.raises(Refused, match="as scripted"):
        openai_talk(address, journal, []).ask(ASKED, Offer(), "")
    assert journal.released == [False]


def test_a_server_that_takes_no_tools_is_asked_without_from_then_on() -> None:
    server = _Server("no tools", '{"plans": []}')
    with serving(server) as address:
        line = openai_talk(address, MemoryJournal(), [])
        for _ in range(2):
            line.ask(ASKED, Offer(TOOLS, Plans), "")
    assert ["tools" in body for body in server.bodies] == [True, False, False]
    assert server.bodies[1]["response_format"]["type"] == "json_schema"


def test_what_does_not_fit_the_schema_comes_back_as_it_is() -> None:
    with serving(_Server("no tools", "I would rather talk.")) as address:
        dialogue = openai_talk(address, MemoryJournal(), []).ask(ASKED, Offer(TOOLS, Plans), "")
    assert dialogue[-1].text == "I would rather talk."
