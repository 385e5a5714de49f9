"""Anthropic Messages: the whole answer, and a stream made of it.

What a block streams in pieces is told by its type; a block of another type, such as a redacted
thinking or a server tool's result, comes whole in its first event.

This module does not know HTTP, and nothing that it says was written by a model.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from guard.server.scripted.formats import (
    Event,
    Format,
    Json,
    identifier,
    last_user_text,
    token_count,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.exchange import Choice, ToolCall
    from guard.server.scripted.script import Delivery, Failure, Reply

_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Type by status; all others are `api_error`."""

_OPENED: Final[dict[str, Json]] = {
    "text": {"text": "", "citations": []},
    "thinking": {"thinking": "", "signature": ""},
}
"""What a block lacks in its first event, by type; a block with `input` lacks that."""


def text(content: str, **fields: Any) -> Json:
    """Return a text block; `citations` is a field of it."""
    return {"type": "text", "text": content} | fields


def thinking(content: str, signature: str = "c2NyaXB0ZWQ=") -> Json:
    """Return a thinking block with its signature."""
    return {"type": "thinking", "thinking": content, "signature": signature}


def tool_use(identity: str, name: str, given: Json, kind: str = "tool_use") -> Json:
    """Return a tool call; a server's own tool has the kind `server_tool_use`."""
    return {"type": kind, "id": identity, "name": name, "input": given}


def _called(call: ToolCall, identity: str) -> Json:
    """Return a block of a call, whose arguments this vendor sends as an object."""
    try:
        given = json.loads(call.arguments)
    except json.JSONDecodeError:
        given = None
    known = given if isinstance(given, dict) else {"arguments": call.arguments}
    return tool_use(call.id or identity, call.name, known)


def _content(said: Choice, prompt: str) -> Iterator[Json]:
    if said.reasoning:
        yield thinking(said.reasoning)
    if said.content:
        yield text(said.content)
    for number, call in enumerate(said.tool_calls):
        yield _called(call, identifier(f"toolu_{number}_", prompt))


def _stop(said: Choice) -> Json:
    if said.refusal:
        explained = {"type": "refusal", "category": None, "explanation": said.refusal}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": explained}
    reason = "tool_use" if said.tool_calls else "end_turn"
    return {"stop_reason": reason, "stop_sequence": None, "stop_details": None}


def _usage(prompt: str, said: Choice) -> Json:
    called = [call.arguments for call in said.tool_calls]
    return {
        "input_tokens": token_count(prompt),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": token_count(said.reasoning, said.content, said.refusal, *called),
        "service_tier": "standard",
    }


def _prompt(request: Json) -> str:
    return last_user_text(request.get("messages"))


def _body(request: Json, prompt: str, reply: Reply) -> Json:
    said = reply.choices[0]
    return {
        "id": identifier("msg_", prompt),
        "type": "message",
        "role": "assistant",
        "model": request.get("model", "scripted"),
        "content": list(_content(said, prompt)),
        **_stop(said),
        "usage": _usage(prompt, said),
        **reply.changes,
    }


def _events(_: Json, body: Json, delivery: Delivery) -> Iterator[Event]:
    for data in _steps(body, delivery):
        yield Event(data, data["type"], data["type"] == "content_block_delta")


def _steps(body: Json, delivery: Delivery) -> Iterator[Json]:
    closing = ("stop_reason", "stop_sequence", "stop_details")
    nothing: Json = {"content": []} | dict.fromkeys(closing)
    begun = body | nothing | {"usage": body["usage"] | {"output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(body["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _opened(block)}
        for delta in _deltas(block, delivery):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    counted = {"output_tokens": body["usage"]["output_tokens"]}
    stopped = {key: body.get(key) for key in closing}
    yield {"type": "message_delta", "delta": stopped, "usage": counted}
    yield {"type": "message_stop"}


def _opened(block: Json) -> Json:
    changes = _OPENED.get(block["type"], {"input": {}})
    return block | {key: value for key, value in changes.items() if key in block}


def _deltas(block: Json, delivery: Delivery) -> Iterator[Json]:
    if block["type"] == "text":
        for piece in delivery.cut(block["text"]):
            yield {"type": "text_delta", "text": piece}
        for citation in block.get("citations") or ():
            yield {"type": "citations_delta", "citation": citation}
    elif block["type"] == "thinking":
        for piece in delivery.cut(block["thinking"]):
            yield {"type": "thinking_delta", "thinking": piece}
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif "input" in block:
        # The API begins with an empty fragment, too.
        given = json.dumps(block["input"], ensure_ascii=False)
        for piece in ("", *delivery.cut(given)):
            yield {"type": "input_json_delta", "partial_json": piece}


def _error(failure: Failure) -> Json:
    error = {"type": _ERRORS.get(failure.status, "api_error"), "message": failure.message}
    return {"type": "error", "error": error, "request_id": "req_scripted"}


FORMAT: Final = Format(
    path="/v1/messages",
    request_id="request-id",
    prompt=_prompt,
    body=_body,
    events=_events,
    error=_error,
    error_event=lambda failure, _: Event(_error(failure), "error"),
)
"""Messages."""
