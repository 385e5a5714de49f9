"""Bodies of an application's own, in every form, as tests write and read them.

This module does not know ASGI or WSGI.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guard.adapters.web import Answer, Desk, Fields, Request, Text, Wire
from guard.adapters.web_bodies import sent
from guard.exchange import Choice
from guard.scripted import cut
from guard.server.scripted import Delivery, Reply
from guard.server.scripted.chat import FORMAT as CHAT
from guard.server.scripted.messages import FORMAT as MESSAGES
from guard.server.scripted.responses import FORMAT as RESPONSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from guard.adapters.web import Form
    from guard.engine import Guard

FINE: Final = "Ferns grow in the shade. Water them in the morning, and they will thank you for it. "

PROMPT: Final = "What grows in the shade?"

VENDORS: Final = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}


@dataclass(frozen=True)
class Kind:
    """One way to answer.

    Attributes:
        form: what the route says.
        kind: the type of the content.
        whole: whether the body has a length and is one piece.
        cut: cuts a text into the body's pieces; a vendor's form takes a whole choice.
        asked: the request's JSON.
    """

    form: Form
    kind: str
    whole: bool
    cut: Callable[[Any], list[bytes]]
    asked: Any

    def pieces(self, said: str | Choice) -> list[bytes]:
        """Return the body's pieces."""
        choice = Choice(said) if isinstance(said, str) else said
        return self.cut(choice if isinstance(self.form, Wire) else choice.content)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Return the headers of an answer without its length."""
        return [("content-type", self.kind)]


def _json(text: str) -> list[bytes]:
    body = {"id": "a1", "answer": text, "tokens": 7}
    return [json.dumps(body, ensure_ascii=False, indent=1).encode()]


def _events(text: str) -> list[bytes]:
    said = [{"type": "text", "delta": piece} for piece in cut(text)]
    lines = [{"type": "start"}, *said, {"type": "end", "tokens": 7}]
    return [f"data: {json.dumps(each)}\n\n".encode() for each in lines]


def _named(text: str) -> list[bytes]:
    said = [f"event: token\ndata: {json.dumps({'delta': piece})}\n\n" for piece in cut(text)]
    return [each.encode() for each in [*said, "data: [DONE]\n\n"]]


def _lines(text: str) -> list[bytes]:
    said = [{"message": {"text": piece, "role": "bot"}} for piece in cut(text)]
    return [json.dumps(each).encode() + b"\n" for each in said]


def _text_events(text: str) -> list[bytes]:
    return [f"data: {piece}\n\n".encode() for piece in cut(text)]


def _vendor(name: str, *, stream: bool) -> Callable[[Choice], list[bytes]]:
    def pieces(choice: Choice) -> list[bytes]:
        scripted = VENDORS[name]
        body = scripted.body({"stream": stream}, "", Reply((choice,)))
        if not stream:
            return [json.dumps(body).encode()]
        events = scripted.events({"stream": True}, body, Delivery())
        return [event.encode("\n") for event in events]

    return pieces


def _said(name: str, *, stream: bool) -> Any:
    said = [{"role": "user", "content": PROMPT}]
    key = "input" if name == "responses" else "messages"
    return {"model": "m", "stream": stream, key: said}


OWN: Final[dict[str, Kind]] = {
    "text": Kind(
        Text(prompt="message"),
        "text/plain; charset=utf-8",
        whole=True,
        cut=lambda text: [text.encode()],
        asked={"message": PROMPT},
    ),
    "text stream": Kind(
        Text(prompt="message"),
        "text/plain",
        whole=False,
        cut=lambda text: [piece.encode() for piece in cut(text)],
        asked={"message": PROMPT},
    ),
    "text events": Kind(
        Text(prompt="message"),
        "text/event-stream",
        whole=False,
        cut=_text_events,
        asked={"message": PROMPT},
    ),
    "JSON": Kind(
        Fields("answer", prompt="message"),
        "application/json",
        whole=True,
        cut=_json,
        asked={"message": PROMPT},
    ),
    "JSON events": Kind(
        Fields("delta", prompt="message"),
        "text/event-stream; charset=utf-8",
        whole=False,
        cut=_events,
        asked={"message": PROMPT},
    ),
    "named JSON events": Kind(
        Fields("delta", prompt="message"),
        "text/event-stream",
        whole=False,
        cut=_named,
        asked={"message": PROMPT},
    ),
    "JSON lines": Kind(
        Fields("message.text", prompt="message"),
        "application/x-ndjson",
        whole=False,
        cut=_lines,
        asked={"message": PROMPT},
    ),
}
"""Forms of the application's own."""

KINDS: Final[dict[str, Kind]] = OWN | {
    f"{name}, {'stream' if stream else 'whole'}": Kind(
        Wire(name),
        "text/event-stream" if stream else "application/json",
        whole=not stream,
        cut=_vendor(name, stream=stream),
        asked=_said(name, stream=stream),
    )
    for name in VENDORS
    for stream in (False, True)
}
"""Every way to answer."""


@dataclass(frozen=True)
class Given:
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    pieces: tuple[bytes, ...]


def request_of(document: Any = None, **given: Any) -> Request:
    """Return a request with a JSON body."""
    body = b"" if document is None else json.dumps(document).encode()
    return Request(**({"method": "POST", "query": "", "accept": "*/*", "body": body} | given))


def through(  # noqa: PLR0913  # each is one part of an answer
    guard: Guard,
    form: Form,
    headers: Sequence[tuple[str, str]],
    pieces: Iterable[bytes],
    *,
    status: int = 200,
    request: Request | None = None,
    **options: Any,
) -> Given:
    """Send one answer through a guard, without any server."""
    desk = Desk(guard, {"/": form}, **options)
    route = desk.route("POST", "/")
    assert route is not None
    answer = Answer(desk, route, request or request_of({"message": PROMPT}))
    answer.begin(status, list(headers))
    left: list[bytes] = []

    def run(steps: Any) -> None:
        while (text := guard.driver.advance(steps)) is not None:
            assert answer.head is not None
            left.append(sent(text))

    for piece in pieces:
        run(answer.feed(piece))
    run(answer.finish())
    guard.driver.run(answer.abandon())
    assert answer.head is not None
    given = {name.lower(): value for name, value in answer.head.headers}
    return Given(answer.head.status, given, b"".join(left), tuple(left))


def said_through(guard: Guard, kind: Kind, text: str, **options: Any) -> Given:
    """Send an answer of one kind through a guard; it has a length where it is whole."""
    pieces = kind.pieces(text)
    length = [("content-length", str(sum(map(len, pieces))))] if kind.whole else []
    return through(
        guard,
        kind.form,
        [*kind.headers, *length],
        pieces,
        request=request_of(kind.asked),
        **options,
    )
