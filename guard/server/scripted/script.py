"""What a scripted server says to a prompt, how it travels, and what goes wrong on the way.

A *piece* is one delta of an answer: some characters of a text, a reasoning, a refusal or a tool
call's arguments. Faults of a stream are placed by the number of pieces that came before.

This module does not know any vendor's format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from guard.exchange import Choice
from guard.scripted import cut

if TYPE_CHECKING:
    from collections.abc import Mapping

BROKEN_LINE: Final = b'data: {"id": "cut-off", "choices": [{"ind\n\n'
"""An event whose JSON is cut off, for `Delivery.inserts`."""

Newline = Literal["\n", "\r\n", "\r"]
"""The line ends that server-sent events allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How an answer travels.

    A JSON answer knows `pause`, `holds_after`, `chunk`, `dies_after` and `dies_at_byte` alone:
    it waits once, before its first byte, and `dies_after` cuts it in the middle.

    Attributes:
        pause: seconds before each piece.
        piece: characters of a piece; 0 for the size of a model's tokens.
        chunk: bytes of each write to the network, whatever the events' ends; 0 for one event.
        newline: what ends a line of a stream.
        comments: a keep-alive comment before every event.
        inserts: bytes that are sent as they are, once so many pieces were.
        holds_after: pieces after which the stream waits for `ScriptedApp.release`.
        errors_after: pieces after which the stream ends with the vendor's error event.
        dies_after: pieces after which the connection is closed without an end.
        dies_at_byte: bytes of the body, exactly, after which it is.
    """

    pause: float = 0.0
    piece: int = 0
    chunk: int = 0
    newline: Newline = "\n"
    comments: bool = False
    inserts: Mapping[int, bytes] = field(default_factory=dict)
    holds_after: int | None = None
    errors_after: int | None = None
    dies_after: int | None = None
    dies_at_byte: int | None = None

    def cut(self, text: str) -> list[str]:
        """Return `text` in pieces; joined they are the text."""
        if not self.piece:
            return cut(text)
        return [text[at : at + self.piece] for at in range(0, len(text), self.piece)]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        choices: what is said; a request for more choices gets them again from the first.
        changes: fields that replace those of the vendor's JSON body made of `choices`, such as
            `output` of a response; a stream is always made of the body.
        delivery: how it travels; `None` as the server's answers do.
    """

    choices: tuple[Choice, ...] = (Choice(),)
    changes: Mapping[str, Any] = field(default_factory=dict)
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP error instead of an answer, in the vendor's form.

    Attributes:
        status: HTTP status, 400 to 599.
        message: the error's message.
        retry_after: seconds of the header `retry-after`; `None` for no header.
        body: bytes of the whole body instead, such as a load balancer's page.
    """

    status: int
    message: str = "The scripted server was told to fail."
    retry_after: float | None = None
    body: bytes | None = None


def event_bytes(name: str, data: str) -> bytes:
    """Return one server-sent event, for `Delivery.inserts`; `name` may be `""`."""
    return ((f"event: {name}\n" if name else "") + f"data: {data}\n\n").encode()
