"""OpenAI Responses: the whole answer, and a stream made of it.

Texts repeat in a stream's closing events exactly as in the API. What an item streams in pieces
is in tables; an item of another type comes whole in its first event and again in its last.

This module does not know HTTP, and nothing that it says was written by a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from guard.server.scripted.chat import openai_error
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
    from collections.abc import Iterable, Iterator

    from guard.exchange import Choice
    from guard.server.scripted.script import Delivery, Failure, Reply

    Step = tuple[str, Json]

_ARGUMENTS: Final = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
    "mcp_call": ("arguments", "response.mcp_call_arguments"),
    "code_interpreter_call": ("code", "response.code_interpreter_call_code"),
}
"""Items with one text of their own: its key and the stem of its events' names."""

_PARTS: Final = {
    "output_text": ("text", "response.output_text"),
    "reasoning_text": ("text", "response.reasoning_text"),
    "refusal": ("refusal", "response.refusal"),
}
"""As `_ARGUMENTS`, for the parts of a message and of a reasoning."""

_STATES: Final = {
    "code_interpreter_call": (("in_progress",), ("interpreting", "completed")),
    "compaction": (("compacting",), ()),
    "file_search_call": (("in_progress", "searching"), ("completed",)),
    "image_generation_call": (("in_progress", "generating"), ("completed",)),
    "mcp_call": (("in_progress",), ("completed",)),
    "mcp_list_tools": (("in_progress",), ("completed",)),
    "web_search_call": (("in_progress", "searching"), ("completed",)),
}
"""States that an item's events report before and after its texts."""

_OPENED: Final[dict[str, Json]] = {
    "code_interpreter_call": {"code": "", "outputs": None},
    "custom_tool_call": {"input": ""},
    "file_search_call": {"queries": [], "results": None},
    "function_call": {"arguments": ""},
    "image_generation_call": {"result": None, "revised_prompt": None},
    "mcp_call": {"arguments": "", "output": None},
    "mcp_list_tools": {"tools": []},
    "message": {"content": []},
    "reasoning": {"summary": [], "content": []},
    "shell_call_output": {"output": []},
}
"""What an item lacks in its first event, by type."""


