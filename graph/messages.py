"""An exchange as a person reads it: one bounded line of JSON in `messages.jsonl`.

`exchanges.jsonl` holds what a run needs to go on; these files, one a trial, are for reading alone.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from agents.llm.exchange import Exchange
from graph.ledger import Ledger

# Of one message; a prompt with a kernel and its pages stays whole.
LONGEST = 24_000


class Readable:
    """The files of messages of one run. Each is read once; from then on an exchange costs a line.

    After a restart an exchange may be in its file already, not at all, or half.
    """

    def __init__(self) -> None:
        self._written: dict[Path, set[bytes]] = {}

    def keep(self, path: Path, exchange: Exchange) -> None:
        """Add an exchange to a file of messages, unless it is there already."""
        ledger = Ledger(path)
        if path not in self._written:
            self._written[path] = {_mark(line) for line in ledger.recover()[0]}
        line, written = readable(exchange), self._written[path]
        if _mark(line) not in written:
            ledger.append(line)
            written.add(_mark(line))


def _mark(line: str) -> bytes:
    return sha256(line.encode()).digest()


def readable(exchange: Exchange) -> str:
    """Who asked which model what, and what it said."""
    told = {
        "when": exchange.when,
        "role": exchange.role,
        "plan": exchange.plan,
        "model": exchange.model,
        "seconds": round(exchange.seconds, 2),
        "usage": exchange.usage.model_dump(),
        "messages": [_message(message) for message in exchange.messages],
        "reply": _message(exchange.reply),
    }
    return json.dumps(told, ensure_ascii=False)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message in LangChain's dictionary form, without what only a client library reads."""
    data = message.get("data", {})
    told: dict[str, Any] = {"from": message.get("type", ""), "text": _text(data.get("content", ""))}
    if calls := data.get("tool_calls"):
        told["tool_calls"] = [
            {"name": call.get("name", ""), "arguments": _bounded(json.dumps(call.get("args", {})))}
            for call in calls
        ]
    return told


def _text(content: str | Sequence[Any]) -> str:
    """Content is text, or a list of blocks, some of them text."""
    if isinstance(content, str):
        return _bounded(content)
    parts = [block if isinstance(block, str) else str(block.get("text", "")) for block in content]
    return _bounded("\n".join(part for part in parts if part))


def _bounded(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[{len(text) - LONGEST:,} characters left out]\n{text[-half:]}"
