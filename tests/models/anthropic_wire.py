"""Anthropic's messages.

Written after https://docs.anthropic.com/en/api/messages and its page on streaming.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.models.script import Message, Question, Says, Tool, ToolCall
from tests.models.wire import BadRequest, called, numbered, pieces, text_of

TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
    429: "rate_limit_error", 529: "overloaded_error",
}  # fmt: skip


class AnthropicWire:
    """`POST /v1/messages`."""

    path = "/v1/messages"

    def key(self, headers: Mapping[str, str]) -> str:
        """The bearer token, or the `x-api-key` header, which older clients send."""
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        return headers.get("x-api-key", bearer)

    def read(self, body: Mapping[str, Any]) -> Question:
        """The request; raises BadRequest."""
        if not isinstance(body.get("max_tokens"), int):
            raise BadRequest("max_tokens: Field required")
        choice = body.get("tool_choice") or {"type": "auto"}
        if not body["messages"] or body["messages"][0]["role"] != "user":
            raise BadRequest('messages: first message must use the "user" role')
        messages = [part for turn in body["messages"] for part in _messages(turn)]
        if system := text_of(body.get("system")):
            messages.insert(0, Message("system", system))
        format_ = (body.get("output_config") or {}).get("format") or {}
        must = {"any": "*", "tool": choice.get("name", "")}.get(choice["type"], "")
        tools = tuple(
            Tool(entry["name"], entry.get("description", ""), entry["input_schema"])
            for entry in body.get("tools") or ()
        )
        return Question(
            model=body["model"],
            messages=tuple(messages),
            tools=tools if choice["type"] != "none" else (),
            must_call=must,
            shape=format_.get("schema"),
            streamed=bool(body.get("stream")),
        )

    def whole(self, question: Question, says: Says) -> Mapping[str, Any]:
        """A `message`."""
        blocks: list[Mapping[str, Any]] = [{"type": "text", "text": says.text}] if says.text else []
        blocks += [_tool_use(call, call.arguments) for call in called(says, "toolu_")]
        usage = _usage(question, says)
        return {**_head(question), "content": blocks, "stop_reason": _stop(says), "usage": usage}

    def events(self, question: Question, says: Says, body: Mapping[str, Any]) -> Iterator[str]:
        """From `message_start` to `message_stop`, each block with a start, deltas and a stop."""
        opening = {"input_tokens": question.tokens, "output_tokens": 1}
        yield _event("message_start", message={**_head(question), "content": [], "usage": opening})
        index = 0
        if says.text:
            deltas = ({"type": "text_delta", "text": piece} for piece in pieces(says.text))
            yield from _block(index, {"type": "text", "text": ""}, deltas)
            index += 1
        for call in called(says, "toolu_"):
            written = json.dumps(call.arguments)
            parts = ({"type": "input_json_delta", "partial_json": p} for p in pieces(written))
            yield from _block(index, _tool_use(call, {}), parts)
            index += 1
        end = {"stop_reason": _stop(says), "stop_sequence": None}
        yield _event("message_delta", delta=end, usage=_usage(question, says))
        yield _event("message_stop")

    def error(self, status: int, message: str) -> Mapping[str, Any]:
        """Anthropic's error document."""
        kind = TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}


def _messages(turn: Mapping[str, Any]) -> Iterator[Message]:
    """The turns that one of Anthropic's holds: results of tools are blocks of a user's turn."""
    content = turn["content"]
    blocks = [] if isinstance(content, str) else content
    for block in blocks:
        if block["type"] == "tool_result":
            yield Message("tool", text_of(block.get("content")), answers=block["tool_use_id"])
    calls = tuple(
        ToolCall(block["id"], block["name"], block["input"])
        for block in blocks
        if block["type"] == "tool_use"
    )
    text = text_of(content)
    if text or calls:
        yield Message(turn["role"], text, calls)
    elif not blocks:
        raise BadRequest("messages: text content blocks must be non-empty")


def _tool_use(call: ToolCall, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _stop(says: Says) -> str:
    if says.cut:
        return "max_tokens"
    return "tool_use" if says.calls else "end_turn"


def _usage(question: Question, says: Says) -> dict[str, int]:
    return {"input_tokens": question.tokens, "output_tokens": says.tokens}


def _head(question: Question) -> dict[str, Any]:
    return {
        "id": numbered("msg_"), "type": "message", "role": "assistant", "model": question.model,
        "stop_reason": None, "stop_sequence": None,
    }  # fmt: skip


def _block(
    index: int, start: Mapping[str, Any], deltas: Iterator[Mapping[str, Any]]
) -> Iterator[str]:
    yield _event("content_block_start", index=index, content_block=start)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _event(kind: str, **data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"
