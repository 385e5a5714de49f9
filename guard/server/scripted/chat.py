"""OpenAI chat completions: the whole answer, and a stream made of it.

Any text in a message streams in pieces under its own name, so that `reasoning_content`,
`reasoning` and whatever vendors add next need no code here.

This module does not know HTTP, and nothing that it says was written by a model.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from guard.server.scripted.formats import (
    CREATED,
    NOISE,
    Event,
    Format,
    Json,
    identifier,
    last_user_text,
    logprobs,
    pieces,
    token_count,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.exchange import Choice, ToolCall
    from guard.server.scripted.script import Delivery, Failure, Reply

_ERRORS: Final = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
"""Type and code by status; all others are the server's fault."""

_MOST_CHOICES: Final = 128
"""As many choices as the API gives at once; another number counts as one."""


def message(**fields: Any) -> Json:
    """Return an assistant's message with every field that the API sends, and `fields`."""
    plain: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    return plain | {"audio": None} | fields


def choice(index: int, said: Json, finish_reason: str = "stop", **fields: Any) -> Json:
    """Return a choice of the message `said`."""
    plain = {"index": index, "message": said, "logprobs": None, "finish_reason": finish_reason}
    return plain | fields


def tool_call(call: ToolCall, identity: str) -> Json:
    """Return a function call of a message."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id or identity, "type": "function", "function": function}


def _message(said: Choice, identity: str) -> Json:
    extra: Json = {}
    if said.reasoning:
        extra["reasoning_content"] = said.reasoning
    if said.tool_calls:
        extra["tool_calls"] = [
            tool_call(call, f"call_{number}_{identity[-12:]}")
            for number, call in enumerate(said.tool_calls)
        ]
    return message(content=said.content or None, refusal=said.refusal or None, **extra)


def _choice(index: int, said: Choice, identity: str, *, scored: bool) -> Json:
    finish = "tool_calls" if said.tool_calls else "stop"
    return choice(
        index, _message(said, identity), finish, logprobs=_scored(said) if scored else None
    )


def _scored(said: Choice) -> Json:
    """Return made-up log-probabilities of the texts that the API gives them for."""
    texts = {"content": said.content, "refusal": said.refusal}
    return {key: logprobs(text) if text else None for key, text in texts.items()}


def _usage(prompt: str, said: list[Choice]) -> Json:
    asked = token_count(prompt)
    thought = token_count(*(one.reasoning for one in said))
    written = [text for one in said for text in (one.content, one.refusal)]
    called = [call.arguments for one in said for call in one.tool_calls]
    answered = thought + token_count(*written, *called)
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": thought,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _prompt(request: Json) -> str:
    return last_user_text(request.get("messages"))


def _body(request: Json, prompt: str, reply: Reply) -> Json:
    identity = identifier("chatcmpl-", prompt)
    wanted = request.get("n")
    count = wanted if isinstance(wanted, int) and 0 < wanted <= _MOST_CHOICES else 1
    said = [reply.choices[number % len(reply.choices)] for number in range(count)]
    scored = bool(request.get("logprobs"))
    return {
        "id": identity,
        "object": "chat.completion",
        "created": CREATED,
        "model": request.get("model", "scripted"),
        "choices": [_choice(n, one, identity, scored=scored) for n, one in enumerate(said)],
        "usage": _usage(prompt, said),
        "service_tier": "default",
        "system_fingerprint": "fp_scripted",
        **reply.changes,
    }


def _events(request: Json, body: Json, delivery: Delivery) -> Iterator[Event]:
    options = request.get("stream_options") or {}
    counted = {"usage": None} if options.get("include_usage") else {}
    noise = {"obfuscation": NOISE} if options.get("include_obfuscation") else {}
    shared = {key: value for key, value in body.items() if key not in ("choices", "usage")}
    shared |= {"object": "chat.completion.chunk"}
    runs = [_chunks(one, delivery) for one in body["choices"]]
    for row in zip_longest(*runs):
        for data, is_piece in filter(None, row):
            yield Event(shared | {"choices": [data]} | counted | noise, piece=is_piece)
    if counted:
        yield Event(shared | {"choices": [], "usage": body["usage"]})
    yield Event("[DONE]")


def _chunks(one: Json, delivery: Delivery) -> Iterator[tuple[Json, bool]]:
    """Yield one choice's chunks, and whether each is a piece."""
    said = one["message"]
    empty = {"index": one["index"], "logprobs": None, "finish_reason": None}
    # `content` begins as text or null by what will follow, as the API does it.
    begun = {"content": None if said.get("content") is None else "", "refusal": None}
    yield empty | {"delta": {"role": said.get("role", "assistant"), **begun}}, False
    for delta, scored in _deltas(said, one.get("logprobs") or {}, delivery):
        yield empty | {"delta": delta, "logprobs": scored}, True
    closing = {key: value for key, value in one.items() if key not in ("message", "logprobs")}
    yield empty | {"delta": {}} | closing, False


def _deltas(said: Json, scored: Json, delivery: Delivery) -> Iterator[tuple[Json, Json | None]]:
    # Reasoning is written first; `sorted` keeps the order of the others.
    for key in sorted(said.keys() - {"role"}, key=lambda name: _place(name, said)):
        value = said[key]
        if isinstance(value, str):
            for piece, tokens in pieces(value, scored.get(key), delivery):
                shown = {"content": None, "refusal": None} | {key: tokens} if tokens else None
                yield {key: piece}, shown
        elif key == "tool_calls":
            for index, call in enumerate(value):
                yield from ((delta, None) for delta in _call(index, call, delivery))
        elif key == "function_call" and value:
            yield {key: value | {"arguments": ""}}, None
            for piece in delivery.cut(value["arguments"]):
                yield {key: {"arguments": piece}}, None
        elif value:
            yield {key: value}, None


def _place(name: str, said: Json) -> tuple[bool, int]:
    return not name.startswith("reasoning"), list(said).index(name)


def _call(index: int, call: Json, delivery: Delivery) -> Iterator[Json]:
    kind = call["type"]
    key = "input" if kind == "custom" else "arguments"
    yield {"tool_calls": [{"index": index} | call | {kind: call[kind] | {key: ""}}]}
    for piece in delivery.cut(call[kind][key]):
        yield {"tool_calls": [{"index": index, kind: {key: piece}}]}


def openai_error(failure: Failure) -> Json:
    """Return the body of an error, as all of OpenAI's endpoints write it."""
    kind, code = _ERRORS.get(failure.status, ("server_error", None))
    return {"error": {"message": failure.message, "type": kind, "param": None, "code": code}}


FORMAT: Final = Format(
    path="/v1/chat/completions",
    request_id="x-request-id",
    prompt=_prompt,
    body=_body,
    events=_events,
    error=openai_error,
    error_event=lambda failure, _: Event(openai_error(failure)),
)
"""Chat completions."""
