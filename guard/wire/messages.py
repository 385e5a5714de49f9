"""Messages, the format of Anthropic's `/v1/messages` and of everyone who copies it.

A message that is withheld ends with a block of its own that holds the class's message, and with
the vendor's own `stop_reason` for it, `refusal`. Where a document of a schema was asked for there
is no such block, since SDKs read every text as a document: the message stands in `stop_details`.

This module does not know HTTP, not where texts stand (`guard.wire.message_texts`), and not how
they are judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from guard.exchange import Exchange, Message
from guard.request_text import text_of, turns
from guard.wire.asked import Asked, role_of
from guard.wire.body import Body
from guard.wire.detail import detail
from guard.wire.message_texts import Texts, kind_of, number
from guard.wire.parts import counts, plain, written
from guard.wire.relay import Relay
from guard.wire.sse import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guard.session import Session
    from guard.wire.parts import Json, Part
    from guard.wire.relay import Held

_ENVELOPE: Final = ("id", "type", "role", "model")

_ENDING: Final = frozenset({"message_delta", "message_stop", "error"})
"""Events behind which no text comes."""

_NO_USAGE: Final = {"input_tokens": 0, "output_tokens": 0}


class MessagesRelay(Relay):
    """A stream of a message's events."""

    marked = True

    def __init__(self, *args: Any, **options: Any) -> None:
        """Begin at the start of a stream; arguments as for `Relay`."""
        super().__init__(*args, **options)
        self._texts = Texts()
        self._message = _envelope({"model": self.session.exchange.model})
        self._usage: Json = {"output_tokens": 0}
        self._begun = False
        self._blocks = 0
        self._open: int | None = None
        self._concluded = False

    def prepare(self, document: Json) -> bool:
        """Keep what own events are made of, and which block is where."""
        kind, message = kind_of(document), document.get("message")
        if kind == "message_start" and isinstance(message, dict):
            self._message = _envelope(message)
            self._usage["output_tokens"] = self._message["usage"].get("output_tokens") or 0
        elif kind == "message_delta":
            self._usage |= counts(document.get("usage")) or {}
        elif kind == "content_block_start":
            self._texts.begin(number(document), document.get("content_block"))
        elif kind == "content_block_delta":
            self._texts.check(document)
        return False

    def parts(self, document: Json) -> Iterable[Part]:
        """Yield the texts of an event."""
        return self._texts.of_event(document)

    def completes(self, document: Json) -> Iterable[str]:
        """Yield the texts that end with an event."""
        return self._texts.completed(document)

    def ends(self, document: Json) -> Iterable[int]:
        """Yield the one choice where an event ends the message."""
        return (0,) if kind_of(document) in _ENDING else ()

    def filled(self, held: Held) -> Event:
        """Return an event with what may leave in the place of each text."""
        kind = kind_of(held.document)
        if kind == "message_start":
            self._begun = True
        elif kind == "content_block_start":
            self._open = number(held.document)
            self._blocks = max(self._blocks, self._open + 1)
        elif kind == "content_block_stop":
            self._open = None
        return super().filled(held)

    def reduce(self, held: Held) -> Iterable[Event]:
        """Yield what was judged before the message was withheld, and the refusal there."""
        kind = kind_of(held.document)
        if self.refused:
            if kind == "ping" and not held.tainted:
                yield self.filled(held)
        elif not held.tainted and kind not in _ENDING:
            passed = all(self.ledger.passed(piece) for piece in held.pieces)
            if passed or any(self.ledger.visible(piece) for piece in held.pieces):
                yield self.filled(held)
            if passed:
                return
        yield from self.refusal(0)
        if kind in _ENDING:
            yield from self.conclude()

    def refuse(self, choice: int) -> Iterable[Event]:
        """Yield the class's message in a block of its own; the end comes with the usage."""
        if not self._begun:
            yield from _events(_start(self._message))
        if self._open is not None:
            yield from _events({"type": "content_block_stop", "index": self._open})
        if not self.ledger.structured:
            before = "\n\n" if self.ledger.left(choice) else ""
            yield from _events(*_block(self._blocks, before + self.session.notice(choice)))

    def conclude(self) -> Iterable[Event]:
        """Yield the end of the message, once."""
        if not self._concluded:
            self._concluded = True
            stop = _stop(self.session, structured=self.ledger.structured)
            own = {"guard": detail(self.session.verdict())}
            yield from _events(*_end(stop, self._usage, own))

    def failure(self, message: str) -> Event:
        """Return the event that the SDK turns into an `APIStatusError`."""
        return Event(written(error(message, "upstream_error")), "error")


