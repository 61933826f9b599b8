"""LangSmith's trace of a run, where the user's variables ask for one. No run needs it.

A trace holds what every node was given and made, prompts and answers included, and the value of no
key. It may be lost: a run waits for LangSmith a few seconds at its beginning and at its end, and
never fails with it.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langsmith import Client, get_tracing_context, tracing_context
from langsmith.utils import LangSmithError, tracing_is_enabled
from urllib3 import Retry

from tools.secrets import redact

# To find a connection and to read an answer, and for the last of a trace to leave.
CONNECT_MS, READ_MS, FAREWELL_S = 3_000, 5_000, 5.0
# LangSmith's client complains through these, at every part of a trace that is lost.
COMPLAINING = ("langsmith.client", "langsmith._internal._background_thread")
WHY_LIMIT = 200


@contextmanager
def traced() -> Iterator[str]:
    """Within this block LangChain's and LangGraph's runs are traced, if the environment says so.

    Yields why they are not although it does, as a sentence; else nothing.
    """
    if tracing_is_enabled() is not True:
        yield ""
        return
    context = get_tracing_context()
    try:
        client = _connected()
    except LangSmithError as error:
        with tracing_context(**{**context, "enabled": False}):
            yield f"This run is not traced: {_first_line(str(error))}"
        return
    with _complaining_once(), tracing_context(**{**context, "client": client}):
        try:
            yield ""
        finally:
            client.close(timeout=FAREWELL_S)


def _connected() -> Client:
    """A client of LangSmith's whose server has answered.

    Raises:
        LangSmithError: it has not.
    """
    # The usual client asks from a thread of its own, three times more after a failure, and the
    # process can't end before.
    patience: dict[str, Any] = {
        "timeout_ms": (CONNECT_MS, READ_MS),
        "retry_config": Retry(0),
    }
    asking = Client(auto_batch_tracing=False, **patience)
    try:
        answer = asking.request_with_retries("GET", "/info", headers={"Accept": "application/json"})
        return Client(info=answer.json(), anonymizer=_without_keys, **patience)
    except (TypeError, ValueError) as error:
        raise LangSmithError(f"{asking.api_url} does not answer as LangSmith does") from error
    finally:
        asking.close(timeout=0)


def _without_keys(told: dict[str, Any]) -> dict[str, Any]:
    """What goes into a trace, without any key: servers quote them in what they refuse."""
    text = json.dumps(told)
    # Nearly always there is none, and reading one long text is quicker than many short ones.
    cleaned: dict[str, Any] = told if redact(text) == text else _cleaned(told)
    return cleaned


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case dict():
            return {redact(name): _cleaned(one) for name, one in value.items()}
        case list():
            return [_cleaned(one) for one in value]
        case _:
            return value


class _Once(logging.Filter):
    """Lets one complaint through, in one line: a server that is gone would fill the terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._said = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        said, self._said = self._said, True
        record.msg = f"parts of this run's trace are lost: {_first_line(record.getMessage())}"
        record.args, record.exc_info = (), None
        return not said


@contextmanager
def _complaining_once() -> Iterator[None]:
    once, loggers = _Once(), [logging.getLogger(name) for name in COMPLAINING]
    for logger in loggers:
        logger.addFilter(once)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(once)


def _first_line(text: str) -> str:
    """The beginning of what LangSmith says; further lines hold the ends of its key."""
    return redact(text.partition("\n")[0])[:WHY_LIMIT]