def output_text(text: str, **fields: Any) -> Json:
    """Return a text part; `fields` such as `annotations` or `logprobs` replace the defaults."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []} | fields


def refusal(text: str) -> Json:
    """Return a refusal part."""
    return {"type": "refusal", "refusal": text}


def message(identity: str, *content: Json, status: str = "completed") -> Json:
    """Return a message of text and refusal parts."""
    plain = {"id": identity, "type": "message", "status": status, "role": "assistant"}
    return plain | {"content": list(content)}


def reasoning(identity: str, *content: str, summary: Iterable[str] = ()) -> Json:
    """Return a reasoning with its own texts and those of its summary."""
    return {
        "id": identity,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        "content": [{"type": "reasoning_text", "text": text} for text in content],
        "encrypted_content": None,
        "status": "completed",
    }


def item(kind: str, identity: str, **fields: Any) -> Json:
    """Return an item of any other type, such as `function_call` or one that no SDK knows."""
    return {"id": identity, "type": kind, "status": "completed"} | fields


def _output(said: Choice, prompt: str, *, scored: bool) -> Iterator[Json]:
    if said.reasoning:
        yield reasoning(identifier("rs_", prompt), said.reasoning)
    parts = [output_text(said.content, logprobs=logprobs(said.content) if scored else [])]
    content = (parts if said.content else []) + ([refusal(said.refusal)] if said.refusal else [])
    if content:
        yield message(identifier("msg_", prompt), *content)
    for number, call in enumerate(said.tool_calls):
        identity = identifier(f"fc_{number}_", prompt)
        name = call.id or identity.replace("fc_", "call_", 1)
        fields = {"call_id": name, "name": call.name, "arguments": call.arguments}
        yield item("function_call", identity, **fields)


def _usage(prompt: str, said: Choice) -> Json:
    asked, thought = token_count(prompt), token_count(said.reasoning)
    called = [call.arguments for call in said.tool_calls]
    answered = thought + token_count(said.content, said.refusal, *called)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": asked + answered,
    }


def _prompt(request: Json) -> str:
    given = request.get("input")
    return given if isinstance(given, str) else last_user_text(given)


def _body(request: Json, prompt: str, reply: Reply) -> Json:
    said = reply.choices[0]
    scored = "message.output_text.logprobs" in (request.get("include") or ())
    return {
        "id": identifier("resp_", prompt),
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "background": bool(request.get("background")),
        "completed_at": CREATED + 1,
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "max_tool_calls": None,
        "model": request.get("model", "scripted"),
        "output": list(_output(said, prompt, scored=scored)),
        "parallel_tool_calls": True,
        "previous_response_id": request.get("previous_response_id"),
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": request.get("text") or {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": request.get("tools") or [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(prompt, said),
        "user": None,
        "metadata": request.get("metadata") or {},
        **reply.changes,
    }


def _events(request: Json, body: Json, delivery: Delivery) -> Iterator[Event]:
    options = request.get("stream_options") or {}
    noise = {"obfuscation": NOISE} if options.get("include_obfuscation") else {}
    for number, (name, fields) in enumerate(_steps(body, delivery)):
        is_piece = name.endswith(".delta")
        data = {"type": name, **fields, "sequence_number": number}
        yield Event(data | (noise if is_piece else {}), name, is_piece)


def _steps(body: Json, delivery: Delivery) -> Iterator[Step]:
    nothing: Json = {"output": [], "usage": None, "error": None, "incomplete_details": None}
    begun = body | nothing | {"status": "in_progress", "completed_at": None}
    yield "response.created", {"response": begun}
    if body["background"]:
        yield "response.queued", {"response": begun | {"status": "queued"}}
    yield "response.in_progress", {"response": begun}
    for index, one in enumerate(body["output"]):
        yield "response.output_item.added", {"output_index": index, "item": _opened(one)}
        yield from _item({"output_index": index, "item_id": one["id"]}, one, delivery)
        yield "response.output_item.done", {"output_index": index, "item": one}
    yield f"response.{body['status']}", {"response": body}


def _opened(one: Json) -> Json:
    kind = one["type"]
    if kind.endswith("_output") and kind not in _OPENED:
        return one  # a tool's result comes complete
    changes = _OPENED.get(kind, {}) | {"status": "in_progress"}
    if kind == "shell_call":
        changes["action"] = one["action"] | {"commands": []}
    return one | {key: value for key, value in changes.items() if key in one}


def _item(at: Json, one: Json, delivery: Delivery) -> Iterator[Step]:
    kind = one["type"]
    before, after = _STATES.get(kind, ((), ()))
    failed = one.get("status") == "failed"
    yield from ((f"response.{kind}.{state}", at) for state in before)
    if kind in _ARGUMENTS:
        yield from _text(at, *_ARGUMENTS[kind], one, delivery)
    for index, part in enumerate(one.get("summary") or ()):
        yield from _summary(at | {"summary_index": index}, part, delivery)
    if kind in ("message", "reasoning"):
        for index, part in enumerate(one.get("content") or ()):
            yield from _part(at | {"content_index": index}, part, delivery)
    if kind in ("shell_call", "shell_call_output"):
        yield from _shell(at, one, delivery)
    if kind == "image_generation_call":
        image = {"partial_image_index": 0, "partial_image_b64": one["result"]}
        yield "response.image_generation_call.partial_image", at | image
    yield from ((f"response.{kind}.{'failed' if failed else state}", at) for state in after)


def _text(at: Json, key: str, stem: str, one: Json, delivery: Delivery) -> Iterator[Step]:
    """Yield the deltas of `one[key]`, then the event that repeats it."""
    for piece in delivery.cut(one[key]):
        yield f"{stem}.delta", at | {"delta": piece}
    yield f"{stem}.done", at | {key: one[key]}


def _summary(at: Json, part: Json, delivery: Delivery) -> Iterator[Step]:
    yield "response.reasoning_summary_part.added", at | {"part": part | {"text": ""}}
    yield from _text(at, "text", "response.reasoning_summary_text", part, delivery)
    yield "response.reasoning_summary_part.done", at | {"part": part}


def _part(at: Json, part: Json, delivery: Delivery) -> Iterator[Step]:
    kind = part["type"]
    key, stem = _PARTS.get(kind, ("", ""))
    emptied = {key: "", "annotations": [], "logprobs": []}
    opened = part | {name: value for name, value in emptied.items() if name in part}
    yield "response.content_part.added", at | {"part": opened}
    if kind == "output_text":
        yield from _output_text(at, part, delivery)
    elif key:
        yield from _text(at, key, stem, part, delivery)
    yield "response.content_part.done", at | {"part": part}


def _output_text(at: Json, part: Json, delivery: Delivery) -> Iterator[Step]:
    scored = part.get("logprobs") or []
    for piece, tokens in pieces(part["text"], scored, delivery):
        yield "response.output_text.delta", at | {"delta": piece, "logprobs": tokens}
    for index, annotation in enumerate(part.get("annotations") or ()):
        where = at | {"annotation_index": index}
        yield "response.output_text.annotation.added", where | {"annotation": annotation}
    yield "response.output_text.done", at | {"text": part["text"], "logprobs": scored}


def _shell(at: Json, one: Json, delivery: Delivery) -> Iterator[Step]:
    """Yield a shell call's commands, or what they printed."""
    where = {"output_index": at["output_index"]}
    for index, command in enumerate(one.get("action", {}).get("commands", ())):
        begun = where | {"command_index": index}
        yield "response.shell_call_command.added", begun | {"command": ""}
        stem = "response.shell_call_command"
        yield from _text(begun, "command", stem, {"command": command}, delivery)
    for index, printed in enumerate(one.get("output", ())):
        begun = at | {"command_index": index}
        for key in ("stdout", "stderr"):
            for piece in delivery.cut(printed[key]):
                yield "response.shell_call_output_content.delta", begun | {"delta": {key: piece}}
        yield "response.shell_call_output_content.done", begun | {"output": [printed]}


def _error_event(failure: Failure, number: int) -> Event:
    error = openai_error(failure)["error"]
    data = {"type": "error", "code": error["code"] or error["type"], "message": error["message"]}
    return Event(data | {"param": None, "sequence_number": number}, "error")


FORMAT: Final = Format(
    path="/v1/responses",
    request_id="x-request-id",
    prompt=_prompt,
    body=_body,
    events=_events,
    error=openai_error,
    error_event=_error_event,
)
"""Responses."""
