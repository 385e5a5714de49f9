"""LiteLLM's answers on their way through the guard: its objects as a vendor's format, and back.

LiteLLM speaks three formats to its callers, whatever the provider speaks. An answer that passes
leaves as the very object that came; one that does not is written into that object, since
LiteLLM's own layers (loggers, headers, costs) hold on to it. Chunks are rebuilt by their class.

An answer is never asked for anew here: the class's `regenerate` counts as `replace`.

This module does not know where answers come from (`guard.adapters.litellm`), and not how a text
is judged.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from litellm.exceptions import APIError
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.utils import ModelResponse, ModelResponseStream
from pydantic import BaseModel

from guard.adapters.turns import lone_parts, plain
from guard.wire.formats import FORMATS, Call, format_of
from guard.wire.parts import BodyError, written
from guard.wire.sse import Event, Parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guard.engine import Guard
    from guard.steps import Steps
    from guard.wire.formats import Format
    from guard.wire.parts import Json

CHAT: Final = next(form for form in FORMATS if form.name == "chat")
"""Chat completions, what LiteLLM's own functions speak."""

_ASKED: Final = (
    *("model", "messages", "stream", "response_format"),
    *("input", "instructions", "prompt", "text"),
    *("system", "output_config", "output_format"),
)
"""What of a request says what is asked, in any of the formats."""

_HIDDEN: Final = "_hidden_params"
"""Where LiteLLM keeps headers and costs of an answer, and what a provider said besides."""

_OF_LITELLM: Final = frozenset(
    {
        *("additional_headers", "headers", "optional_params", "usage"),
        *("api_base", "region_name", "custom_llm_provider", "model", "litellm_model_name"),
        *("model_id", "received_model_id", "litellm_call_id", "cache_key", "cache_hit"),
        *("response_cost", "created_at", "_response_ms", "callback_duration_ms"),
    }
)
"""What LiteLLM itself says there; all else may be a provider's, such as thoughts and citations."""


def form_of(answer: object, route: str | None) -> Format | None:
    """Return the format of an answer by the path of its request, else by its class."""
    known = (format_of(method, route or "") for method in ("POST", "GET"))
    is_chat = isinstance(answer, ModelResponse | ModelResponseStream)
    return next(filter(None, known), CHAT if is_chat else None)


def call_of(guard: Guard, form: Format, data: Mapping[str, Any]) -> Call:
    """Return the way of a request and its answer through the guard.

    Args:
        guard: judges.
        form: the format.
        data: the request, as LiteLLM's functions and hooks are given it.
    """
    given = {key: data[key] for key in _ASKED if data.get(key) is not None}
    if isinstance(given.get("response_format"), type):
        given["response_format"] = {"type": "json_schema"}
    asked: Json = plain(given)
    return Call(guard, form, asked)


def refused(call: Call, data: bytes) -> Iterator[Any]:
    """Yield a refusal as LiteLLM's objects: one, or the chunks of a stream."""
    if not call.asked.stream:
        yield ModelResponse(**json.loads(data))
        return
    for event in Parser().feed(data):
        if event is not None and event.data != "[DONE]":
            yield ModelResponseStream(**json.loads(event.data))


class WholeAnswer:
    """A whole answer: `judge`, then `delivered`.

    Args:
        call: the request's way.
        answer: any of LiteLLM's answers in the call's format.

    Raises:
        APIError: it cannot be read, so that it cannot be judged.
    """

    def __init__(self, call: Call, answer: Any) -> None:
        """Judge nothing yet."""
        self._answer = answer
        self._data = written(_document(answer)).encode()
        try:
            self._body = call.body(self._data)
        except BodyError as error:
            raise _failed(str(error), call) from error

        self._left = b""

    @property
    def untouched(self) -> bool:
        """Whether the answer is delivered as it came."""
        return self._left is self._data

    def judge(self) -> Steps:
        """Judge every text."""
        yield from self._body.judge()
        self._left = self._body.delivered()

    def delivered(self) -> Any:
        """Return the answer, with what may be delivered written into it."""
        if not self.untouched:
            _refill(self._answer, json.loads(self._left))
        return self._answer


