"""Any embedding of LangChain's by name: `openai:text-embedding-3-small`, `ollama:...`, your own.

The one place in this room that knows LangChain, imported only when somebody names such a model:
`python -m knowledge.search` must be able to use it, and may not import `agents`.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TypeVar

from langchain.embeddings import init_embeddings
from langchain_core.embeddings import Embeddings
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from knowledge.embed import CHOICE, EmbeddingFailed
from knowledge.outage import is_broken_line, may_pass

# A service's own limits are hundreds of texts and of kilotokens a request; passages are short.
BATCH = 64
ATTEMPTS = 5
LONGEST_WAIT_S = 20.0

Answer = TypeVar("Answer")


class Hosted:
    """A LangChain embedding, asked in batches, again where its service was only busy."""

    def __init__(self, name: str, model: Embeddings, first_wait_s: float = 0.5) -> None:
        self.name = f"langchain/{name}"
        self._given = name
        self._model = model
        self._first_wait_s = first_wait_s

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector a text.

        Raises:
            EmbeddingFailed: the service refuses, or is still busy at the last attempt.
        """
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            made = self._patiently(partial(self._model.embed_documents, batch))
            if len(made) != len(batch):
                raise _failed(self._given, f"{len(made)} vectors for {len(batch)} texts")
            vectors += made
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question.

        Raises:
            EmbeddingFailed: as `embed`.
        """
        return self._patiently(partial(self._model.embed_query, text))

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception(is_passing),
            stop=stop_after_attempt(ATTEMPTS),
            # Those who were turned away together should not come back together.
            wait=wait_exponential(self._first_wait_s, LONGEST_WAIT_S)
            + wait_random(0, self._first_wait_s),
            reraise=True,
        )
        try:
            return retrying(ask)
        except Exception as error:
            raise _failed(self._given, _told(error)) from error


def hosted(name: str) -> Hosted:
    """The embedding of that name.

    Args:
        name: `provider:model` as LangChain's `init_embeddings` takes it, or `package.module:name`
            of a callable that gives an `Embeddings`.

    Raises:
        EmbeddingFailed: no such provider or callable, a package that is not installed, or a key
            that is not set.
    """
    provider, _, model = name.partition(":")
    try:
        made = _called(provider, model) if "." in provider else _initialised(provider, model)
    except Exception as error:
        raise _failed(name, _told(error)) from error
    if not isinstance(made, Embeddings):
        raise _failed(name, f"it is a {type(made).__name__}, no LangChain Embeddings")
    return Hosted(name, made)


def is_passing(error: BaseException) -> bool:
    """Whether it may go well a little later.

    Every provider has exceptions of its own: what they share is a status, or what they stem from.
    """
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return may_pass(status)
    causes = (error, error.__cause__, error.__context__)
    return any(cause is not None and is_broken_line(cause) for cause in causes)


def _called(module: str, name: str) -> object:
    return getattr(import_module(module), name)()


def _initialised(provider: str, model: str) -> object:
    if provider == "openai":
        # Else it downloads a tokenizer, to cut texts longer than ours are, and sends numbers,
        # which servers that speak OpenAI's language need not take.
        return init_embeddings(model, provider=provider, check_embedding_ctx_length=False)
    return init_embeddings(model, provider=provider)


def _told(error: BaseException) -> str:
    """What a provider says, as one line of a readable length."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _failed(name: str, why: str) -> EmbeddingFailed:
    return EmbeddingFailed(
        f"{CHOICE}={name}",
        f"gives no vectors: {why.rstrip('.')}.",
        "Install or set what it asks for, or unset the variable for local vectors.",
    )
