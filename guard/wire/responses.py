"""OpenAI's Responses API, the format of `/v1/responses`.

A response is one answer with many items (`guard.wire.response_texts` says where their texts are).
A tool call leaves with its own end, message text and reasoning while more is coming. An answer
that turns bad is closed behind what had left (`guard.wire.response_left`), the class's message
follows as a refusal in the same message, and the response ends as `completed` or `incomplete`.
What the backend says after that is dropped but for its usage.

This module does not know HTTP, and not how a text is judged.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import uuid4

from guard.exchange import Exchange, Message
from guard.request_text import text_of
from guard.wire.asked import Asked, role_of
from guard.wire.body import Body
from guard.wire.chat import error
from guard.wire.detail import detail
from guard.wire.parts import written
from guard.wire.relay import Relay
from guard.wire.response_left import Left, bare, ended, message, part
from guard.wire.response_texts import Texts, drop_foreign_tokens, name_of
from guard.wire.sse import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guard.exchange import Role
    from guard.session import Session
    from guard.wire.parts import Json, Part
    from guard.wire.relay import Held
    from guard.wire.response_left import Voice

_TERMINAL: Final = ("completed", "incomplete", "failed")
"""Events that end a stream."""


def voice_of(session: Session, *, structured: bool) -> Voice:
    """Return how the class's message is given.

    A block is a refusal to SDKs, a replacement is an answer like any other, unless the caller
    wanted a document, which the message is not.
    """
    blocked = session.step_of(0) == "block"
    return "refusal" if blocked or structured else "output_text"


class ResponsesRelay(Relay):
    """A stream of response events."""

    marked: ClassVar[bool] = True

    def __init__(self, *args: Any, **options: Any) -> None:
        """Begin at the start of a stream; arguments as for `Relay`."""
        super().__init__(*args, **options)
        self._texts = Texts(self.repeats)
        self._left = Left()
        self._concluded = False

    def prepare(self, document: Json) -> bool:
        """Take out foreign tokens, and remember by what the response is known."""
        response = document.get("response")
        if isinstance(response, dict):
            self._left.known(response)
        return drop_foreign_tokens(document)

    def parts(self, document: Json) -> Iterable[Part]:
        """Yield the texts of an event."""
        return self._texts.of_event(document)

    def completes(self, document: Json) -> Iterable[str]:
        """Yield the places whose texts end with an event."""
        return self._texts.completed(document)

    def ends(self, document: Json) -> Iterable[int]:
        """Yield the one answer, where an event ends the stream."""
        return (0,) if name_of(document) in _TERMINAL else ()

    def filled(self, held: Held) -> Event:
        """Return an event with what may leave in the place of each text."""
        event = super().filled(held)
        self._left.note(held.document)
        return event

    def reduce(self, held: Held) -> Iterable[Event]:
        """Yield what was judged before, then the refusal, then the end."""
        ends = bool(self.ends(held.document))
        if not self.refused:
            passed = all(self.ledger.passed(piece) for piece in held.pieces)
            if passed and not held.tainted and not ends:
                yield self.filled(held)
                return
            yield from self._last_words(held)
            yield from self.refusal(0)
        if ends:
            yield from self._conclude(held.document.get("response"))

    def _last_words(self, held: Held) -> Iterator[Event]:
        """Yield what may leave of the piece from which on the answer is withheld."""
        said = "".join(self.ledger.visible(piece) for piece in held.pieces)
        if said and "delta" in held.document and not held.tainted:
            yield self.filled(held)

    def refuse(self, choice: int) -> Iterable[Event]:  # noqa: ARG002  # there is but one
        """Yield the events that close what is open and give the class's message."""
        voice = voice_of(self.session, structured=self.ledger.structured)
        before = "\n\n" if voice == "output_text" and self.ledger.left(0) else ""
        notice = before + self.session.notice(0)
        return map(_event, self._left.refuse(notice, voice, self.style.responses))

    def conclude(self) -> Iterable[Event]:
        """Yield the end of a stream whose own end never came."""
        return self._conclude(None)

    def _conclude(self, last: Any) -> Iterator[Event]:
        if not self._concluded:
            self._concluded = True
            own = {"guard": detail(self.session.verdict())}
            known = last if isinstance(last, dict) else {}
            yield _event(self._left.end(self.style.responses, known, own))

    def failure(self, message: str) -> Event:
        """Return an event of the API's own kind, which SDKs turn into an `APIError`."""
        about = error(message, "upstream_error")["error"]
        number = self._left.number + 1
        kind = {"type": "error", "sequence_number": number, "code": about["code"]}
        return _event(kind | {"message": message, "param": None, "error": about})


