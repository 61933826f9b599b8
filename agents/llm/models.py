"""The models behind the roles: made by LangChain, with keys from the environment and nowhere else.

What a user must install or set is said before a run begins, in one line.
"""

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel

from agents.llm.prices import Prices
from knowledge.errors import BadInput
from tools.task import Task

# What a server of one's own gets where it asks for no key, since OpenAI's client insists on one.
NO_KEY = "none"
# Room for a question with what its tools said.
QUESTION_TOKENS = 24_000


@dataclass(frozen=True)
class Provider:
    """What a provider needs, and how its chat model calls the settings that all have.

    `keys` are variables of which one is enough. `extra` installs its package; without one, the
    package's own name does. An empty setting is one that it does not take.
    """

    package: str
    keys: tuple[str, ...] = ()
    extra: str = ""
    max_tokens: str = "max_tokens"
    timeout: str = "timeout"
    retries: str = "max_retries"

    @property
    def install(self) -> str:
        """The command that installs what is missing."""
        wanted = f"'kernelwright[{self.extra}]'" if self.extra else self.package.replace("_", "-")
        return f"pip install {wanted}"


PROVIDERS = {
    "openai": Provider("langchain_openai", ("OPENAI_API_KEY",), "openai"),
    "anthropic": Provider("langchain_anthropic", ("ANTHROPIC_API_KEY",), "anthropic"),
    "google_genai": Provider(
        "langchain_google_genai", ("GOOGLE_API_KEY", "GEMINI_API_KEY"), "google"
    ),
    "ollama": Provider(
        "langchain_ollama", (), "ollama", max_tokens="num_predict", timeout="", retries=""
    ),
    "azure_openai": Provider("langchain_openai", ("AZURE_OPENAI_API_KEY",), "openai"),
    "cohere": Provider("langchain_cohere", ("COHERE_API_KEY",), retries=""),
    "deepseek": Provider("langchain_deepseek", ("DEEPSEEK_API_KEY",)),
    "fireworks": Provider("langchain_fireworks", ("FIREWORKS_API_KEY",)),
    "groq": Provider("langchain_groq", ("GROQ_API_KEY",)),
    "mistralai": Provider("langchain_mistralai", ("MISTRAL_API_KEY",)),
    "openrouter": Provider("langchain_openrouter", ("OPENROUTER_API_KEY",)),
    "together": Provider("langchain_together", ("TOGETHER_API_KEY",)),
    "xai": Provider("langchain_xai", ("XAI_API_KEY",)),
}
# For providers that LangChain knows and this table does not: only what nearly all of them take.
OTHER = Provider("", timeout="", retries="")


@dataclass(frozen=True)
class Model:
    """A chat model, and what is known of it; `chat` is None where all its answers are known.

    `settings` are part of the identity of a question; they hold no key and no address.
    """

    id: str
    chat: BaseChatModel | None
    prices: Prices
    max_tokens: int
    settings: dict[str, Any]
    retries: int
    tool_calls: int

    @property
    def calls_tools(self) -> bool:
        """False where it is known that it can't; who is not known to LangChain is tried."""
        return self.tool_calls > 0 and self._can("tool_calling")

    @property
    def structures(self) -> bool:
        """False where it is known not to keep to a schema."""
        return self._can("structured_output")

    def _can(self, what: str) -> bool:
        told: Any = (self.chat.profile if self.chat is not None else None) or {}
        return told.get(what, True) is not False


def make_models(task: Task, where: str) -> dict[str, Model]:
    """The task's models by their ids; making one asks nothing of anybody.

    Raises:
        BadInput: a package or a key is missing, or a setting is not to the provider's liking.
    """
    if task.way_of_thinking == "playbook":
        return {}
    prices = Prices.load(task.prices)
    return {model: _make(model, task, prices, where) for model in task.model.named}


def recorded_models(task: Task) -> dict[str, Model]:
    """The task's models where every answer of theirs is known: nobody is there to be asked."""
    settings = task.model_settings
    return {
        model: Model(
            id=model,
            chat=None,
            prices=Prices.load(task.prices),
            max_tokens=settings.max_tokens,
            settings=_chosen(task, PROVIDERS.get(model.partition(":")[0], OTHER)),
            retries=0,
            tool_calls=settings.tool_calls,
        )
        for model in task.model.named
    }


def check_models(task: Task, where: str) -> None:
    """Complain of what is missing, before anything of a run is made.

    Raises:
        BadInput: as `make_models`.
    """
    make_models(task, where)


def _make(identity: str, task: Task, prices: Prices, where: str) -> Model:
    place = f"{where}: model"
    name = identity.partition(":")[0]
    provider = PROVIDERS.get(name, OTHER)
    if provider.package and importlib.util.find_spec(provider.package) is None:
        raise BadInput(place, f'"{identity}" needs a package.', f"Run: {provider.install}")
    address = _address(task, name)
    keys = [key for key in provider.keys if os.environ.get(key)]
    if provider.keys and not keys and address is None:
        wanted = " or ".join(provider.keys)
        raise BadInput(place, f'"{identity}" needs a key.', f"Set {wanted} in the environment.")
    chosen = _chosen(task, provider)
    given = dict(chosen)
    if address is not None:
        given["base_url"] = address
        if provider.keys and not keys:
            given["api_key"] = NO_KEY
    chat = _chat(identity, given, place)
    most = (chat.profile or {}).get("max_output_tokens") or chosen[provider.max_tokens]
    if most < chosen[provider.max_tokens]:
        chosen[provider.max_tokens] = given[provider.max_tokens] = most
        chat = _chat(identity, given, place)
    return Model(
        id=identity,
        chat=chat,
        prices=prices,
        max_tokens=chosen[provider.max_tokens],
        settings=chosen,
        retries=task.model_settings.retries,
        tool_calls=task.model_settings.tool_calls,
    )


def _chat(identity: str, given: dict[str, Any], place: str) -> BaseChatModel:
    try:
        chat: BaseChatModel = init_chat_model(identity, **given)
    except ImportError as error:
        raise BadInput(place, f'"{identity}" needs a package.', _one_line(error)) from error
    # Whatever a provider's constructor finds wrong, in whatever class of its own.
    except Exception as error:
        if "provider" in str(error) and identity.partition(":")[0] not in PROVIDERS:
            known = ", ".join(PROVIDERS)
            what = f'"{identity}" names no provider that LangChain knows.'
            raise BadInput(place, what, f"For example: {known}.") from error
        raise BadInput(place, f'"{identity}" cannot be used: {_one_line(error)}') from error
    return chat


def _chosen(task: Task, provider: Provider) -> dict[str, Any]:
    """The task's settings under the provider's names for them."""
    settings = task.model_settings
    found: dict[str, Any] = {provider.max_tokens: settings.max_tokens}
    if provider.timeout:
        found[provider.timeout] = settings.timeout_s
    if provider.retries:
        # Calls are tried again in one place alone, `talk`, which also counts and waits.
        found[provider.retries] = 0
    if provider is PROVIDERS["ollama"]:
        found["client_kwargs"] = {"timeout": settings.timeout_s}
        # Its own default is a few thousand tokens, and what is longer is cut without a word.
        found["num_ctx"] = QUESTION_TOKENS + settings.max_tokens
    if settings.temperature is not None:
        found["temperature"] = settings.temperature
    return found | settings.options


def _address(task: Task, provider: str) -> str | None:
    if isinstance(task.base_url, dict):
        return task.base_url.get(provider)
    return task.base_url


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
