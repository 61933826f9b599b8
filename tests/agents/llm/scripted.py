"""A chat model that says what a test tells it to, a journal in memory, and briefs to ask about."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

from agents.brief import Brief, Plan
from agents.llm.exchange import Exchange, Role, Spent
from agents.llm.models import Model
from agents.llm.prices import Prices
from agents.llm.talk import Talk
from tests.graph import builders
from tools.task import InputSpec, Task
from tools.verdict import Trial

Says = AIMessage | Exception | Callable[[list[BaseMessage]], AIMessage]


class ScriptedChat(BaseChatModel):
    """Says one thing after another; calls tools where the test lets it."""

    says: list[Any]
    takes_tools: bool = True
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _offered: list[list[str]] = PrivateAttr(default_factory=list)

    @property
    def asked(self) -> list[list[BaseMessage]]:
        return self._asked

    @property
    def offered(self) -> list[list[str]]:
        return self._offered

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        if not self.takes_tools:
            raise NotImplementedError
        names = [getattr(tool, "name", getattr(tool, "__name__", "")) for tool in tools]
        return self.bind(tools=names)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self._asked.append(list(messages))
        self._offered.append(kwargs.get("tools", []))
        said = self.says[min(len(self._asked), len(self.says)) - 1]
        if isinstance(said, Exception):
            raise said
        reply = said(messages) if callable(said) else said
        return ChatResult(generations=[ChatGeneration(message=reply)])


class MemoryJournal:
    """Keeps exchanges in a list, and a cap on tokens."""

    def __init__(self, tokens: int = 10**9) -> None:
        self.exchanges: list[Exchange] = []
        self.unused: list[Exchange] = []
        self.admitted: list[tuple[str, int, int]] = []
        self.released: list[bool] = []
        self._tokens = tokens

    def find(self, key: str) -> Exchange | None:
        for exchange in self.unused:
            if exchange.key == key:
                self.unused.remove(exchange)
                return exchange
        return None

    def admit(self, model: str, input_tokens: int, output_tokens: int) -> None:
        if input_tokens + output_tokens > self._tokens:
            raise Spent("the budget of tokens is spent")
        self.admitted.append((model, input_tokens, output_tokens))

    def release(self, *, billed: bool) -> None:
        self.released.append(billed)
        if billed:
            self._tokens -= sum(self.admitted[-1][1:])

    def keep(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self._tokens -= exchange.usage.input_tokens + exchange.usage.output_tokens

    def restarted(self) -> "MemoryJournal":
        """The journal as a run finds it that goes on after a restart."""
        journal = MemoryJournal()
        journal.unused = [
            Exchange.model_validate_json(one.model_dump_json()) for one in self.exchanges
        ]
        return journal


MODEL_ID = "scripted:one"


def model(chat: BaseChatModel, **changes: Any) -> Model:
    given: dict[str, Any] = {
        "id": MODEL_ID,
        "chat": chat,
        "prices": Prices(),
        "max_tokens": 1000,
        "settings": {},
        "retries": 2,
        "tool_calls": 4,
        **changes,
    }
    return Model(**given)


def talk(
    *says: Says, role: Role = "coder", journal: MemoryJournal | None = None, **changes: Any
) -> tuple[Talk, ScriptedChat]:
    chat = ScriptedChat(says=list(says), takes_tools=changes.pop("takes_tools", True))
    made = Talk(model(chat, **changes), role, journal or MemoryJournal(), sleep=lambda _: None)
    return made, chat


def says(text: str = "", *calls: tuple[str, dict[str, Any]]) -> AIMessage:
    """A reply with tool calls, named call-0, call-1, ..."""
    made = [
        {"name": name, "args": args, "id": f"call-{at}", "type": "tool_call"}
        for at, (name, args) in enumerate(calls)
    ]
    return AIMessage(content=text, tool_calls=made)


def fenced(source: str) -> str:
    return f"Here it is.\n```python\n{source}```\n"


def brief(plans: tuple[Plan, ...] = (), trials: tuple[Trial, ...] = (), **changes: Any) -> Brief:
    inputs = (InputSpec(shape=(builders.ROWS, builders.COLUMNS)),)
    settings = changes.pop("settings", {})
    task = Task(name="softmax", op="torch.softmax", inputs=inputs, **settings)
    given: dict[str, Any] = {
        "task": task,
        "device": builders.device(),
        "facts": builders.facts(),
        "baselines": builders.baselines(),
        "roofline": builders.roofline(),
        "plans": plans,
        "trials": trials,
        "trials_left": task.budget.trials - len(trials),
        "seconds_left": 100.0,
        **changes,
    }
    return Brief(**given)


def model_plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "id": "m1",
        "title": "One sweep of each row",
        "steps": (),
        "expected_speedup": 2.0,
        "arithmetic": "67 MB at 19.4 GB/s are 3.46 ms.",
        "maker": MODEL_ID,
        "instructions": "Keep the row in L1 and sweep it twice.",
        "technique": "fused row loop",
        **changes,
    }
    return Plan(**given)