class ResponsesBody(Body):
    """A response."""

    marked: ClassVar[bool] = True

    def __init__(self, *args: Any, **options: Any) -> None:
        """Judge nothing yet; arguments as for `Body`."""
        super().__init__(*args, **options)
        self._kept = False

    def prepare(self) -> bool:
        """Take out tokens that are not those of the text beside them."""
        return drop_foreign_tokens({"response": self.document})

    def parts(self) -> Iterable[Part]:
        """Yield the texts of the response."""
        texts = Texts(self.repeats)
        yield from texts.beside(self.document)
        # By now all of these were judged.
        self._kept = not self.session.withheld(0)
        yield from texts.output(self.document, echo=False)

    def refuse(self, choice: int) -> None:  # noqa: ARG002  # there is but one
        """Write the class's message in the place of the output."""
        status = self.style.responses
        voice = voice_of(self.session, structured=self.ledger.structured)
        told = message(
            _message_id(self.document), part(self.session.notice(0), voice), status=status
        )
        last = dict(self.document)
        kept = last if self._kept else bare(last)
        own = {"output": [told], "guard": detail(self.session.verdict())}
        self.document.clear()
        self.document |= kept | ended(status, last) | own


def asked(document: Json) -> Asked:
    """Return what a request asks for."""
    given = document.get("input")
    instructions = text_of(document.get("instructions"))
    prompt = document.get("prompt")
    variables = prompt.get("variables") if isinstance(prompt, dict) else None
    filled = variables.values() if isinstance(variables, dict) else ()
    messages = [
        *([Message("system", instructions)] if instructions else []),
        *(Message("user", text_of(value)) for value in filled),
        *([Message("user", given)] if isinstance(given, str) else []),
        *(_message(item) for item in (given if isinstance(given, list) else [])),
    ]
    shape = document.get("text")
    shape = shape.get("format") if isinstance(shape, dict) else None
    kind = shape.get("type") if isinstance(shape, dict) else None
    return Asked(
        Exchange((), tuple(messages), model=str(document.get("model") or "")),
        stream=document.get("stream") is True,
        structured=kind in ("json_schema", "json_object"),
        repeats=frozenset(_strings({k: v for k, v in document.items() if k != "input"})),
    )


def _message(item: Any) -> Message:
    """Return an item of a request as a message."""
    if not isinstance(item, dict):
        return Message("user", text_of(item))
    return Message(_role(item), text_of(item), str(item.get("name") or ""))


def _role(item: Json) -> Role:
    kind = str(item.get("type") or "message")
    if kind == "message":
        return role_of(item.get("role"))
    if kind.endswith("_output"):
        return "tool"
    # What the model did before: its calls, what it thought.
    own = kind.endswith("_call") or kind in ("reasoning", "program", "compaction")
    return "assistant" if own else "user"


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in a request, keys among them; it may be nested however deep."""
    level = [value]
    while level:
        each = level.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            level += [*each, *each.values()]
        elif isinstance(each, list):
            level += each


def corrected(request: Json, instruction: str) -> Json:
    """Return a request with one more system message."""
    given = request.get("input")
    said = [{"role": "user", "content": given}] if isinstance(given, str) else given
    items = said if isinstance(said, list) else []
    return request | {"input": [*items, {"role": "system", "content": instruction}]}


def refusal(asking: Asked, text: str, own: Json) -> bytes:
    """Return the response to a request that is not passed on: JSON, or a whole stream."""
    about: Json = {
        "id": f"resp_guard_{uuid4().hex}",
        "created_at": int(time.time()),
        "model": asking.exchange.model,
    }
    usage: Json = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    usage |= {"input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}}
    last = {"usage": usage}
    if not asking.stream:
        told = message(_message_id(about), part(text, "refusal"), status="completed")
        response = bare(about) | ended("completed", last) | {"output": [told]} | own
        return written(response).encode()
    left = Left()
    left.known(about)
    events = [*left.refuse(text, "refusal", "completed"), left.end("completed", last, own)]
    return "".join(_event(event).text() for event in events).encode()


def _message_id(response: Json) -> str:
    return f"msg_guard_{bare(response).get('id', '')}"


def _event(document: Json) -> Event:
    return Event(written(document), str(document["type"]))
