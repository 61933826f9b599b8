"""OpenAI's chat completions, as vLLM, llama.cpp and many others speak them too.

Written after https://platform.openai.com/docs/api-reference/chat.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.models.script import Message, Question, Says, Tool, ToolCall
from tests.models.wire import BadRequest, called, numbered, pieces, text_of

ROLES = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
    "tool": "tool",
}  # fmt: skip
TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 429: "rate_limit_error"}


class OpenAIWire:
    """`POST /v1/chat/completions`."""

    path = "/v1/chat/completions"

    def key(self, headers: Mapping[str, str]) -> str:
        """The bearer token."""
        return headers.get("authorization", "").removeprefix("Bearer ")

    def read(self, body: Mapping[str, Any]) -> Question:
        """The request; raises BadRequest."""
        format_ = body.get("response_format") or {"type": "text"}
        shape = None
        if format_["type"] == "json_schema":
            shape = format_["json_schema"]["schema"]
            if format_["json_schema"].get("strict"):
                refuse_loose(shape, "response_format")
        elif format_["type"] == "json_object":
            shape = {"type": "object"}
        tools = tuple(_tool(entry["function"]) for entry in body.get("tools") or ())
        return Question(
            model=body["model"],
            messages=tuple(_message(turn) for turn in body["messages"]),
            tools=tools if body.get("tool_choice") != "none" else (),
            must_call=_must_call(body.get("tool_choice")),
            shape=shape,
            streamed=bool(body.get("stream")),
        )

    def whole(self, question: Question, says: Says) -> Mapping[str, Any]:
        """A `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": says.text or None}
        if says.calls:
            message["tool_calls"] = [_call(call) for call in called(says, "call_")]
        choice = {"index": 0, "message": message, "finish_reason": _finish(says)}
        return {
            **_head(question, "chat.completion"),
            "choices": [choice],
            "usage": _usage(question, says),
        }

    def events(self, question: Question, says: Says, body: Mapping[str, Any]) -> Iterator[str]:
        """`chat.completion.chunk`s, then `[DONE]`; usage comes only where it was asked for."""
        head = _head(question, "chat.completion.chunk")

        def chunk(delta: Mapping[str, Any], finish: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return _event({**head, "choices": [choice]})

        yield chunk({"role": "assistant", "content": ""})
        for piece in pieces(says.text):
            yield chunk({"content": piece})
        for index, call in enumerate(called(says, "call_")):
            first = {**_call(call), "index": index}
            first["function"] = {"name": call.name, "arguments": ""}
            yield chunk({"tool_calls": [first]})
            for piece in pieces(json.dumps(call.arguments)):
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield chunk({}, _finish(says))
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _event({**head, "choices": [], "usage": _usage(question, says)})
        yield "data: [DONE]\n\n"

    def error(self, status: int, message: str) -> Mapping[str, Any]:
        """OpenAI's error document."""
        kind = TYPES.get(status, "server_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def refuse_loose(schema: Any, where: str) -> None:
    """Refuse what strict mode does: an object that is open, or has properties that may be missing.

    Raises:
        BadRequest: the schema is not a strict one.
    """
    if isinstance(schema, list):
        for part in schema:
            refuse_loose(part, where)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            raise BadRequest(f"Invalid schema for {where}: 'additionalProperties' must be false")
        if set(schema.get("required", ())) != set(schema.get("properties", {})):
            raise BadRequest(f"Invalid schema for {where}: 'required' must name every property")
    for part in schema.values():
        refuse_loose(part, where)


def _message(turn: Mapping[str, Any]) -> Message:
    if turn.get("role") not in ROLES:
        raise BadRequest(f"Invalid value for 'role': {turn.get('role')!r}")
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in turn.get("tool_calls") or ()
    )
    return Message(
        ROLES[turn["role"]],  # type: ignore[arg-type]
        text_of(turn.get("content")),
        calls,
        turn.get("tool_call_id", ""),
    )


def _tool(function: Mapping[str, Any]) -> Tool:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", function["name"]):
        raise BadRequest(f"Invalid 'tools[0].function.name': {function['name']!r}")
    if function.get("strict"):
        refuse_loose(function["parameters"], f"function '{function['name']}'")
    return Tool(function["name"], function.get("description", ""), function.get("parameters", {}))


def _must_call(choice: str | Mapping[str, Any] | None) -> str:
    if isinstance(choice, Mapping):
        return str(choice["function"]["name"])
    return "*" if choice == "required" else ""


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _finish(says: Says) -> str:
    if says.cut:
        return "length"
    return "tool_calls" if says.calls else "stop"


def _head(question: Question, kind: str) -> dict[str, Any]:
    identity = numbered("chatcmpl-")
    return {"id": identity, "object": kind, "created": 1_800_000_000, "model": question.model}


def _usage(question: Question, says: Says) -> dict[str, int]:
    asked, said = question.tokens, says.tokens
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
