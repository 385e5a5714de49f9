"""What the three formats share: events, and a format as a description of how to answer in it.

This module does not know which formats there are.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guard.scripted import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.server.scripted.script import Delivery, Failure, Newline, Reply

CREATED: Final = 1_767_225_600
"""When every answer was made: equal requests get equal bytes."""

NOISE: Final = "kT4wZ"
"""Padding of a stream's events, for requests that want it."""

Json = dict[str, Any]
"""A JSON object."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; a `piece` brings some of the answer's text."""

    data: Json | str
    name: str = ""
    piece: bool = False

    def encode(self, newline: Newline) -> bytes:
        """Return the event's bytes."""
        data = self.data.encode() if isinstance(self.data, str) else dump(self.data)
        name = f"event: {self.name}\n".encode() if self.name else b""
        return (name + b"data: " + data + b"\n\n").replace(b"\n", newline.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one vendor's endpoint reads a request and writes an answer.

    Attributes:
        path: of the endpoint.
        request_id: name of the header that carries the request's id.
        prompt: from a request to the last user message's text.
        body: from a request, its prompt and a reply to the whole answer.
        events: from a request, the whole answer and a delivery to a stream's events.
        error: from a failure to the body of an error.
        error_event: from a failure and the number of events before it to an error in a stream.
    """

    path: str
    request_id: str
    prompt: Callable[[Json], str]
    body: Callable[[Json, str, Reply], Json]
    events: Callable[[Json, Json, Delivery], Iterator[Event]]
    error: Callable[[Failure], Json]
    error_event: Callable[[Failure, int], Event]


def dump(data: object) -> bytes:
    """Return `data` as JSON in UTF-8; lone surrogates are escaped, as they came."""
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(data, separators=(",", ":")).encode()


def identifier(kind: str, prompt: str) -> str:
    """Return an id that depends on `prompt` alone, so that answers can be compared."""
    return kind + hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest()[:24]


def token_count(*texts: str) -> int:
    """Return about how many tokens a model would count."""
    return sum(len(cut(text)) for text in texts)


def text_of(content: Any) -> str:
    """Return the text of a message's content: a string, or typed parts of which some are text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def last_user_text(messages: Any) -> str:
    """Return the text of the last user message that has one, `""` where none has."""
    rows = [row for row in messages if isinstance(row, dict)] if isinstance(messages, list) else []
    texts = [text_of(row.get("content")) for row in rows if row.get("role") == "user"]
    return next((text for text in reversed(texts) if text), "")


def logprobs(text: str) -> list[Json]:
    """Return made-up log-probabilities, one token per piece."""
    scored = {"logprob": -0.25, "top_logprobs": []}
    return [
        {"token": token, "bytes": list(token.encode(errors="surrogatepass"))} | scored
        for token in cut(text)
    ]


def pieces(
    text: str, scored: list[Json] | None, delivery: Delivery
) -> list[tuple[str, list[Json]]]:
    """Return `text` in pieces with their log-probabilities, which decide the cuts if given."""
    if scored:
        return [(entry["token"], [entry]) for entry in scored]
    return [(piece, []) for piece in delivery.cut(text)]