class StreamedAnswer:
    """A stream of an answer: `feed` and `chunks` for each chunk, then `finish` and `chunks`.

    Args:
        call: the request's way.
    """

    def __init__(self, call: Call) -> None:
        """Begin at the start of a stream."""
        self._call = call
        self._relay = call.relay()
        self._waiting: deque[tuple[str, Any]] = deque()
        self._like: Any = None

    @property
    def stopped(self) -> bool:
        """Whether no more of the stream is wanted."""
        return self._relay.stopped

    @property
    def untouched(self) -> bool:
        """Whether all of the stream was seen, and left as it came."""
        if not self._relay.finished:
            return False
        verdict = self._relay.session.verdict()
        return verdict.shadow or verdict.action in ("allow", "flag")

    def feed(self, chunk: Any) -> Steps:
        """Take a chunk: an object, or bytes of a stream of events."""
        if self._like is None:
            self._like = chunk
        if isinstance(chunk, bytes | str):
            yield from self._relay.feed(chunk.encode() if isinstance(chunk, str) else chunk)
            return
        document = _document(chunk)
        name = document.get("type") if self._call.form.name != "chat" else ""
        text = Event(written(document), name or "").text()
        self._waiting.append((text, chunk))
        yield from self._relay.feed(text.encode())

    def finish(self) -> Steps:
        """Take the end of the stream."""
        yield from self._relay.finish()

    def abandon(self) -> Steps:
        """Close the journal's row of a stream whose reader or provider went away."""
        yield from self._relay.abandon()

    def chunks(self, text: str) -> Iterator[Any]:
        """Yield what leaves as chunks of the kind that came.

        Raises:
            APIError: what leaves is that a part of the answer could not be judged.
        """
        if isinstance(self._like, bytes):
            yield text.encode()
        elif isinstance(self._like, str):
            yield text
        elif any(text == waiting for waiting, _ in self._waiting):
            yield self._taken(text)
        else:
            for event in Parser().feed(text.encode()):
                if event is not None and event.data != "[DONE]":
                    yield self._made(json.loads(event.data))

    def _taken(self, text: str) -> Any:
        """Return the chunk that leaves as it came; those before it left otherwise, or not."""
        while (waiting := self._waiting.popleft())[0] != text:
            pass
        return waiting[1]

    def _made(self, document: Json) -> Any:
        document.pop(_HIDDEN, None)
        if self._call.form.name == "responses":
            kind = OpenAIResponsesAPIConfig.get_event_model_class(str(document.get("type")))
            return kind.model_validate(document)
        if self._call.form.name != "chat":
            return document
        if "choices" not in document:
            raise _failed(str(document.get("error", {}).get("message")), self._call)
        made = ModelResponseStream(**document)
        if self._waiting:
            # LiteLLM puts chunks in order by what it keeps there.
            made._hidden_params = _kept(self._waiting[0][1]._hidden_params)  # noqa: SLF001
        return made


def _document(answer: Any) -> Json:
    """Return an answer or a chunk as JSON, with what a provider says in its hidden parameters."""
    hidden = _hidden(answer)
    if isinstance(answer, dict):
        answer = {key: value for key, value in answer.items() if key != _HIDDEN}
    shown = plain(answer)
    # Whatever else it may be is judged as a text, and passes only as a whole.
    document = shown if isinstance(shown, dict) else {"content": shown}
    said = [part.text for part in lone_parts(hidden, _OF_LITELLM)]
    known = {part.text for part in lone_parts(document)} if said else set()
    # What stands in the answer, too, is judged there, and may be rewritten there.
    more = [text for text in said if text not in known]
    return document | {_HIDDEN: more} if more else document


def _hidden(answer: Any) -> Json:
    """Return the hidden parameters of an answer, empty where it has none."""
    found = answer.get(_HIDDEN) if isinstance(answer, dict) else getattr(answer, _HIDDEN, None)
    return found if isinstance(found, dict) else {}


def _kept(hidden: Json) -> Json:
    """Return what is kept of hidden parameters where an answer reads otherwise than it came."""
    return {key: value for key, value in hidden.items() if key in _OF_LITELLM}


def _refill(answer: Any, document: Json) -> None:
    """Write a document into an answer."""
    document.pop(_HIDDEN, None)
    hidden = _hidden(answer)
    kept = _kept(hidden)
    # Others hold on to the very dictionary.
    hidden.clear()
    hidden.update(kept)
    if isinstance(answer, BaseModel):
        made = type(answer)(**document)
        for name in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__"):
            object.__setattr__(answer, name, getattr(made, name))
        return
    beside = {_HIDDEN: answer[_HIDDEN]} if _HIDDEN in answer else {}
    answer.clear()
    answer.update(document | beside)


def _failed(message: str, call: Call) -> APIError:
    model = call.asked.exchange.model
    return APIError(status_code=502, message=message, llm_provider="", model=model)
