"""Server-sent events, incrementally: bytes in any pieces to events, and events to bytes.

After the WHATWG's HTML standard, section 9.2 (event stream interpretation): lines end with LF,
CRLF or CR; a blank line ends an event; lines of `data` are joined by LF; comments and unknown
fields are passed over; an event without its blank line at the end of the stream does not count.

`id` and `retry` are passed over too: the formats here use neither, and whatever is not written
by this module cannot carry a text past the guard.

This module does not know what an event means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guard.errors import GuardError

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT_LIMIT: Final = 16 * 2**20
"""Bytes of one event, 16 MiB: a response object that closes a stream repeats all of it."""

_SLICE: Final = 2**16
"""Bytes that are looked at together: to cut lines off a buffer takes time in its length."""

_MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark that a stream may begin with."""

_LINE_END: Final = re.compile(rb"[\r\n]")


class StreamError(GuardError):
    """A backend's stream is broken; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        data: its data, lines joined by LF.
        name: its type, `""` where it has none.
    """

    data: str
    name: str = ""

    def text(self) -> str:
        """Return the event as it is written to a stream."""
        name = f"event: {self.name}\n" if self.name else ""
        lines = "".join(f"data: {line}\n" for line in self.data.split("\n"))
        return f"{name}{lines}\n"


COMMENT: Final = ":\n\n"
"""Keeps a connection alive and says nothing."""


class Parser:
    """Cuts a stream of bytes into events; what comes out does not depend on how bytes arrive."""

    def __init__(self) -> None:
        """Begin at the start of a stream."""
        self._pending = bytearray()
        self._searched = 0
        self._begun = False
        self._returned = False
        self._data: list[str] = []
        self._name = ""
        self._size = 0
        self._spoke = False

    def feed(self, piece: bytes) -> Iterator[Event | None]:
        """Take bytes; yield the events that they complete, `None` for an empty one.

        Raises:
            StreamError: an event is larger than `EVENT_LIMIT`, or is not UTF-8; what came before
                it was yielded.
        """
        for start in range(0, len(piece), _SLICE):
            self._pending += piece[start : start + _SLICE]
            while (line := self._line()) is not None:
                if line:
                    self._field(line)
                elif self._spoke:
                    yield self._dispatch()
            self._bound(len(self._pending))

    def _line(self) -> bytes | None:
        """Return the next whole line without its end, `None` if there is none yet."""
        if not self._begun:
            if len(self._pending) < len(_MARK) and _MARK.startswith(self._pending):
                return None
            if self._pending.startswith(_MARK):
                del self._pending[: len(_MARK)]
            self._begun = True
        if self._returned and self._pending:
            # The line before ended with CR, and a LF behind it belongs to its end.
            self._returned = False
            if self._pending.startswith(b"\n"):
                del self._pending[:1]
        end = _LINE_END.search(self._pending, self._searched)
        if end is None:
            self._searched = len(self._pending)
            return None
        self._returned = end[0] == b"\r"
        line = bytes(self._pending[: end.start()])
        at = end.end()
        # A match keeps the buffer from being cut.
        del end
        del self._pending[:at]
        self._searched = 0
        return line

    def _field(self, line: bytes) -> None:
        self._spoke = True
        self._bound(len(line))
        self._size += len(line)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        try:
            if name == b"data":
                self._data.append(value.decode())
            elif name == b"event":
                self._name = value.decode()
        except UnicodeDecodeError as error:
            raise StreamError("the backend sent an event that is not UTF-8") from error

    def _bound(self, more: int) -> None:
        if self._size + more > EVENT_LIMIT:
            raise StreamError(f"the backend sent an event of more than {EVENT_LIMIT} bytes")

    def _dispatch(self) -> Event | None:
        data = "\n".join(self._data)
        event = Event(data, self._name) if data else None
        self._data, self._name, self._size, self._spoke = [], "", 0, False
        return event