class MessagesBody(Body):
    """A whole message."""

    marked = True

    def prepare(self) -> bool:
        """Change nothing."""
        return False

    def parts(self) -> Iterable[Part]:
        """Yield the texts of the message."""
        return Texts().of_message(self.document, whole=True)

    def refuse(self, choice: int) -> None:
        """Write the class's message in the place of the content."""
        notice = [] if self.ledger.structured else [_text(self.session.notice(choice))]
        kept = _envelope(self.document) | {"content": notice}
        kept |= _stop(self.session, structured=self.ledger.structured)
        kept["guard"] = detail(self.session.verdict())
        self.document.clear()
        self.document |= kept


def _envelope(message: Json) -> Json:
    """Return what stands around a message's content, without any text."""
    own = {"id": f"msg_guard_{uuid4().hex}", "type": "message", "role": "assistant"}
    usage = counts(message.get("usage")) or dict(_NO_USAGE)
    return own | plain(message, _ENVELOPE) | {"usage": usage}


def _stop(session: Session, *, structured: bool) -> Json:
    """Return why a message that is withheld ends.

    A block is a refusal to SDKs, a replacement is an answer like any other, unless the caller
    wanted a document, which the message is not.
    """
    if session.step_of(0) == "block" or structured:
        return _refused(session.notice(0))
    return {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None}


def _refused(message: str) -> Json:
    explained = {"type": "refusal", "category": None, "explanation": message}
    return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": explained}


def _text(text: str) -> Json:
    return {"type": "text", "text": text, "citations": None}


def _start(message: Json) -> Json:
    nothing: Json = {"content": [], "stop_reason": None, "stop_sequence": None}
    return {"type": "message_start", "message": message | nothing}


def _block(index: int, text: str) -> Iterator[Json]:
    yield {"type": "content_block_start", "index": index, "content_block": _text("")}
    delta = {"type": "text_delta", "text": text}
    yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _end(stop: Json, usage: Json, own: Json) -> Iterator[Json]:
    yield {"type": "message_delta", "delta": stop, "usage": usage} | own
    yield {"type": "message_stop"}


def _events(*documents: Json) -> Iterator[Event]:
    for document in documents:
        yield Event(written(document), document["type"])


def asked(document: Json) -> Asked:
    """Return what a request asks for."""
    listed = document.get("messages")
    system = text_of(document.get("system"))
    shape = document.get("output_config")
    shape = shape.get("format") if isinstance(shape, dict) else document.get("output_format")
    said = tuple(_said(listed if isinstance(listed, list) else []))
    return Asked(
        Exchange(
            (),
            ((Message("system", system),) if system else ()) + said,
            model=str(document.get("model") or ""),
        ),
        stream=document.get("stream") is True,
        structured=isinstance(shape, dict) and shape.get("type") == "json_schema",
    )


def _said(listed: list[Any]) -> Iterator[Message]:
    """Yield the conversation."""
    tools: dict[str, str] = {}
    for message in listed:
        if isinstance(message, dict):
            content = message.get("content")
            blocks = content if isinstance(content, list) else [content]
            yield from turns(role_of(message.get("role")), blocks, tools)


def refusal(asking: Asked, message: str, own: Json) -> bytes:
    """Return the response to a request that is not passed on: JSON, or a whole stream."""
    whole, stop = _envelope({"model": asking.exchange.model}), _refused(message)
    if not asking.stream:
        content = [] if asking.structured else [_text(message)]
        return written(whole | {"content": content} | stop | own).encode()
    block = () if asking.structured else _block(0, message)
    events = _events(_start(whole), *block, *_end(stop, {"output_tokens": 0}, own))
    return "".join(event.text() for event in events).encode()


def corrected(request: Json, instruction: str) -> Json:
    """Return a request with one more system text."""
    given = request.get("system")
    before = given if isinstance(given, list) else [{"type": "text", "text": given}] * bool(given)
    return request | {"system": [*before, {"type": "text", "text": instruction}]}


def error(message: str, code: str) -> Json:
    """Return an error as the SDK reads it."""
    kind = "invalid_request_error" if code == "invalid_request" else "api_error"
    return {"type": "error", "error": {"type": kind, "message": message}}
